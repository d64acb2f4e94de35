import pytest
from torch import nn

from rl import cores


@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_equals_a_masked_loop_over_torch_cells(num_layers, probability, assert_equals_cells):
    assert_equals_cells("gru", nn.GRUCell, ["h"], num_layers, probability)


def test_leaves_parameters_and_fresh_weights(assert_fresh_weights, count_parameters):
    core = cores.gru(12, hidden_size=3, num_layers=2)
    assert {leaf: value.shape for leaf, value in core.initial_state(7).items()} == {"h": (7, 2, 3)}
    assert_fresh_weights(core)
    # each of 3 gates of a layer: 256 * 256 + 256 * 256 weights and 2 * 256 biases = 131584
    assert count_parameters(cores.gru(256, 256, 2)) == 2 * 3 * 131_584
