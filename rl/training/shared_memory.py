"""What the ranks of one machine tell each other through memory that they share, several times as fast as by sockets.

On two cores a vector of 1.6 MB takes gloo 1.1 ms at best and 2.1 ms on average, for each of the packets on the way may
wait for a core; through shared memory it takes 0.6 ms.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rl.training.team import sum_pairs

FOLDER = Path("/dev/shm")
LINE = 64  # bytes of a cache line: each rank has one for its count
LOOKS = 2_000  # at the counts of the others, before a rank begins to sleep between two of them
NAP_SECONDS = 5e-5
CHECK_SECONDS = 0.1  # from one look at the processes of the others to the next
MESSAGE = 1 << 16  # bytes of a message; longer ones go through sockets


def can_share(world: int, local_world: int) -> bool:
    """Tell whether ranks can share memory: all on one machine, whose processors show stores in their order."""
    return world == local_world and FOLDER.is_dir() and platform.machine() in ("x86_64", "AMD64")


class SharedMemory:
    """Vectors and messages that all ranks of a machine read; there are two places for each, used in turn.

    A rank that has written its own counts on. Who has seen the counts of all may read, and may overwrite what was
    read in the turn before, for whoever has counted on since has read it.

    Args:
        rank: the place of this process.
        world: how many processes.
        count: vectors of each.
        length: of a vector, at most.
        lead: ``lead(make)`` lets rank 0 make something and gives it to all.
        gather: ``gather(value)`` returns the values of all ranks.
        timeout: seconds that the others may take.

    Raises:
        OSError: there is not enough shared memory, on any rank.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        count: int,
        length: int,
        lead: Callable[[Callable[[], Any]], Any],
        gather: Callable[[Any], list[Any]],
        timeout: float,
    ):
        self.rank, self.world, self.timeout, self.length, self.turn = rank, world, timeout, length, 0
        parts = [world * LINE, 2 * world * MESSAGE, 2 * world * count * length * 4]
        size = sum(parts)
        path = lead(lambda: _reserve(size))
        if isinstance(path, OSError):
            raise path
        try:
            memory = torch.from_file(path, shared=True, size=size, dtype=torch.uint8)
            self.pids = gather(os.getpid())  # all have it: the name may go, and nothing is left whatever ends them
        finally:
            if rank == 0:
                os.unlink(path)
        counts, messages, vectors = memory.split(parts)
        self.counts = counts.view(torch.int64).view(world, -1).numpy()[:, 0]  # [world]
        self.messages = messages.view(2, world, MESSAGE).numpy()
        self.lengths = messages.view(torch.int64).view(2, world, -1).numpy()[:, :, 0]  # [2, world], in front of each
        self.vectors = vectors.view(torch.float32).view(2, world, count, length)

    def gather(self, message: bytes) -> list[bytes] | None:
        """Return the messages of all ranks in their order; None, in all of them, if one is too long.

        Raises:
            RuntimeError: another rank does not answer.
        """
        self.turn += 1
        place, lengths, end = self.messages[self.turn % 2], self.lengths[self.turn % 2], 8 + len(message)
        lengths[self.rank] = len(message)
        if end <= MESSAGE:
            place[self.rank, 8:end] = np.frombuffer(message, dtype=np.uint8)
        self._wait()
        if lengths.max() + 8 > MESSAGE:
            return None
        return [place[rank, 8 : 8 + lengths[rank]].tobytes() for rank in range(self.world)]

    def sum(self, vectors: list[Tensor]) -> Tensor:
        """Return the sum of the ``vectors [P]`` of all ranks, in their order, pairs first.

        Raises:
            RuntimeError: another rank does not answer.
        """
        self.turn += 1
        place, length = self.vectors[self.turn % 2], len(vectors[0])
        for own, vector in zip(place[self.rank], vectors, strict=True):
            own[:length].copy_(vector)
        self._wait()
        return sum_pairs([vector[:length] for vector in place.flatten(0, 1)])

    def _wait(self) -> None:
        """Say that this rank has written, and wait for all; at first without rest, as minibatches differ little."""
        self.counts[self.rank] = self.turn
        looks, end, next_check = 0, 0.0, 0.0
        while self.counts.min() < self.turn:
            looks += 1
            if looks < LOOKS:
                os.sched_yield()
                continue
            now = time.monotonic()
            end = end or now + self.timeout
            if now > end:
                raise RuntimeError("a rank has not written what all wait for")
            if now > next_check:
                next_check = now + CHECK_SECONDS
                if any(map(is_gone, self.pids)) and self.counts.min() < self.turn:  # it may end once it has written
                    raise RuntimeError("a rank has ended")
            time.sleep(NAP_SECONDS)


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, also where nobody has asked for its exit code yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in ("Z", "X")


def _reserve(size: int) -> str | OSError:
    """Make a file of so many bytes in shared memory, all of them taken, and return its path; or why there is none."""
    try:
        number, path = tempfile.mkstemp(prefix="recurrent-ppo-", dir=FOLDER)
    except OSError as error:
        return error
    try:
        os.posix_fallocate(number, 0, size)
    except OSError as error:
        os.unlink(path)
        return error
    finally:
        os.close(number)
    return path
