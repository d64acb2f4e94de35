"""Which entries of a rollout are read: those of a minibatch, and those that count where steps were ignored."""

import torch
from torch import Tensor


def gather(data: Tensor, index: Tensor) -> Tensor:
    """Gather ``data [T, B, ...]`` at ``index [..., N]``, each ``t * B + b``: ``[..., N, ...]``."""
    shape = data.shape[2:]
    return data.view(-1, *shape).index_select(0, index.view(-1)).view(*index.shape, *shape)


def close_gaps(ignored: Tensor, values: Tensor, last_values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Find the steps that count, in their order, and what V is after the last of them.

    Args:
        ignored: ``[T, B]`` bool, on the CPU.
        values: ``[T, B]``, V before each step.
        last_values: ``[B]``, V after step T.
        size: steps that are kept of each environment: at most as many as count in that with the fewest.

    Returns:
        The steps, ``[size, B]`` int64 on the CPU; and ``[B]``, V after them: that of the first step that is dropped,
        where there is one.
    """
    order = torch.argsort(ignored.byte(), dim=0, stable=True)  # [T, B]: the steps that count, then the others
    counts, device = (~ignored).sum(0), values.device  # [B]
    after = order[min(size, len(ignored) - 1)].to(device)  # [B], the first step dropped
    following = values.gather(0, after.unsqueeze(0)).squeeze(0)
    return order[:size], torch.where((counts > size).to(device), following, last_values)
