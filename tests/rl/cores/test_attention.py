import pytest
import torch

from rl import cores
from rl.cores.attention import check_window

B, D, H = 3, 5, 6  # of the fixtures


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2},
        {"num_layers": 2, "window_size": 2, "num_heads": 1},
        {"num_layers": 1, "window_size": 6, "num_heads": 3},
    ],
    ids=["default", "smallest-window", "small-window"],
)
def test_equals_its_plain_form_on_every_episode(options, assert_equals_plain_form):
    assert_equals_plain_form("attention", options)


def test_sees_its_window_and_nothing_else(make_core, make_inputs, random_state, float_leaves):
    core = make_core("attention", {"num_layers": 1, "window_size": 4})
    x, starts = make_inputs(0.0)
    state = random_state(core)
    y, _ = core.unroll(x, state, starts)
    for t in (0, 2, 3, 11, len(x) - 1):
        weights = torch.randn(H, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        dx, keys, values = torch.autograd.grad((y[t] * weights).sum(), [x, *float_leaves(state)], retain_graph=True)
        seen = set(range(t - 3, t + 1))
        assert set(dx[:, 0].any(-1).nonzero().flatten().tolist()) == {step for step in seen if step >= 0}
        for window in keys, values:
            slots = window[0, 0].any(-1).nonzero().flatten().tolist()
            assert {slot - 3 for slot in slots} == {step for step in seen if step < 0}


def test_asks_only_for_as_many_keys_as_the_age_says(make_core, make_inputs, random_state):
    core = make_core("attention", {"num_layers": 1, "window_size": 8})
    x, starts = make_inputs(0.0)
    state = random_state(core)
    state["age"] = torch.tensor([[0], [2], [7]])
    for y in core.step(x[0], state, None)[0], core.unroll(x, state, starts)[0][0]:
        weights = torch.randn(H, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        (keys,) = torch.autograd.grad((y * weights).sum(), [state["keys"]], retain_graph=True)
        assert keys[:, 0].any(-1).sum(-1).tolist() == [0, 2, 7]
        assert keys[1, 0, -2:].any(-1).all()


def test_the_window_after_a_start_holds_the_new_episode_alone(make_core, make_inputs, random_state):
    """Keys and values of the episode before are zero, as in the window that step by step playing leaves."""
    core = make_core("attention", {"num_layers": 1, "window_size": 6})
    x, starts = make_inputs(0.0)
    starts[17, 1] = True  # 3 steps of the new episode, in a window of 5
    _, new = core.unroll(x, random_state(core), starts)
    assert new["age"].flatten().tolist() == [5, 3, 5]
    for leaf in new["keys"], new["values"]:
        assert leaf[:, 0].any(-1).tolist() == [[True] * 5, [False, False, True, True, True], [True] * 5]


def test_leaves_and_parameters(count_parameters):
    core = cores.attention(D, hidden_size=6, num_layers=3)
    shapes = {"keys": (7, 3, 31, 6), "values": (7, 3, 31, 6), "age": (7, 3)}
    state = core.initial_state(7)
    assert {leaf: value.shape for leaf, value in state.items()} == shapes
    _, new = core.step(torch.randn(7, D), state, None)
    assert {leaf: value.shape for leaf, value in new.items()} == shapes
    # D = 5, H = 6. Around the layers: D H + H = 36 of the linear map, 2 H = 12 of the last normalisation: 48.
    # A layer, window 32, 2 heads: 2 * 12 of two normalisations; 18 * 6 + 18 = 126 of queries, keys and values;
    # 2 * 32 = 64 distances; 6 * 6 + 6 = 42 of the output; 12 * 6 + 12 = 84 up and 6 * 12 + 6 = 78 down: 418.
    assert count_parameters(cores.attention(5, hidden_size=6)) == 48 + 2 * 418


def test_options_go_to_the_layers():
    for layer in cores.attention(D, hidden_size=6, num_layers=2, window_size=9, num_heads=3).layers:
        assert layer.distance.shape == (3, 9)
        assert (layer.num_heads, layer.window_size) == (3, 9)
        assert "columns" not in layer.state_dict()  # it follows from the sizes


def test_a_bad_size_is_named():
    for argument in "window_size", "num_heads":
        for value in 0, 2.5:
            with pytest.raises(ValueError, match=f"{argument}={value}: it must be"):
                cores.attention(4, hidden_size=4, **{argument: value})


def test_heads_divide_the_width_and_a_window_looks_back():
    for build in check_window, lambda *sizes: cores.attention(4, sizes[0], window_size=sizes[1], num_heads=sizes[2]):
        build(6, 2, 3)
        with pytest.raises(ValueError, match="num_heads=4: it must divide hidden_size=6"):
            build(6, 2, 4)
        with pytest.raises(ValueError, match="window_size=1: it must be at least 2"):
            build(6, 1, 3)
