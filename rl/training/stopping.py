"""When training ends early: evaluations and a clock decide it that all shards share, so they decide alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl.checks import positive, within

EARLY = ("threshold", "plateau", "max_seconds")
"""Reasons for which training ends before its last step."""


def check_grounds(evaluate_every: int | None, threshold: float | None, stop: bool, patience: int | None) -> None:
    """Check that evaluations can end training where they are to.

    Args:
        evaluate_every: steps between them; None if there are none.
        threshold: the return that is asked for, if one is.
        stop: whether reaching it ends training.
        patience: so many evaluations without an improvement do, if any number.

    Raises:
        ValueError: they cannot.
    """
    if patience is not None and evaluate_every is None:
        raise ValueError(f"patience={patience}: it counts evaluations, so evaluate_every must be a number")
    lacking = {"threshold": threshold, "evaluate_every": evaluate_every}
    for name in (name for name, given in lacking.items() if stop and given is None):
        raise ValueError(
            f"stop_at_threshold=True: an evaluation has to reach the threshold, so {name} must be a number"
        )


@dataclass(frozen=True)
class EarlyStop:
    """What ends training early.

    Args:
        threshold: the return of an evaluation that is enough; None if none is.
        patience: so many evaluations in a row without an improvement; None for any number.
        min_delta: by more than this an evaluation has to exceed the best one before to count as an improvement.
        max_seconds: of training that are enough; None for any number.

    Raises:
        ValueError: an argument is out of range.
    """

    threshold: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(0.0, math.inf, min_delta=self.min_delta)
        if self.patience is not None:
            positive(patience=self.patience)
        if self.max_seconds is not None:
            within(1e-3, math.inf, max_seconds=self.max_seconds)

    def find_reason(self, returns: Sequence[float], seconds: float = 0.0) -> str | None:
        """Return why training ends: ``threshold``, ``plateau`` or ``max_seconds``; None if it does not.

        Args:
            returns: of the evaluations up to now.
            seconds: of training up to now.
        """
        if self.threshold is not None and returns and returns[-1] >= self.threshold:
            return "threshold"
        best, waited = -math.inf, 0
        for value in returns:
            best, waited = (value, 0) if value > best + self.min_delta else (best, waited + 1)
        if self.patience is not None and waited >= self.patience:
            return "plateau"
        return "max_seconds" if self.max_seconds is not None and seconds >= self.max_seconds else None

    def describe(self, reason: str, step: int) -> str:
        """Return a line that says why training has ended, and how it would go on."""
        if reason == "threshold":
            return f"an evaluation has reached threshold={self.threshold:g}: training ends at step {step}"
        if reason == "max_seconds":
            return f"max_seconds={self.max_seconds:g} are over: training ends at step {step}, more seconds go on"
        return (
            f"the last {self.patience} evaluations were not better than the best one before them by more than "
            f"min_delta={self.min_delta:g}: training ends at step {step}, a greater patience goes on"
        )
