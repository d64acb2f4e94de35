"""The losses of proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347) as functions of tensors.

The two that are minimised return their gradient as well: a short closed form, which spares autograd two dozen tiny
operations that would cost a tenth of the update.
"""

import torch
from torch import Tensor


def probability_ratio(log_probs: Tensor, old_log_probs: Tensor, per_head: bool) -> Tensor:
    """r = pi(a|o) / pi_old(a|o) from log-probabilities ``[..., branches]``.

    Returns:
        ``[..., 1]``, the ratio of the joint probability, or ``[..., branches]``, one for each branch, if ``per_head``.
    """
    difference = log_probs - old_log_probs
    return (difference if per_head else difference.sum(-1, keepdim=True)).exp()


def policy_loss(ratio: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate, -E[min(r A, clip(r, 1 - clip, 1 + clip) A)] (equation 7), summed over heads.

    Args:
        ratio: ``[..., 1]`` or ``[..., branches]``.
        advantages: ``[...]``.
        clip: the clip range.

    Returns:
        The loss, and its derivative by the log-probabilities, shaped like ``ratio``: -r A / n where r A is the smaller
        of the two, 0 where the clipped one is, for it does not change with r.
    """
    advantages = advantages.unsqueeze(-1)
    gain, held = ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages
    return torch.minimum(gain, held).sum() / -advantages.numel(), gain * (gain <= held) / -advantages.numel()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> tuple[Tensor, Tensor]:
    """E[(V - R)^2] / 2; with ``clip`` the larger of that and the error of V held within ``clip`` of its old value.

    Returns:
        The loss, and its derivative by ``values``: (V - R) / n, or 0 where the held value counts.
    """
    error = slope = values - returns
    if clip is not None:
        moved = values - old_values
        held = old_values + moved.clamp(-clip, clip) - returns
        counts = (moved.abs() > clip) & (held.abs() > error.abs())
        error, slope = torch.where(counts, held, error), error.masked_fill(counts, 0.0)
    return 0.5 * (error * error).mean(), slope / values.numel()


def approximate_kl(ratio: Tensor) -> Tensor:
    """E[(r - 1) - log r] summed over heads, an estimate of KL(old || new) that is never negative (Schulman, 2020)."""
    return (ratio - 1.0 - ratio.log()).sum(-1).mean()


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(R - V) / Var(R): 1 is a perfect critic, 0 one that knows the mean; 0 if the returns are constant."""
    variance = returns.var(unbiased=False)
    varies = variance > 1e-12 * (returns * returns).mean()  # less is rounding
    return torch.where(varies, 1.0 - (returns - values).var(unbiased=False) / variance, 0.0)
