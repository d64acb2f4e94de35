from functools import partial

import pytest
import torch

from rl import cores
from rl.cores.memory_span import keep_biases, with_memory_span

GATED = {"gru": 1, "lstm": 1}  # the part of the biases that belongs to the gate that keeps


def biases(core, part):
    (layer,) = core.layers
    return (layer.bias_ih + layer.bias_hh).view(-1, core.output_size)[part].detach()


def test_units_last_from_two_steps_up_to_the_span():
    # s - 1 is 1, 3, 9, 27: a unit of span s keeps 1 - 1/s, so its gate has the logit log(s - 1)
    kept = keep_biases(4, 28.0, None, 0.0).sigmoid()
    assert kept.tolist() == pytest.approx([1 / 2, 3 / 4, 9 / 10, 27 / 28])


@pytest.mark.parametrize("name", GATED)
def test_gates_that_keep_are_spread_over_the_span(name):
    core = getattr(cores, name)(3, hidden_size=4, memory_span=28)
    part = GATED[name]
    assert torch.allclose(biases(core, part), torch.tensor([1.0, 3.0, 9.0, 27.0]).log(), atol=1e-6)
    others = [index for index in range(3) if index != part]
    assert all(not biases(core, index).any() for index in others)


def test_a_fresh_gru_remembers_for_about_its_span():
    """Without inputs or recurrent weights a unit of span s keeps (1 - 1/s)^s, about 1/e, over s steps."""
    core = cores.gru(1, hidden_size=2, memory_span=50)
    with torch.no_grad():
        core.layers[0].weight_hh.zero_()
    state = {"h": torch.ones(1, 1, 2)}
    starts = torch.zeros(50, 1, dtype=torch.bool)
    y, _ = core.unroll(torch.zeros(50, 1, 1), state, starts)
    assert y[1, 0, 0].item() == pytest.approx(0.25)  # the quick unit halves
    assert y[49, 0, 1].item() == pytest.approx(0.98**50, rel=1e-4)


def test_the_gate_of_a_mingru_writes_what_it_does_not_keep():
    layer = cores.mingru(3, hidden_size=4, memory_span=28).layers[0]
    assert torch.allclose(layer.bias[:4], -torch.tensor([1.0, 3.0, 9.0, 27.0]).log(), atol=1e-6)
    assert not layer.bias[4:].any()


@pytest.mark.parametrize(
    ("name", "option", "bias"),
    [("lstm", {"forget_bias": 0.5}, 0.5), ("mingru", {"gate_bias": -2.0}, -2.0)],
    ids=["lstm", "mingru"],
)
def test_a_bias_that_is_given_wins(name, option, bias):
    layer = getattr(cores, name)(3, hidden_size=4, memory_span=100, **option).layers[0]
    found = layer.bias[:4] if name == "mingru" else layer.bias_ih[4:8]
    assert found.tolist() == [bias] * 4


@pytest.mark.parametrize("name", ["gru", "lstm", "mingru", "mamba", "attention", "jamba"])
@pytest.mark.parametrize("span", [1.5, 0.0, -3, float("nan")])
def test_a_span_that_cannot_be_is_refused(name, span):
    with pytest.raises(ValueError, match=r"memory_span=.*: it must be a number of at least 2"):
        getattr(cores, name)(3, memory_span=span)


# ------------------------------------------------------------------------------------------------- windows and channels


@pytest.mark.parametrize(
    ("options", "window"),
    [({}, 32), ({"memory_span": 48.0}, 48), ({"memory_span": 48, "window_size": 20}, 20), ({"window_size": 20}, 20)],
    ids=["usual", "span", "both", "window"],
)
@pytest.mark.parametrize("name", ["attention", "jamba"])
def test_the_window_of_attention_follows_the_span(name, options, window):
    core = getattr(cores, name)(3, hidden_size=4, **options)
    assert core.initial_state(1)["keys"].shape[-2] == window - 1


