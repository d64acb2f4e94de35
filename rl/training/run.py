"""One run: its folder, its intervals, and the signals that end it."""

import signal
from pathlib import Path
from types import FrameType


def checkpoint_path(run_dir: str | Path) -> Path:
    """Where a run keeps its latest state."""
    return Path(run_dir) / "checkpoints" / "last.pt"


def crossed(interval: int | None, before: int, after: int) -> bool:
    """Whether a multiple of ``interval`` lies in (before, after]; False if it is None."""
    return interval is not None and after // interval > before // interval


class StopSignals:
    """While open, the first SIGINT or SIGTERM only sets ``asked``; a second one acts as usual."""

    def __enter__(self) -> "StopSignals":
        self.asked = False
        self.usual = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for other, handler in self.usual.items():
            signal.signal(other, handler)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.usual.items():
            signal.signal(number, handler)
