"""Cores over whole sequences in one launch for each layer and direction, on a CUDA device, in Triton.

The loop over time is inside the kernel and takes the starts of episodes as an input: nothing is planned on the host,
and the cost does not depend on how many episodes begin. The other modules of this package import Triton, so they are
imported where they are used.
"""

import importlib.util
from functools import cache

import torch
from torch import Tensor

LARGEST = 512
"""More hidden units than this are left to the products of the device's own library, step by step."""


def use_kernels(x: Tensor, hidden_size: int) -> bool:
    """Tell whether sequences like ``x [T, B, D]`` are unrolled by the kernels of this package."""
    return x.device.type == "cuda" and x.dtype == torch.float32 and hidden_size <= LARGEST and has_triton()


@cache
def has_triton() -> bool:
    """Tell whether Triton is there: torch brings it to Linux together with CUDA."""
    return importlib.util.find_spec("triton") is not None
