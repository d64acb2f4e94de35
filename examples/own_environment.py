"""Train on an environment of your own: three methods on ``BatchedEnv``, which steps all copies at once.

python examples/own_environment.py
"""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.batched_env import BatchedEnv
from rl import RecurrentPPOLSTM, Trainer, evaluate
from rl.training import Metrics


class Mirror(BatchedEnv):
    """Say, ``lag`` steps later, on which side a light shone; sides are drawn anew in every step.

    Observation: ``Box(0, 1, (2,), float32)``: the light on the left, the light on the right.
    Action: ``Discrete(2)``: left or right. Reward: ``1 / steps`` for the right answer. End: terminated after ``steps``.
    """

    state_names = ("sides",)  # the arrays that a checkpoint stores

    def __init__(self, num_envs: int, lag: int = 1, steps: int = 10):
        super().__init__(num_envs, spaces.Box(0.0, 1.0, (2,), np.float32), spaces.Discrete(2))
        self.steps = steps
        self.optimal_return = 1.0 - 0.5 * lag / steps  # the first ``lag`` answers can only be guessed
        self.memoryless_return = 0.5
        self.sides = np.zeros((num_envs, lag + 1), dtype=np.int64)  # the present one first

    def _start(self, rows: np.ndarray) -> None:
        """Begin new episodes in ``rows``."""
        self.sides[rows] = self.np_random.integers(2, size=(len(rows), self.sides.shape[1]))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Act in all rows: rewards and where the episode terminated, ``[B]`` each."""
        rewards = (actions == self.sides[:, -1]) / self.steps
        self.sides = np.roll(self.sides, 1, axis=1)
        self.sides[:, 0] = self.np_random.integers(2, size=self.num_envs)
        return rewards, self.elapsed_steps == self.steps - 1

    def _observe(self) -> Any:
        """Make the observations ``[B, 2]`` of the present state; called twice where an episode ended."""
        return np.eye(2, dtype=np.float32)[self.sides[:, 0]]


def main(run_dir: str | Path = "runs/mirror", total_steps: int = 60_000) -> float:
    """Train with the project's own loop, and return the mean return of greedy play."""
    envs = Mirror(num_envs=64)
    agent = RecurrentPPOLSTM(
        envs.single_observation_space,
        envs.single_action_space,
        num_envs=64,
        num_steps=20,
        bptt=20,
        learning_rate=3e-3,
        seed=1,
    )
    trainer = Trainer(agent, envs, Path(run_dir), total_steps, seed=1, threads=1)
    with Metrics(Path(run_dir), total_steps) as metrics:  # TensorBoard's events and the progress bar
        trainer.train(metrics)
    played = evaluate(agent, Mirror(num_envs=50), episodes=100, seed=2)
    print(f"return {played.mean:.3f} of {envs.optimal_return}, without memory {envs.memoryless_return}")
    return played.mean


if __name__ == "__main__":
    main()
