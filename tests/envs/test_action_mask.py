"""A mask in info becomes a leaf of the observation."""

import re

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.action_mask import ActionMask, can_be_masked
from envs.faults import MisfitError


class Masking(gymnasium.Env):
    """Its infos come from a list, one after another; episodes have two steps."""

    def __init__(self, masks=(), actions=None, observations=None):
        self.action_space = spaces.Discrete(3) if actions is None else actions
        self.observation_space = spaces.Box(0, 1, (1,)) if observations is None else observations
        self.masks = iter(masks)

    def info(self):
        mask = next(self.masks)
        return {} if mask is None else {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return self.observation_space.sample(), self.info()

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), 0.0, self.t == 2, False, self.info()


def test_which_environments_can_be_masked():
    assert can_be_masked(Masking())
    assert can_be_masked(Masking(actions=spaces.MultiDiscrete([2, 3])))
    assert not can_be_masked(Masking(actions=spaces.Box(0, 1)))
    assert not can_be_masked(Masking(observations=spaces.Dict(action_mask=spaces.MultiBinary(3))))


def test_the_mask_of_reset_and_step_is_observed():
    env = ActionMask(Masking([np.array([1, 1, 0], np.int8), [False, True, True]]))
    observation, _ = env.reset()
    assert observation in env.observation_space and observation["action_mask"].tolist() == [1, 1, 0]
    observation, *_ = env.step(0)
    assert observation in env.observation_space and observation["action_mask"].tolist() == [0, 1, 1]


def test_a_dict_keeps_its_leaves():
    env = ActionMask(Masking([np.ones(3)], observations=spaces.Dict(a=spaces.Discrete(2), obs=spaces.Box(0, 1))))
    observation, _ = env.reset()
    assert set(env.observation_space) == set(observation) == {"a", "obs", "action_mask"}


@pytest.mark.parametrize(
    "mask", [np.array([1, 0, 0, 1, 1]), (np.array([1, 0]), np.array([0, 1, 1])), [[1, 0], [0, 1, 1]]]
)
def test_branches_lie_side_by_side(mask):
    env = ActionMask(Masking([mask], actions=spaces.MultiDiscrete([2, 3])))
    assert env.reset()[0]["action_mask"].tolist() == [1, 0, 0, 1, 1]


@pytest.mark.parametrize("last", [None, [0, 0, 0]])
def test_after_the_last_step_no_mask_is_needed(last):
    env = ActionMask(Masking([[1, 1, 1], [1, 0, 0], last]))
    env.reset()
    assert env.step(0)[0]["action_mask"].tolist() == [1, 0, 0]
    assert env.step(0)[0]["action_mask"].tolist() == ([1, 1, 1] if last is None else [0, 0, 0])


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (None, "info has no 'action_mask', which its first one had: it must have one in every step"),
        ([1, 1], "info['action_mask'] has shape (2,): it must be (3,), one for each action"),
        ([0, 0, 0], "info['action_mask']=[0 0 0]: it must allow at least one action"),
        ([0.0, -np.inf, 0.0], "info['action_mask']=[  0. -inf   0.]: it must hold 0 or 1, or False or True, for each"),
        ("all", "info['action_mask']='all': it must be a number"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused(mask, sentence):
    env = ActionMask(Masking([[1, 1, 1], mask]))
    env.reset()
    with pytest.raises(MisfitError, match=f"^{re.escape(sentence)}"):
        env.step(0)


def test_each_branch_must_allow_an_action():
    with pytest.raises(MisfitError, match="at least one action"):
        ActionMask(Masking([[1, 1, 0, 0, 0]], actions=spaces.MultiDiscrete([2, 3]))).reset()


class Ending(gymnasium.Env):
    """An episode of one step, whose info has no mask."""

    observation_space, action_space = spaces.Box(0, 1, (1,)), spaces.Discrete(3)

    def __init__(self, terminated, truncated):
        self.flags = terminated, truncated

    def reset(self, *, seed=None, options=None):
        return self.observation_space.sample(), {"action_mask": [1, 0, 1]}

    def step(self, action):
        return self.observation_space.sample(), 0.0, *self.flags, {}


@pytest.mark.parametrize("flags", [(True, False), (False, True), (True, True)])
def test_a_mask_may_be_missing_where_an_episode_ends(flags):
    env = ActionMask(Ending(*flags))
    env.reset()
    assert env.step(0)[0]["action_mask"].tolist() == [1, 1, 1]
