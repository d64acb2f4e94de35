"""What rollouts that are cut in mid-episode are worth beyond the cut."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rl.networks import ActorCritic
from rl.types import Observation, State


@dataclass
class End:
    """Episodes of ``rows [K]`` that were cut after ``step`` of a rollout, and what V of their future needs.

    Attributes:
        step: of the rollout.
        rows: the environments.
        obs: what followed, leaves ``[K, ...]``.
        state: of the memories then, leaves ``[K, ...]``.
    """

    step: int
    rows: np.ndarray
    obs: Observation
    state: State


@torch.inference_mode()
def values_beyond(
    network: ActorCritic, values: Tensor, truncations: list[End], last: End | None
) -> tuple[Tensor, Tensor]:
    """V(final observation) and V(next observation) under the states that the memories had then, in one batch.

    Args:
        network: of the policy that played the rollout.
        values: ``[T, B]``, V(o_t). They have to stand in where nothing is known of what followed.
        truncations: episodes cut inside the rollout.
        last: all B environments at the end of the rollout, None if not known.

    Returns:
        ``[T, B]``, V of what followed where an episode was truncated; ``[B]``, V of what followed the last step.
    """
    cut, last_values = values.clone(), values[-1].clone()
    ends = [*truncations, *([last] if last else [])]
    if not ends:
        return cut, last_values
    obs = {name: torch.cat([end.obs[name] for end in ends]) for name in ends[0].obs}
    state = {name: torch.cat([end.state[name] for end in ends]) for name in ends[0].state}
    counts = [len(end.rows) for end in ends]
    beyond = network.step(obs, state, None)[1].split(counts)
    for end, value in zip(truncations, beyond, strict=False):
        cut[end.step, torch.from_numpy(end.rows).to(values.device)] = value
    return cut, beyond[-1].clone() if last else last_values
