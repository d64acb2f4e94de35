"""The equations of implicit quantile networks and of n-step returns, as functions of tensors."""

from typing import Any

import torch
from torch import Tensor


def quantile_huber_loss(quantiles: Tensor, taus: Tensor, targets: Tensor, kappa: float, weights: Tensor) -> Tensor:
    """Compute sum_t w_t sum_i E_j[|tau_i - 1{d_ij < 0}| L(d_ij) / kappa] with d_ij = target_j - quantile_i.

    L(d) = d^2 / 2 where |d| <= kappa, else kappa (|d| - kappa / 2) (Dabney et al., 2018, equations 2 and 3).

    Args:
        quantiles: ``[..., N]``.
        taus: of the quantiles; broadcasts to their shape.
        targets: ``[..., N']``.
        kappa: where L becomes linear.
        weights: ``[...]``, w.

    Returns:
        The loss, 0-d; only ``quantiles`` get a gradient.
    """
    return _QuantileHuberLoss.apply(quantiles, taus, targets, kappa, weights)


class _QuantileHuberLoss(torch.autograd.Function):
    """The loss of ``quantile_huber_loss`` as one node of the graph, which keeps ``[..., N]`` instead of N x N'.

    Its derivative by quantile i is -w_t E_j[|tau_i - 1{d_ij < 0}| clip(d_ij, -kappa, kappa)] / kappa.
    """

    @staticmethod
    def forward(ctx: Any, quantiles: Tensor, taus: Tensor, targets: Tensor, kappa: float, weights: Tensor) -> Tensor:
        errors = targets.unsqueeze(-2) - quantiles.unsqueeze(-1)  # [..., N, N']
        held = errors.clamp(-kappa, kappa)
        sides = (taus.unsqueeze(-1) - (errors < 0).to(errors.dtype)).abs_().mul_(held)
        ctx.save_for_backward(sides.mean(-1).mul_(weights.unsqueeze(-1) / -kappa))  # [..., N]
        loss = (sides * (errors - 0.5 * held)).mean(-1).sum(-1)  # L is held * (d - held / 2)
        return (loss * weights).sum() / kappa

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (by_quantiles,) = ctx.saved_tensors
        return slope * by_quantiles, None, None, None, None


def n_step_returns(
    rewards: Tensor, terminated: Tensor, final: Tensor, n_step: int, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute n-step returns, and the entry t + m whose value stands for the rest.

    m = min(n, steps left in the episode). G_t = r_t + gamma r_{t+1} + ... + gamma^(m-1) r_{t+m-1}, and then
    gamma^m V(o_{t+m}), or 0 if the episode terminated in one of these steps. A final entry is the last that an episode
    has: m goes no further.

    Args:
        rewards: ``[L + n, ...]``; those of final entries do not count.
        terminated: ``[L + n, ...]`` bool; those of final entries do not count.
        final: ``[L + n, ...]`` bool.
        n_step: n.
        gamma: discount.

    Returns:
        G, the factor of the value (gamma^m or 0), and the entry t + m, int64, each ``[L, ...]``.
    """
    length = rewards.shape[0] - n_step
    returns, factors = torch.zeros_like(rewards[:length]), torch.ones_like(rewards[:length])
    going = torch.ones_like(terminated[:length])
    following = torch.arange(length, device=rewards.device).view(-1, *[1] * (rewards.dim() - 1))
    following = following.repeat(1, *rewards.shape[1:])
    for k in range(n_step):
        ends = terminated[k : k + length]
        returns += rewards[k : k + length] * factors * going
        following += going
        factors = torch.where(going, factors * gamma, factors).masked_fill_(going & ends, 0.0)
        going &= ~ends & ~final[k + 1 : k + 1 + length]
    return returns, factors, following


def sequence_priorities(errors: Tensor, trained: Tensor, peak: float) -> Tensor:
    """Compute eta max_t |d_t| + (1 - eta) mean_t |d_t| of every sequence (R2D2, section 2.3).

    Args:
        errors: |d_t|, ``[L, N]``; those of steps that are not trained do not count.
        trained: ``[L, N]``, 1 where a step is trained, else 0.
        peak: eta.

    Returns:
        ``[N]``, above 0 so that every sequence can be drawn again.
    """
    errors = errors * trained
    mean = errors.sum(0) / trained.sum(0).clamp_min(1.0)
    return peak * errors.amax(0) + (1.0 - peak) * mean + 1e-6


def squash(x: Tensor) -> Tensor:
    """Compute h(x) = sign(x) (sqrt(|x| + 1) - 1) + x / 1000, which makes large values small (Pohlen et al., 2018)."""
    return x.sign() * ((x.abs() + 1.0).sqrt() - 1.0) + 1e-3 * x


def unsquash(x: Tensor) -> Tensor:
    """Invert ``squash``: sign(x) (z^2 - 1), where z + (z^2 - 1) / 1000 - 1 = |x|."""
    y = x.abs() + 1.001
    z = 2.0 * y / (1.0 + (1.0 + 4e-3 * y).sqrt())  # the root in a form that loses no digits
    return x.sign() * (z * z - 1.0)
