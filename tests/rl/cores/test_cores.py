import inspect
import itertools

import pytest
import torch
from torch import nn

from rl import cores
from rl.cores.lstm import stretch
from rl.cores.stack import Stack

T, B, D, H = 20, 3, 5, 6
RESIDUAL = {"attention", "mamba", "jamba"}
WITHOUT_DROPOUT = {"mlp"} | RESIDUAL
WITHOUT_MEMORY = {"mlp"}
WINDOWS = {"keys", "values"}  # leaves that hold the last steps one by one, and forget them one by one
CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-5)]
CONFIGURATIONS = [
    pytest.param(name, options, id=f"{name}-{'-'.join(f'{key}={value}' for key, value in options.items())}")
    for name in cores.__all__
    for options in ({"num_layers": 1}, {"num_layers": 2}, {"num_layers": 2, "dropout": 0.3}, {"num_layers": 3})
    if "dropout" not in options or name not in WITHOUT_DROPOUT
    if options["num_layers"] < 3 or name == "jamba"  # whose third layer attends
]
OTHER_SIZES = [
    pytest.param("attention", {"num_layers": 2, "window_size": 2, "num_heads": 1}, id="attention-smallest-window"),
    pytest.param("attention", {"num_layers": 2, "window_size": 6, "num_heads": 3}, id="attention-small-window"),
    pytest.param("mamba", {"num_layers": 2, "state_size": 1, "kernel_size": 2, "expand": 1}, id="mamba-small"),
    pytest.param("jamba", {"num_layers": 4, "attention_every": 2, "window_size": 7}, id="jamba-alternating"),
]
every_core = pytest.mark.parametrize(("name", "options"), CONFIGURATIONS + OTHER_SIZES)
every_memory = pytest.mark.parametrize(
    ("name", "options"), [p for p in CONFIGURATIONS if p.values[0] not in WITHOUT_MEMORY]
)


@pytest.fixture
def make_core(randomise):
    def make(name, options, dtype=torch.float64, device="cpu"):
        return randomise(getattr(cores, name)(D, hidden_size=H, **options)).to(device=device, dtype=dtype)

    return make


@pytest.fixture
def random_state(random_state):
    """As for all networks, but windows are full: in an empty one nothing could be seen."""

    def draw(core, *arguments):
        state = random_state(core, *arguments)
        if "age" in state:
            state["age"] = torch.full_like(state["age"], state["keys"].shape[2])
        return state

    return draw


@pytest.fixture
def make_inputs():
    """``x [T, B, D]`` that asks for gradients, and ``starts [T, B]`` on the CPU."""

    def make(probability=0.1, dtype=torch.float64, device="cpu"):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(T, B, D, generator=generator, dtype=dtype).to(device).requires_grad_()
        return x, torch.rand(T, B, generator=generator) < probability

    return make


def floats(state):
    return [leaf for leaf in state.values() if leaf.is_floating_point()]


def gradients(core, x, state, y, new):
    """Of a loss that weighs every output and every number of the last state differently."""
    generator = torch.Generator().manual_seed(2)
    loss = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)).sum()
        for part in (y, *floats(new))
    )
    return torch.autograd.grad(loss, [x, *floats(state), *core.parameters()])


# ------------------------------------------------------------------------------------------------ step equals unroll


@every_core
@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float64", "float32"])
def test_unroll_equals_step_in_value_state_and_gradient(
    name,
    options,
    probability,
    dtype,
    tolerance,
    device,
    make_core,
    make_inputs,
    random_state,
    step_by_step,
    assert_close,
):
    core = make_core(name, options, dtype, device)
    x, starts = make_inputs(probability, dtype, device)
    state = random_state(core, B, dtype, device)
    y, new = core.unroll(x, state, starts)
    y_steps, new_steps = step_by_step(core, x, state, starts)

    assert y.shape == (T, B, core.output_size)
    assert_close(y, y_steps, tolerance)
    assert new.keys() == new_steps.keys() == state.keys()
    for leaf in new:
        assert_close(new[leaf], new_steps[leaf], tolerance)
    found, expected = gradients(core, x, state, y, new), gradients(core, x, state, y_steps, new_steps)
    if name in RESIDUAL and dtype == torch.float32:
        tolerance *= 5  # normalisations divide: either way lies up to 3e-5 from the gradient in float64
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, tolerance)


