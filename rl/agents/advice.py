"""What diagnostics show to be wrong, in sentences that say what to do; the log gets each of them once."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from rl.checks import positive
from rl.networks.acceleration import Precision

WRONG: dict[Precision, float] = {"float32": 1e-3, "tf32": 1e-2}
"""A ratio error beyond this is no rounding; that of bfloat16 may be any."""

FAINT = 1e-4
"""A smaller share of the gradient teaches nothing."""

STALE = 0.5
"""States that differ by more of their size from what the weights would make of the steps are of little use."""

MANY = 0.5
"""Share of dead features beyond which an encoder hides most of what it sees."""

STUCK = 0.9
"""Share of saturated gates beyond which a memory hardly learns; those that learned to remember are below a half."""

PATIENCE = 3
"""What may pass by itself is told when it was found so many times in a row."""

REACH = 8
"""Steps back that a gradient should reach where episodes are longer."""

log = logging.getLogger(__name__)


class Fault(NamedTuple):
    """What one diagnostic shows to be wrong.

    Attributes:
        sentence: says so, and what to do.
        passes: it may be a passing state of training.
    """

    sentence: str
    passes: bool = True


class Advisor:
    """A counter of the updates to diagnose, and a voice that tells each fault once.

    Args:
        every: updates between two that are diagnosed; None for none.
        bptt: length of the sequences; None for the whole rollout.
        remedy: what to do about stale states.

    Attributes:
        place: of the agent among several, as it stands in the tags of TensorBoard: ``member/``.

    Raises:
        ValueError: ``every`` is below 1.
    """

    def __init__(self, every: int | None, bptt: int | None, remedy: str):
        if every is not None:
            positive(diagnostics_every=every)
        self.every, self.bptt, self.remedy = every, bptt, remedy
        self.place = ""
        self.standing: dict[str, int] = {}  # how many times in a row a fault was found, by metric
        self.told: set[str] = set()

    def is_due(self, before: int, count: int = 1) -> bool:
        """Say whether one of the ``count`` updates that follow on ``before`` of them is to be diagnosed."""
        return self.every is not None and -(-before // self.every) * self.every < before + count

    def tell(self, metrics: Mapping[str, float], precision: Precision = "float32") -> None:
        """Log the faults that stand long enough and were not told.

        Args:
            metrics: by name; what was not measured is not judged.
            precision: of the arithmetic.
        """
        for metric, judge in self.judges(precision).items():
            if metric in metrics:
                fault = judge(metrics[metric])
                self.standing[metric] = 0 if fault is None else self.standing.get(metric, 0) + 1
                if fault and metric not in self.told and self.standing[metric] >= (PATIENCE if fault.passes else 1):
                    self.told.add(metric)
                    log.warning("diagnostics/%s%s: %s", self.place, metric, fault.sentence)

    def judges(self, precision: Precision = "float32") -> dict[str, Callable[[float], Fault | None]]:
        """Return what judges each metric."""
        own: dict[str, Callable[[float], Fault | None]] = {
            f"gradient_share_older_than_{REACH}": partial(judge_share, bptt=self.bptt),
            "state_staleness": partial(judge_staleness, remedy=self.remedy),
            "dead_features": judge_dead_features,
            "gate_saturation": judge_gates,
        }
        if precision in WRONG:
            own["ratio_error"] = partial(judge_ratio, bound=WRONG[precision])
        return own


def judge_ratio(error: float, bound: float) -> Fault | None:
    """Judge the largest |ratio - 1| of a replay."""
    sentence = f"replay is wrong: probabilities of a rollout come back with a relative error of {error:.2g}"
    return Fault(sentence, passes=False) if error > bound else None


def judge_share(share: float, bptt: int | None) -> Fault | None:
    """Judge the share of the gradient from more than ``REACH`` steps back."""
    if share >= FAINT:
        return None
    if bptt is not None and bptt <= REACH + 1:
        sentence = f"the gradient does not reach {REACH} steps back: agent.bptt={bptt} cuts it, raise agent.bptt"
        return Fault(sentence, passes=False)
    return Fault(
        f"the gradient hardly reaches {REACH} steps back, only {share:.1g} of it comes from there: where the task asks "
        "for a longer memory, take a core that forgets more slowly"
    )


def judge_staleness(stale: float, remedy: str) -> Fault | None:
    """Judge the relative difference of stored states."""
    sentence = f"stored states are {stale:.0%} stale after an update: {remedy}, or lower agent.learning_rate"
    return Fault(sentence) if stale > STALE else None


def judge_dead_features(share: float) -> Fault | None:
    """Judge the share of features that hardly vary."""
    sentence = (
        f"{share:.0%} of the features are dead, they hardly vary over what was observed: check the scale of the "
        "observations, set agent.normalise_observations=true, or lower agent.learning_rate"
    )
    return Fault(sentence) if share > MANY else None


def judge_gates(share: float) -> Fault | None:
    """Judge the share of saturated gates."""
    sentence = (
        f"{share:.0%} of the gates are saturated, so the memory hardly learns: if returns are large, set "
        "agent.normalise_returns=true, else lower agent.learning_rate"
    )
    return Fault(sentence) if share > STUCK else None
