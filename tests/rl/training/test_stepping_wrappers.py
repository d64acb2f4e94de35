"""Wrappers around an environment: whose state is stored, and in which rewards returns are counted."""

from functools import partial

import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorWrapper

from envs.probes import Counter
from envs.single_env import SingleEnv
from envs.wrapping import ChangedRewards
from rl.training.stepping import Episodes, VectorEnvAdapter, find_state_keeper


class Keeper(VectorWrapper):
    """Has a state around that of what it wraps."""

    def state_dict(self):
        return {"inner": self.env.state_dict(), "own": 3}


def test_the_state_is_that_of_the_outermost_wrapper_that_has_one():
    assert find_state_keeper(VectorWrapper(Keeper(Counter(2)))).state_dict()["own"] == 3
    assert find_state_keeper(Keeper(SyncVectorEnv([partial(SingleEnv, "envs.probes:Counter")]))) is None


def test_returns_are_counted_in_what_the_environment_paid():
    """Rewards 0, 1, 2 of an episode, which the agent is given as 0, 0.5, 0.75."""
    adapter, episodes = VectorEnvAdapter(ChangedRewards(Counter(1, 3), 0.5, 0.75)), Episodes(1)
    adapter.reset(0)
    given = []
    for _ in range(3):
        step = adapter.step(np.zeros(1, dtype=np.int64))
        episodes.add(step)
        given += step.rewards.tolist()
    assert given == [0.0, 0.5, 0.75]
    assert episodes.drain() == {"charts/episodic_return": 3.0, "charts/episodic_length": 3.0}


def test_such_a_key_of_another_environment_means_nothing():
    class Foreign(VectorWrapper):
        def step(self, actions):
            *rest, info = self.env.step(actions)
            return *rest, {**info, "unchanged_rewards": np.full(1, 7.0)}

    adapter = VectorEnvAdapter(Foreign(Counter(1)))
    adapter.reset(0)
    step = adapter.step(np.zeros(1, dtype=np.int64))
    assert step.unchanged is None and step.paid is step.rewards
