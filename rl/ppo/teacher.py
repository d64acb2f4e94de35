"""A frozen policy that PPO is kept close to, after kickstarting (Schmitt et al., 2018, arXiv 1803.03835), which takes
the cross-entropy with it instead of KL(policy || teacher).
"""

from typing import Any

import torch
from torch import Tensor

from rl.networks import ActorCritic
from rl.networks.frozen import frozen_copy
from rl.types import Observation

STEPS = 32
"""So many at a time: a whole rollout of images may have more activations than fit into memory."""


class Teacher:
    """Follows every rollout of its pupil with a memory of its own, carried on from rollout to rollout.

    What the teacher would have done depends on what the teacher remembers, and the states that the pupil stored say
    nothing of that once their weights have parted.

    Args:
        network: is copied; the copy never changes.
        num_envs: B.
        device: where the network lies.
    """

    def __init__(self, network: ActorCritic, num_envs: int, device: torch.device | str = "cpu"):
        self.network = frozen_copy(network)
        self.head = self.network.head
        self.state = self.network.initial_state(num_envs, device)

    @torch.no_grad()
    def follow(self, obs: Observation, starts: Tensor) -> Tensor:
        """The next rollout, leaves ``[T, B, ...]`` and ``starts [T, B]`` on the CPU -> its parameters ``[T, B, P]``."""
        params = []
        for first in range(0, len(starts), STEPS):
            steps = slice(first, first + STEPS)
            seen = {name: leaf[steps] for name, leaf in obs.items()}
            some, _, self.state = self.network.unroll(seen, self.state, starts[steps])
            params.append(some)
        return torch.cat(params)

    def state_dict(self) -> dict[str, Any]:
        """Weights and memories."""
        return {"network": self.network.state_dict(), "state": self.state}

    def load_state_dict(self, state: dict[str, Any], same_size: bool) -> None:
        """The counterpart of :meth:`state_dict`; memories only with as many environments (``same_size``)."""
        self.network.load_state_dict(state["network"])
        if same_size:
            self.state = {name: leaf.to(self.state[name].device) for name, leaf in state["state"].items()}
