import pytest
import torch
from torch import nn

from rl import cores
from rl.cores.lstm import stretch


@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_equals_a_masked_loop_over_torch_cells(num_layers, probability, assert_equals_cells):
    assert_equals_cells("lstm", nn.LSTMCell, ["h", "c"], num_layers, probability)


def test_leaves_parameters_and_fresh_weights(assert_fresh_weights, count_parameters):
    core = cores.lstm(12, hidden_size=3, num_layers=2, forget_bias=0.0)
    assert {leaf: value.shape for leaf, value in core.initial_state(7).items()} == {"h": (7, 2, 3), "c": (7, 2, 3)}
    assert_fresh_weights(core)
    # each of 4 gates of a layer: 256 * 256 + 256 * 256 weights and 2 * 256 biases = 131584
    assert count_parameters(cores.lstm(256, 256, 2)) == 2 * 4 * 131_584


@pytest.mark.parametrize(("options", "bias"), [({}, 1.0), ({"forget_bias": 0.5}, 0.5)], ids=["default", "given"])
def test_bias_of_the_forget_gate(options, bias):
    for layer in cores.lstm(4, hidden_size=3, num_layers=2, **options).layers:
        assert (layer.bias_ih + layer.bias_hh).view(4, 3).tolist() == [[0.0] * 3, [bias] * 3, [0.0] * 3, [0.0] * 3]


def test_the_weights_of_the_flags_are_no_part_of_a_checkpoint():
    assert sorted(cores.lstm(4, hidden_size=3).state_dict()) == [
        f"layers.0.{name}" for name in ("bias_hh", "bias_ih", "weight_hh", "weight_ih")
    ]


# ------------------------------------------------------------------------------------------------------------- stretch


def test_stretch_of_the_drawn_example():
    # sequence 0:  x0 x1 R  x2 x3   (a start at step 2; R reset, H hold)
    # sequence 1:  x0 x1 x2 x3 H
    starts = torch.zeros(4, 2, dtype=torch.bool)
    starts[2, 0] = True
    position, flags, length = stretch(starts)
    assert length == 5
    # x0 x1 x2 x3 are steps 0 1 3 4 of sequence 0, and steps 0 1 2 3 of sequence 1; step m of sequence b is 2 m + b
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
    # one sequence: R x0 R x1
    position, flags, length = stretch(torch.ones(2, 1, dtype=torch.bool))
    assert (position.tolist(), length) == ([1, 3], 4)
    assert flags.tolist() == [[False, True], [False, False], [False, True], [False, False]]