@every_core
def test_many_sequences_are_unrolled_in_blocks_without_a_difference(
    name, options, make_core, make_inputs, random_state, step_by_step, assert_close, monkeypatch
):
    monkeypatch.setattr("rl.cores.stack.BLOCK", 2)  # 2 of 3, and 1
    core = make_core(name, options, torch.float64)
    x, starts = make_inputs(0.2, torch.float64)
    state = random_state(core, B, torch.float64)
    y, new = core.unroll(x, state, starts)
    y_steps, new_steps = step_by_step(core, x, state, starts)
    assert_close(y, y_steps, 1e-12)
    assert new.keys() == new_steps.keys()
    for leaf in new:
        assert_close(new[leaf], new_steps[leaf], 1e-12)
    found, expected = gradients(core, x, state, y, new), gradients(core, x, state, y_steps, new_steps)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 1e-12)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("name", sorted(CELLS))
def test_unroll_equals_a_masked_loop_over_torch_cells(
    name, num_layers, probability, make_core, make_inputs, random_state, assert_close
):
    core = make_core(name, {"num_layers": num_layers})
    x, starts = make_inputs(probability)
    state = random_state(core, B)
    state = {leaf: value.double().detach().requires_grad_() for leaf, value in state.items()}
    cells = [CELLS[name](layer.weight_ih.shape[1], H).double() for layer in core.layers]
    for cell, layer in zip(cells, core.layers, strict=True):
        cell.load_state_dict(dict(layer.named_parameters()))

    memories = [[state[leaf][:, index] for leaf in sorted(state, reverse=True)] for index in range(num_layers)]  # h, c
    outputs = []
    for step in range(T):
        below, alive = x[step], (~starts[step]).double().unsqueeze(1)
        for index, cell in enumerate(cells):
            memory = [leaf * alive for leaf in memories[index]]
            memories[index] = list(cell(below, tuple(memory))) if name == "lstm" else [cell(below, memory[0])]
            below = memories[index][0]
        outputs.append(below)
    expected = torch.stack(outputs)
    expected_state = {
        leaf: torch.stack([memory[place] for memory in memories], dim=1)
        for place, leaf in enumerate(sorted(state, reverse=True))
    }

    y, new = core.unroll(x, state, starts)
    assert_close(y, expected, 1e-10)
    for leaf in state:
        assert_close(new[leaf], expected_state[leaf], 1e-10)
    new, expected_state = ({leaf: part[leaf] for leaf in sorted(state)} for part in (new, expected_state))
    found = gradients(core, x, state, y, new)
    wanted = gradients(nn.ModuleList(cells), x, state, expected, expected_state)
    order = [own for own, _ in core.named_parameters()]
    cell_order = [own for own, _ in nn.ModuleList(cells).named_parameters()]
    assert [own.removeprefix("layers.") for own in order] == cell_order
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, 1e-10)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_mlp_is_tanh_of_linear_layers_at_every_step(num_layers, make_core, make_inputs, assert_close):
    core = make_core("mlp", {"num_layers": num_layers})
    x, starts = make_inputs()
    expected = x
    for layer in core.layers:
        expected = torch.tanh(expected @ layer.weight.t() + layer.bias)
    assert len(core.layers) == num_layers
    assert_close(core.unroll(x, {}, starts)[0], expected, 1e-12)


@every_core
def test_two_unrolls_with_the_state_carried_equal_one(
    name, options, make_core, make_inputs, random_state, assert_close
):
    core = make_core(name, options)
    x, starts = make_inputs()
    state = random_state(core, B, torch.float64)
    whole, last = core.unroll(x, state, starts)
    first, middle = core.unroll(x[:7], state, starts[:7])
    second, end = core.unroll(x[7:], middle, starts[7:])
    assert_close(torch.cat([first, second]), whole, 1e-12)
    for leaf in state:
        assert_close(end[leaf], last[leaf], 1e-12)
    pairs = zip(
        gradients(core, x, state, torch.cat([first, second]), end), gradients(core, x, state, whole, last), strict=True
    )
    for one, other in pairs:
        assert_close(one, other, 1e-10)


@every_core
def test_a_single_step_can_be_unrolled(name, options, make_core, make_inputs, random_state, assert_close):
    core = make_core(name, options)
    x, _ = make_inputs()
    state, starts = random_state(core, B, torch.float64), torch.tensor([[True, False, True]])
    y, new = core.unroll(x[:1], state, starts)
    expected, expected_state = core.step(x[0], state, starts[0])
    assert_close(y[0], expected, 1e-12)
    for leaf in new:
        assert_close(new[leaf], expected_state[leaf], 1e-12)


