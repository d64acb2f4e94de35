"""When training ends early: evaluations alone decide it, so all shards and a resumed run decide alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rl.checks import positive, within


@dataclass(frozen=True)
class EarlyStop:
    """What ends training early.

    Args:
        threshold: the return of an evaluation that is enough; None if none is.
        patience: so many evaluations in a row without an improvement; None for any number.
        min_delta: by more than this an evaluation has to exceed the best one before to count as an improvement.

    Raises:
        ValueError: an argument is out of range.
    """

    threshold: float | None = None
    patience: int | None = None
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        within(0.0, math.inf, min_delta=self.min_delta)
        if self.patience is not None:
            positive(patience=self.patience)

    def find_reason(self, returns: Sequence[float]) -> str | None:
        """Return why training ends after evaluations with these returns: ``threshold``, ``plateau``; None if not."""
        if self.threshold is not None and returns and returns[-1] >= self.threshold:
            return "threshold"
        best, waited = -math.inf, 0
        for value in returns:
            best, waited = (value, 0) if value > best + self.min_delta else (best, waited + 1)
        return "plateau" if self.patience is not None and waited >= self.patience else None

    def describe(self, reason: str, step: int) -> str:
        """Return a line that says why training has ended, and how it would go on."""
        if reason == "threshold":
            return f"an evaluation has reached threshold={self.threshold:g}: training ends at step {step}"
        return (
            f"the last {self.patience} evaluations were not better than the best one before them by more than "
            f"min_delta={self.min_delta:g}: training ends at step {step}, a greater patience goes on"
        )
