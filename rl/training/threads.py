"""How many threads of torch an update gets: a given number, or the faster one of two, measured while training."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from statistics import median
from typing import Literal

import torch

AUTO = "auto"
ROUNDS = 3  # timed updates of each kind
SLOWDOWN_LIMIT = 2  # times as long as on one thread: no further update is tried on all cores


def check_threads(threads: object) -> None:
    """Check that ``threads`` is a whole number of at least 1, or "auto".

    Raises:
        ValueError: it is something else.
    """
    if threads == AUTO:
        return
    if isinstance(threads, bool) or not isinstance(threads, Integral) or int(threads) < 1:
        raise ValueError(f"threads={threads!r}: it must be a whole number of at least 1, or auto")


def available_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads:
    """The number of torch's threads for acting and for updates, which it also sets.

    A number holds for both. With "auto" acting gets one thread, since no product of a rollout is large enough to share,
    and updates get one or all cores: the first one warms up, the next ones alternate and are timed, then the faster
    number is kept. The timed updates are the run's own, so nothing is wasted, with one exception: where other processes
    keep a core busy, threads wait for each other and an update on all cores can take a hundred times as long. One such
    update is enough to settle it. Several threads round sums differently, so a run with "auto" is not repeated bit by
    bit.

    Args:
        threads: a number, or "auto".

    Attributes:
        number: of an update; one until it has been chosen.

    Raises:
        ValueError: ``threads`` is something else.
    """

    def __init__(self, threads: int | Literal["auto"]):
        check_threads(threads)
        self.acting = self.number = 1 if threads == "auto" else threads
        self.cores = available_cores() if threads == AUTO else 1
        self.trials = [1, *[1, self.cores] * ROUNDS] if self.cores > 1 else []  # the first one warms up
        self.seconds: list[float] = []
        torch.set_num_threads(self.acting)

    def update(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Make a context for one update; ``say`` gets one line when the number has been chosen."""
        if self.trials:
            return self._timed(say)
        return nullcontext() if self.number == self.acting else self._using(self.number)

    @contextmanager
    def _using(self, number: int) -> Iterator[None]:
        """Set the number for a while."""
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(self.acting)

    @contextmanager
    def _timed(self, say: Callable[[str], None]) -> Iterator[None]:
        """Time an update on the number whose turn it is."""
        number = self.trials[len(self.seconds)]
        with self._using(number):
            began = time.perf_counter()
            yield
            self.seconds.append(time.perf_counter() - began)
        too_slow = number > 1 and self.seconds[-1] > SLOWDOWN_LIMIT * self.seconds[-2]
        if too_slow or len(self.seconds) == len(self.trials):
            self._choose(say)

    def _choose(self, say: Callable[[str], None]) -> None:
        """Keep the number with the lower median time."""
        one, all_cores = median(self.seconds[1::2]), median(self.seconds[2::2])
        self.number = self.cores if all_cores < one else 1
        self.trials = []
        used = "1 thread is used" if self.number == 1 else f"{self.number} threads are used"
        say(f"updates: {one:.3g} s on 1 thread, {all_cores:.3g} s on {self.cores}: {used}")
