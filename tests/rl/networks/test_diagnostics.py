"""Each measure reacts to the fault it is for, and is the number that its definition gives by hand."""

from types import SimpleNamespace

import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.networks.diagnostics import (
    Difference,
    MemoryInputs,
    count_history,
    measure_dead_features,
    measure_gates,
    measure_memory,
    read_numbers,
)
from rl.networks.encoders import Encoder

GATED = {"lstm": 3, "gru": 2, "mingru": 1}  # gates of a unit
STARTS = torch.tensor([[True, False], [False, True], [False, False], [False, False]])  # [4, 2]


class Leaky:
    """A core whose output is ``h' = decay * h + x``, cleared at starts."""

    output_size = 1

    def __init__(self, decay):
        self.decay = decay

    def unroll(self, x, state, starts):
        h, outputs = state["h"], []
        for now, start in zip(x, starts, strict=True):
            h = self.decay * h * ~start.unsqueeze(1) + now
            outputs.append(h)
        return torch.stack(outputs), {"h": h}


@pytest.fixture
def measure():
    """Measures of a core on zeros; the loss is the sum of its outputs, of which some steps are to weigh nothing."""

    def run(core, starts=STARTS, longest=3, counts=None, size=1, features=None, loss=torch.sum):
        features = torch.zeros(*starts.shape, size) if features is None else features
        state = {"h": torch.zeros(starts.shape[1], size)}
        found = measure_memory(core, MemoryInputs(features, state, starts), loss, longest, counts)
        return {name: value.item() for name, value in found.items()}

    return run


def test_history_counts_the_steps_of_the_same_episode():
    """A start of the first step or none there: what lies before the sequence is not counted."""
    starts = torch.tensor([[True, False, False], [False, False, True], [False, True, True], [False, False, False]])
    assert count_history(starts).tolist() == [[0, 0, 0], [1, 1, 0], [2, 0, 0], [3, 1, 1]]


def test_the_share_of_the_gradient_is_that_of_its_definition(measure):
    """Norms 1, 1/2, 1/4, 1/8 back to the start in step 0, and 1, 1/2, 1/4 back to that in step 1."""
    found = measure(Leaky(0.5))
    assert found["gradient_share_older_than_1"] == pytest.approx((3 / 8 + 1 / 4) / (15 / 8 + 7 / 4))
    assert found.keys() == {"hidden_norm", "gradient_share_older_than_1"}  # no episode has more than 8 steps


def test_sequences_without_older_steps_say_nothing_of_them(measure):
    """The second one starts in step 2: it has no step more than one back, so the share is that of the first."""
    starts = STARTS.clone()
    starts[:, 1] = torch.tensor([False, False, True, False])
    starts[1, 1] = True
    assert measure(Leaky(0.5), starts)["gradient_share_older_than_1"] == pytest.approx(3 / 15)


def test_a_memory_that_forgets_at_once_has_no_old_gradient(measure):
    starts = torch.zeros(12, 1, dtype=torch.bool)
    shares = [measure(Leaky(decay), starts, 11)["gradient_share_older_than_8"] for decay in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.0, (2**3 - 1) / (2**12 - 1), 3 / 12])


def test_the_gradient_of_each_unit_counts_by_its_norm(measure):
    """Two units weigh 3 and 4 in the loss of the last step; what those of the steps before weigh does not count."""
    weights = torch.tensor([[[7.0, 7.0]], [[0.0, 5.0]], [[3.0, 4.0]]])
    squared = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 0.0]]])  # the first two inputs

    class Square(Leaky):
        def unroll(self, x, state, starts):
            return super().unroll(x * x / 2, state, starts)

    starts = torch.zeros(3, 1, dtype=torch.bool)
    found = measure(Square(1.0), starts, size=2, features=squared, loss=lambda outputs: (outputs * weights).sum())
    assert found["gradient_share_older_than_1"] == pytest.approx(3 / 6)  # 3 each at steps 0 and 1, 0 at step 2


