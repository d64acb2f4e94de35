"""Shared by the tests of cores: small cores of random weights, inputs, states, gradients of everything."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.func import functional_call

from rl import cores

T, B, D, H = 20, 3, 5, 6


@pytest.fixture
def make_core(randomise):
    """A core of H = 6 units on D = 5 features with random weights, by its name in ``rl.cores``."""

    def make(name, options, dtype=torch.float64, device="cpu"):
        return randomise(getattr(cores, name)(D, hidden_size=H, **options)).to(device=device, dtype=dtype)

    return make


@pytest.fixture
def random_state(random_state):
    """As for all networks, but of B = 3 memories, in float64, and windows are full: an empty one would show nothing."""

    def draw(core, dtype=torch.float64, device="cpu"):
        state = random_state(core, B, dtype, device)
        if "age" in state:
            state["age"] = torch.full_like(state["age"], state["keys"].shape[2])
        return state

    return draw


@pytest.fixture
def make_inputs():
    """``x [T, B, D]`` that asks for gradients, and ``starts [T, B]``; T = 20, B = 3, D = 5."""

    def make(probability, dtype=torch.float64, device="cpu"):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(T, B, D, generator=generator, dtype=dtype).to(device).requires_grad_()
        return x, (torch.rand(T, B, generator=generator) < probability).to(device)

    return make


@pytest.fixture
def float_leaves():
    """The leaves of a state that are no counters."""
    return lambda state: [leaf for leaf in state.values() if leaf.is_floating_point()]


@pytest.fixture
def gradients(float_leaves):
    """Of a loss that weighs every output and every number of the last state differently: for x, state, parameters."""

    def compute(core, x, state, y, new):
        generator = torch.Generator().manual_seed(2)
        loss = sum(
            (part * torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)).sum()
            for part in (y, *(new[name] for name in state if new[name].is_floating_point()))
        )
        return torch.autograd.grad(loss, [x, *float_leaves(state), *core.parameters()])

    return compute


@pytest.fixture
def assert_equivalent(assert_close, gradients):
    """Two pairs of outputs and last state, computed from one core, x and state, agree; so do all their gradients."""

    def check(core, x, state, found, expected, tolerance, gradient_tolerance=None):
        assert_close(found[0], expected[0], tolerance)
        assert found[1].keys() == expected[1].keys() == state.keys()
        for leaf in state:
            assert_close(found[1][leaf], expected[1][leaf], tolerance)
        pairs = zip(gradients(core, x, state, *found), gradients(core, x, state, *expected), strict=True)
        for one, other in pairs:
            assert_close(one, other, gradient_tolerance or tolerance)

    return check


@pytest.fixture
def assert_equals_cells(make_core, make_inputs, random_state, assert_equivalent):
    """A core equals a masked loop over a cell of ``torch.nn``, which takes the parameters of the core by their names.

    ``leaves`` names the state in the order in which the cell takes and returns it.
    """

    def check(name, cell_class, leaves, num_layers, probability):
        core = make_core(name, {"num_layers": num_layers})
        x, starts = make_inputs(probability)
        state = random_state(core)
        memories = [tuple(state[leaf][:, index] for leaf in leaves) for index in range(num_layers)]
        outputs = []
        for inputs, opens in zip(x, starts, strict=True):
            below, alive = inputs, (~opens).double().unsqueeze(1)
            for index, layer in enumerate(core.layers):
                cell = cell_class(below.shape[1], H, dtype=torch.float64)
                memory = tuple(leaf * alive for leaf in memories[index])
                arguments = below, memory if len(leaves) > 1 else memory[0]
                new = functional_call(cell, dict(layer.named_parameters()), arguments, strict=True)
                memories[index] = new if len(leaves) > 1 else (new,)
                below = memories[index][0]
            outputs.append(below)
        last = {leaf: torch.stack([memory[i] for memory in memories], dim=1) for i, leaf in enumerate(leaves)}
        found = core.unroll(x, state, starts)
        assert_equivalent(core, x, state, found, (torch.stack(outputs), last), 1e-10)

    return check


@pytest.fixture
def assert_fresh_weights():
    """In a fresh core the matrix of each gate is orthogonal and biases are 0."""

    def check(core):
        for parameter in core.parameters():
            if parameter.dim() == 1:
                assert torch.count_nonzero(parameter) == 0
                continue
            for matrix in parameter.split(core.output_size):
                rows, columns = matrix.shape
                gram = matrix @ matrix.t() if rows <= columns else matrix.t() @ matrix
                assert torch.allclose(gram, torch.eye(min(rows, columns)), atol=1e-5)

    return check


@pytest.fixture
def count_parameters():
    return lambda module: sum(parameter.numel() for parameter in module.parameters())


# ---------------------------------------------------------------------------------- plain forms of the residual layers


def attend_plainly(layer, x):
    """One attention layer on one episode ``x [L, H]``, one query and one head at a time."""
    query, key, value = layer.qkv(layer.norm(x)).split(x.shape[1], dim=-1)
    size, W = x.shape[1] // layer.num_heads, layer.window_size
    outputs = []
    for t in range(len(x)):
        first, heads = max(0, t - W + 1), []
        for head in range(layer.num_heads):
            columns = slice(head * size, (head + 1) * size)
            scores = key[first : t + 1, columns] @ query[t, columns] / size**0.5
            scores = scores + layer.distance[head, W - len(scores) :]
            heads.append(scores.softmax(0) @ value[first : t + 1, columns])
        outputs.append(torch.cat(heads))
    x = x + layer.attended(torch.stack(outputs))
    return x + layer.down(nn.functional.gelu(layer.up(layer.mlp_norm(x))))


def select_plainly(layer, x):
    """One mamba layer on one episode ``x [L, H]``, one step at a time."""
    (K, inner), N = layer.taps.shape, len(layer.log_decay)
    h, inputs, outputs = x.new_zeros(N, inner), [x.new_zeros(inner)] * (K - 1), []
    for step in x:
        u, gate = layer.inputs(layer.norm(step)).view(2, inner)
        inputs.append(u)
        u = nn.functional.silu(sum(layer.taps[k] * inputs[k - K] for k in range(K)) + layer.taps_bias)
        rank, write, read = layer.select(u).split((layer.rank, N, N))
        dt = nn.functional.softplus(layer.step_size(rank))
        h = torch.stack([torch.exp(-dt * layer.log_decay[n].exp()) * h[n] + dt * write[n] * u for n in range(N)])
        y = (read @ h + layer.skip * u) * nn.functional.silu(gate)
        outputs.append(step + layer.outputs(y))
    return torch.stack(outputs)


@pytest.fixture
def assert_equals_plain_form(make_core, make_inputs, assert_equivalent):
    """A residual core from fresh states equals a plain loop over every episode."""

    def check(name, options):
        core = make_core(name, options)
        x, starts = make_inputs(0.1)
        assert 1 < starts[1:].sum() < 12  # several episodes, some of them long
        y, _ = core.unroll(x, _as_double(core.initial_state(B)), starts)
        columns = []
        for row in range(B):
            bounds = sorted({0, T, *starts[:, row].nonzero().flatten().tolist()})
            episodes = []
            for begin, end in pairwise(bounds):
                stream = core.inputs(x[begin:end, row])
                for layer in core.layers:
                    stream = (attend_plainly if "keys" in layer.leaves else select_plainly)(layer, stream)
                episodes.append(core.norm(stream))
            columns.append(torch.cat(episodes))
        assert_equivalent(core, x, {}, (y, {}), (torch.stack(columns, dim=1), {}), 1e-10)

    return check


def _as_double(state):
    return {name: leaf.double() if leaf.is_floating_point() else leaf for name, leaf in state.items()}
