"""Which states of a rollout are stored, and how much it takes."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.t_maze import TMaze

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)


@pytest.mark.parametrize(
    ("core", "hidden_size", "options", "stride"),
    [
        ("attention", 64, {}, 4),
        ("attention", 64, {"burn_in": 2}, 2),
        ("attention", 64, {"state_stride": 1}, 1),
        ("attention", 64, {"num_envs": None}, 1),
        ("attention", 4, {}, 1),
        ("gru", 64, {}, 1),
    ],
)
def test_a_large_state_is_stored_as_seldom_as_can_be(core, hidden_size, options, stride, make_agent):
    agent = make_agent((OBS, FOUR), core=core, hidden_size=hidden_size, **{"num_envs": 2} | options)
    assert agent.state_stride == stride
    agent.act(np.zeros((agent.num_envs, 2))[() if agent.batched else 0])
    assert agent.buffer.stride == stride


def test_where_steps_are_ignored_every_state_is_stored(make_agent):
    """What is learned is what is learned with every state stored from the beginning."""

    def train(state_stride):
        agent = make_agent((OBS, FOUR), core="attention", hidden_size=64, num_envs=2, state_stride=state_stride)
        rng = np.random.default_rng(0)
        for step in range(3 * 9):  # a step more for each that is ignored
            agent.act(rng.normal(size=(2, 2)).astype(np.float32))
            agent.observe(rng.normal(size=2), rng.random(2) < 0.2, ignored=np.full(2, step % 9 == 5))
            agent.learn(rng.normal(size=(2, 2)).astype(np.float32))
        return agent

    sparse, every = train(None), train(1)
    assert (sparse.state_stride, sparse.buffer.stride, every.updates) == (4, 1, 3)
    for name, leaf in every.network.state_dict().items():
        torch.testing.assert_close(sparse.network.state_dict()[name], leaf, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [9, 12, 13])
def test_a_rollout_of_another_length_can_be_cut_at_any_step(steps, make_agent):
    """A client may go on beyond ``num_steps``; what is learned is what is learned with every state stored."""

    def train(state_stride):
        agent = make_agent((OBS, FOUR), core="attention", hidden_size=64, num_envs=2, state_stride=state_stride)
        rng = np.random.default_rng(0)
        for _ in range(steps):
            agent.act(rng.normal(size=(2, 2)).astype(np.float32))
            agent.observe(rng.normal(size=2), rng.random(2) < 0.2)
        agent.learn(rng.normal(size=(2, 2)).astype(np.float32))
        return agent

    sparse, every = train(None), train(1)
    assert (sparse.state_stride, sparse.updates) == (4, 1)
    for name, leaf in every.network.state_dict().items():
        torch.testing.assert_close(sparse.network.state_dict()[name], leaf, rtol=0, atol=1e-5)


def test_what_a_rollout_takes_is_told(make_agent):
    """Of 2 x 8 steps, 300 bytes each: state 256, params 16, observation, action 8 each, value, reward, flags 4 each."""
    agent = make_agent((OBS, FOUR), num_envs=2, hidden_size=64)
    assert agent.describe()[-1] == "rollout: 4.8 kB (state 'h' 4.1 kB, params 256 bytes, observation 'obs' 128 bytes)"
    assert agent.buffer is None


def test_environments_of_tensors_take_the_place_of_a_rollout_that_was_told(make_agent):
    """Its ten steps, the last of which cut all episodes, are no part of the four that follow."""
    envs = TMaze(num_envs=4, length=5, device="cpu")
    agent = make_agent(envs, num_envs=4, num_steps=4)
    obs, _ = envs.reset(seed=0)
    shown = obs.numpy()
    for step in range(10):
        agent.act(shown)
        agent.observe(np.zeros(4), False, np.full(4, step == 9), shown)
    agent.learn(agent.collect(envs, obs).obs)
    assert (agent.updates, agent.env_steps) == (1, 16)