# ---------------------------------------------------------------------------------- plain forms of the parallel cores


def attend_plainly(layer, x):
    """One attention block on one episode ``x [L, H]``, one query and one head at a time."""
    query, key, value = layer.qkv(layer.norm(x)).split(x.shape[1], dim=-1)
    size, W = x.shape[1] // layer.num_heads, layer.window_size
    rows = []
    for t in range(len(x)):
        first, heads = max(0, t - W + 1), []
        for head in range(layer.num_heads):
            cut = slice(head * size, (head + 1) * size)
            scores = key[first : t + 1, cut] @ query[t, cut] / size**0.5
            scores = scores + layer.distance[head, W - len(scores) :]
            heads.append(scores.softmax(0) @ value[first : t + 1, cut])
        rows.append(torch.cat(heads))
    x = x + layer.attended(torch.stack(rows))
    return x + layer.down(nn.functional.gelu(layer.up(layer.mlp_norm(x))))


def select_plainly(layer, x):
    """One mamba block on one episode ``x [L, H]``, one step at a time."""
    (K, inner), N = layer.taps.shape, len(layer.log_decay)
    h, inputs, rows = x.new_zeros(N, inner), [x.new_zeros(inner)] * (K - 1), []
    for row in x:
        u, gate = layer.inputs(layer.norm(row)).view(2, inner)
        inputs.append(u)
        u = nn.functional.silu(sum(layer.taps[k] * inputs[k - K] for k in range(K)) + layer.taps_bias)
        rank, write, read = layer.select(u).split((layer.rank, N, N))
        dt = nn.functional.softplus(layer.step_size(rank))
        h = torch.stack([torch.exp(-dt * layer.log_decay[n].exp()) * h[n] + dt * write[n] * u for n in range(N)])
        y = (read @ h + layer.skip * u) * nn.functional.silu(gate)
        rows.append(row + layer.outputs(y))
    return torch.stack(rows)


@pytest.mark.parametrize(("name", "options"), [p for p in CONFIGURATIONS + OTHER_SIZES if p.values[0] in RESIDUAL])
def test_residual_cores_equal_their_plain_form_on_every_episode(name, options, make_core, make_inputs, assert_close):
    core = make_core(name, options)
    x, starts = make_inputs(0.1)
    state = {leaf: value.to(x) if value.is_floating_point() else value for leaf, value in core.initial_state(B).items()}
    y, _ = core.unroll(x, state, starts)
    assert 1 < starts[1:].sum() < 12  # several episodes, some of them long
    columns = []
    for row in range(B):
        bounds = sorted({0, T, *starts[:, row].nonzero().flatten().tolist()})
        episodes = []
        for begin, end in itertools.pairwise(bounds):
            stream = core.inputs(x[begin:end, row])
            for layer in core.layers:
                stream = (attend_plainly if "keys" in layer.leaves else select_plainly)(layer, stream)
            episodes.append(core.norm(stream))
        columns.append(torch.cat(episodes))
    expected = torch.stack(columns, dim=1)
    assert_close(y, expected, 1e-10)
    for one, other in zip(gradients(core, x, {}, y, {}), gradients(core, x, {}, expected, {}), strict=True):
        assert_close(one, other, 1e-10)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_mingru_equals_a_masked_loop(num_layers, make_core, make_inputs, random_state, assert_close):
    core = make_core("mingru", {"num_layers": num_layers})
    x, starts = make_inputs(0.2)
    state = random_state(core, B, torch.float64)
    y, new = core.unroll(x, state, starts)
    below, last = x, []
    for index, layer in enumerate(core.layers):
        h, rows = state["h"][:, index], []
        for t in range(T):
            gate, candidate = (below[t] @ layer.weight.t() + layer.bias).split(H, dim=-1)
            z, alive = torch.sigmoid(gate), (~starts[t]).double().unsqueeze(1)
            h = (1 - z) * alive * h + z * candidate
            rows.append(h)
        below = torch.stack(rows)
        last.append(h)
    assert_close(y, below, 1e-12)
    assert_close(new["h"], torch.stack(last, dim=1), 1e-12)
    expected = gradients(core, x, state, below, {"h": torch.stack(last, dim=1)})
    for one, other in zip(gradients(core, x, state, y, new), expected, strict=True):
        assert_close(one, other, 1e-12)


