"""Environments from a configuration: the named wrappers reach whatever the target makes."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from envs.probes import Counter
from envs.single_env import SingleEnv
from experiments.launch.check import ConfigError, check_node, construct
from experiments.launch.environments import WRAPPERS
from experiments.launch.escape import to_config

FRAMES = {"frame_skip": 2, "frame_stack": 3}


def one():
    """A single environment of a user."""
    return SingleEnv("envs.probes:Counter", episode_length=5)


def many(num_envs):
    """A vector of a user."""
    return SyncVectorEnv([one] * num_envs)


class Own(gymnasium.Env):
    """Has an argument of that name itself."""

    observation_space = action_space = spaces.Discrete(2)

    def __init__(self, frame_skip: int = 7):
        self.frame_skip = frame_skip

    def reset(self, *, seed=None, options=None):
        return 0, {}


def make(target, num_envs=2, **keys):
    return construct(to_config({"_target_": target, **keys}), "env", num_envs=num_envs)


def path(thing):
    return f"{thing.__module__}.{thing.__qualname__}"


@pytest.mark.parametrize("target", [Counter, one])
def test_keys_of_wrappers_reach_every_kind_of_target(target):
    """Rewards 0 + 1, 2 + 3, 4: two steps an action, in episodes of 5."""
    envs, node = make(path(target), **FRAMES, scale_rewards=10.0, clip_rewards=20)
    assert {key: node[key] for key in WRAPPERS} == FRAMES | {"scale_rewards": 10.0, "clip_rewards": 20.0}
    obs, _ = envs.reset(seed=0)
    assert obs.shape == (2, 3, 2)
    paid = [envs.step(np.zeros(2, dtype=np.int64)) for _ in range(3)]
    assert [step[1][0] for step in paid] == [10.0, 20.0, 20.0]
    assert [step[4]["unchanged_rewards"][0] for step in paid] == [1.0, 5.0, 4.0]
    assert paid[-1][4]["final_obs"][0][:, 0].tolist() == [2.0, 4.0, 5.0]


def test_vectors_of_a_user_have_changed_rewards_but_step_their_frames_themselves():
    envs, _ = make(path(many), scale_rewards=0.5)
    envs.reset(seed=0)
    assert [envs.step(np.zeros(2, dtype=np.int64))[1][0] for _ in range(3)] == [0.0, 0.5, 1.0]
    with pytest.raises(ValueError, match=r"^frame_stack: env\._target_=.*many steps all its rows itself"):
        make(path(many), frame_stack=2)


def test_an_argument_of_the_target_itself_comes_first():
    envs, node = make(path(Own), num_envs=1)
    assert (envs.envs[0].unwrapped.frame_skip, node["frame_skip"]) == (7, 7)
    envs, _ = make(path(Own), num_envs=1, frame_skip=3)
    assert envs.envs[0].unwrapped.frame_skip == 3


def test_without_such_keys_nothing_is_wrapped():
    envs, node = make(path(Counter))
    assert isinstance(envs, Counter)
    assert {key: node[key] for key in WRAPPERS} == {
        "frame_skip": 1, "frame_stack": 1, "scale_rewards": 1.0, "clip_rewards": None
    }  # fmt: skip


def test_they_are_keys_of_environments_alone_and_checked_like_others():
    with pytest.raises(ConfigError, match=r"^env\.frame_skip='two' is not a whole number$"):
        check_node({"_target_": path(Counter), "frame_skip": "two"}, "env", ("num_envs",))
    with pytest.raises(ConfigError, match=r"there is no key 'env\.frame_stak'; did you mean frame_stack"):
        check_node({"_target_": path(Counter), "frame_stak": 2}, "env", ("num_envs",))
    with pytest.raises(ConfigError, match=r"there is no key 'other\.frame_stack'"):
        check_node({"_target_": path(Counter), "frame_stack": 2}, "other", ("num_envs",))
