"""Simulators that speak torch, by stand-ins with the interfaces of ManiSkill's and of Isaac Lab's environments."""

import logging

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from envs import tensor_vector_env
from envs.tensor_vector_env import TensorVectorEnv

B, LIMIT = 3, 4


class ManiSkillLike:
    """As ``ManiSkillVectorEnv`` of ManiSkill 3.0.1: rows count up from 0; an action above 1 succeeds, 4 steps cut.

    The final observation is there only in steps in which a row ends, and its flags are those that it goes on to use.
    """

    single_observation_space = spaces.Box(-np.inf, np.inf, (2,))
    single_action_space = spaces.Box(-1.0, 1.0, (1,))
    num_envs, device, auto_reset = B, torch.device("cpu"), True

    def __init__(self):
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.closed, self.seed = False, None

    def observe(self):
        return torch.stack([self.count, self.count * 10], 1).float()

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        self.count = torch.zeros(B)
        return self.observe(), {"reconfigure": False}

    def step(self, actions):
        assert isinstance(actions, torch.Tensor)
        self.count += 1
        obs, terminations, truncations = self.observe(), actions[:, 0] > 1, self.count >= LIMIT
        infos, dones = {"elapsed_steps": self.count}, terminations | truncations
        if dones.any():
            final = obs.clone()
            self.count[dones] = 0
            obs = self.observe()
            infos = {"final_observation": final, "_final_observation": dones}
        return obs, actions[:, 0].double(), terminations, truncations, infos

    def close(self):
        self.closed = True


class IsaacLike(gymnasium.Env):
    """As ``DirectRLEnv`` of Isaac Lab 2.3.2: groups of observations, flags in buffers that are written over."""

    def __init__(self):
        self.num_envs, self.device, self.extras = B, "cpu", {}
        self.single_observation_space = spaces.Dict(
            {"policy": spaces.Box(-np.inf, np.inf, (1,)), "critic": spaces.Box(-np.inf, np.inf, (5,))}
        )
        self.single_action_space = spaces.Box(-np.inf, np.inf, (1,))
        self.reset_terminated, self.reset_time_outs = torch.zeros(2, B, dtype=torch.bool)

    def observe(self):
        return {"policy": self.count[:, None].float(), "critic": torch.zeros(B, 5)}

    def reset(self, seed=None, options=None):
        self.count = torch.zeros(B)
        return self.observe(), self.extras

    def step(self, action):
        self.count += 1
        self.reset_terminated[:] = action[:, 0] > 1
        self.reset_time_outs[:] = self.count >= LIMIT
        self.count[self.reset_terminated | self.reset_time_outs] = 0
        return self.observe(), torch.ones(B), self.reset_terminated, self.reset_time_outs, self.extras


@pytest.fixture
def maniskill():
    return TensorVectorEnv(ManiSkillLike(), final_key="final_observation")


def actions(*values):
    return torch.tensor(values)[:, None]


IDLE = actions(0.0, 0.5, -1.0)


def test_what_it_hands_out(maniskill):
    obs, info = maniskill.reset(seed=5)
    assert obs.tolist() == [[0, 0]] * B and info == {} and maniskill.env.seed == 5
    obs, rewards, terminated, truncated, info = maniskill.step(IDLE)
    assert obs.shape == (B, 2) and rewards.tolist() == [0.0, 0.5, -1.0] and rewards.dtype == torch.float32
    assert terminated.dtype == truncated.dtype == torch.bool and terminated.shape == truncated.shape == (B,)
    assert info["final_obs"].equal(obs)  # no row ended: what they show is what came of the action
    assert maniskill.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert maniskill.observation_space.shape == (B, 2) and maniskill.action_space.shape == (B, 1)
    maniskill.close()
    assert maniskill.env.closed


def test_final_observations_where_there_are(maniskill):
    maniskill.reset(seed=0)
    maniskill.step(IDLE)
    obs, _, terminated, truncated, info = maniskill.step(actions(2.0, 0.0, 0.0))
    assert terminated.tolist() == [True, False, False] and not truncated.any()
    assert obs[:, 0].tolist() == [0, 2, 2] and info["final_obs"][:, 0].tolist() == [2, 2, 2]
    maniskill.step(IDLE)
    obs, _, terminated, truncated, info = maniskill.step(IDLE)
    assert truncated.tolist() == [False, True, True] and not terminated.any()
    assert obs[:, 0].tolist() == [2, 0, 0] and info["final_obs"][:, 0].tolist() == [2, 4, 4]


def test_no_final_observation_is_made_up(caplog):
    """The first observation of the next episode must not stand where the last one of this should."""
    tensor_vector_env._warn_of_no_final_obs.cache_clear()
    with caplog.at_level(logging.WARNING):
        envs = [TensorVectorEnv(IsaacLike()) for _ in range(2)]
    assert len(caplog.records) == 1 and "IsaacLike does not show what closed an episode" in caplog.text
    envs[0].reset(seed=0)
    for _ in range(LIMIT):
        obs, _, _, truncated, info = envs[0].step(IDLE)
        assert info == {}
    assert truncated.all() and obs.tolist() == [[0]] * B


def test_the_group_of_the_policy():
    """Others are for a critic: they hold what the policy is not to know."""
    env = TensorVectorEnv(IsaacLike())
    assert env.single_observation_space.shape == (1,) and env.reset()[0].shape == (B, 1)
    critic = TensorVectorEnv(IsaacLike(), group="critic")
    assert critic.reset()[0].shape == (B, 5) and critic.step(IDLE)[0].shape == (B, 5)
    both = TensorVectorEnv(IsaacLike(), group=None)
    assert both.reset()[0].keys() == both.single_observation_space.spaces.keys() == {"policy", "critic"}


def test_flags_are_not_written_over():
    env = TensorVectorEnv(IsaacLike())
    env.reset()
    terminated = env.step(actions(2.0, 0.0, 0.0))[2]
    env.step(IDLE)
    assert terminated.tolist() == [True, False, False]


@pytest.mark.parametrize("final_key", ["final_obs", None])
def test_a_wrong_key_is_refused(final_key):
    """Whichever way it is wrong: V of the next episode's beginning would be taken for V of the end, and nobody told."""
    env = TensorVectorEnv(ManiSkillLike(), final_key=final_key)
    env.reset()
    with pytest.raises(
        ValueError, match=r"ended an episode without info\['final_obs'\]|set final_key='final_observation'"
    ):
        for _ in range(LIMIT):
            env.step(IDLE)


@pytest.mark.parametrize(
    "change", [{"auto_reset": False}, {"metadata": {"autoreset_mode": AutoresetMode.NEXT_STEP}}], ids=str
)
def test_another_mode_is_refused(change):
    class Other(ManiSkillLike):
        def __init__(self):
            super().__init__()
            vars(self).update(change)

    with pytest.raises(ValueError, match=r"Other: it must reset ended rows within the step"):
        TensorVectorEnv(Other())


def test_rewards_of_another_shape_are_refused():
    class Column(ManiSkillLike):
        def step(self, actions):
            obs, rewards, *rest = super().step(actions)
            return obs, rewards[:, None], *rest

    env = TensorVectorEnv(Column(), final_key="final_observation")
    env.reset()
    with pytest.raises(ValueError, match=r"Column, rewards.shape=\(3, 1\): it must be \(3,\)"):
        env.step(IDLE)
