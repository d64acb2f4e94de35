import pytest
import torch

from rl import cores

D = 5  # of the fixtures


@pytest.mark.parametrize(
    "options", [{}, {"num_layers": 4, "attention_every": 2, "window_size": 7}], ids=["default", "alternating"]
)
def test_equals_its_plain_form_on_every_episode(options, assert_equals_plain_form):
    assert_equals_plain_form("jamba", options)


def test_kinds_of_the_layers():
    def kinds(**options):
        return "".join("a" if "keys" in layer.leaves else "m" for layer in cores.jamba(4, **options).layers)

    assert kinds() == "mma"
    assert kinds(num_layers=4, attention_every=2) == "mama"
    assert kinds(num_layers=2, attention_every=1) == "aa"
    assert kinds(num_layers=2) == "mm"


def test_leaves_of_both_kinds():
    core = cores.jamba(D, hidden_size=6)
    shapes = {"conv": (7, 2, 3, 12), "ssm": (7, 2, 16, 12)}
    shapes |= {"keys": (7, 1, 31, 6), "values": (7, 1, 31, 6), "age": (7, 1)}
    state = core.initial_state(7)
    assert {leaf: value.shape for leaf, value in state.items()} == shapes
    _, new = core.step(torch.randn(7, D), state, None)
    assert {leaf: value.shape for leaf, value in new.items()} == shapes


def test_options_go_to_the_layers(count_parameters):
    core = cores.jamba(D, hidden_size=6, window_size=9, num_heads=3, state_size=5, kernel_size=3, expand=1)
    assert {leaf: tuple(value.shape) for leaf, value in core.initial_state(7).items()} == {
        "conv": (7, 2, 2, 6),
        "ssm": (7, 2, 5, 6),
        "keys": (7, 1, 8, 6),
        "values": (7, 1, 8, 6),
        "age": (7, 1),
    }
    assert [layer.num_heads for layer in core.layers if "keys" in layer.leaves] == [3]
    # 48 around the layers, 912 in each of two layers of mamba, 418 in one of attention, as in their own tests
    assert count_parameters(cores.jamba(5, hidden_size=6)) == 48 + 2 * 912 + 418


def test_a_bad_size_is_named():
    for argument in "attention_every", "window_size", "num_heads", "state_size", "kernel_size", "expand":
        for value in 0, 2.5:
            with pytest.raises(ValueError, match=f"{argument}={value}: it must be"):
                cores.jamba(4, hidden_size=4, **{argument: value})


def test_windows_and_convolutions_are_checked_even_if_no_layer_has_one():
    with pytest.raises(ValueError, match="num_heads=4: it must divide hidden_size=6"):
        cores.jamba(4, 6, num_layers=1, num_heads=4)
    with pytest.raises(ValueError, match="window_size=1: it must be at least 2"):
        cores.jamba(4, num_layers=1, window_size=1)
    with pytest.raises(ValueError, match="kernel_size=1: it must be at least 2"):
        cores.jamba(4, attention_every=1, kernel_size=1)