def test_attention_sees_its_window_and_nothing_else(make_core, make_inputs, random_state):
    core = make_core("attention", {"num_layers": 1, "window_size": 4})
    x, starts = make_inputs(0.0)
    state = random_state(core, B, torch.float64)
    y, _ = core.unroll(x, state, starts)
    for t in (0, 2, 3, 11, T - 1):
        weights = torch.randn(H, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        dx, keys, values = torch.autograd.grad((y[t] * weights).sum(), [x, *floats(state)], retain_graph=True)
        seen = set(range(t - 3, t + 1))
        assert set(dx[:, 0].any(-1).nonzero().flatten().tolist()) == {step for step in seen if step >= 0}
        for window in keys, values:
            slots = window[0, 0].any(-1).nonzero().flatten().tolist()
            assert {slot - 3 for slot in slots} == {step for step in seen if step < 0}


def test_attention_asks_only_for_as_many_keys_as_the_age_says(make_core, make_inputs, random_state):
    core = make_core("attention", {"num_layers": 1, "window_size": 8})
    x, starts = make_inputs(0.0)
    state = random_state(core, B, torch.float64)
    state["age"] = torch.tensor([[0], [2], [7]])
    for y in core.step(x[0], state, None)[0], core.unroll(x, state, starts)[0][0]:
        weights = torch.randn(H, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        (keys,) = torch.autograd.grad((y * weights).sum(), [state["keys"]], retain_graph=True)
        assert keys[:, 0].any(-1).sum(-1).tolist() == [0, 2, 7]
        assert keys[1, 0, -2:].any(-1).all()


# ------------------------------------------------------------------------------------------------------- long rollouts


@pytest.fixture
def make_long():
    """``x [128, B, D]`` and ``starts`` with a chance of 5 %."""

    def make(dtype):
        generator = torch.Generator().manual_seed(4)
        x = torch.randn(128, B, D, generator=generator, dtype=torch.float64).to(dtype)
        return x, torch.rand(128, B, generator=generator) < 0.05

    return make


@every_core
def test_long_sequences_in_float32_from_the_start_and_from_a_stored_state(
    name, options, make_core, make_long, step_by_step, assert_close
):
    core = make_core(name, options, torch.float32)
    x, starts = make_long(torch.float32)
    with torch.no_grad():
        expected, last = step_by_step(core, x, core.initial_state(B), starts)
        _, stored = step_by_step(core, x[:50], core.initial_state(B), starts[:50])
        whole = core.unroll(x, core.initial_state(B), starts)
        rest = core.unroll(x[50:], stored, starts[50:])
    assert_close(whole[0], expected, 1e-5)
    assert_close(rest[0], expected[50:], 1e-5)
    for leaf in last:
        assert_close(whole[1][leaf], last[leaf], 1e-5)
        assert_close(rest[1][leaf], last[leaf], 1e-5)


@every_core
def test_memories_beside_each_other_do_not_meet(name, options, make_core, make_inputs, random_state, assert_close):
    core = make_core(name, options)
    x, starts = make_inputs(0.1)
    state = random_state(core, B, torch.float64)
    y, new = core.unroll(x, state, starts)
    for row in range(B):
        one = slice(row, row + 1)
        alone, own = core.unroll(x[:, one], {leaf: value[one] for leaf, value in state.items()}, starts[:, one])
        assert_close(y[:, one], alone, 1e-12)
        for leaf in new:
            assert_close(new[leaf][one], own[leaf], 1e-12)


@pytest.mark.parametrize("stride", [1, 8])
@pytest.mark.parametrize("name", cores.__all__)
def test_a_rollout_is_replayed_exactly_from_stored_states(name, stride, make_network, collect):
    network = make_network(getattr(cores, name))
    buffer, targets = collect(network, 24, state_stride=stride)
    seen = 0
    for minibatch, _ in buffer.sequences(targets, 3, 8, torch.Generator().manual_seed(0)):
        params, values, _ = network.unroll(minibatch.obs, minibatch.state, minibatch.starts)
        log_probs, _ = network.head.evaluate(params, minibatch.actions)
        assert (log_probs - minibatch.old_log_probs).abs().max() < 1e-5
        assert (values - minibatch.old_values).abs().max() < 1e-5
        seen += values.numel()
    assert seen == 24 * 4


# -------------------------------------------------------------------------------------------- nothing crosses a start


@every_memory
@pytest.mark.parametrize("how", ["step", "unroll"])
@pytest.mark.parametrize("start", [0, 9])
def test_nothing_crosses_a_start(name, options, how, start, make_core, make_inputs, random_state, step_by_step):
    core = make_core(name, options)
    run = core.unroll if how == "unroll" else lambda *arguments: step_by_step(core, *arguments)
    x, starts = make_inputs(0.0)
    starts[start, 0] = True
    starts[4, 1] = starts[12, 1] = True  # other rows have starts of their own
    state = random_state(core, B, torch.float64)
    y, new = run(x, state, starts)

    with torch.no_grad():
        other_x = x.clone()
        other_x[:start, 0] += 1.0
        other_state = {
            leaf: torch.cat([value[:1] + 1.0, value[1:]]) if value.is_floating_point() else value
            for leaf, value in state.items()
        }
        other_y, other_new = run(other_x, other_state, starts)
    assert torch.equal(other_y[start:, 0], y[start:, 0])
    for leaf in new:
        assert torch.equal(other_new[leaf][0], new[leaf][0])
    assert start == 0 or not torch.equal(other_y[:start, 0], y[:start, 0])  # the perturbation was there


@every_memory
@pytest.mark.parametrize("how", ["step", "unroll"])
def test_no_gradient_crosses_a_start(name, options, how, make_core, make_inputs, random_state, step_by_step):
    core = make_core(name, options)
    run = core.unroll if how == "unroll" else lambda *arguments: step_by_step(core, *arguments)
    x, starts = make_inputs(0.0)
    starts[9, 0] = True
    state = random_state(core, B, torch.float64)
    y, _ = run(x, state, starts)
    dx, *d_state = torch.autograd.grad(y[9:].sum(), [x, *floats(state)])
    assert torch.count_nonzero(dx[:9, 0]) == 0
    assert all(torch.count_nonzero(leaf[0]) == 0 for leaf in d_state)
    names = [leaf for leaf, value in state.items() if value.is_floating_point()]
    # the window has moved on by 9 steps
    d_state = [leaf[:, :, 9:] if name in WINDOWS else leaf for name, leaf in zip(names, d_state, strict=True)]
    assert dx[9:, 0].abs().sum(-1).min() > 0  # it is there after the start,
    assert dx[:9, 1:].abs().sum(-1).min() > 0  # and before it in the rows that have none
    assert all(leaf[1:].abs().sum(-1).min() > 0 for leaf in d_state)


@every_memory
def test_without_a_start_the_state_and_early_inputs_matter(name, options, make_core, make_inputs, random_state):
    core = make_core(name, options)
    x, starts = make_inputs(0.0)
    state = random_state(core, B, torch.float64)
    y, _ = core.unroll(x, state, starts)
    windows, lasting = [], []
    for leaf, value in state.items():
        if value.is_floating_point():
            (windows if leaf in WINDOWS else lasting).append(value)
    # the first output alone sees all of a window
    for reached, output in ([x, *lasting], y[-1]), (windows, y[0]):
        gradients = torch.autograd.grad(output.sum(), reached, retain_graph=True) if reached else ()
        assert all(leaf.abs().min() > 0 for leaf in gradients)


def test_a_start_equals_a_fresh_state(make_core, make_inputs, random_state, assert_close):
    for name in cores.__all__:
        core = make_core(name, {"num_layers": 3})
        x, starts = make_inputs(0.0)
        starts[0] = True
        fresh = {
            leaf: value.double() if value.is_floating_point() else value
            for leaf, value in core.initial_state(B).items()
        }
        expected, _ = core.unroll(x, fresh, torch.zeros_like(starts))
        assert_close(core.unroll(x, random_state(core, B, torch.float64), starts)[0], expected, 1e-12)


# ------------------------------------------------------------------------------------------------------------- dropout


class Identity(nn.Module):
    """A layer that passes its input on, so that the output of a stack shows the masks themselves."""

    leaves = ("h",)

    def step(self, x, state):
        return (x,)

    def unroll(self, x, state, starts):
        return x, (x[-1],)


@pytest.fixture
def masks():
    """The product of the masks of ``num_layers - 1`` layers, ``[T, B, H]``: True where a unit was kept."""

    def draw(num_layers=2, steps=200, batch=4, width=64, dropout=0.25, training=True):
        stack = Stack([Identity() for _ in range(num_layers)], width, dropout).train(training)
        starts = torch.zeros(steps, batch, dtype=torch.bool)
        y, _ = stack.unroll(torch.ones(steps, batch, width), stack.initial_state(batch), starts)
        return y

    return draw


def test_dropout_drops_the_asked_share_and_scales_the_rest(masks):
    y = masks(dropout=0.25)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # 51200 units: the standard error of the share is sqrt(0.25 * 0.75 / 51200) = 0.0019
    assert abs((y == 0).float().mean().item() - 0.25) < 4 * 0.0019
    # and for each of the 64 units 800 draws: sqrt(0.25 * 0.75 / 800) = 0.0153
    assert ((y == 0).float().mean((0, 1)) - 0.25).abs().max() < 5 * 0.0153


def test_dropout_masks_differ_between_steps_memories_and_layers(masks):
    kept = (masks() > 0).flatten(0, 1)  # [800, 64]
    assert kept.unique(dim=0).shape[0] == 800
    # two layers of masks: a unit survives with probability 0.75 ** 2 = 0.5625, were they equal with 0.75;
    # standard error sqrt(0.5625 * 0.4375 / 51200) = 0.0022
    assert abs((masks(num_layers=3) > 0).float().mean().item() - 0.5625) < 4 * 0.0022


def test_dropout_masks_are_independent_of_those_of_neighbours(masks):
    centred = (masks() > 0).float() - 0.75
    variance = 0.75 * 0.25
    for one, other in (
        (centred[1:], centred[:-1]),  # the next step
        (centred[:, 1:], centred[:, :-1]),  # the next memory
        (centred[..., 1:], centred[..., :-1]),  # the next unit
        (centred[1:, ..., :-1], centred[:-1, ..., 1:]),  # the next step of the unit before
    ):
        correlation = (one * other).mean().item() / variance
        assert abs(correlation) < 4 / one.numel() ** 0.5


def test_dropout_masks_come_again_at_replay_and_go_on_over_starts(masks):
    stack = Stack([Identity(), Identity()], 16, 0.5)
    x, starts = torch.ones(8, 3, 16), torch.zeros(8, 3, dtype=torch.bool)
    state = stack.initial_state(3)
    y, _ = stack.unroll(x, state, starts)
    torch.manual_seed(5)  # no global generator is behind it
    assert torch.equal(stack.unroll(x, state, starts)[0], y)
    starts[4, 1] = True
    assert torch.equal(stack.unroll(x, state, starts)[0], y)
    assert not torch.equal(y[4, 1], y[0, 1])


def test_evaluation_drops_nothing_but_goes_on_counting(masks):
    assert torch.equal(masks(training=False), torch.ones(200, 4, 64))
    stack = Stack([Identity(), Identity()], 16, 0.5).eval()
    state = stack.initial_state(2)
    _, new = stack.step(torch.ones(2, 16), state, torch.zeros(2, dtype=torch.bool))
    assert torch.equal(new["dropout_count"], state["dropout_count"] + 1)


@pytest.mark.parametrize("name", sorted(set(cores.__all__) - WITHOUT_DROPOUT))
def test_dropout_changes_training_but_not_evaluation(name, make_core, make_inputs, random_state):
    core = make_core(name, {"num_layers": 2, "dropout": 0.3})
    plain = make_core(name, {"num_layers": 2})
    x, starts = make_inputs()
    state = random_state(core, B, torch.float64)
    expected = plain.unroll(x, {leaf: state[leaf] for leaf in state if leaf != "dropout_count"}, starts)[0]
    assert not torch.equal(core.unroll(x, state, starts)[0], expected)
    assert torch.equal(core.eval().unroll(x, state, starts)[0], expected)


# ----------------------------------------------------------------------------------------------------- shapes and sizes


@every_core
def test_initial_state_is_zero_and_batch_leading(name, options, make_core, device):
    core = make_core(name, options, torch.float32, device)
    state = core.initial_state(7, device)
    assert all(leaf.shape[0] == 7 and leaf.device.type == device.type for leaf in state.values())
    assert all(torch.count_nonzero(leaf) == 0 and leaf.dtype == torch.float32 for leaf in floats(state))


@pytest.mark.parametrize(
    ("name", "leaves"), [("mlp", []), ("rnn", ["h"]), ("gru", ["h"]), ("mingru", ["h"]), ("lstm", ["c", "h"])]
)
def test_leaves_of_the_state(name, leaves):
    state = getattr(cores, name)(D, hidden_size=H, num_layers=2).initial_state(7)
    assert sorted(state) == leaves
    assert all(leaf.shape == (7, 2, H) for leaf in state.values())


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("attention", {"keys": (7, 3, 31, 6), "values": (7, 3, 31, 6), "age": (7, 3)}),
        ("mamba", {"conv": (7, 3, 3, 12), "ssm": (7, 3, 16, 12)}),
        (
            "jamba",
            {"conv": (7, 2, 3, 12), "ssm": (7, 2, 16, 12)}
            | {"keys": (7, 1, 31, 6), "values": (7, 1, 31, 6), "age": (7, 1)},
        ),
    ],
)
def test_leaves_of_residual_cores(name, shapes):
    core = getattr(cores, name)(D, hidden_size=6, num_layers=3)
    state = core.initial_state(7)
    assert {leaf: value.shape for leaf, value in state.items()} == shapes
    _, new = core.step(torch.randn(7, D), state, None)
    assert {leaf: value.shape for leaf, value in new.items()} == shapes


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(("name", "module"), [("rnn", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_as_many_parameters_as_in_torch(name, module, num_layers):
    core, other = getattr(cores, name)(5, 7, num_layers), module(5, 7, num_layers)
    assert sum(p.numel() for p in core.parameters()) == sum(p.numel() for p in other.parameters())


@pytest.mark.parametrize(("name", "parameters"), [("rnn", 263_168), ("gru", 789_504), ("lstm", 1_052_672)])
def test_parameters_of_two_layers_of_256(name, parameters):
    # each gate of a layer: 256 * 256 + 256 * 256 weights and 2 * 256 biases = 131584; times 2 layers and 1, 3, 4 gates
    assert sum(p.numel() for p in getattr(cores, name)(256, 256, 2).parameters()) == parameters


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("name", "parameters"), [("attention", 884), ("mamba", 1872), ("jamba", 2290)])
def test_parameters_of_residual_cores(name, parameters):
    # D = 5, H = 6. Around the layers: D H + H = 36 of the linear map, 2 H = 12 of the last normalisation: 48.
    # Attention, window 32, 2 heads: 2 * 12 of two normalisations; 18 * 6 + 18 = 126 of queries, keys and values;
    # 2 * 32 = 64 distances; 6 * 6 + 6 = 42 of the output; 12 * 6 + 12 = 84 up and 6 * 12 + 6 = 78 down: 418 in a layer.
    # Mamba, I = 12, N = 16, K = 4, rank 1: 12 of the normalisation; 24 * 6 = 144 in; 4 * 12 + 12 = 60 of the
    # convolution; 12 * (1 + 2 * 16) = 396 that select; 12 * 1 + 12 = 24 of dt; 12 * 16 = 192 of A; 12 of D;
    # 6 * 12 = 72 out: 912 in a layer.
    # So 48 + 2 * 418 = 884; 48 + 2 * 912 = 1872; jamba has two layers of mamba and one of attention.
    assert count(getattr(cores, name)(5, hidden_size=6)) == parameters


def test_parameters_of_two_layers_of_mingru():
    # gate and candidate, H = 6: 2 * (6 * 5 + 6) = 72 on 5 features, 2 * (6 * 6 + 6) = 84 on 6
    assert count(cores.mingru(5, hidden_size=6, num_layers=2)) == 72 + 84


@pytest.mark.parametrize("options", [{}, {"gate_bias": -2.0}], ids=["default", "given"])
def test_bias_of_the_gate_of_mingru(options):
    for layer in cores.mingru(4, hidden_size=3, num_layers=2, **options).layers:
        assert layer.bias.view(2, 3).tolist() == [[options.get("gate_bias", 0.0)] * 3, [0.0] * 3]


def test_decay_and_step_sizes_of_a_fresh_mamba():
    layer = cores.mamba(4, hidden_size=8, num_layers=1, state_size=5).layers[0]
    assert torch.allclose(layer.log_decay.exp(), torch.arange(1.0, 6.0).unsqueeze(1).expand(5, 16))
    dt = nn.functional.softplus(layer.step_size.bias)
    assert torch.allclose(dt[[0, -1]], torch.tensor([1e-3, 1e-1]), rtol=1e-4)
    assert torch.allclose(dt[1:] / dt[:-1], torch.tensor(100.0 ** (1 / 15)), rtol=1e-3)


@pytest.mark.parametrize("name", sorted(RESIDUAL))
@pytest.mark.parametrize("value", [0, -1, 2.5])
def test_a_bad_size_of_a_layer_is_named(name, value):
    core = getattr(cores, name)
    for argument in set(inspect.signature(core).parameters) - {"input_size", "hidden_size", "num_layers", "dropout"}:
        with pytest.raises(ValueError, match=f"{argument}={value}"):
            core(4, hidden_size=4, **{argument: value})


@pytest.mark.parametrize("name", ["attention", "jamba"])
def test_what_a_window_needs(name):
    with pytest.raises(ValueError, match="num_heads=4 does not divide hidden_size=6"):
        getattr(cores, name)(4, hidden_size=6, num_heads=4)
    with pytest.raises(ValueError, match="window_size=1: it must be at least 2"):
        getattr(cores, name)(4, window_size=1)


@pytest.mark.parametrize("name", ["mamba", "jamba"])
def test_what_a_convolution_needs(name):
    with pytest.raises(ValueError, match="kernel_size=1: it must be at least 2"):
        getattr(cores, name)(4, kernel_size=1)


def test_layers_of_jamba():
    def kinds(**options):
        return "".join("a" if "keys" in layer.leaves else "m" for layer in cores.jamba(4, **options).layers)

    assert kinds() == "mma"
    assert kinds(num_layers=4, attention_every=2) == "mama"
    assert kinds(num_layers=2, attention_every=1) == "aa"
    assert kinds(num_layers=2) == "mm"


@pytest.mark.parametrize("name", sorted(set(cores.__all__) - RESIDUAL))
def test_weights_are_orthogonal_and_biases_zero(name):
    options = {"forget_bias": 0.0} if name == "lstm" else {}
    core = getattr(cores, name)(12, hidden_size=3, num_layers=1, **options)
    for parameter in core.parameters():
        if parameter.dim() == 1:
            assert torch.count_nonzero(parameter) == 0
        else:
            rows, columns = parameter.shape
            gram = parameter @ parameter.t() if rows <= columns else parameter.t() @ parameter
            assert torch.allclose(gram, torch.eye(min(rows, columns)), atol=1e-5)


@pytest.mark.parametrize(("options", "bias"), [({}, 1.0), ({"forget_bias": 0.5}, 0.5)], ids=["default", "given"])
def test_bias_of_the_forget_gate(options, bias):
    for layer in cores.lstm(4, hidden_size=3, num_layers=2, **options).layers:
        assert (layer.bias_ih + layer.bias_hh).view(4, 3).tolist() == [[0.0] * 3, [bias] * 3, [0.0] * 3, [0.0] * 3]


@pytest.mark.parametrize("name", cores.__all__)
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *itertools.product(("input_size", "hidden_size", "num_layers"), (0, -1, 2.5, True)),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("dropout", float("nan")),
    ],
)
def test_a_bad_argument_is_named(name, argument, value):
    arguments = {"input_size": 4, "hidden_size": 4, "num_layers": 2} | {argument: value}
    with pytest.raises(ValueError, match=f"{argument}={value}"):
        getattr(cores, name)(**arguments)


