"""Frames that repeat are encoded once: the same features, values and gradients, from fewer rows."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.networks import ActorCritic
from rl.networks.distinct import MAX_BYTES, encode_distinct

IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)


class Encode:
    """A linear encoder that notes how many rows it saw."""

    def __init__(self, width):
        self.weight = torch.randn(width, 5, dtype=torch.float64, requires_grad=True)
        self.rows = []

    def __call__(self, obs):
        joined = torch.cat([leaf.reshape(len(leaf), -1).double() for leaf in obs.values()], dim=1)
        self.rows.append(len(joined))
        return joined @ self.weight


def repeated(*shape, kinds=3, rows=12, dtype=torch.uint8):
    """Make ``rows`` observations of at most ``kinds`` kinds, the first of each kind in the order of its number."""
    kind = torch.tensor([0, 1, 2, *np.random.default_rng(0).integers(0, kinds, rows - 3)])
    return torch.randint(0, 255, (kinds, *shape)).to(dtype)[kind], kind


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64, torch.bool])
def test_features_and_gradients(dtype):
    frames, _ = repeated(3, 4, dtype=dtype)
    encode = Encode(12)
    found, expected = encode_distinct(encode, {"obs": frames}), encode({"obs": frames})
    torch.testing.assert_close(found, expected)
    assert encode.rows == ([3, 12] if dtype != torch.bool else [len(frames.unique(dim=0)), 12])
    weights = torch.randn_like(expected)
    pairs = [torch.autograd.grad((features * weights).sum(), encode.weight)[0] for features in (found, expected)]
    torch.testing.assert_close(*pairs, rtol=1e-12, atol=1e-12)


def test_all_leaves_count():
    frames, kind = repeated(3, 4)
    encode = Encode(13)
    direction = torch.arange(12) % 2
    obs = {"image": frames, "direction": direction}
    torch.testing.assert_close(encode_distinct(encode, obs), encode(obs))
    assert encode.rows[0] == len(set(zip(kind.tolist(), direction.tolist(), strict=True)))


def test_where_little_repeats_all_are_encoded():
    frames = torch.arange(20, dtype=torch.uint8).view(10, 2)
    frames[1:3] = frames[0]  # 8 distinct ones of 10
    encode = Encode(2)
    torch.testing.assert_close(encode_distinct(encode, {"obs": frames}), encode({"obs": frames}))
    assert encode.rows == [10, 10]


def test_large_frames_are_not_looked_up():
    frames = torch.zeros(4, MAX_BYTES + 1, dtype=torch.uint8)
    large, small = Encode(MAX_BYTES + 1), Encode(MAX_BYTES)
    encode_distinct(large, {"obs": frames})
    encode_distinct(small, {"obs": frames[:, 1:]})  # not contiguous, for once
    assert (large.rows, small.rows) == ([4], [1])


@pytest.mark.parametrize("separate", [False, True])
def test_a_network_encodes_each_image_of_its_sequences_once(separate, monkeypatch):
    network = ActorCritic({"obs": IMAGE}, spaces.Discrete(3), partial(cores.gru, hidden_size=8), 16, separate)
    frames, _ = repeated(8, 8, 3, rows=20)
    obs, starts = {"obs": frames.view(5, 4, 8, 8, 3)}, torch.zeros(5, 4, dtype=torch.bool)
    state = network.initial_state(4)
    seen = []
    for trunk in (network.actor, *([network.critic] if separate else [])):
        trunk.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    params, values, _ = network.unroll(obs, state, starts)
    assert seen == [3] * (1 + separate)
    for t in range(5):
        wanted, value, state = network.step({"obs": obs["obs"][t]}, state, starts[t])
        torch.testing.assert_close(params[t], wanted)
        torch.testing.assert_close(values[t], value)


def test_numbers_are_encoded_as_they_come():
    network = ActorCritic({"obs": spaces.Box(-9, 9, (3,))}, spaces.Discrete(3), partial(cores.gru, hidden_size=8), 16)
    seen = []
    network.actor.encoder.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    network.unroll({"obs": torch.zeros(5, 4, 3)}, network.initial_state(4), torch.zeros(5, 4, dtype=torch.bool))
    assert seen == [(5, 4, 16)]


def test_a_gradient_that_is_asked_for_reaches_every_image():
    network = ActorCritic({"obs": IMAGE}, spaces.Discrete(3), partial(cores.gru, hidden_size=8), 16)
    frames = torch.ones(5, 4, 8, 8, 3, requires_grad=True)
    params, _, _ = network.unroll({"obs": frames}, network.initial_state(4), torch.zeros(5, 4, dtype=torch.bool))
    params.square().sum().backward()
    assert (frames.grad.flatten(2).abs().amax(-1) > 0).all()
