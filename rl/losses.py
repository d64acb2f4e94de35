"""The losses of proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347) as functions of tensors."""

import torch
from torch import Tensor


def probability_ratio(log_probs: Tensor, old_log_probs: Tensor, per_head: bool) -> Tensor:
    """r = pi(a|o) / pi_old(a|o) from log-probabilities ``[..., branches]``.

    Returns:
        ``[..., 1]``, the ratio of the joint probability, or ``[..., branches]``, one for each branch, if ``per_head``.
    """
    difference = log_probs - old_log_probs
    return (difference if per_head else difference.sum(-1, keepdim=True)).exp()


def policy_loss(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The clipped surrogate, -E[min(r A, clip(r, 1 - clip, 1 + clip) A)] (equation 7), summed over heads.

    Args:
        ratio: ``[..., 1]`` or ``[..., branches]``.
        advantages: ``[...]``.
        clip: the clip range.
    """
    advantages = advantages.unsqueeze(-1)
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)
    return -surrogate.sum(-1).mean()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """E[(V - R)^2] / 2; with ``clip`` the larger of that and the error of V held within ``clip`` of its old value."""
    error = (values - returns) ** 2
    if clip is not None:
        held = old_values + (values - old_values).clamp(-clip, clip)
        error = torch.maximum(error, (held - returns) ** 2)
    return 0.5 * error.mean()


def approximate_kl(ratio: Tensor) -> Tensor:
    """E[(r - 1) - log r] summed over heads, an estimate of KL(old || new) that is never negative (Schulman, 2020)."""
    return (ratio - 1.0 - ratio.log()).sum(-1).mean()


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R): 1 is a perfect critic, 0 one that knows the mean; 0 if the returns are constant."""
    variance = returns.var(unbiased=False)
    varies = variance > 1e-12 * (returns * returns).mean()  # less is rounding
    return torch.where(varies, 1.0 - (returns - values).var(unbiased=False) / variance, 0.0)
