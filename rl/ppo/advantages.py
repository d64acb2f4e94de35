"""From the values of a rollout to its advantages: what cut episodes are worth, then generalised advantage estimation.

Generalised advantage estimation: Schulman et al., 2016, arXiv 1506.02438.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rl.types import CutEpisodes, Observation, State


@torch.inference_mode()
def bootstrap_values_of_cut_episodes(
    step: Callable[[Observation, State, None], tuple[Tensor, Tensor, State]],
    values: Tensor,
    truncated: Sequence[CutEpisodes],
    last: CutEpisodes | None,
) -> tuple[Tensor, Tensor]:
    """Compute V(final observation) and V(next observation) under the states of their memories, in one batch.

    Args:
        step: of the network that played the rollout.
        values: ``[T, B]``, V(o_t). They stand in where it is not known what followed.
        truncated: episodes cut inside the rollout by a time limit.
        last: all B environments at the end of the rollout; None if not known.

    Returns:
        ``[T, B]``, V(final observation) where an episode was truncated; ``[B]``, V of what followed the last step.
    """
    final_values, last_values = values.clone(), values[-1].clone()
    cuts = [*truncated, *([last] if last else [])]
    if not cuts:
        return final_values, last_values
    obs = {name: torch.cat([cut.obs[name] for cut in cuts]) for name in cuts[0].obs}
    state = {name: torch.cat([cut.state[name] for cut in cuts]) for name in cuts[0].state}
    parts = step(obs, state, None)[1].split([len(cut.env_ids) for cut in cuts])
    for cut, part in zip(truncated, parts, strict=False):
        final_values[cut.step, torch.from_numpy(cut.env_ids).to(values.device, non_blocking=True)] = part
    return final_values, parts[-1].clone() if last else last_values


def bootstrap_values(
    values: Tensor, last_values: Tensor, terminated: Tensor, truncated: Tensor, final_values: Tensor
) -> Tensor:
    """Pick V(o_{t+1}) for each step, 0 after a termination, V(final observation) after a truncation.

    Args:
        values: ``[T, B]``, V(o_t).
        last_values: ``[B]``, V of the observation after the last step.
        terminated: ``[T, B]`` bool; it wins over ``truncated``.
        truncated: ``[T, B]`` bool.
        final_values: ``[T, B]``, V(final observation) where truncated, anything elsewhere.

    Returns:
        ``[T, B]``.
    """
    following = torch.cat([values[1:], last_values.unsqueeze(0)])
    return torch.where(truncated, final_values, following).masked_fill(terminated, 0.0)


def gae(rewards: Tensor, values: Tensor, next_values: Tensor, ended: Tensor, gamma: float, lam: float) -> Tensor:
    """Compute A_t = delta_t + gamma lam (1 - ended_t) A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t (equations 12, 16).

    Args:
        rewards: ``[T, B]``.
        values: ``[T, B]``, V(o_t).
        next_values: ``[T, B]`` from ``bootstrap_values``.
        ended: ``[T, B]`` bool, terminated or truncated: no advantage crosses it.
        gamma: discount.
        lam: lambda, 0 for one-step temporal differences, 1 for Monte Carlo.

    Returns:
        Advantages ``[T, B]``; the returns are advantages + values.
    """
    advantages = rewards + gamma * next_values - values  # delta; accumulated in place, backwards
    decay = (~ended).to(values.dtype) * (gamma * lam)
    steps = advantages.unbind(0)
    for step, following, factor in zip(steps[-2::-1], steps[:0:-1], decay[:-1].flip(0).unbind(0), strict=True):
        step.addcmul_(factor, following)
    return advantages
