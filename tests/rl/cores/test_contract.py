"""What ``rl.types.Core`` promises, for every core."""

import pytest
import torch

from rl import cores

T, B, D, H = 20, 3, 5, 6  # of the fixtures
RESIDUAL = {"attention", "mamba", "jamba"}
WITHOUT_DROPOUT = {"mlp"} | RESIDUAL
WITHOUT_MEMORY = {"mlp"}
WINDOWS = {"keys", "values"}  # leaves that hold the last steps one by one, and forget them one by one
CONFIGURATIONS = [
    pytest.param(name, options, id=f"{name}-{'-'.join(f'{key}={value}' for key, value in options.items())}")
    for name in cores.__all__
    if name not in RESIDUAL
    for options in ({"num_layers": 1}, {"num_layers": 2} | ({} if name in WITHOUT_DROPOUT else {"dropout": 0.3}))
] + [
    pytest.param("attention", {"num_layers": 1}, id="attention-window-longer-than-the-sequence"),
    pytest.param("attention", {"num_layers": 2, "window_size": 2, "num_heads": 1}, id="attention-smallest-window"),
    pytest.param("attention", {"num_layers": 2, "window_size": 6, "num_heads": 3}, id="attention-small-window"),
    pytest.param("mamba", {"num_layers": 1}, id="mamba"),
    pytest.param("mamba", {"num_layers": 2, "state_size": 1, "kernel_size": 2, "expand": 1}, id="mamba-small"),
    pytest.param("jamba", {"num_layers": 3}, id="jamba"),
    pytest.param("jamba", {"num_layers": 4, "attention_every": 2, "window_size": 7}, id="jamba-alternating"),
]
every_configuration = pytest.mark.parametrize(("name", "options"), CONFIGURATIONS)
MEMORIES = [case for case in CONFIGURATIONS if case.values[0] not in WITHOUT_MEMORY]
every_memory = pytest.mark.parametrize(("name", "options"), MEMORIES)
every_long_memory = pytest.mark.parametrize(
    ("name", "options"), [case for case in MEMORIES if "window_size" not in case.values[1]]
)
every_core = pytest.mark.parametrize("name", cores.__all__)


def test_every_core_is_exported_and_known_here():
    """A core that is added has to say here whether it has a memory and dropout; its own file has its reference."""
    assert set(cores.__all__) == {"rnn", "gru", "lstm", "mingru"} | RESIDUAL | WITHOUT_MEMORY


# ------------------------------------------------------------------------------------------------ step equals unroll


@every_configuration
@pytest.mark.parametrize(
    ("probability", "dtype", "tolerance"),
    [(0.0, torch.float64, 1e-10), (0.3, torch.float64, 1e-10), (0.3, torch.float32, 1e-5)],
    ids=["no-starts", "starts", "starts-float32"],
)
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
    assert_equivalent,
):
    core = make_core(name, options, dtype, device)
    x, starts = make_inputs(probability, dtype, device)
    state = random_state(core, dtype, device)
    found = core.unroll(x, state, starts)
    assert found[0].shape == (T, B, core.output_size)
    # normalisations divide: in float32 either way lies up to 3e-5 from the gradient in float64
    loose = 5 if name in RESIDUAL and dtype == torch.float32 else 1
    expected = step_by_step(core, x, state, starts)
    assert_equivalent(core, x, state, found, expected, tolerance, loose * tolerance)


@every_configuration
def test_unrolls_with_the_state_carried_equal_one(
    name, options, make_core, make_inputs, random_state, assert_equivalent
):
    core = make_core(name, options)
    x, starts = make_inputs(0.1)
    starts[0, 0] = True
    state = random_state(core)
    outputs, carried = [], state
    for begin, end in (0, 1), (1, 7), (7, T):
        y, carried = core.unroll(x[begin:end], carried, starts[begin:end])
        outputs.append(y)
    whole = core.unroll(x, state, starts)
    assert_equivalent(core, x, state, (torch.cat(outputs), carried), whole, 1e-12, 1e-10)


@every_configuration
def test_long_sequences_in_float32_from_the_start_and_from_a_stored_state(
    name, options, make_core, step_by_step, assert_close
):
    core = make_core(name, options, torch.float32)
    generator = torch.Generator().manual_seed(4)
    x, starts = torch.randn(128, B, D, generator=generator), torch.rand(128, B, generator=generator) < 0.05
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


@every_configuration
def test_memories_beside_each_other_do_not_meet(name, options, make_core, make_inputs, random_state, assert_close):
    core = make_core(name, options)
    x, starts = make_inputs(0.1)
    state = random_state(core)
    y, new = core.unroll(x, state, starts)
    for row in range(B):
        one = slice(row, row + 1)
        alone, own = core.unroll(x[:, one], {leaf: value[one] for leaf, value in state.items()}, starts[:, one])
        assert_close(y[:, one], alone, 1e-12)
        for leaf in new:
            assert_close(new[leaf][one], own[leaf], 1e-12)


@every_core
def test_a_rollout_is_replayed_exactly_from_stored_states(name, make_network, collect):
    network = make_network(getattr(cores, name))
    buffer, targets = collect(network, 24, state_stride=8)
    seen = 0
    for minibatch, _ in buffer.sequences(targets, 3, 8, torch.Generator().manual_seed(0)):
        params, values, _ = network.unroll(minibatch.obs, minibatch.state, minibatch.starts)
        log_probs, _ = network.head.evaluate(params, minibatch.actions)
        assert (log_probs - minibatch.old_log_probs).abs().max() < 1e-5
        assert (values - minibatch.old_values).abs().max() < 1e-5
        seen += values.numel()
    assert seen == 24 * 4


# -------------------------------------------------------------------------------------------- nothing crosses a start


