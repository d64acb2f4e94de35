"""Generalised advantage estimation (Schulman et al., 2016, arXiv 1506.02438)."""

import torch
from torch import Tensor


def bootstrap_values(values: Tensor, last_values: Tensor, terminated: Tensor, truncated: Tensor, cut: Tensor) -> Tensor:
    """What each step's future is worth: V(o_{t+1}), 0 after a termination, V(final observation) after a truncation.

    Args:
        values: ``[T, B]``, V(o_t).
        last_values: ``[B]``, V of the observation after the last step.
        terminated: ``[T, B]`` bool; it wins over ``truncated``.
        truncated: ``[T, B]`` bool.
        cut: ``[T, B]``, V(final observation) where truncated, anything elsewhere.

    Returns:
        ``[T, B]``.
    """
    following = torch.cat([values[1:], last_values.unsqueeze(0)])
    return torch.where(truncated, cut, following).masked_fill(terminated, 0.0)


def gae(rewards: Tensor, values: Tensor, next_values: Tensor, ended: Tensor, gamma: float, lam: float) -> Tensor:
    """A_t = delta_t + gamma * lam * (1 - ended_t) * A_{t+1}, delta_t = r_t + gamma * V_{t+1} - V_t (equations 12, 16).

    Args:
        rewards, values: ``[T, B]``.
        next_values: ``[T, B]`` from :func:`bootstrap_values`.
        ended: ``[T, B]`` bool, terminated or truncated: no advantage crosses it.
        gamma: discount.
        lam: lambda, 0 for one-step temporal differences, 1 for Monte Carlo.

    Returns:
        Advantages ``[T, B]``; the returns are advantages + values.
    """
    advantages = rewards + gamma * next_values - values  # delta; accumulated in place, backwards
    decay = (~ended).to(values.dtype) * (gamma * lam)
    rows = advantages.unbind(0)
    for row, following, factor in zip(rows[-2::-1], rows[:0:-1], decay[:-1].flip(0).unbind(0), strict=True):
        row.addcmul_(factor, following)
    return advantages
