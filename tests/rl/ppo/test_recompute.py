"""Activations that are computed again: the same values and gradients, from less memory."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import RecurrentPPO
from rl.networks import ActorCritic
from rl.ppo.recompute import replay_in_parts
from rl.types import Sequences

L, N = 6, 5
CORES = {name: getattr(cores, name) for name in cores.__all__}


def make_network(core, recall_length=None, **options):
    memory = partial(core, hidden_size=8, **options)
    leaves = {"obs": spaces.Box(-1, 1, (3,))}
    return ActorCritic(leaves, spaces.Discrete(4), memory, 16, recall_length=recall_length)


def make_minibatch(network):
    state = {
        name: torch.randn_like(leaf) if leaf.is_floating_point() else leaf
        for name, leaf in network.initial_state(N).items()
    }
    nothing = torch.zeros(L, N)
    obs, starts = {"obs": torch.rand(L, N, 3)}, torch.rand(L, N) < 0.2
    return Sequences(obs, state, starts, nothing.long(), nothing, nothing, nothing, nothing)


def gradients(network, mb, parts):
    params, values, *errors = replay_in_parts(network, mb, parts)
    loss = sum(error.square().sum() for error in errors)
    loss += (params * torch.linspace(0, 1, params.numel()).view_as(params)).sum() + values.square().sum()
    return params, values, torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)


@pytest.mark.parametrize("parts", [2, 3, 5, 9])
@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_values_and_gradients_are_those_of_one_piece(core, parts):
    torch.manual_seed(parts)
    network = make_network(core)
    mb = make_minibatch(network)
    (params, values, found), (wanted_params, wanted_values, expected) = (gradients(network, mb, n) for n in (parts, 1))
    torch.testing.assert_close(params, wanted_params, rtol=0, atol=1e-6)
    torch.testing.assert_close(values, wanted_values, rtol=0, atol=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_recalled_is_that_of_one_piece():
    torch.manual_seed(0)
    network = make_network(cores.gru, recall_length=L)
    mb = make_minibatch(network)
    assert len(replay_in_parts(network, mb, 3)) == 3
    for one, other in zip(gradients(network, mb, 3)[2], gradients(network, mb, 1)[2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_dropout_drops_the_same_units_again():
    torch.manual_seed(0)
    network = make_network(cores.gru, num_layers=2, dropout=0.5).train()
    mb = make_minibatch(network)
    for one, other in zip(gradients(network, mb, 3)[2], gradients(network, mb, 1)[2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def held_bytes(network, mb, parts):
    """Count the bytes that a forward pass holds for the backward pass, each tensor once."""
    held = {}
    weights = {leaf.data_ptr() for leaf in network.parameters()}

    def pack(leaf):
        held[leaf.data_ptr()] = leaf.untyped_storage().nbytes()
        return leaf

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda leaf: leaf):
        outputs = replay_in_parts(network, mb, parts)
    given = {leaf.data_ptr() for leaf in (*mb.obs.values(), *mb.state.values(), mb.starts)}
    assert outputs
    return sum(size for pointer, size in held.items() if pointer not in weights | given)


@pytest.mark.parametrize("core", CORES.values(), ids=CORES)
def test_less_is_held(core):
    network = make_network(core)
    mb = make_minibatch(network)
    assert held_bytes(network, mb, N) < 0.05 * held_bytes(network, mb, 1)


def test_nothing_is_cut_without_gradients(monkeypatch):
    network = make_network(cores.gru)
    seen = []
    replay = network.replay
    monkeypatch.setattr(network, "replay", lambda *given: seen.append(given[2].shape) or replay(*given))
    mb = make_minibatch(network)
    with torch.no_grad():
        replay_in_parts(network, mb, 5)
    replay_in_parts(network, mb, 5)
    assert seen == [(L, N), *[(L, 1)] * N]


@pytest.mark.parametrize("parts", [0, -1, 1.5, True])
def test_parts_are_counted(parts):
    with pytest.raises(ValueError, match="recompute_parts"):
        RecurrentPPO(spaces.Box(-1, 1, (3,)), spaces.Discrete(4), recompute_parts=parts)


def test_an_agent_learns_the_same():
    def train(parts):
        agent = RecurrentPPO(
            spaces.Box(-1, 1, (3,)),
            spaces.Discrete(4),
            num_envs=4,
            num_steps=16,
            bptt=8,
            num_minibatches=2,
            seed=0,
            recompute_parts=parts,
        )
        rng = np.random.default_rng(0)
        for _ in range(32):
            agent.act(rng.uniform(-1, 1, (4, 3)).astype(np.float32))
            agent.observe(rng.normal(size=4), rng.random(4) < 0.1, np.zeros(4, bool))
            agent.learn()
        assert agent.updates == 2
        return agent.network.state_dict()

    one, other = train(1), train(3)
    for name, leaf in one.items():
        torch.testing.assert_close(other[name], leaf, rtol=0, atol=2e-5, msg=name)
