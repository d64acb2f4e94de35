"""Shared by all tests."""

import pytest
import torch

torch.set_num_threads(1)

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    return torch.device(request.param)
