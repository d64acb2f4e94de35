"""One run: its folder and its intervals."""

from pathlib import Path

import numpy as np


def checkpoint_path(run_dir: str | Path) -> Path:
    """Return where a run keeps its latest state."""
    return Path(run_dir) / "checkpoints" / "last.pt"


def crossed(interval: int | None, before: int, after: int) -> bool:
    """Say whether a multiple of ``interval`` lies in (before, after]; if it is None, none does."""
    return interval is not None and after // interval > before // interval


def make_later_seed(seed: int | None, env_steps: int) -> int | None:
    """Return the seed of episodes that begin after ``env_steps``: ``seed`` itself at 0, then another one each time."""
    if seed is None or env_steps == 0:
        return seed
    return (
        int(np.random.SeedSequence([seed, env_steps]).generate_state(1)[0]) >> 1
    )  # below 2 ** 31, for any environment
