import copy

import pytest
import torch
from torch import nn

from rl.flat_adam import flat_adam, set_clipped_gradient


@pytest.fixture
def make_network(device):
    def make():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(18, 1)).to(device)

    return make


def gradients_of(network, seed):
    x = torch.randn(11, 1, 5, generator=torch.Generator().manual_seed(seed)).to(next(network.parameters()).device)
    return torch.autograd.grad((10.0 * network(x) ** 2).mean(), list(network.parameters()))


@pytest.mark.parametrize("max_norm", [1e-2, 1e9])
def test_steps_are_those_of_adam_over_separate_parameters(make_network, max_norm):
    network, twin = make_network(), make_network()
    optimizer, plain = flat_adam(network, 1e-2), torch.optim.Adam(twin.parameters(), lr=1e-2, eps=1e-5)
    for seed in range(5):
        norm = set_clipped_gradient(optimizer, gradients_of(network, seed), max_norm)
        optimizer.step()
        for parameter, gradient in zip(twin.parameters(), gradients_of(twin, seed), strict=True):
            parameter.grad = gradient
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(twin.parameters(), max_norm))
        plain.step()
        for one, other in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_stopped_step_changes_nothing(make_network):
    network = make_network()
    optimizer = flat_adam(network, 1e-2)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    set_clipped_gradient(optimizer, gradients_of(network, 0), 0.5)
    optimizer.found_inf = torch.ones((), device=before[0].device)
    optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))
    optimizer.found_inf = torch.zeros((), device=before[0].device)
    optimizer.step()
    assert not any(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))


def test_stored_weights_go_into_the_vector(make_network):
    network, other = make_network(), make_network()
    stored = copy.deepcopy({name: leaf + 1.0 for name, leaf in other.state_dict().items()})
    optimizer = flat_adam(network, 1e-2)
    network.load_state_dict(stored)
    (vector,) = optimizer.param_groups[0]["params"]
    torch.testing.assert_close(vector.detach(), torch.cat([leaf.flatten() for leaf in stored.values()]))
