"""The losses of proximal policy optimisation (Schulman et al., 2017, arXiv 1707.06347) as functions of tensors."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rl.types import Sequences


class Coefficients(NamedTuple):
    """The hyperparameters of an update's loss and step, some of which change in the course of training.

    Those are tensors, 0-d, where a step is recorded as a graph: write them into formulas, not into ``if``.

    Attributes:
        learning_rate: of Adam.
        clip: clip range of the ratio.
        entropy_coef: weight of the entropy.
        teacher_kl: weight of KL(policy || teacher).
        value_coef: weight of the value loss.
        value_clip: clip range of the values; None for the plain squared error.
        per_head: clip one ratio for each branch instead of the joint one.
    """

    learning_rate: float | Tensor
    clip: float | Tensor
    entropy_coef: float | Tensor
    teacher_kl: float | Tensor
    value_coef: float
    value_clip: float | None
    per_head: bool


def probability_ratio(log_probs: Tensor, old_log_probs: Tensor, per_head: bool) -> Tensor:
    """Compute r = pi(a|o) / pi_old(a|o) from log-probabilities ``[..., branches]``.

    Returns:
        ``[..., 1]``, the ratio of the joint probability, or ``[..., branches]``, one for each branch, if ``per_head``.
    """
    difference = log_probs - old_log_probs
    return (difference if per_head else difference.sum(-1, keepdim=True)).exp()


def policy_loss(ratio: Tensor, advantages: Tensor, clip: float | Tensor) -> Tensor:
    """Compute the clipped surrogate, -E[min(r A, clip(r, 1 - clip, 1 + clip) A)] (equation 7), summed over heads.

    Args:
        ratio: ``[..., 1]`` or ``[..., branches]``.
        advantages: ``[...]``.
        clip: the clip range.
    """
    gain = ratio * advantages.unsqueeze(-1)
    held = ratio.clamp(*bounds(clip)) * advantages.unsqueeze(-1)
    return torch.minimum(gain, held).sum() / -advantages.numel()


def bounds(clip: float | Tensor) -> tuple[Any, Any]:
    """Return the least and the greatest ratio that are not clipped."""
    return 1.0 - clip, 1.0 + clip


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Compute E[(V - R)^2] / 2 over ``[...]``.

    With ``clip`` the larger of that and the error of V held within ``clip`` of its old value counts, step by step.
    """
    error = values - returns
    if clip is not None:
        held = old_values + (values - old_values).clamp(-clip, clip) - returns
        error = torch.where(_is_held(values, old_values, returns, clip), held, error)
    return 0.5 * (error * error).mean()


def _is_held(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Say where the error of the held value counts, which does not change with V: bool ``[...]``."""
    moved = values - old_values
    held = old_values + moved.clamp(-clip, clip) - returns
    return (moved.abs() > clip) & (held.abs() > (values - returns).abs())


def ppo_loss(
    log_probs: Tensor,
    values: Tensor,
    entropies: Tensor,
    mb: Sequences,
    now: Coefficients,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Compute policy_loss + value_coef * value_loss - entropy_coef * E[entropy summed over branches] (equation 9).

    Args:
        log_probs: ``[L, N, branches]`` of the actions under the current weights.
        values: ``[L, N]`` under the current weights.
        entropies: ``[L, N, branches]``.
        mb: the minibatch, for its old log-probabilities, old values, advantages and returns.
        now: the coefficients.

    Returns:
        The loss, 0-d, to be differentiated; the ratio ``[L, N, heads]``; and the two parts by name, detached.
    """
    batch = mb.old_log_probs, mb.old_values, mb.advantages, mb.returns
    loss, ratio, policy, value = _PPOLoss.apply(log_probs, values, entropies, *batch, now)
    return loss, ratio, {"policy_loss": policy, "value_loss": value}


class _PPOLoss(torch.autograd.Function):
    """The loss of ``ppo_loss`` as one node of the graph.

    Its derivatives are short closed forms: -r A / n by a log-probability where r A is the smaller of the two terms of
    the surrogate, (V - R) / n by a value, -entropy_coef / n by an entropy; 0 where a clipped term counts, for that does
    not change. Two dozen tiny autograd nodes would take 4 to 9 % of an update instead; a test holds both equal.
    """

    @staticmethod
    def forward(
        ctx: Any,
        log_probs: Tensor,
        values: Tensor,
        entropies: Tensor,
        old_log_probs: Tensor,
        old_values: Tensor,
        advantages: Tensor,
        returns: Tensor,
        now: Coefficients,
    ) -> tuple[Tensor, ...]:
        ratio = probability_ratio(log_probs, old_log_probs, now.per_head)  # [L, N, heads]
        policy = policy_loss(ratio, advantages, now.clip)
        value = value_loss(values, old_values, returns, now.value_clip)
        ctx.save_for_backward(ratio, advantages, values, old_values, returns, entropies)
        ctx.now = now
        ctx.mark_non_differentiable(ratio, policy, value)
        entropy = entropies.sum() / values.numel()
        return policy + now.value_coef * value - now.entropy_coef * entropy, ratio, policy, value

    @staticmethod
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        ratio, advantages, values, old_values, returns, entropies = ctx.saved_tensors
        now, count = ctx.now, values.numel()
        gain = ratio * advantages.unsqueeze(-1)
        held = ratio.clamp(*bounds(now.clip)) * advantages.unsqueeze(-1)
        by_log_probs = (slope * gain * (gain <= held) / -count).expand_as(entropies)
        error = values - returns
        if now.value_clip is not None:
            error = error.masked_fill(_is_held(values, old_values, returns, now.value_clip), 0.0)
        by_values = now.value_coef * (slope * error / count)
        by_entropies = (slope * (-now.entropy_coef / count)).expand_as(entropies)
        return by_log_probs, by_values, by_entropies, *[None] * 5


def approximate_kl(ratio: Tensor) -> Tensor:
    """Estimate KL(old || new) by E[(r - 1) - log r] summed over heads, which is never negative (Schulman, 2020)."""
    return (ratio - 1.0 - ratio.log()).sum(-1).mean()


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Compute 1 - Var(R - V) / Var(R): 1 for a perfect critic, 0 for the mean; 0 if the returns are constant."""
    variance = returns.var(unbiased=False)
    varies = variance > 1e-12 * (returns * returns).mean()  # less is rounding
    return torch.where(varies, 1.0 - (returns - values).var(unbiased=False) / variance, 0.0)