@pytest.mark.parametrize("name", cores.__all__)
def test_dropout_is_refused_where_it_would_do_nothing(name):
    with pytest.raises(ValueError, match=r"dropout=0\.5"):
        getattr(cores, name)(4, num_layers=1, dropout=0.5)


def test_every_core_is_exported_and_known_here():
    """A core that is added has to say here whether it has a memory, and what reference it is compared with."""
    assert set(cores.__all__) == set(CELLS) | {"mingru"} | RESIDUAL | WITHOUT_MEMORY


# ------------------------------------------------------------------------------------------------------------- stretch


def test_stretch_of_the_drawn_example():
    # row 0:  x0 x1 R  x2 x3   (a start before step 2; R reset, H hold)
    # row 1:  x0 x1 x2 x3 H
    starts = torch.zeros(4, 2, dtype=torch.bool)
    starts[2, 0] = True
    position, flags, length = stretch(starts)
    assert length == 5
    # x0 x1 x2 x3 lie in lines 0 1 3 4 of row 0, and in lines 0 1 2 3 of row 1; line m of row b is number 2 m + b
    assert position.view(4, 2).t().tolist() == [[0, 2, 6, 8], [1, 3, 5, 7]]
    hold, reset = flags.view(5, 2, 2).unbind(-1)  # [M, B] each
    assert hold.nonzero().tolist() == [[4, 1]]
    assert reset.nonzero().tolist() == [[2, 0]]


def test_stretch_without_starts_moves_nothing():
    position, flags, length = stretch(torch.zeros(3, 2, dtype=torch.bool))
    assert length == 3
    assert position.tolist() == list(range(6))
    assert not flags.any()


def test_stretch_with_starts_at_every_step():
    # one row: R x0 R x1
    position, flags, length = stretch(torch.ones(2, 1, dtype=torch.bool))
    assert (position.tolist(), length) == ([1, 3], 4)
    assert flags.tolist() == [[False, True], [False, False], [False, True], [False, False]]
