import pytest
import torch

from rl.networks import Encoder


@pytest.fixture
def make_encoder():
    """``make_encoder(space, ...)``: a small encoder of one leaf, with the weights of a fixed seed."""

    def make(space, **options):
        torch.manual_seed(0)
        return Encoder({"obs": space}, 16, **options)

    return make
