"""Shared by all tests."""

import logging
import signal

import pytest
import torch

torch.set_num_threads(1)

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def logging_as_it_was():
    """A command that runs inside a test leaves handlers behind, which would write to the closed output of that test."""
    root = logging.getLogger()
    before = [*root.handlers]
    yield
    root.handlers[:] = before


@pytest.fixture
def hangup_ends():
    """SIGHUP ends a process, as usual, also where ``nohup`` runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def randomise():
    """Draws every parameter anew: biases start at zero and the policy almost so, which would hide errors in them."""

    def draw(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                size = parameter[0].numel() if parameter.dim() > 1 else 1
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / size**0.5)
        return module

    return draw
