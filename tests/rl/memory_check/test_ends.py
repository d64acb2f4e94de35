"""A corridor of random steps whose ends can be told wrongly, in each way that is known from other people's code."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from envs.probes import Counter
from envs.t_maze import TMaze
from rl.memory_check.ends import Ends, read_time_limit
from rl.memory_check.environments import watch
from rl.memory_check.play import RandomPlay


class Drift(gymnasium.Env):
    """A position that drifts by 1 in each step, from a random place; it may end at random."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, chance=0.0):
        self.chance = chance

    def show(self):
        return np.array([self.position, -self.position], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.random()
        return self.show(), {}

    def step(self, action):
        self.position += 1.0
        return self.show(), 1.0, bool(self.np_random.random() < self.chance), False, {}


class Flags(gymnasium.Wrapper):
    """Tells other flags than the environment."""

    def __init__(self, env, tell):
        super().__init__(env)
        self.tell = tell

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, *self.tell(terminated, truncated), info


def vector(make, mode=AutoresetMode.SAME_STEP):
    return SyncVectorEnv([make] * 3, autoreset_mode=mode)


def ends_of(envs, limit=None, steps=200):
    watcher = Ends(envs.num_envs, limit)
    watch(envs, 0, steps, RandomPlay(envs, 0), [watcher])
    return watcher.verdict()


def limited(chance=0.0):
    return TimeLimit(Drift(chance), 10)


def as_terminated(terminated, truncated):
    return terminated or truncated, False


def as_both(terminated, truncated):
    return (terminated or truncated,) * 2


def test_both_kinds_of_ends_are_counted():
    verdict = ends_of(vector(lambda: limited(0.05)), limit=10)
    assert verdict.passed is True
    kinds = [verdict.numbers[name] for name in ("terminated", "truncated", "both")]
    assert min(kinds[:2]) > 0 and sum(kinds) == verdict.numbers["episodes"]
    assert verdict.numbers["longest"] == 10


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_a_known_time_limit_told_as_termination_is_a_fault_in_either_mode(mode):
    verdict = ends_of(vector(lambda: Flags(limited(0.05), as_terminated), mode), limit=10)
    assert verdict.passed is False
    assert "reached max_episode_steps=10 say terminated" in verdict.finding and "truncated" in verdict.advice


def test_a_time_limit_that_is_not_known_can_only_be_suspected():
    verdict = ends_of(vector(lambda: Flags(limited(), as_terminated)))
    assert verdict.passed is None and "all say terminated after exactly 10 steps" in verdict.finding
    verdict = ends_of(vector(lambda: Flags(limited(0.05), as_terminated)))
    assert verdict.passed is None and "after exactly 10 steps, and none lasts longer" in verdict.finding


def test_two_flags_that_are_one_are_a_fault_unless_ends_and_limit_may_coincide():
    verdict = ends_of(vector(lambda: Flags(limited(0.2), as_both)))
    assert verdict.passed is False and "sets both flags" in verdict.finding
    assert ends_of(Counter(3, 5, end="both")).passed is True


def test_a_limit_that_cuts_nothing_is_a_fault():
    verdict = ends_of(vector(Drift), limit=10)
    assert verdict.passed is False and "an episode of 200 steps was not cut" in verdict.finding


def test_ends_that_were_not_seen_and_terminations_told_as_cuts_are_worth_a_note():
    assert ends_of(vector(Drift), steps=20).finding == "no episode ended within 20 steps of 3 environments"
    verdict = ends_of(vector(lambda: Flags(Drift(0.2), lambda end, cut: (False, end))))
    assert verdict.passed is None and "none says terminated" in verdict.finding


def test_random_ends_are_no_time_limit():
    assert ends_of(vector(lambda: Drift(0.2))).passed is True


def test_the_time_limit_is_read_from_our_environments_and_from_specs():
    assert read_time_limit(TMaze(2, length=10)) == 22
    assert read_time_limit(SyncVectorEnv([lambda: gymnasium.make("CartPole-v1", max_episode_steps=7)])) == 7
    assert read_time_limit(vector(Drift)) is None
