"""Copies that are made differently."""

import gymnasium
import numpy as np

from envs.workers import WorkerEnvs, close


class Paying(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(0, 9, (1,)), gymnasium.spaces.Discrete(2)

    def __init__(self, pay):
        self.pay = pay

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.pay, False, False, {}


def test_every_copy_is_made_by_its_own_function():
    envs = WorkerEnvs([lambda pay=pay: Paying(pay) for pay in (1.0, 2.0, 3.0)], "paying")
    try:
        envs.reset(seed=0)
        assert envs.step(np.zeros(3, int))[1].tolist() == [1.0, 2.0, 3.0]
    finally:
        close(envs)
