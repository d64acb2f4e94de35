import pytest
import torch
from torch import nn

from rl import cores
from rl.cores.dropout import COUNT, drop_units
from rl.cores.stack import Stack

B, D = 3, 5  # of the fixtures
STACKS = "rnn", "gru", "mingru", "lstm"


class Recorder(nn.Module):
    """A layer of two leaves that are its input and the negative of it; it records how many sequences it was given."""

    leaves = ("h", "c")

    def __init__(self):
        super().__init__()
        self.batch_sizes = []

    def step(self, x, state):
        return x, -x

    def unroll(self, x, state, starts):
        self.batch_sizes.append(x.shape[1])
        return x, (x[-1], -x[-1])


def test_many_sequences_are_unrolled_in_parts(monkeypatch):
    monkeypatch.setattr("rl.cores.stack.MAX_SEQUENCES_ON_CPU", 2)
    layer = Recorder()
    stack = Stack([layer], 4)
    for batch_size, parts in ((2, [2]), (5, [2, 2, 1])):
        layer.batch_sizes.clear()
        x = torch.arange(3 * batch_size * 4.0).view(3, batch_size, 4)
        state = stack.initial_state(batch_size)
        y, new = stack.unroll(x, state, torch.zeros(3, batch_size, dtype=torch.bool))
        assert layer.batch_sizes == parts
        assert torch.equal(y, x)
        assert new.keys() == state.keys()
        assert torch.equal(new["h"], x[-1].unsqueeze(1))
        assert torch.equal(new["c"], -x[-1].unsqueeze(1))


def test_unrolling_in_parts_leaves_out_what_belongs_to_another_core(monkeypatch):
    """A separate critic has its leaves beside those of the policy."""
    monkeypatch.setattr("rl.cores.stack.MAX_SEQUENCES_ON_CPU", 2)
    stack = Stack([Recorder()], 4)
    state = stack.initial_state(3) | {"critic.h": torch.zeros(3, 1, 4)}
    _, new = stack.unroll(torch.zeros(2, 3, 4), state, torch.zeros(2, 3, dtype=torch.bool))
    assert new.keys() == {"h", "c"}


def test_unrolling_in_parts_makes_no_difference(
    make_core, make_inputs, random_state, step_by_step, assert_equivalent, monkeypatch
):
    monkeypatch.setattr("rl.cores.stack.MAX_SEQUENCES_ON_CPU", 2)  # 2 of 3, and 1
    core = make_core("lstm", {"num_layers": 2, "dropout": 0.3})
    x, starts = make_inputs(0.2)
    state = random_state(core)
    expected = step_by_step(core, x, state, starts)
    assert_equivalent(core, x, state, core.unroll(x, state, starts), expected, 1e-12)


def test_leaves_of_each_layer_come_bottom_to_top():
    class Plus(nn.Module):
        """A layer that adds 1 to its input and remembers the sum."""

        leaves = ("h",)

        def step(self, x, state):
            return (x + 1.0,)

        def unroll(self, x, state, starts):
            return x + 1.0, (x[-1] + 1.0,)

    stack = Stack([Plus(), Plus(), Plus()], 2)
    x, starts = torch.zeros(4, 1, 2), torch.zeros(4, 1, dtype=torch.bool)
    for y, new in stack.step(x[0], stack.initial_state(1), None), stack.unroll(x, stack.initial_state(1), starts):
        assert y.flatten().unique().tolist() == [3.0]
        assert new["h"].tolist() == [[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]]


@pytest.mark.parametrize("name", STACKS)
def test_dropout_changes_training_but_not_evaluation(name, make_core, make_inputs, random_state):
    core = make_core(name, {"num_layers": 2, "dropout": 0.3})
    plain = make_core(name, {"num_layers": 2})
    x, starts = make_inputs(0.1)
    state = random_state(core)
    expected = plain.unroll(x, {leaf: state[leaf] for leaf in state if leaf != "dropout_count"}, starts)[0]
    assert not torch.equal(core.unroll(x, state, starts)[0], expected)
    assert torch.equal(core.eval().unroll(x, state, starts)[0], expected)


def test_dropout_is_from_0_to_99_percent_of_two_layers():
    for dropout in -0.01, 0.991, 1.0, True:
        with pytest.raises(ValueError, match=f"dropout={dropout}: it must be a number from 0 to 0.99"):
            Stack([Recorder(), Recorder()], 4, dropout)
    assert Stack([Recorder(), Recorder()], 4, 0.99).dropout == 0.99
    with pytest.raises(ValueError, match=r"dropout=0.1: it must be 0 with num_layers=1.*at least 2 layers"):
        Stack([Recorder()], 4, 0.1)


@pytest.mark.parametrize("name", STACKS)
def test_layers_above_the_first_see_the_hidden_units(name):
    first, second, third = getattr(cores, name)(D, hidden_size=4, num_layers=3).layers
    shapes = [{weights.shape[1] for key, weights in layer.named_parameters() if key in ("weight_ih", "weight")}
              for layer in (first, second, third)]  # fmt: skip
    assert shapes == [{D}, {4}, {4}]


def test_the_gates_of_a_layer_are_those_of_what_dropout_leaves_of_the_layer_below(randomise):
    core = randomise(cores.gru(3, hidden_size=8, num_layers=3, dropout=0.5)).train()
    x, state, no = torch.ones(4, 3), core.initial_state(4), torch.zeros(4, dtype=torch.bool)
    zeros, expected = (torch.zeros(4, 8),), []
    for index, layer in enumerate(core.layers):
        expected.append(layer.gates(x, zeros))
        x = drop_units(layer.step(x, zeros)[0], state[COUNT], index, 0.5)
    torch.testing.assert_close(core.gates(torch.ones(4, 3), state, no), torch.cat(expected, dim=1))
