"""The shards of one rank: threads that wait for each other wherever all shards of a run do."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Protocol

from torch import Tensor

from rl.shards import Shards


class RankLostError(RuntimeError):
    """Another rank of the run has ended or does not answer."""


class Processes(Protocol):
    """What a team needs of ``rl.training.distributed.Ranks``."""

    rank: int
    world: int

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks in their order."""

    def sum(self, vectors: list[Tensor]) -> Tensor:
        """Sum vectors ``[P]`` of all shards, of which this rank has ``vectors``."""


class Team:
    """The shards of one rank, which wait for each other wherever all shards do.

    Args:
        ranks: whose shards they are.
        count: how many.
    """

    def __init__(self, ranks: Processes, count: int):
        self.ranks, self.count = ranks, count
        self.meeting = threading.Barrier(count)
        self.given: list[Any] = [None] * count
        self.found: Any = None

    def meet(self, place: int, value: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """Wait until all have given a value; one of them combines them with those of other ranks, for all.

        Raises:
            RankLostError: another shard has failed.
        """
        self.given[place] = value
        try:
            if self.meeting.wait() == 0:
                try:
                    self.found = combine(list(self.given))
                except BaseException:
                    self.meeting.abort()
                    raise
            self.meeting.wait()
        except threading.BrokenBarrierError as error:
            raise RankLostError("another shard of this process has failed") from error
        return self.found


class Shard:
    """One shard of several, see ``rl.shards.Shards``.

    Args:
        team: the shards of its rank.
        place: in the team.
    """

    def __init__(self, team: Team, place: int):
        self.team, self.place = team, place
        self.index, self.size = team.ranks.rank * team.count + place, team.ranks.world * team.count

    def __deepcopy__(self, memo: dict) -> "Shard":
        """Return the shard itself: a copy of a network belongs to the same one."""
        return self

    def sum(self, vector: Tensor) -> Tensor:
        """See ``rl.shards.Shards.sum``; the vector is the caller's own."""
        total: Tensor = self.team.meet(self.place, vector.detach(), self.team.ranks.sum)
        return total.clone() if self.team.count > 1 else total

    def gather(self, value: Any) -> list[Any]:
        """See ``rl.shards.Shards.gather``; the values are the caller's own."""
        values = self.team.meet(self.place, value, self._gather)
        return list(values) if self.team.count == 1 else deepcopy(values)

    def _gather(self, values: list[Any]) -> list[Any]:
        return [value for part in self.team.ranks.gather(values) for value in part]


def find_team(shards: Sequence[Shards]) -> Team:
    """Return the team of several shards of one rank."""
    (team,) = {shard.team for shard in shards if isinstance(shard, Shard)}
    return team


@contextmanager
def muted(threads: Sequence[threading.Thread]) -> Iterator[None]:
    """While open, print nothing of what some threads log but their errors: the first shard says it all."""

    def is_heard(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING or record.thread not in {thread.ident for thread in threads}

    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(is_heard)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_heard)


def sum_pairs(vectors: list[Tensor]) -> Tensor:
    """Sum vectors in an order that depends on their number alone: neighbours first, then their sums."""
    while len(vectors) > 1:
        pairs = [one + other for one, other in zip(vectors[::2], vectors[1::2], strict=False)]
        vectors = pairs + ([vectors[-1]] if len(vectors) % 2 else [])
    return vectors[0]
