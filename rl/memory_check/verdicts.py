"""What a check says: passed or not, what was found, what to do."""

from typing import Any, NamedTuple

LABELS = {True: "PASS", False: "FAIL", None: "NOTE"}


class Verdict(NamedTuple):
    """The verdict of one check; printed, it is a line, and one more with the advice.

    Attributes:
        check: its name, in words that a key may have: ``replay_is_exact``.
        passed: False is a fault; None is something worth knowing that is no fault, or a check that could not be made.
        finding: what was found, one sentence with the number.
        advice: what to do, one sentence; empty where there is nothing to do.
        numbers: what was measured, for machines: numbers, strings and lists of them.
    """

    check: str
    passed: bool | None
    finding: str
    advice: str
    numbers: dict[str, Any]

    def __str__(self) -> str:
        """Return what is printed."""
        line = f"{LABELS[self.passed]}  {self.check}: {self.finding}"
        return f"{line}\n      -> {self.advice}" if self.advice else line
