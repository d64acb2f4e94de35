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


@pytest.fixture
def taught(make_agent, tmp_path):
    """An agent in two environments with a teacher whose memory has followed one rollout."""

    def make(**options):
        agent = make_agent((OBS, FOUR), num_envs=2, teacher_kl=0.1, **options)
        make_agent((OBS, FOUR), seed=1).save(tmp_path / "teacher.pt")
        agent.load_network(tmp_path / "teacher.pt")
        play(agent)
        agent.learn(np.zeros((2, 3), np.float32))
        return agent

    return make


def test_a_teacher_does_not_keep_what_is_not_finite(taught):
    agent = taught()
    before = agent.teacher.state["h"].clone()
    play(agent, 1)
    agent.buffer.obs["obs"][3, 1] = torch.nan
    with pytest.raises(FloatingPointError):
        agent.learn(np.zeros((2, 3), np.float32))
    assert torch.equal(agent.teacher.state["h"], before) and agent.rollout_size == 0
    play(agent, 2)
    agent.learn(np.zeros((2, 3), np.float32))
    assert agent.updates == 2


@pytest.mark.parametrize("refresh_states", [False, True])
def test_an_update_that_failed_by_code_of_the_user_can_be_made_again(taught, same_weights, monkeypatch, refresh_states):
    """As if it had not failed; where stored states are of weights that were undone there is nothing to learn from."""
    agent, other = taught(refresh_states=refresh_states), taught(refresh_states=refresh_states)
    loss, calls = agent.ppo.loss, []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 4:  # in the second epoch
            raise RuntimeError("a term of the user's own")
        return loss(*arguments)

    for one in (agent, other):
        play(one, 1)
    shuffle = agent.shuffle.get_state()
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="the user's own"):
        patched.setattr(agent.ppo, "loss", fail)
        agent.learn(np.zeros((2, 3), np.float32))
    assert agent.rollout_size == (0 if refresh_states else 16)
    if not refresh_states:
        agent.shuffle.set_state(shuffle)
        for one in (agent, other):
            one.learn(np.zeros((2, 3), np.float32))
        assert same_weights(agent, other) and torch.equal(agent.teacher.state["h"], other.teacher.state["h"])
