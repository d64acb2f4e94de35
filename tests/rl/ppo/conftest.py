"""Shared by the tests of PPO: a rollout of numbers that tell where they come from, and one call of the update."""

import numpy as np
import pytest
import torch

from rl.flat_adam import flat_adam
from rl.ppo import PPO
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.types import Targets


@pytest.fixture
def update():
    """One call of ``PPO.update``; ``frozen`` sets the learning rate to zero, ``kind`` is a subclass of PPO."""

    def run(network, rollout, frozen=False, progress=0.0, optimizer=None, teacher=None, kind=PPO, **options):
        buffer, targets = rollout
        if frozen:
            options, progress = options | {"learning_rate_schedule": "linear"}, 1.0
        optimizer = optimizer or flat_adam(network, 1e-3)
        shuffle = torch.Generator().manual_seed(0)
        return kind(**options).update(network, optimizer, buffer, targets, shuffle, progress, teacher)

    return run


@pytest.fixture
def numbered(device):
    """A rollout in which every number says where it comes from, and its targets.

    Observations, actions, params and targets of step t of environment b are t * B + b, states are t + b / 10, starts
    are at the multiples of 5 + b. Step t of environment b is to be ignored if (t, b) is among the ``gaps``. There are
    three environments.
    """

    B = 3

    def make(size, capacity=None, state_stride=1, gaps=(), teacher=False):
        obs = {
            "x": torch.zeros(B, 2, device=device),
            "image": torch.zeros(B, 1, 2, 2, dtype=torch.uint8, device=device),
        }
        state = {name: torch.zeros(B, 1, 4, device=device) for name in ("h", "c")}
        state["count"] = torch.zeros(B, 1, dtype=torch.int64, device=device)
        actions, params = torch.zeros(B, 1, dtype=torch.int64, device=device), torch.zeros(B, 5, device=device)
        buffer = RolloutBuffer(capacity or size, obs, state, actions, params, state_stride, device)
        for t in range(size):
            number = torch.arange(B, device=device) + t * B
            step = t + torch.arange(B, device=device) / 10
            buffer.write_step(
                {"x": number.unsqueeze(1).expand(B, 2), "image": number.view(B, 1, 1, 1).expand(B, 1, 2, 2)},
                {"h": step.view(B, 1, 1).expand(B, 1, 4), "c": -step.view(B, 1, 1).expand(B, 1, 4)}
                | {"count": number.unsqueeze(1)},
                t % (5 + np.arange(B)) == 0,
                number.unsqueeze(1).expand(B, 5),
                number.float(),
                number.unsqueeze(1),
            )
            ignored = np.array([(t, b) in gaps for b in range(B)])
            buffer.has_gaps |= bool(ignored.any())
            buffer.finish_step(np.full(B, t, np.float32), np.full(B, t % 2 == 0), np.full(B, t % 3 == 0), ignored)
        grid = torch.arange(size * B, device=device).view(size, B).float()
        taught = torch.stack([grid, -grid], dim=-1) if teacher else None
        return buffer, Targets(grid.unsqueeze(-1), grid, grid + 0.25, grid + 0.5, taught)

    return make


@pytest.fixture
def epoch():
    def draw(rollout, num_minibatches=4, bptt=None, burn_in=0, seed=0):
        buffer, targets = rollout
        shuffle = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        return list(buffer.sequences(targets, num_minibatches, bptt, shuffle, burn_in))

    return draw
