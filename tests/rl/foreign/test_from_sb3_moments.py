"""Moments of ``VecNormalize`` and a linear critic of sb3-contrib, by hand; its packages are not needed."""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

import rl
from rl.foreign import vec_normalize
from tests.rl.foreign.test_from_sb3 import (  # noqa: F401
    OBS,
    draw_play,
    draw_weights,
    entry,
    play,
    play_reference,
    write_zip,
)


@pytest.fixture
def write_moments(tmp_path, monkeypatch):
    """``write_moments(mean, var)``: the pickle of a ``VecNormalize`` that normalises observations."""

    def write(mean, var):
        made = {}
        for path in (vec_normalize.NORMALISER, vec_normalize.MOMENTS):
            module, _, name = path.rpartition(".")
            made[name] = type(name, (), {"__module__": module})
            parents = module.split(".")
            for count in range(1, len(parents)):
                monkeypatch.setitem(sys.modules, ".".join(parents[:count]), SimpleNamespace(__path__=[]))
            monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{name: made[name]}))
        moments, found = made["RunningMeanStd"](), made["VecNormalize"]()
        vars(moments).update(mean=np.array(mean), var=np.array(var), count=100.0)
        vars(found).update(clip_obs=10.0, clip_reward=10.0, epsilon=1e-8, norm_obs=True, norm_reward=False)
        vars(found).update(obs_rms=moments, gamma=0.99)
        (tmp_path / "moments.pkl").write_bytes(pickle.dumps(found))
        return tmp_path / "moments.pkl"

    return write


def test_moments_are_of_numbers_whose_bounds_begin_far_from_zero(write_zip, write_moments, assert_close):  # noqa: F811
    space, weights = spaces.Box(50.0, 90.0, (3,)), draw_weights(3, 4)
    mean, var = np.array([60.0, 70.0, 80.0]), np.array([25.0, 100.0, 4.0])
    agent = rl.from_sb3(write_zip(weights, obs_space=space), write_moments(mean, var))
    obs, starts = draw_play(space)
    seen = torch.from_numpy(np.clip((obs - mean) / np.sqrt(var + 1e-8), -10, 10)).float()
    logits, values = play_reference(weights, seen, starts)
    params, own_values, _ = play(agent, obs, starts)
    assert_close(params, logits, 1e-4)
    assert_close(own_values, values, 1e-4)


def test_a_linear_critic_becomes_part_of_the_first_layer_of_the_value(write_zip, assert_close):  # noqa: F811
    weights = {name: leaf for name, leaf in draw_weights(3, 4).items() if not name.startswith("lstm_critic")}
    weights |= {"critic.weight": 0.01 * torch.randn(5, 3), "critic.bias": torch.randn(5)}
    agent = rl.from_sb3(write_zip(weights))
    obs, starts = draw_play(OBS)
    y = torch.from_numpy(obs)
    for name, wrap in (("critic", lambda x: x), ("mlp_extractor.value_net.0", torch.tanh), ("value_net", lambda x: x)):
        y = wrap(y @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])
    assert_close(play(agent, obs, starts)[1], y.squeeze(-1), 1e-5)


def test_an_agent_with_a_linear_critic_is_trained_on(write_zip):  # noqa: F811
    weights = {name: leaf for name, leaf in draw_weights(3, 4).items() if not name.startswith("lstm_critic")}
    weights |= {"critic.weight": torch.randn(5, 3), "critic.bias": torch.randn(5)}
    agent = rl.from_sb3(write_zip(weights), num_envs=4, seed=0)
    agent.training, rng = True, np.random.default_rng(0)
    agent.updates = 10  # one that is diagnosed
    for _ in range(32):
        agent.act(rng.normal(size=(4, 3)).astype(np.float32))
        agent.observe(rng.normal(size=4), np.zeros(4, bool))
    assert agent.learn(rng.normal(size=(4, 3)).astype(np.float32)) != 0.0
