"""Exploration by noise that lasts longer than one step."""

import math

import torch
from torch import Generator, Tensor

from rl.networks.heads import GaussianHead, Head
from rl.networks.quantile_network import EpsilonGreedyHead


class CorrelatedNoise:
    """Draws the actions of B environments; noise of normal distributions may be correlated over time.

    z_t = c z_{t-1} + sqrt(1 - c^2) e_t with independent e_t, and z_0 = e_0 where an episode begins. So every z_t is
    standard normal, and with it every action is one of the policy at that step: likelihoods, entropies and ratios stay
    as they are. What changes is the path that a policy takes while it knows nothing: independent pushes to the left
    and to the right cancel out, and a car never gets up its hill; pushes that last do not.

    Source: Hollenstein, Martius and Piater (2024), "Colored Noise in PPO: Improved Exploration and Performance through
    Correlated Action Sampling"; here by a first-order process, which needs one number for each action and no horizon.

    Args:
        head: of the policy.
        correlation: c, between one step and the next, at least 0 and below 1.
        num_envs: B.
        generator: of all draws; ``last`` lies on its device.

    Attributes:
        last: z of the last step, ``[B, P]``; zeros where the actions are no numbers. It is changed in place.

    Raises:
        ValueError: the correlation is out of range, or above 0 and the actions are no numbers.
    """

    def __init__(self, head: Head | EpsilonGreedyHead, correlation: float, num_envs: int, generator: Generator):
        if not 0 <= correlation < 1:
            raise ValueError(f"noise_correlation={correlation}: it must be at least 0 and below 1")
        if correlation and not isinstance(head, GaussianHead):
            raise ValueError(
                f"noise_correlation={correlation}: it is for actions that are numbers (a float Box), but these are "
                f"{head.describe()}; leave it at 0"
            )
        self.head, self.correlation, self.generator = head, float(correlation), generator
        self.last = torch.zeros(num_envs, *head.action_shape, device=generator.device)

    def sample(self, params: Tensor, starts: Tensor | None) -> Tensor:
        """Draw actions ``[B, ...]`` from ``params [B, P]``; ``starts`` ``[B]`` says where noise begins anew."""
        if not isinstance(self.head, GaussianHead) or not self.correlation:
            return self.head.sample(params, self.generator)
        fresh = torch.empty_like(params).normal_(generator=self.generator)
        lasting = self.correlation * self.last + math.sqrt(1 - self.correlation**2) * fresh
        if starts is not None:
            lasting = torch.where(starts.unsqueeze(1), fresh, lasting)
        self.last.copy_(lasting)
        return self.head.displace(params, lasting)