@pytest.fixture(params=["step", "unroll"])
def run(request, step_by_step):
    """Both ways to run a sequence through a core."""

    def run_core(core, x, state, starts):
        return core.unroll(x, state, starts) if request.param == "unroll" else step_by_step(core, x, state, starts)

    return run_core


@every_memory
def test_nothing_crosses_a_start(name, options, run, make_core, make_inputs, random_state):
    core = make_core(name, options)
    x, starts = make_inputs(0.0)
    first_starts = 9, 4, 0
    for row, first in enumerate(first_starts):
        starts[first, row] = True
    starts[12, 1] = True  # the memory in the middle has two
    state = random_state(core)
    y, new = run(core, x, state, starts)

    with torch.no_grad():
        other_x = x.clone()
        for row, first in enumerate(first_starts):
            other_x[:first, row] += 1.0
        other_state = {leaf: value + 1.0 if value.is_floating_point() else value for leaf, value in state.items()}
        other_y, other_new = run(core, other_x, other_state, starts)
    for row, first in enumerate(first_starts):
        assert torch.equal(other_y[first:, row], y[first:, row])
        assert first == 0 or not torch.equal(other_y[:first, row], y[:first, row])  # the perturbation was there
    for leaf in new:
        assert torch.equal(other_new[leaf], new[leaf])


@every_long_memory
def test_no_gradient_crosses_a_start(name, options, run, make_core, make_inputs, random_state, float_leaves):
    core = make_core(name, options)
    x, starts = make_inputs(0.0)
    starts[9, 0] = True
    state = random_state(core)
    y, _ = run(core, x, state, starts)
    dx, *d_state = torch.autograd.grad(y[9:].sum(), [x, *float_leaves(state)])
    assert torch.count_nonzero(dx[:9, 0]) == 0
    assert all(torch.count_nonzero(leaf[0]) == 0 for leaf in d_state)
    names = [leaf for leaf, value in state.items() if value.is_floating_point()]
    # the window has moved on by 9 steps
    d_state = [leaf[:, :, 9:] if name in WINDOWS else leaf for name, leaf in zip(names, d_state, strict=True)]
    assert dx[9:, 0].abs().sum(-1).min() > 0  # it is there after the start,
    assert dx[:9, 1:].abs().sum(-1).min() > 0  # and before it in the memories that have none
    assert all(leaf[1:].abs().sum(-1).min() > 0 for leaf in d_state)


@every_long_memory
def test_without_a_start_the_state_and_early_inputs_matter(name, options, make_core, make_inputs, random_state):
    core = make_core(name, options)
    x, starts = make_inputs(0.0)
    state = random_state(core)
    y, _ = core.unroll(x, state, starts)
    windows, lasting = [], []
    for leaf, value in state.items():
        if value.is_floating_point():
            (windows if leaf in WINDOWS else lasting).append(value)
    # the first output alone sees all of a window
    for reached, output in ([x, *lasting], y[-1]), (windows, y[0]):
        gradients = torch.autograd.grad(output.sum(), reached, retain_graph=True) if reached else ()
        assert all(leaf.abs().min() > 0 for leaf in gradients)


@every_core
def test_a_start_equals_a_fresh_state_and_none_equals_no_start(
    name, make_core, make_inputs, random_state, assert_close
):
    core = make_core(name, {"num_layers": 3})
    x, none = make_inputs(0.0)
    starts = none.clone()
    starts[0] = True
    fresh = {
        leaf: value.double() if value.is_floating_point() else value for leaf, value in core.initial_state(B).items()
    }
    expected, _ = core.unroll(x, fresh, none)
    state = random_state(core)
    assert_close(core.unroll(x, state, starts)[0], expected, 1e-12)
    assert torch.equal(core.step(x[0], state, starts[0])[0], core.step(x[0], fresh, None)[0])
    assert torch.equal(core.step(x[0], state, none[0])[0], core.step(x[0], state, None)[0])


# ---------------------------------------------------------------------------------------------------- state and options


@every_core
def test_initial_state_is_zero_and_batch_leading(name, make_core, device, float_leaves):
    state = make_core(name, {"num_layers": 3}, torch.float32, device).initial_state(7, device)
    assert bool(state) == (name not in WITHOUT_MEMORY)
    assert all(leaf.shape[0] == 7 and leaf.device.type == device.type for leaf in state.values())
    assert all(torch.count_nonzero(leaf) == 0 and leaf.dtype == torch.float32 for leaf in float_leaves(state))


@every_core
def test_a_bad_argument_is_named(name):
    for argument, value in (
        ("input_size", 0),
        ("hidden_size", -1),
        ("num_layers", -1 if name in WITHOUT_MEMORY else 0),  # none of mlp hands the input on
        ("num_layers", 2.5),
        ("dropout", -0.1),
        ("dropout", 1.0),
        ("dropout", float("nan")),
    ):
        arguments = {"input_size": 4, "hidden_size": 4, "num_layers": 2} | {argument: value}
        with pytest.raises(ValueError, match=f"{argument}={value}: it must be"):
            getattr(cores, name)(**arguments)


@every_core
def test_dropout_is_refused_where_it_would_do_nothing(name):
    reason = "no dropout" if name in WITHOUT_DROPOUT else "num_layers=1"
    with pytest.raises(ValueError, match=rf"dropout=0\.5: it must be 0.*{reason}"):
        getattr(cores, name)(4, num_layers=1, dropout=0.5)


@every_core
def test_sizes_are_those_asked_for(name):
    core = getattr(cores, name)(5, hidden_size=8, num_layers=2)
    assert core.output_size == 8
    assert len(core.layers) == 2
    y, _ = core.step(torch.zeros(3, 5), core.initial_state(3), None)
    assert y.shape == (3, 8)
