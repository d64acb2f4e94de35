"""Let an environment stand where an episode has ended, so that what closed it can be drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper

from envs.array_module import Array
from envs.batched_env import BatchedEnv


def reset_late(envs: VectorEnv) -> VectorEnv:
    """Return an environment with NEXT_STEP autoreset in place of SAME_STEP; one that cannot do so stays as it is.

    The tasks of this package can, and single environments that Gymnasium's ``SyncVectorEnv`` steps.
    """
    if isinstance(envs, BatchedEnv):
        return LateReset(envs)
    if isinstance(envs, SyncVectorEnv):
        envs.autoreset_mode = AutoresetMode.NEXT_STEP
        envs.metadata = {**envs.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
    return envs


class LateReset(VectorWrapper):
    """A task with NEXT_STEP autoreset: a row that has ended begins its next episode in the step after.

    That step pays nothing in the row, and its action there means nothing.

    Args:
        env: the task.
    """

    def __init__(self, env: BatchedEnv):
        super().__init__(env)
        self.task = env
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self.waiting: Array = env.xp.zeros(env.num_envs, env.xp.bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a new episode in every row."""
        self.waiting = self.task.xp.zeros(self.task.num_envs, self.task.xp.bool)
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Act in every row that goes on, and begin episodes in those that ended in the step before."""
        observations, rewards, terminated, truncated = self.task.transition(actions)
        waiting = self.waiting
        if bool(waiting.any()):
            self.task._restart(np.flatnonzero(waiting) if self.task.device is None else waiting)
            observations = self.task._observe()
            rewards = self.task.xp.where(waiting, 0 * rewards, rewards)
            terminated, truncated = terminated & ~waiting, truncated & ~waiting
        self.waiting = terminated | truncated
        return observations, rewards, terminated, truncated, {}
