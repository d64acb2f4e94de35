import pytest
import torch

from rl import cores


@pytest.mark.parametrize("num_layers", [1, 2])
def test_is_tanh_of_linear_layers_at_every_step(num_layers, make_core, make_inputs, assert_close):
    core = make_core("mlp", {"num_layers": num_layers})
    x, starts = make_inputs(0.1)
    expected = x
    for layer in core.layers:
        expected = torch.tanh(expected @ layer.weight.t() + layer.bias)
    y, state = core.unroll(x, {}, starts)
    assert_close(y, expected, 1e-12)
    assert state == core.initial_state(7) == {}


def test_parameters_and_fresh_weights(assert_fresh_weights, count_parameters):
    core = cores.mlp(12, hidden_size=3, num_layers=2)
    assert_fresh_weights(core)
    assert count_parameters(core) == 12 * 3 + 3 + 3 * 3 + 3


def test_no_layers_hand_the_input_on():
    core = cores.mlp(12, num_layers=0)
    x, starts = torch.rand(3, 2, 12), torch.zeros(3, 2, dtype=torch.bool)
    y, state = core.unroll(x, {}, starts)
    assert torch.equal(y, x) and state == {} and core.output_size == 12
    with pytest.raises(ValueError, match="num_layers=-1"):
        cores.mlp(12, num_layers=-1)