def test_short_sequences_have_no_old_gradient_where_episodes_are_longer(measure):
    """bptt=2 in episodes of five steps: nothing comes from more than one step back."""
    starts = torch.zeros(2, 3, dtype=torch.bool)
    assert measure(Leaky(1.0), starts, longest=4)["gradient_share_older_than_1"] == 0.0
    assert "gradient_share_older_than_1" not in measure(Leaky(1.0), starts, longest=1)
    assert "gradient_share_older_than_8" not in measure(Leaky(1.0), starts, longest=4)


def test_only_steps_that_count_are_looked_at(measure):
    """Without the last step the one before it is the farthest: 1, 1/2, 1/4 of the first sequence alone."""
    counts = torch.ones(4, 2, dtype=torch.bool)
    counts[3] = False
    assert measure(Leaky(0.5), counts=counts)["gradient_share_older_than_1"] == pytest.approx((1 / 4) / (7 / 4))


def test_hidden_norm_is_the_mean_norm_of_the_outputs(measure):
    """Outputs (3, 4), then (3, 4) + (3, 4): norms 5 and 10."""
    starts = torch.zeros(2, 1, dtype=torch.bool)
    features = torch.tensor([3.0, 4.0]).expand(2, 1, 2)
    assert measure(Leaky(1.0), starts, size=2, features=features)["hidden_norm"] == pytest.approx(7.5)


@pytest.mark.parametrize(
    "outputs", [torch.ones(4, 2, 1), torch.ones(4, 2, 1, requires_grad=True) * 2], ids=["fixed", "learned"]
)
def test_a_core_that_makes_nothing_of_its_inputs_has_no_share(outputs):
    core = Leaky(0.5)
    core.unroll = lambda x, state, starts: (outputs, state)
    found = measure_memory(core, MemoryInputs(torch.zeros(4, 2, 1), {}, STARTS), torch.sum, 3)
    assert read_numbers(found) == {"hidden_norm": outputs[0, 0].item()}


def test_measuring_leaves_no_gradient_behind(make_network):
    network = make_network(cores.lstm)
    core = network.actor.core
    features, starts = torch.randn(4, 2, 8), STARTS
    with torch.no_grad():  # as some callers have it
        measure_memory(core, MemoryInputs(features, core.initial_state(2), starts), torch.sum, 3)
    assert not features.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


# --------------------------------------------------------------------------------------------------------------- gates


@pytest.mark.parametrize("name", GATED)
def test_gates_are_those_of_the_step(name, randomise):
    """A step that is computed from the gates by the equations is the step of the core; starts clear the state."""
    core = randomise(getattr(cores, name)(3, 4))
    x, starts = torch.randn(5, 3), torch.tensor([True, False, False, True, False])
    state = {leaf: torch.randn(5, 1, 4) for leaf in core.leaves}
    h, c = (state[leaf][:, 0] * ~starts.unsqueeze(1) for leaf in (core.leaves[0], core.leaves[-1]))
    found, (layer,) = core.gates(x, state, starts), core.layers
    assert found.shape == (5, 4 * GATED[name])
    if name == "mingru":
        candidate = x @ layer.weight[4:].T + layer.bias[4:]
        after = torch.lerp(h, candidate, found)
    else:
        inputs, recurrent = x @ layer.weight_ih.T + layer.bias_ih, h @ layer.weight_hh.T + layer.bias_hh
        if name == "gru":
            r, z = found.chunk(2, dim=1)
            after = (1 - z) * torch.tanh(inputs[:, 8:] + r * recurrent[:, 8:]) + z * h
        else:
            i, f, o = found.chunk(3, dim=1)
            after = o * torch.tanh(f * c + i * torch.tanh((inputs + recurrent)[:, 8:12]))
    torch.testing.assert_close(after, core.step(x, state, starts)[0])


