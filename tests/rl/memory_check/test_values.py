import numpy as np
import pytest
from gymnasium import spaces

from envs.batched_env import BatchedEnv
from envs.probes import SpaceProbe
from rl.memory_check.environments import watch
from rl.memory_check.play import RandomPlay
from rl.memory_check.values import Values, find_fault


class Shows(BatchedEnv):
    """Shows, and pays, what it is told to at step 3 of each episode of 5; else random numbers from 0 to 1."""

    def __init__(self, wrong=0.5, reward=1.0, constant=False):
        self.wrong, self.reward = wrong, reward
        parts = {"number": spaces.Box(0.0, 1.0, (2,), np.float32), "flag": spaces.Discrete(2)}
        super().__init__(4, spaces.Dict(parts), spaces.Discrete(2), 5)
        self.constant = constant

    def _start(self, rows):
        pass

    def _advance(self, actions):
        rewards = np.where(self.elapsed_steps == 3, self.reward, 0.0)
        return rewards, np.zeros(self.num_envs, dtype=bool)

    def _observe(self):
        numbers = np.stack([self.elapsed_steps / 10, self.rows / 10], axis=1).astype(np.float32)
        numbers[self.elapsed_steps == 3] = self.wrong
        return {"number": numbers, "flag": self.rows * 0 if self.constant else self.elapsed_steps % 2}


def verdicts_of(envs):
    values = Values(envs.single_observation_space)
    watch(envs, 0, 20, RandomPlay(envs, 0), [values])
    return {verdict.check: verdict for verdict in values.verdicts()}


@pytest.mark.parametrize("observation", [*SpaceProbe.observation_spaces, *SpaceProbe.composites])
def test_our_spaces_pass(observation):
    verdicts = verdicts_of(SpaceProbe(8, observation))
    assert [verdict.passed for verdict in verdicts.values()] == [True, True, True]


@pytest.mark.parametrize(
    ("wrong", "told"), [(1.5, "holds 1.5, not 0 to 1"), (-0.1, "holds -0.1, not 0 to 1"), (np.nan, "holds nan")]
)
def test_observations_outside_of_the_space_are_a_fault(wrong, told):
    verdict = verdicts_of(Shows(wrong))["observations_are_in_their_space"]
    assert verdict.passed is False and f"'number' {told}" in verdict.finding
    assert verdict.numbers["outside"] == 16  # one of 5 steps, 4 rows, 20 steps


def test_the_last_observation_of_an_episode_is_looked_at_too():
    class Late(Shows):
        def _observe(self):
            obs = super()._observe()
            obs["number"][self.elapsed_steps == 5] = 7.0
            return obs

    verdict = verdicts_of(Late())["observations_are_in_their_space"]
    assert verdict.passed is False and verdict.numbers["outside"] == 16


@pytest.mark.parametrize("reward", [np.nan, -np.inf, 1e39])
def test_rewards_that_float32_cannot_hold_are_a_fault(reward):
    verdict = verdicts_of(Shows(reward=reward))["rewards_are_finite"]
    assert verdict.passed is False and verdict.finding.startswith("16 rewards are no finite numbers")


def test_a_leaf_that_never_changes_is_worth_a_note():
    verdict = verdicts_of(Shows(constant=True))["observations_vary"]
    assert verdict.passed is None and verdict.finding == "never changes: 'flag'"
    assert verdict.numbers == {"constant": ["flag"], "constant_numbers": 1, "numbers": 3}


@pytest.mark.parametrize(
    ("space", "leaf", "told"),
    [
        (spaces.Box(0, 1, (2,), np.float32), np.zeros((3, 1), np.float32), "has shape (1,), not (2,)"),
        (spaces.Box(0, 1, (2,), np.float32), np.zeros((3, 2)), "is float64, not float32"),
        (spaces.Discrete(3, start=1), np.array([1, 3, 4]), "holds 4, not 1 to 3"),
        (spaces.MultiDiscrete([2, 3]), np.array([[1, 2], [1, 3]]), "holds 3, not 0 to 2"),
        (spaces.MultiBinary(2), np.array([[0, 2]], np.int8), "holds 2, not 0 to 1"),
        (spaces.Box(-np.inf, np.inf, (1,), np.float32), np.array([[1e30]], np.float32), ""),
        (spaces.Box(0, 1, (1,), np.float32), np.array([[1.000001]], np.float32), ""),  # rounding
    ],
)
def test_faults_of_leaves(space, leaf, told):
    assert find_fault(space, leaf)[0] == told
