"""Give an agent an encoder of your own: a module with ``output_size``, see ``rl.types.FeatureEncoder``.

python examples/own_encoder.py
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorWrapper
from torch import Tensor, nn

from envs.delayed_recall import DelayedRecall
from rl import RecurrentPPO, evaluate
from rl.types import Observation


class Shown(VectorWrapper):
    """Show the numbers of an observation as the columns of a picture, 8 pixels high."""

    def __init__(self, env: DelayedRecall):
        super().__init__(env)
        (width,) = env.single_observation_space.shape or (1,)
        self.single_observation_space = spaces.Box(0, 255, (8, width, 1), np.uint8)
        self.observation_space = spaces.Box(0, 255, (env.num_envs, 8, width, 1), np.uint8)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin episodes; return pictures ``[B, 8, W, 1]``."""
        obs, info = super().reset(**options)
        return self.draw(obs), info

    def step(self, actions: Any) -> tuple[np.ndarray, Any, Any, Any, dict[str, Any]]:
        """Take a step; its final observations are pictures, too."""
        obs, rewards, terminated, truncated, info = super().step(actions)
        if "final_obs" in info:
            info = info | {"final_obs": self.draw(info["final_obs"])}
        return self.draw(obs), rewards, terminated, truncated, info

    @staticmethod
    def draw(numbers: np.ndarray) -> np.ndarray:
        """Turn numbers ``[B, W]`` into pictures ``[B, 8, W, 1]``."""
        return (255 * np.repeat(numbers[:, None, :, None], 8, axis=1)).astype(np.uint8)


class Columns(nn.Module):
    """An encoder that looks at each column of a picture as a whole.

    Args:
        input_shapes: of the leaves, by name: ``(C, H, W)`` of an image, ``(D,)`` of everything else.
        features: number of features.
    """

    def __init__(self, input_shapes: dict[str, tuple[int, ...]], features: int = 32):
        super().__init__()
        channels, height, width = input_shapes["obs"]
        self.look = nn.Conv2d(channels, 4, (height, 1))
        self.layer = nn.Linear(4 * width, features)
        self.output_size = features

    def forward(self, obs: Observation) -> Tensor:
        """Encode the leaves, an image as ``[N, C, H, W]`` around 0, as features ``[N, output_size]``."""
        return torch.tanh(self.layer(torch.relu(self.look(obs["obs"])).flatten(1)))


def main(total_steps: int = 60_000) -> float:
    """Train with this encoder, and return the mean return of greedy play."""
    envs = Shown(DelayedRecall(num_envs=64, delay=3))
    agent = RecurrentPPO(
        envs.single_observation_space,
        envs.single_action_space,
        encoder=partial(Columns, features=24),  # called with the shapes of the leaves
        num_envs=64,
        num_steps=16,
        bptt=16,
        learning_rate=3e-3,
        seed=1,
    )
    print("\n".join(agent.describe()))
    obs, _ = envs.reset(seed=1)
    while agent.env_steps < total_steps:
        for _ in range(agent.num_steps):
            obs, rewards, terminated, truncated, info = envs.step(agent.act(obs))
            agent.observe(rewards, terminated, truncated, info.get("final_obs"))
        agent.learn(obs)
    played = evaluate(agent, Shown(DelayedRecall(num_envs=50, delay=3)), episodes=200, seed=2)
    print(f"return {played.mean:.3f}; a guess gets 0, a perfect memory 1")
    return played.mean


if __name__ == "__main__":
    main()