@pytest.mark.parametrize("name", ["mamba", "jamba"])
@pytest.mark.parametrize(
    ("span", "longest", "shortest"), [(None, 1000, 10), (200, 200, 10), (5, 5, 5)], ids=["usual", "long", "short"]
)
def test_the_channels_of_mamba_follow_the_span(name, span, longest, shortest):
    """A channel of step size dt keeps exp(-dt) of its slowest number, which so lasts 1 / dt steps."""
    core = getattr(cores, name)(3, hidden_size=8, **({} if span is None else {"memory_span": span}))
    dt = torch.nn.functional.softplus(core.layers[0].step_size.bias.detach())
    assert dt.min().item() == pytest.approx(1 / longest, rel=1e-4)
    assert dt.max().item() == pytest.approx(1 / shortest, rel=1e-4)


# ----------------------------------------------------------------------------------------------------- with_memory_span


WINDOWED = pytest.mark.parametrize("core", [cores.attention, cores.jamba], ids=["attention", "jamba"])


@WINDOWED
@pytest.mark.parametrize(("span", "window"), [(100_000, 64), (48.4, 48), (20, 32), (2, 32)])
def test_a_window_follows_a_longer_span_up_to_the_sequences(core, span, window):
    """Presets spread gates over 2 steps or as many as 100,000: too few to see anything, more than anyone can store."""
    assert with_memory_span(core, span, 64).keywords == {"memory_span": max(1000.0, span), "window_size": window}


@WINDOWED
def test_a_window_of_the_core_itself_wins(core):
    own = partial(core, window_size=20)
    assert with_memory_span(own, 2000, 64).keywords == {"memory_span": 2000, "window_size": 20}
    own = partial(core, window_size=None, memory_span=None)
    assert with_memory_span(own, 2000, 64).keywords == {"memory_span": 2000, "window_size": 64}


@pytest.mark.parametrize("core", [cores.attention, cores.jamba, cores.mamba], ids=["attention", "jamba", "mamba"])
def test_a_core_with_a_span_of_its_own_keeps_it_unless_another_is_asked_for(core):
    assert with_memory_span(core, None, 64) is core


@pytest.mark.parametrize(("span", "longest"), [(2000, 2000), (200, 1000.0), (2, 1000.0)])
def test_a_state_space_follows_a_longer_span(span, longest):
    assert with_memory_span(cores.mamba, span, 64).keywords == {"memory_span": longest}


def test_a_constructor_that_takes_a_span_is_given_it():
    assert with_memory_span(cores.gru, 30, 64).keywords == {"memory_span": 30}
    assert with_memory_span(partial(cores.lstm, hidden_size=8), None, 64).keywords == {
        "hidden_size": 8,
        "memory_span": 64,
    }


@pytest.mark.parametrize(("span", "given"), [(None, 64), (30, 30)])
def test_so_is_one_that_needs_it(span, given):
    """A core of someone else's, whose ``memory_span`` has no default."""

    def core(input_size, memory_span):
        return cores.gru(input_size, memory_span=memory_span)

    assert with_memory_span(core, span, 64).keywords == {"memory_span": given}


def test_sequences_of_one_step_give_the_shortest_span():
    assert with_memory_span(cores.gru, None, 1).keywords == {"memory_span": 2.0}


def test_a_span_of_the_core_itself_wins():
    for core in (
        partial(cores.gru, memory_span=7),
        partial(cores.mamba, memory_span=7),
        partial(cores.jamba, memory_span=7),
    ):
        assert with_memory_span(core, 3000, 64) is core


def test_a_default_that_is_only_repeated_was_not_given():
    core = partial(cores.mamba, memory_span=1000.0)
    assert with_memory_span(core, 3000, 64).keywords == {"memory_span": 3000}
    assert with_memory_span(core, None, 64) is core
    core = partial(cores.gru, memory_span=None)
    assert with_memory_span(core, 30, 64).keywords == {"memory_span": 30}
    assert with_memory_span(core, None, 64).keywords == {"memory_span": 64}


@pytest.mark.parametrize("core", [cores.mlp, cores.rnn, lambda size: cores.gru(size)], ids=["mlp", "rnn", "lambda"])
def test_a_constructor_that_takes_none_is_left_as_it_is(core):
    assert with_memory_span(core, 30, 64) is core


def test_a_wrong_span_is_refused_whatever_the_core():
    with pytest.raises(ValueError, match="memory_span=1"):
        with_memory_span(cores.mlp, 1, 64)
