"""Say whether an environment has something to remember, from how well its rewards can be predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rl.memory_check.history import Steps
from rl.memory_check.probe import Scores, score_predictions
from rl.memory_check.verdicts import Verdict

CHECK = "something_is_to_be_remembered"
ALL = 0.95  # share of the variance from which on a prediction knows everything
GAIN, ERRORS = 0.02, 3.0  # a prediction is better by so much at least, and by so many standard errors
OCCASIONS = 10  # episodes that matter; fewer prove nothing
REWARD, REST = "the reward", "what is paid later"
PLAY_BETTER = "Check again with a policy that gets to where memory counts: act=, of a trained agent, say."


def judge_memory(steps: Steps, branches: Sequence[int], claims_gap: bool, seed: int) -> Verdict:
    """Say whether the past tells more than the present about the reward of a step, or about what is paid after it.

    Args:
        steps: what was played.
        branches: of discrete actions, see ``rl.memory_check.features.list_branches``.
        claims_gap: the environment says itself that a memory is worth something: then it is a fault if it is not.
        seed: of the regressions.
    """
    scores: dict[str, Scores] = {}
    rest, known = steps.remainders()
    everywhere = np.ones(len(rest), dtype=bool)
    for what, targets, where in ((REWARD, steps.rewards, everywhere), (REST, rest, known)):
        found = score_predictions(steps, targets, where, branches, seed)
        if found is None:
            continue
        scores[what] = found
        if found.occasions >= OCCASIONS and is_better(found.history_gain, found.history_error):
            told = f"the past predicts {what} better than the present: R2 {found.history:.2f} against "
            told += f"{found.present:.2f} (difference {found.history_gain:.2f} +- {found.history_error:.2f}), "
            return Verdict(CHECK, True, f"{told}most by {found.source}", "", _tell(scores))
    return _judge_present(steps, scores, claims_gap)


def is_better(gain: float, error: float) -> bool:
    """Tell whether a prediction is better than another one beyond doubt."""
    return gain > max(GAIN, ERRORS * error)


def _judge_present(steps: Steps, scores: dict[str, Scores], claims_gap: bool) -> Verdict:
    """Say what it means that the past adds nothing."""
    numbers = _tell(scores)
    if not scores:
        told = f"every reward was {steps.rewards[0] + 0.0:g}" if np.ptp(steps.rewards) == 0 else "too little was played"
        return Verdict(CHECK, None, f"cannot tell: {told}", PLAY_BETTER, numbers)
    enough = {what: found for what, found in scores.items() if found.occasions >= OCCASIONS}
    if not enough:
        least = max(found.occasions for found in scores.values())
        told = f"cannot tell: what is paid differs in too few episodes (about {least:.0f} that could be scored)"
        return Verdict(CHECK, None, told, f"Check more steps. {PLAY_BETTER}", numbers)
    seen = {what: found for what, found in enough.items() if is_better(found.present_gain, found.present_error)}
    for what, found in seen.items():
        if what == REWARD and found.present >= ALL:
            told = f"{what} is predicted from the present observation alone (R2 {found.present:.2f}), so there is "
            told += "nothing to remember, or what is to be remembered is shown all the time"
            if claims_gap:
                return Verdict(CHECK, False, told, "Show the cue only where it is to be noticed.", numbers)
            advice = f"If the task is meant to need a memory, show the cue only once. Else: {PLAY_BETTER}"
            return Verdict(CHECK, None, told, advice, numbers)
    if seen:
        what, found = next(iter(seen.items()))
        told = f"the past adds nothing to the present observation in predicting {what} (R2 {found.history:.2f} "
        told += f"against {found.present:.2f}): nothing to remember, or these actions seldom get to where it counts"
        return Verdict(CHECK, None, told, PLAY_BETTER, numbers)
    what, found = next(iter(enough.items()))
    if found.clock >= ALL:
        told = f"cannot tell: the action and the step of the episode alone predict {what} (R2 {found.clock:.2f})"
        return Verdict(CHECK, None, told, PLAY_BETTER, numbers)
    told = f"cannot tell: neither the present observation nor the past predicts {what} (R2 {found.present:.2f} and "
    told += f"{found.history:.2f}): it is chance, the cue is never shown, or it counts too seldom under these actions"
    return Verdict(CHECK, None, told, f"Look whether the cue is ever shown. {PLAY_BETTER}", numbers)


def _tell(scores: dict[str, Scores]) -> dict[str, Any]:
    """Return the scores under keys for machines."""
    keys = {REWARD: "reward", REST: "rest"}
    return {f"{keys[what]}_{name}": value for what, found in scores.items() for name, value in found._asdict().items()}
