"""Recurrent PPO with every observation space, action space and core: it acts, learns and replays exactly."""

from itertools import product

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import SpaceProbe
from envs.single_env import SingleEnv
from rl import cores

OBSERVATIONS = ("box", "image", "image_last", "discrete", "dict", "tuple")
ACTIONS = ("discrete", "multi_discrete", "multi_binary", "box")
CASES = [  # every action with every core and with every observation
    (core, action, OBSERVATIONS[(row + column) % len(OBSERVATIONS)], bool((row + column // 2) % 2))
    for row, core in enumerate(cores.__all__)
    for column, action in enumerate(ACTIONS)
]


def test_the_cases_hold_every_pair():
    assert {(core, action) for core, action, _, _ in CASES} == set(product(cores.__all__, ACTIONS))
    assert {(observation, action) for _, action, observation, _ in CASES} == set(product(OBSERVATIONS, ACTIONS))
    for index in range(3):  # each of them with and without what is fed of the step before
        assert len({(case[index], case[3]) for case in CASES}) == 2 * len({case[index] for case in CASES})


@pytest.mark.parametrize(("core", "action", "observation", "previous"), CASES)
def test_every_space_and_every_core_acts_learns_and_replays_exactly(
    make_agent, train_batched, train_single, copy_weights, core, action, observation, previous
):
    envs = SpaceProbe(3, observation, action)
    batched = make_agent(envs, core=core, num_envs=3, epochs=1, previous_action_reward=previous)
    before = copy_weights(batched)
    (metrics,) = train_batched(batched, envs, 1)
    assert metrics["ratio_error"] <= 1e-5
    assert batched.env_steps == 8 * 3
    assert any(not torch.equal(value, before[name]) for name, value in copy_weights(batched).items())

    env = SingleEnv("envs.probes:SpaceProbe", observation=observation, action=action)
    single = make_agent(env, core=core, epochs=1, previous_action_reward=previous)
    (metrics,) = train_single(single, env, 1)
    assert metrics["ratio_error"] <= 1e-5
    assert single.env_steps == 8


@pytest.mark.parametrize("num_envs", [None, 2])
def test_spaces_with_a_start_are_offset_on_the_way_out_only(make_agent, num_envs):
    agent = make_agent((spaces.Discrete(3, start=-1), spaces.Discrete(2, start=5)), num_envs=num_envs)
    seen = set()
    for turn in range(8):
        seen |= set(np.atleast_1d(agent.act(np.full(agent.num_envs, turn % 3 - 1))).tolist())
        agent.observe(0.0, False)
    assert seen == {5, 6}
    assert set(agent.buffer.actions.flatten().tolist()) == {0, 1}
    agent.learn()
    assert agent.last_metrics["ratio_error"] <= 1e-5


def test_a_policy_under_a_mask_is_replayed_under_it(make_agent):
    """Two of three actions are allowed, so the entropy is that of two."""
    space = spaces.Dict({"numbers": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(3)})
    agent = make_agent((space, spaces.Discrete(3)), epochs=1)
    for turn in range(8):
        action = agent.act({"numbers": np.zeros(2), "action_mask": np.array([1, turn % 2, (turn + 1) % 2])})
        assert action in (0, 2 - turn % 2)
        agent.observe(float(action), False)
    agent.learn()
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert agent.last_metrics["entropy"] <= np.log(2) + 1e-6


def test_replay_is_exact_while_moments_move(make_agent, train_batched):
    envs = SpaceProbe(3, "dict")
    agent = make_agent(envs, num_envs=3, normalise_observations=True, normalise_returns=True, epochs=1)
    assert max(metrics["ratio_error"] for metrics in train_batched(agent, envs, 4)) <= 1e-5


def test_pictures_stay_bytes_in_the_rollout(make_agent, collect_steps):
    agent = make_agent(SpaceProbe(2, "image"), num_envs=2)
    agent.act(np.zeros((2, 3, 12, 12), dtype=np.uint8))
    assert agent.buffer.obs["obs"].dtype == torch.uint8
