"""What an update leaves that fails, or that stops before its end."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

OBS, FOUR = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(4)


def play(agent, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(8):
        agent.act(random.uniform(-1, 1, (2, 3)).astype(np.float32))
        agent.observe(random.normal(size=2), random.random(2) < 0.2)


def test_an_update_that_fails_leaves_the_scales_as_they_were(make_agent, monkeypatch):
    agent = make_agent((OBS, FOUR), num_envs=2, normalise_returns=True, normalise_observations=True)
    play(agent)
    agent.learn(np.zeros((2, 3), np.float32))
    scales = agent.advantage_scale, agent.return_scale, agent.network
    before = [leaf.clone() for scale in scales for leaf in scale.buffers()]
    play(agent, 1)

    def fail(*_):
        raise RuntimeError("a term of the user's own")

    monkeypatch.setattr(agent.ppo, "loss", fail)
    with pytest.raises(RuntimeError, match="the user's own"):
        agent.learn(np.zeros((2, 3), np.float32))
    assert agent.advantage_scale.count == 1.0
    for leaf, was in zip((leaf for scale in scales for leaf in scale.buffers()), before, strict=True):
        assert torch.equal(leaf, was)


def test_an_adaptive_rate_stays_where_the_divergence_has_stopped_an_update(make_agent):
    """The first step is the only one: what would follow is skipped, and sets no rate."""
    options = {"learning_rate_schedule": "adaptive", "learning_rate": 1e-2, "desired_kl": 1e-9, "target_kl": 1e-7}
    agent = make_agent((OBS, FOUR), num_envs=2, num_minibatches=4, epochs=1, **options)
    play(agent)
    agent.learn(np.zeros((2, 3), np.float32))
    (vector,) = agent.optimizer.param_groups[0]["params"]
    assert agent.optimizer.state[vector]["step"] == 1
    assert agent.last_metrics["learning_rate"] == pytest.approx(1e-2)
    assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2)
