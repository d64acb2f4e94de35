"""The device that is not there: it is noticed where tensors are mixed and what is read back, and it computes right."""

import copy

import pytest
import torch
from torch import nn


@pytest.fixture
def on_shadow(device, shadow):
    """Tensors on the device."""

    def move(*shape):
        return torch.arange(float(torch.Size(shape).numel())).view(shape).to(device)

    return move


def test_two_devices_are_not_mixed(on_shadow):
    x = on_shadow(2, 3)
    for mix in (
        lambda: x + torch.ones(3),
        lambda: torch.cat([x, torch.ones(2, 3)]),
        lambda: x.index_select(0, torch.ones(1).long()),
    ):
        with pytest.raises(RuntimeError, match="device"):
            mix()
    assert (x + torch.tensor(1.0)).cpu().sum() == 21.0  # a number may come from anywhere


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.tolist(),
        lambda x: torch.zeros(2, 3).copy_(x),
    ],
)
def test_what_is_read_back_is_noted(read, on_shadow, shadow):
    x = on_shadow(2, 3)
    assert shadow.reads == []
    assert shadow.uploads == [(2, 3)]
    read(x)
    assert shadow.reads


def test_flags_that_are_written_are_not_read(on_shadow, shadow):
    flags, places = on_shadow(3) > 5, on_shadow(2).long()
    flags[places] = on_shadow(2) > 0
    flags[places] |= on_shadow(2) > 0
    flags.index_copy_(0, places, on_shadow(2) > 0)
    assert flags[places].shape == (2,)
    assert shadow.reads == []


def test_views_share_their_memory(on_shadow):
    x = on_shadow(2, 3)
    x[1].fill_(9.0)
    x.view(3, 2)[0, 1] = 7.0
    assert x.cpu().tolist() == [[0.0, 7.0, 2.0], [9.0, 9.0, 9.0]]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_gradients_are_those_of_a_cpu(kind, on_shadow, device):
    torch.manual_seed(0)
    layer, x = kind(3, 4, num_layers=2), torch.randn(5, 2, 3)
    twin = copy.deepcopy(layer).to(device)
    layer(x)[0].square().sum().backward()
    twin(x.to(device))[0].square().sum().backward()
    for one, other in zip(layer.parameters(), twin.parameters(), strict=True):
        assert other.grad.device.type == "shadow"
        torch.testing.assert_close(other.grad.cpu(), one.grad)


def test_a_generator_has_a_state_of_another_size(device, shadow):
    generator = torch.Generator(device).manual_seed(3)
    state, drawn = generator.get_state(), torch.rand(3, generator=generator, device=device).cpu()
    assert len(state) == 16
    generator.set_state(state)
    assert torch.equal(torch.rand(3, generator=generator, device=device).cpu(), drawn)
    with pytest.raises(RuntimeError, match="wrong size"):
        generator.set_state(torch.Generator().get_state())
