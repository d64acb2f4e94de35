"""Noise that lasts: as wide as that of the policy at every step, correlated between steps, and anew in each episode."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.agents import DualHeadRecurrentPPO, RecurrentPPO, RecurrentPPOLSTM
from rl.agents.correlated_noise import CorrelatedNoise
from rl.networks.heads import make_head

BOX = spaces.Box(-1.0, 1.0, (2,))
B, T = 4, 16


def make(correlation, num_envs=B, seed=0, space=BOX):
    return CorrelatedNoise(make_head(space), correlation, num_envs, torch.Generator().manual_seed(seed))


def make_agent(device="cpu", **options):
    settings = {"num_envs": B, "num_steps": T, "bptt": 8, "layer_size": 8, "seed": 1, "num_minibatches": 2, **options}
    return RecurrentPPOLSTM(spaces.Box(-1.0, 1.0, (3,)), BOX, device=device, **settings)


def play(agent, steps, seed=0):
    """Let an agent act on random observations; return its actions ``[steps, B, 2]`` and those of episodes' ends."""
    rng, actions, ends = np.random.default_rng(seed), [], []
    for _ in range(steps):
        actions.append(agent.act(rng.uniform(-1, 1, (B, 3)).astype(np.float32)))
        ends.append(rng.random(B) < 0.2)
        agent.observe(rng.normal(size=B), ends[-1], np.zeros(B, bool))
        agent.learn()
    return np.stack(actions), np.stack(ends)


def test_two_steps_by_hand():
    noise, generator = make(0.6), torch.Generator().manual_seed(0)
    with torch.no_grad():
        noise.head.log_std.copy_(torch.tensor([0.5, 2.0]).log())
    first, second, third = (torch.empty(B, 2).normal_(generator=generator) for _ in range(3))
    starts = torch.ones(B, dtype=torch.bool)
    mean = torch.tensor([[1.0, -1.0]]).expand(B, 2)
    std = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(noise.sample(mean, starts), mean + std * first)
    lasting = 0.6 * first + 0.8 * second
    torch.testing.assert_close(noise.sample(mean, None), mean + std * lasting)
    starts = torch.tensor([False, True, False, True])
    expected = torch.where(starts[:, None], third, 0.6 * lasting + 0.8 * third)
    torch.testing.assert_close(noise.sample(mean, starts), mean + std * expected)


@torch.no_grad()
def test_every_step_is_standard_normal_and_correlated_with_the_last():
    noise = make(0.8, num_envs=20_000)
    zeros, starts = torch.zeros(20_000, 2), torch.ones(20_000, dtype=torch.bool)
    steps = torch.stack([noise.sample(zeros, starts if t == 0 else None) for t in range(6)])  # [6, B, 2]
    assert steps.mean((1, 2)).abs().max() < 0.03
    assert (steps.std((1, 2)) - 1).abs().max() < 0.02
    for lag in (1, 2, 5):
        assert torch.isclose((steps[0] * steps[lag]).mean(), torch.tensor(0.8**lag), atol=0.02)


def test_none_is_the_sampling_of_the_head():
    agent, plain = make_agent(noise_correlation=0.0), make_agent()
    np.testing.assert_array_equal(play(agent, T)[0], play(plain, T)[0])
    assert not agent.actor.noise.last.any()


def test_it_reaches_the_actor_in_training_and_no_other():
    agent = make_agent(noise_correlation=0.8)
    assert agent.actor.noise.correlation == 0.8
    assert agent.new_actor(3).noise.correlation == 0.0
    assert not np.array_equal(play(agent, T)[0], play(make_agent(), T)[0])


def test_the_ratio_before_the_update_is_one():
    agent = make_agent(noise_correlation=0.9, epochs=1, num_minibatches=1)
    play(agent, T)
    assert agent.last_metrics["ratio_error"] < 1e-6
    assert agent.last_metrics["approx_kl"] < 1e-6


def test_a_resumed_agent_goes_on_with_the_same_noise():
    whole, cut = make_agent(noise_correlation=0.8), make_agent(noise_correlation=0.8)
    play(whole, T)
    play(cut, T)
    again = make_agent(noise_correlation=0.8, seed=5)
    again.load_state_dict(cut.state_dict())
    assert again.actor.noise.last.any()
    np.testing.assert_array_equal(play(whole, T, 2)[0], play(again, T, 2)[0])


def test_a_state_that_was_collected_stays_as_it_is():
    agent = make_agent(noise_correlation=0.8)
    play(agent, T)
    noise = agent.state_dict()["memories"]["noise"]
    before = noise.clone()
    play(agent, 1)
    assert torch.equal(noise, before) and not torch.equal(noise, agent.actor.noise.last)


def test_a_run_without_it_goes_on_with_it():
    plain = make_agent()
    play(plain, T)
    agent = make_agent(noise_correlation=0.8)
    agent.load_state_dict(plain.state_dict())
    play(agent, T)


@pytest.mark.parametrize("correlation", [-0.1, 1.0, 1.5, float("nan")])
def test_range(correlation):
    with pytest.raises(ValueError, match=r"noise_correlation=.*: it must be at least 0 and below 1"):
        make_agent(noise_correlation=correlation)


def test_other_actions_are_refused():
    with pytest.raises(ValueError, match=r"noise_correlation=0.5: it is for actions that are numbers .* one of 3"):
        RecurrentPPOLSTM(spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(3), noise_correlation=0.5)
    with pytest.raises(ValueError, match=r"noise_correlation=0.5: .* 2 choices of 3, 2"):
        DualHeadRecurrentPPO(spaces.Box(-1.0, 1.0, (3,)), spaces.MultiDiscrete([3, 2]), noise_correlation=0.5)


def test_the_noise_of_an_agent_begins_anew_where_an_episode_does():
    """Row 1 terminated and row 2 was cut: the others go on with 0.6 of their last noise."""
    options = {"num_envs": 4, "num_steps": 8, "bptt": 4, "num_minibatches": 2, "layer_size": 8, "seed": 0}
    agent = RecurrentPPO(spaces.Box(-1.0, 1.0, (3,)), spaces.Box(-1.0, 1.0, (2,)), noise_correlation=0.6, **options)
    obs = np.zeros((4, 3), np.float32)
    agent.act(obs)
    agent.observe(np.zeros(4), np.array([0, 1, 0, 0], bool), np.array([0, 0, 1, 0], bool))
    before, generator = agent.actor.noise.last.clone(), torch.Generator()
    generator.set_state(agent.actor.generator.get_state())
    fresh = torch.empty(4, 2).normal_(generator=generator)
    agent.act(obs)
    anew = torch.tensor([[False], [True], [True], [False]])
    expected = torch.where(anew, fresh, 0.6 * before + math.sqrt(0.64) * fresh)
    torch.testing.assert_close(agent.actor.noise.last, expected)
