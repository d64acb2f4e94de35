import pytest
import torch

from rl import cores

H = 6  # of the fixtures


@pytest.mark.parametrize("probability", [0.0, 0.3])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_equals_a_masked_loop(num_layers, probability, make_core, make_inputs, random_state, assert_equivalent):
    core = make_core("mingru", {"num_layers": num_layers})
    x, starts = make_inputs(probability)
    state = random_state(core)
    below, last = x, []
    for index, layer in enumerate(core.layers):
        h, outputs = state["h"][:, index], []
        for t in range(len(x)):
            gate, candidate = (below[t] @ layer.weight.t() + layer.bias).split(H, dim=-1)
            z, alive = torch.sigmoid(gate), (~starts[t]).double().unsqueeze(1)
            h = (1 - z) * alive * h + z * candidate
            outputs.append(h)
        below = torch.stack(outputs)
        last.append(h)
    expected = below, {"h": torch.stack(last, dim=1)}
    assert_equivalent(core, x, state, core.unroll(x, state, starts), expected, 1e-12)


def test_leaves_parameters_and_fresh_weights(assert_fresh_weights, count_parameters):
    core = cores.mingru(12, hidden_size=3, num_layers=2)
    assert {leaf: value.shape for leaf, value in core.initial_state(7).items()} == {"h": (7, 2, 3)}
    assert_fresh_weights(core)
    # gate and candidate, H = 6: 2 * (6 * 5 + 6) = 72 on 5 features, 2 * (6 * 6 + 6) = 84 on 6
    assert count_parameters(cores.mingru(5, hidden_size=6, num_layers=2)) == 72 + 84


@pytest.mark.parametrize("options", [{}, {"gate_bias": -2.0}], ids=["default", "given"])
def test_bias_of_the_gate(options):
    for layer in cores.mingru(4, hidden_size=3, num_layers=2, **options).layers:
        assert layer.bias.view(2, 3).tolist() == [[options.get("gate_bias", 0.0)] * 3, [0.0] * 3]
