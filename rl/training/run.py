"""One run: its folder, its intervals, and the signals that end it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from rl.checkpoint import LAST


def checkpoint_path(run_dir: str | Path) -> Path:
    """Return where a run keeps its latest state."""
    return Path(run_dir) / "checkpoints" / LAST


def crossed(interval: int | None, before: int, after: int) -> bool:
    """Say whether a multiple of ``interval`` lies in (before, after]; if it is None, none does."""
    return interval is not None and after // interval > before // interval


def make_later_seed(seed: int | None, env_steps: int) -> int | None:
    """Return the seed of episodes that begin after ``env_steps``: ``seed`` itself at 0, then another one each time."""
    if seed is None or env_steps == 0:
        return seed
    drawn = int(np.random.SeedSequence([seed, env_steps]).generate_state(1)[0])
    return drawn >> 1  # below 2 ** 31, for any environment


@contextmanager
def naming_what_stands(run_dir: Path) -> Iterator[None]:
    """Let a run that has ruined its numbers say which checkpoint is still good, and how to go on from it.

    Raises:
        FloatingPointError: the block raised one.
    """
    try:
        yield
    except FloatingPointError as error:
        if getattr(error, "__notes__", ()):  # what was learned has been saved since, and the notes say so
            raise
        path = checkpoint_path(run_dir)
        stands = f"{path} is as it was, go on with resume={run_dir}" if path.is_file() else "nothing was saved before"
        raise FloatingPointError(f"{error}; {stands}") from error


class StopSignals:
    """Handlers of signals: while open, the first SIGINT or SIGTERM only sets ``asked``; a second one acts as usual."""

    def __enter__(self) -> "StopSignals":
        """Take the place of the usual handlers."""
        self.asked = False
        self.usual = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """Note that a signal came, and put the usual handlers back."""
        self.asked = True
        for other, handler in self.usual.items():
            signal.signal(other, handler)

    def __exit__(self, *_: object) -> None:
        """Put the usual handlers back."""
        for number, handler in self.usual.items():
            signal.signal(number, handler)
