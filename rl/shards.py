"""What the parts of a run that is split into shards tell each other; ``ALONE`` stands for a run that is not.

Each shard plays environments of its own, with generators and memories of its own, and has a copy of the networks. The
copies stay equal because whatever changes them, a gradient or a mean of what was seen, is that of all shards. Who the
shards are and how they talk is the matter of ``rl.training.distributed``.
"""

from typing import Any, Protocol

import torch
from torch import Tensor


class Shards(Protocol):
    """One shard's view of them all. Every shard must make the same calls in the same order."""

    @property
    def index(self) -> int:
        """The place of this shard, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def sum(self, vector: Tensor) -> Tensor:
        """Return the sum of the vectors ``[P]`` of all shards: the same bits in each, however they are spread."""

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all shards in their order; tensors may lie on the CPU afterwards."""


class Alone:
    """The only shard of a run."""

    index, size = 0, 1

    def sum(self, vector: Tensor) -> Tensor:
        """Return ``vector`` itself."""
        return vector

    def gather(self, value: Any) -> list[Any]:
        """Return ``[value]``."""
        return [value]


ALONE = Alone()


def average(shards: Shards, *numbers: Tensor) -> tuple[Tensor, ...]:
    """Average 0-d tensors over the shards, all in one transfer; alone they are returned as they are."""
    if shards.size == 1:
        return numbers
    return tuple((shards.sum(torch.stack(numbers)) / shards.size).unbind())


def average_metrics(shards: Shards, metrics: dict[str, float]) -> dict[str, float]:
    """Average metrics over the shards that have them; of an error, ``*_error``, return the largest."""
    told = shards.gather(metrics)
    if shards.size == 1:
        return metrics
    columns = {name: [part[name] for part in told if name in part] for part in told for name in part}
    return {
        name: max(column) if name.endswith("_error") else sum(column) / len(column) for name, column in columns.items()
    }