@pytest.mark.parametrize("name", GATED)
def test_gates_with_biases_of_20_are_saturated(name):
    """Those of the lower layer at 20 and -20 in turn, while the upper one has biases of 0: half of all gates."""
    core = getattr(cores, name)(3, 4, num_layers=2)
    x = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    given = x, core.initial_state(6), torch.zeros(6, dtype=torch.bool)
    assert measure_gates(core, *given)["gate_saturation"] == 0.0
    biases = [layer.bias[:4] if name == "mingru" else layer.bias_ih for layer in core.layers]
    with torch.no_grad():
        for bias, saturation in zip(biases, (0.5, 1.0), strict=True):
            bias.copy_(torch.tensor([20.0, -20.0]).repeat(len(bias) // 2))
            assert measure_gates(core, *given)["gate_saturation"] == saturation


@pytest.mark.parametrize("name", ["rnn", "mlp", "attention", "mamba"])
def test_cores_without_gates_have_no_saturation(name):
    core = getattr(cores, name)(3, 4)
    assert measure_gates(core, torch.zeros(2, 3), core.initial_state(2), torch.zeros(2, dtype=torch.bool)) == {}


@pytest.mark.parametrize("name", GATED)
def test_gates_of_upper_layers_see_what_dropout_leaves(name):
    """With all units of the lower layer dropped the upper one, at a fresh state, sees nothing."""
    core = getattr(cores, name)(3, 4, num_layers=2, dropout=0.99)
    state = core.initial_state(1) | {"dropout_count": torch.zeros(1, 1, dtype=torch.int64)}
    given, lower = (torch.ones(1, 3), state, torch.ones(1, dtype=torch.bool)), 4 * GATED[name]
    dropped = core.gates(*given)[:, lower:]
    nothing = core.layers[1].gates(torch.zeros(1, 4), tuple(torch.zeros(1, 4) for _ in core.leaves))
    torch.testing.assert_close(dropped, nothing)
    core.eval()
    assert not torch.equal(core.gates(*given)[:, lower:], dropped)


# ------------------------------------------------------------------------------------------------- features and states


def test_features_of_zeroed_rows_are_dead():
    """Two of eight rows of the last layer see nothing, a third one saturates."""
    encoder = Encoder({"obs": spaces.Box(-2.0, 2.0, (3,))}, layer_size=8)
    obs = {"obs": torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1}
    assert measure_dead_features(encoder, encoder(obs))["dead_features"] == 0.0
    with torch.no_grad():
        encoder.layer.weight[:2] = 0.0
        encoder.layer.bias[2] = 20.0
    assert measure_dead_features(encoder, encoder(obs))["dead_features"] == pytest.approx(3 / 8)
    plain = Encoder({"obs": spaces.Discrete(3)}, layer_size=8)  # a code that is never seen is no fault of the encoder
    assert measure_dead_features(plain, plain({"obs": torch.zeros(5, 4)})) == {}


def test_states_differ_by_the_norm_of_their_difference():
    """Of the rows that count: |(0, 3) and (4)| = 5 beside |(6, 8) and (0)| = 10; whole numbers are no state."""
    right = {"one": torch.tensor([[6.0, 8.0], [9.0, 9.0]]), "two": torch.zeros(2), "count": torch.tensor([1, 1])}
    used = {
        "one": torch.tensor([[6.0, 5.0], [0.0, 0.0]]),
        "two": torch.tensor([4.0, 7.0]),
        "count": torch.tensor([5, 5]),
    }
    difference = Difference()
    assert difference.compute() == {}
    difference.add(used, right, torch.tensor([True, False]))
    assert difference.compute()["state_staleness"].item() == pytest.approx(0.5)


def test_what_could_not_be_measured_is_left_out():
    assert read_numbers({"one": torch.tensor(0.5), "none": torch.tensor(float("nan"))}) == {"one": 0.5}
    assert read_numbers({}) == {}


def test_a_feature_that_differs_between_environments_alone_is_not_dead():
    """The first differs between rows, the second between steps, the third nowhere."""
    features = torch.zeros(4, 3, 3)  # [T, B, D]
    features[..., 0] = torch.arange(3.0)
    features[..., 1] = torch.arange(4.0).unsqueeze(1)
    found = measure_dead_features(SimpleNamespace(computes=True), features)
    assert found["dead_features"] == torch.tensor(1 / 3)
