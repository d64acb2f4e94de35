"""Environments that show everything in one array, under Gymnasium's own vectors."""

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rl.training.stepping import VectorEnvAdapter


class OneArray(gymnasium.Env):
    """Counts its steps in one array for ever; cut after three."""

    observation_space, action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)
    shown = np.zeros(1, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        self.shown[:] = 0
        return self.shown, {}

    def step(self, action):
        self.shown += 1
        return self.shown, 0.0, False, bool(self.shown == 3), {}


def test_a_reset_does_not_overwrite_the_final_observation():
    envs = gymnasium.vector.SyncVectorEnv([OneArray], autoreset_mode=AutoresetMode.SAME_STEP)
    adapter = VectorEnvAdapter(envs)
    VectorEnvAdapter(envs)  # wraps nothing twice
    assert isinstance(envs.envs[0].env, OneArray)
    adapter.reset(0)
    for _ in range(3):
        step = adapter.step(np.zeros(1, dtype=np.int64))
    assert (step.final_obs.tolist(), step.obs.tolist()) == ([[3.0]], [[0.0]])
