"""Draws of a check leave no trace."""

import random

import numpy as np
import pytest
import torch

from rl.memory_check.generators import own_draws


def draw():
    return random.random(), np.random.rand(), float(torch.rand(1))


def test_generators_go_on_as_if_nothing_had_been_drawn():
    with own_draws(4):
        draw()
    random.seed(4)
    np.random.seed(4)
    torch.manual_seed(4)
    expected = draw(), draw()
    random.seed(4)
    np.random.seed(4)
    torch.manual_seed(4)
    first = draw()
    with pytest.raises(KeyError), own_draws(4):
        assert draw() == expected[0]  # the seed counts
        raise KeyError
    assert (first, draw()) == expected
