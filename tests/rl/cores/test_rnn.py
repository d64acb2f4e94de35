import pytest
import torch
from torch import nn

from rl import cores
from rl.cores.rnn import keep_mask


@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_equals_a_masked_loop_over_torch_cells(num_layers, probability, assert_equals_cells):
    assert_equals_cells("rnn", nn.RNNCell, ["h"], num_layers, probability)


def test_leaves_parameters_and_fresh_weights(assert_fresh_weights, count_parameters):
    core = cores.rnn(12, hidden_size=3, num_layers=2)
    assert {leaf: value.shape for leaf, value in core.initial_state(7).items()} == {"h": (7, 2, 3)}
    assert_fresh_weights(core)
    # a layer: 256 * 256 + 256 * 256 weights and 2 * 256 biases = 131584
    assert count_parameters(cores.rnn(256, 256, 2)) == 2 * 131_584


def test_keep_mask_clears_at_starts_and_tells_where_there_are_any():
    starts = torch.tensor([[False, False], [True, False]])
    keep, starting = keep_mask(torch.zeros(2, 2, 5, dtype=torch.float64), starts)
    assert keep.dtype == torch.float64
    assert keep.tolist() == [[[1.0], [1.0]], [[0.0], [1.0]]]
    assert starting == [False, True]
