"""Time single actions, one environment on one thread."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch

EARLY_STEP = 100  # of an episode: what is slow at its first steps only is over
BLOCK = 20  # steps at a time of each agent that takes turns, so that what else the machine does hits all alike


class SinglePlayer(Protocol):
    """Anything that plays one environment without learning, an agent in its single-environment form say."""

    def act(self, observation: Any) -> Any:
        """Choose an action for an observation."""

    def observe(self, rewards: float, terminated: bool) -> None:
        """Take in what came of it."""


@contextmanager
def use_one_thread() -> Iterator[None]:
    """While open, let torch have one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_steps(agent: SinglePlayer, frames: Sequence[Any] | np.ndarray, steps: int) -> list[float]:
    """Let an agent act on in its episode and time it.

    Args:
        agent: acts; the episode does not end.
        frames: observations, shown from the first one on and again from there when all were shown.
        steps: how many.

    Returns:
        The seconds of each step: an observation in, an action out, and the memory taken to the next step.
    """
    seconds = []
    for t in range(steps):
        frame = frames[t % len(frames)]
        begin = time.perf_counter()
        agent.act(frame)
        agent.observe(0.0, False)
        seconds.append(time.perf_counter() - begin)
    return seconds
