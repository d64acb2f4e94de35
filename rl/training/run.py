"""One run: its folder and its intervals."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rl.checkpoint import LAST
from rl.checks import positive, within
from rl.training.stopping import check_grounds
from rl.training.team import RankLostError


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


def make_shard_seed(seed: int, index: int) -> int:
    """Return the seed of a shard: that of the run for the first one, another one for each other."""
    if index == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1)[0]) >> 1


def check_evaluations(
    every: int | None, share: float | None, can_be: bool, threshold: float | None, deciding: Mapping[str, Any]
) -> None:
    """Check the arguments of a trainer that say when it evaluates.

    Args:
        every: ``evaluate_every``.
        share: ``evaluation_share``.
        can_be: whether there is a function to evaluate.
        threshold: of the trainer.
        deciding: arguments that let training depend on evaluations if they are set.

    Raises:
        ValueError: one is out of range, or does not go with another.
    """
    check_grounds(every, threshold, deciding["stop_at_threshold"], deciding["patience"])
    if every is not None:
        positive(evaluate_every=every)
        if not can_be:
            raise ValueError(f"evaluate_every={every}: it must be None without a function to evaluate")
    if share is not None:
        within(0.0, 1.0, evaluation_share=share)
        for cause in (name for name, given in deciding.items() if given):
            raise ValueError(f"evaluation_share={share:g}: it must be None where {cause} is set")


@contextmanager
def naming_what_stands(run_dir: Path) -> Iterator[None]:
    """Let a run that has ruined its numbers, or lost a rank, say which checkpoint is good, and how to go on from it.

    Raises:
        FloatingPointError, RankLostError: the block raised one.
    """
    try:
        yield
    except (FloatingPointError, RankLostError) as error:
        if getattr(error, "__notes__", ()):  # what was learned has been saved since, and the notes say so
            raise
        path = checkpoint_path(run_dir)
        stands = f"{path} is as it was, go on with resume={run_dir}" if path.is_file() else "nothing was saved before"
        raise type(error)(f"{error}; {stands}") from error
