import pytest
import torch
from torch import nn

from rl.cores.residual import Residual, ages, linear


class Memo(nn.Module):
    """A layer that adds 1 to the stream and remembers its input under the names it is given."""

    def __init__(self, *leaves):
        super().__init__()
        self.leaves = leaves

    def initial_state(self, batch_size, device):
        return {name: torch.zeros(batch_size, 2, device=device) for name in self.leaves}

    def step(self, x, state):
        assert state.keys() == set(self.leaves)
        return x + 1.0, {name: state[name] + x for name in self.leaves}

    def unroll(self, x, state, starts):
        assert state.keys() == set(self.leaves)
        return x + 1.0, {name: state[name] + x.sum(0) for name in self.leaves}


@pytest.fixture
def core():
    """Three layers, the first and the last of one kind; the stream that they see begins with the input itself."""
    core = Residual(2, 2, [Memo("a"), Memo("b", "c"), Memo("a")])
    with torch.no_grad():
        core.inputs.weight.copy_(torch.eye(2))
    return core


def test_leaves_are_joined_over_the_layers_that_have_them(core):
    state = core.initial_state(5)
    assert {name: leaf.shape for name, leaf in state.items()} == {"a": (5, 2, 2), "b": (5, 1, 2), "c": (5, 1, 2)}


def test_each_layer_gets_its_own_leaves_and_the_stream_from_below(core):
    # the stream is 0 before the first layer, 1 before the second, 2 before the third
    x, starts = torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.bool)
    state = {"a": torch.tensor([[[10.0, 10.0], [20.0, 20.0]]]), "b": torch.full((1, 1, 2), 30.0)}
    state["c"] = torch.full((1, 1, 2), 40.0)
    _, new = core.step(x[0], state, None)
    assert {name: leaf[0, :, 0].tolist() for name, leaf in new.items()} == {"a": [10, 22], "b": [31], "c": [41]}
    _, new = core.unroll(x, state, starts)
    assert {name: leaf[0, :, 0].tolist() for name, leaf in new.items()} == {"a": [10, 26], "b": [33], "c": [43]}


def test_a_start_clears_every_leaf_of_its_memory_alone(core):
    state = {name: leaf + 5.0 for name, leaf in core.initial_state(2).items()}
    _, new = core.step(torch.zeros(2, 2), state, torch.tensor([False, True]))
    assert {name: leaf[:, 0, 0].tolist() for name, leaf in new.items()} == {"a": [5, 0], "b": [6, 1], "c": [6, 1]}


def test_the_output_is_normalised(core):
    x = torch.tensor([[3.0, 5.0]])
    for y in core.step(x, core.initial_state(1), None)[0], core.unroll(
        x.unsqueeze(0), core.initial_state(1), torch.zeros(1, 1, dtype=torch.bool)
    )[0][0]:  # fmt: skip
        assert y.tolist() == [pytest.approx([-1.0, 1.0], abs=1e-4)]


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_are_orthogonal_without_bias(bias):
    layer = linear(3, 5, bias)
    assert torch.allclose(layer.weight.t() @ layer.weight, torch.eye(3), atol=1e-5)
    assert layer.bias is None if not bias else torch.count_nonzero(layer.bias) == 0


def test_ages_by_hand():
    starts = torch.tensor([[False, True], [False, False], [True, False], [False, True], [False, True]])
    assert ages(starts, torch.tensor([7, 3])).t().tolist() == [[7, 8, 0, 1, 2], [0, 1, 2, 0, 0]]
    assert ages(starts, 4)[:, 0].tolist() == [4, 5, 0, 1, 2]
