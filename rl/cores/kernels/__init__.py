"""Cores over whole sequences in one launch for each layer and direction, on a CUDA device, in Triton.

The loop over time is inside the kernel and takes the starts of episodes as an input: nothing is planned on the host,
and the cost does not depend on how many episodes begin. ``gru_on_cpu`` is compiled by numba, for a CPU. The modules of
this package import Triton or numba, so they are imported where they are used.
"""

import importlib.util
import logging
import os
from functools import cache

import torch
from torch import Tensor

log = logging.getLogger(__name__)

LARGEST = 512
"""More hidden units than this are left to the products of the device's own library, step by step."""


def use_kernels(x: Tensor, hidden_size: int) -> bool:
    """Tell whether sequences like ``x [T, B, D]`` are unrolled by the kernels of this package."""
    return x.device.type == "cuda" and x.dtype == torch.float32 and hidden_size <= LARGEST and has_triton()


@cache
def has_triton() -> bool:
    """Tell whether Triton is there: torch brings it to Linux together with CUDA."""
    return importlib.util.find_spec("triton") is not None


def use_compiled(x: Tensor) -> bool:
    """Tell whether sequences like ``x [T, B, D]`` are unrolled by what numba compiles for a CPU."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and has_numba()


@cache
def has_numba() -> bool:
    """Tell whether numba (extra ``fast``) is there and works beside the numpy that is there."""
    if importlib.util.find_spec("numba") is None or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return False
    try:
        import numba  # noqa: F401 (it refuses some versions of numpy)
    except Exception as error:  # what a damaged installation raises has no common base
        log.warning("numba cannot be loaded, so nothing is compiled (%s)", error)
        return False
    return True
