"""Dropout whose masks come again when a rollout is replayed.

With unchanged weights a replay must give the probabilities that the agent acted with, or the ratio of PPO is not 1. So
each step must meet its own masks again, in whatever order and pieces the steps are replayed; no generator can do that.
A mask is therefore a hash of (count of this memory, layer, unit), and the count is one more leaf of the state,
``dropout_count [B, 1]`` int64, which buffers store and hand back like any other.

The count advances by one in each step in training mode, over the starts of episodes too, so every step has fresh masks.
Steps in evaluation mode drop nothing and are not replayed: they leave the count alone. It begins at a number drawn for
each network, so that another seed gives other masks, and far apart for each memory.
"""

import torch
from torch import Tensor

COUNT = "dropout_count"
"""Name of the state leaf."""


def draw_first_count() -> int:
    """Draw the count of the first memory of a network from the global generator of torch."""
    return int(torch.randint(1 << 62, ()))


def initial_counts(first: int, batch_size: int, device: torch.device | str | None = None) -> Tensor:
    """Return the counts ``[B, 1]`` of fresh memories: ``first``, and 2^40 steps more for each memory after it."""
    return (torch.arange(batch_size, device=device).unsqueeze(1) << 40) + first


def drop_units(y: Tensor, counts: Tensor, layer: int, probability: float) -> Tensor:
    """Set units to zero and multiply the others by ``1 / (1 - probability)``.

    Args:
        y: outputs of a layer, ``[B, H]`` of one step or ``[T, B, H]`` of a sequence.
        counts: ``[B, 1]`` int64, the counts at the first of these steps.
        layer: index of the layer.
        probability: the probability that a unit is dropped.

    Returns:
        Outputs of the same shape.
    """
    if y.dim() == 3:
        counts = counts + torch.arange(y.shape[0], device=y.device)[:, None, None]  # [T, B, 1]
    width = y.shape[-1]
    unit = torch.arange(layer * width, (layer + 1) * width, device=y.device)  # [H]
    keep = _hash(counts * 0x2545F4914F6CDD1D + unit) >= probability
    return y * keep / (1.0 - probability)


def _hash(keys: Tensor) -> Tensor:
    """Turn int64 keys into numbers in [0, 1) by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = keys * -0x61C8864680B583EB  # the golden ratio 0x9E3779B97F4A7C15 as a signed number; products wrap around
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    z = z ^ ((z >> 31) & 0x1FFFFFFFF)
    return (z & 0xFFFFFF).to(torch.float32) / 0x1000000


def refuse_dropout(core: str, dropout: float) -> None:
    """Check that ``dropout``, which every core accepts so that cores can be swapped, is 0 for one that has none.

    Raises:
        ValueError: ``dropout`` is not 0.
    """
    if dropout:
        raise ValueError(f"dropout={dropout}: it must be 0, the {core} core has no dropout")
