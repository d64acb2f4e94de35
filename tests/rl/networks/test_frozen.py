import torch
from torch import nn

from rl.networks.frozen import frozen_copy


def test_a_frozen_copy_is_not_trained_and_drops_nothing_out():
    network = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5))
    copy = frozen_copy(network)
    assert not copy.training
    assert not copy[1].training
    assert not any(weights.requires_grad for weights in copy.parameters())


def test_the_network_itself_goes_on_learning_apart_from_its_copy():
    network = nn.Linear(2, 3)
    copy = frozen_copy(network)
    assert network.training
    assert all(weights.requires_grad for weights in network.parameters())
    assert torch.equal(copy.weight, network.weight)
    with torch.no_grad():
        network.weight += 1.0
    assert torch.equal(copy.weight + 1.0, network.weight)
