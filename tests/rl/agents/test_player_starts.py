"""Starts that are told in several ways at once, and what they clear."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import Player

OBSERVATIONS = np.random.default_rng(0).standard_normal((12, 3, 2)).astype(np.float32)  # [T, B, 2]


@pytest.fixture
def make(make_agent, randomise):
    def make(**options):
        agent = make_agent((spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)), **options)
        with torch.no_grad():
            for parameter in randomise(agent.network).parameters():
                parameter.mul_(4 if parameter.dim() > 1 else 0)
        return agent

    return make


@pytest.mark.parametrize("say", ["two resets", "a reset and starts"])
def test_rows_that_are_told_one_after_the_other_all_begin_anew(say, make):
    agent = make(core="lstm")
    player, other, kept = Player(agent), Player(agent), Player(agent)
    for t, obs in enumerate(OBSERVATIONS):
        starts = None
        if t == 6:
            other.reset([0, 2])
            player.reset(0)
            if say == "two resets":
                player.reset(2)
            else:
                starts = [False, False, True]
        assert player.act(obs, starts).tolist() == other.act(obs).tolist()
        assert t < 6 or all(torch.equal(leaf, other._state[name]) for name, leaf in player._state.items())
        kept.act(obs)
    assert any(not torch.equal(leaf[[0, 2]], kept._state[name][[0, 2]]) for name, leaf in player._state.items())


def test_a_start_clears_the_previous_action_as_well_as_the_reward(make):
    agent = make(previous_action_reward=True)
    player, state = Player(agent), Player(agent).initial_state(3)
    for obs in OBSERVATIONS:
        fresh = Player(agent).initial_state(3)
        _, expected = player.act(obs, fresh, np.ones(3, bool), rewards=np.full(3, 5.0))
        _, state = player.act(obs, state, np.ones(3, bool), rewards=np.full(3, 5.0))
        assert all(torch.equal(leaf, expected[name]) for name, leaf in state.items())
