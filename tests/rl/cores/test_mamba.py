import pytest
import torch
from torch import nn

from rl import cores
from rl.cores.mamba import check_kernel

D = 5  # of the fixtures


@pytest.mark.parametrize(
    "options",
    [{"num_layers": 2}, {"num_layers": 1, "state_size": 1, "kernel_size": 2, "expand": 1}],
    ids=["default", "small"],
)
def test_equals_its_plain_form_on_every_episode(options, assert_equals_plain_form):
    assert_equals_plain_form("mamba", options)


def test_decay_and_step_sizes_of_a_fresh_layer():
    layer = cores.mamba(4, hidden_size=8, num_layers=1, state_size=5).layers[0]
    assert torch.allclose(layer.log_decay.exp(), torch.arange(1.0, 6.0).unsqueeze(1).expand(5, 16))
    dt = nn.functional.softplus(layer.step_size.bias)
    assert torch.allclose(dt[[0, -1]], torch.tensor([1e-3, 1e-1]), rtol=1e-4)
    assert torch.allclose(dt[1:] / dt[:-1], torch.tensor(100.0 ** (1 / 15)), rtol=1e-3)


def test_taps_of_a_fresh_convolution_are_uniform():
    layer = cores.mamba(4, hidden_size=64, num_layers=1, kernel_size=16).layers[0]
    # 16 * 128 draws between -1 / sqrt(16) and 1 / sqrt(16): their variance is 0.5^2 / 12 = 1 / 48
    assert layer.taps.abs().max() <= 0.25
    assert layer.taps.var().item() == pytest.approx(1 / 48, rel=0.1)


def test_the_tail_after_a_start_holds_the_new_episode_alone(make_core, make_inputs, random_state):
    core = make_core("mamba", {"num_layers": 1})
    x, starts = make_inputs(0.0)
    starts[18, 1] = True  # 2 steps of the new episode, in a tail of 3
    _, new = core.unroll(x, random_state(core), starts)
    assert new["conv"][:, 0].any(-1).tolist() == [[True] * 3, [False, True, True], [True] * 3]


def test_leaves_and_parameters(count_parameters):
    core = cores.mamba(D, hidden_size=6, num_layers=3)
    shapes = {"conv": (7, 3, 3, 12), "ssm": (7, 3, 16, 12)}
    state = core.initial_state(7)
    assert {leaf: value.shape for leaf, value in state.items()} == shapes
    _, new = core.step(torch.randn(7, D), state, None)
    assert {leaf: value.shape for leaf, value in new.items()} == shapes
    # D = 5, H = 6. Around the layers: D H + H = 36 of the linear map, 2 H = 12 of the last normalisation: 48.
    # A layer, I = 12, N = 16, K = 4, rank 1: 12 of the normalisation; 24 * 6 = 144 in; 4 * 12 + 12 = 60 of the
    # convolution; 12 * (1 + 2 * 16) = 396 that select; 12 * 1 + 12 = 24 of dt; 12 * 16 = 192 of A; 12 of D;
    # 6 * 12 = 72 out: 912.
    assert count_parameters(cores.mamba(5, hidden_size=6)) == 48 + 2 * 912


def test_options_go_to_the_layers():
    state = cores.mamba(D, hidden_size=6, num_layers=1, state_size=5, kernel_size=3, expand=4).initial_state(7)
    assert {leaf: tuple(value.shape) for leaf, value in state.items()} == {"conv": (7, 1, 2, 24), "ssm": (7, 1, 5, 24)}


def test_the_rank_of_the_step_sizes_is_a_sixteenth_of_the_width():
    for hidden_size, rank in (16, 1), (17, 2), (48, 3):
        assert cores.mamba(D, hidden_size, num_layers=1).layers[0].step_size.weight.shape == (2 * hidden_size, rank)


def test_a_bad_size_is_named():
    for argument in "state_size", "kernel_size", "expand":
        for value in 0, 2.5:
            with pytest.raises(ValueError, match=f"{argument}={value}: it must be"):
                cores.mamba(4, hidden_size=4, **{argument: value})


def test_a_convolution_looks_back():
    for build in check_kernel, lambda size: cores.mamba(4, kernel_size=size):
        build(2)
        with pytest.raises(ValueError, match="kernel_size=1: it must be at least 2"):
            build(1)
