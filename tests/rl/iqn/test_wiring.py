"""Whole updates beside a slow float64 reference: every hyperparameter does what the equations say."""

from copy import deepcopy
from dataclasses import fields

import numpy as np
import pytest
import torch

from rl.flat_adam import flat_adam
from rl.iqn import IQN
from rl.normalisation import ReturnScale
from tests.rl.iqn.reference import SlowIQN

TOLERANCE = 2e-6  # of the largest weight
BASE = {
    "batch_size": 16,
    "bptt": 4,
    "burn_in": 2,
    "gamma": 0.9,
    "n_step": 3,
    "num_quantiles": 4,
    "num_target_quantiles": 5,
    "kappa": 0.7,
    "reward_scale": 0.8,
    "value_rescaling": True,
    "target_interval": 3,
    "target_share": 0.6,
    "priority_exponent": 1.0,
    "priority_correction": 0.3,
    "priority_peak": 0.8,
    "learning_rate": 0.01,
    "learning_rate_schedule": "linear",
    "learning_rate_final": 0.001,
    "learning_rate_warmup": 0.1,
    "max_grad_norm": 0.5,
}
OTHER = {
    "batch_size": 8,
    "bptt": 3,
    "burn_in": 0,
    "gamma": 0.8,
    "n_step": 1,
    "num_quantiles": 3,
    "num_target_quantiles": 3,
    "kappa": 0.2,
    "reward_scale": 1.2,
    "value_rescaling": False,
    "target_interval": 2,
    "target_share": 1.0,
    "priority_exponent": 0.0,
    "priority_correction": 0.0,
    "priority_peak": 0.1,
    "learning_rate": 0.02,
    "learning_rate_schedule": "cosine",
    "learning_rate_final": 0.009,
    "learning_rate_warmup": 0.6,
    "max_grad_norm": 100.0,
}
OF_THE_AGENT = {"capacity", "learning_starts", "replay_ratio", "graphs"}


@pytest.fixture
def make_scale():
    """A scale of returns that has seen some."""

    def make():
        scale = ReturnScale(3)
        scale.moments.var.fill_(2.25)
        return scale

    return make


@pytest.fixture
def learn_twice(make_parts, make_scale):
    """Two updates of a few minibatches, the second with the priorities of the first, by both; the slow one."""

    def learn(parts, progress=0.25):
        iqn, network, target, replay = parts
        slow, copy = SlowIQN(iqn, network, target), deepcopy(replay)
        optimizer, scale = flat_adam(network, iqn.learning_rate), make_scale()
        draws, twins = ([torch.Generator().manual_seed(seed) for seed in (3, 4)] for _ in range(2))
        for count_before in (5, 7):
            got = iqn.update(network, target, optimizer, replay, 2, count_before, *draws, progress, scale)
            expected, priorities = slow.update(copy, 2, count_before, *twins, progress, 2.25)
            assert got == pytest.approx(expected, rel=1e-4)
            copy.priorities[list(priorities)] = torch.tensor([*priorities.values()], dtype=torch.float64)
            np.testing.assert_allclose(replay.priorities, copy.priorities, rtol=1e-3)
        for mine, theirs in ((network, slow.network), (target, slow.target)):
            for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
                difference = (one.double() - other).abs().max()
                assert difference <= TOLERANCE * max(1.0, other.abs().max()), f"off by {difference:.1e}"
        return torch.nn.utils.parameters_to_vector(slow.parameters).detach()

    return learn


@pytest.mark.parametrize("name", OTHER)
def test_every_hyperparameter_changes_the_weights_as_the_equations_say(make_parts, learn_twice, name):
    options = {"masked": True, "network_options": {"dueling": True}}
    base = learn_twice(make_parts(**options, **BASE))
    changed = learn_twice(make_parts(**options, **{**BASE, name: OTHER[name]}))
    assert (base - changed).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("core", ["mlp", "lstm", "attention", "mamba"])
def test_memories_of_every_kind_are_replayed_as_the_equations_say(make_parts, learn_twice, core):
    """None, two leaves, a window with a counter, a scan; without masks and with values and advantages in one."""
    learn_twice(make_parts(core, **BASE))


def test_no_hyperparameter_is_left_out():
    names = {field.name for field in fields(IQN)}
    assert BASE.keys() == OTHER.keys() == names - OF_THE_AGENT
    assert all(BASE[name] != OTHER[name] for name in BASE)
