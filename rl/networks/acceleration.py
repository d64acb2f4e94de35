"""Optional ways to run an encoder faster; where a machine does not have them, the log says why."""

import logging
from typing import Any, Literal

import torch
from torch import nn

from rl.types import Observation

log = logging.getLogger(__name__)

Precision = Literal["float32", "tf32", "bfloat16"]


def set_precision(device: torch.device, precision: Precision) -> None:
    """Let a CUDA device multiply float32 exactly, or with ``tf32`` rounded to 10 bits; it holds for the whole process.

    By itself cuDNN rounds so, in convolutions and in the recurrent kernels that replay sequences, but not in the single
    steps that act: probabilities of a rollout would come back with errors far beyond those of float32.
    """
    if device.type != "cuda":
        return
    rounded = precision == "tf32"
    cudnn: Any = torch.backends.cudnn  # what of it there is depends on the version of torch
    matmul: Any = torch.backends.cuda.matmul
    cudnn.allow_tf32 = matmul.allow_tf32 = rounded  # torch.export fails where these contradict those below
    if hasattr(cudnn, "fp32_precision"):  # from torch 2.9 on
        for part in (cudnn.rnn, cudnn.conv, matmul):
            part.fp32_precision = "tf32" if rounded else "ieee"


def compile_encoder(encoder: nn.Module, example: Observation) -> bool:
    """Compile ``encoder`` in place with ``torch.compile``; its weights keep their names.

    Args:
        encoder: takes one argument, an observation.
        example: a batch of observations. torch compiles a module, forward and backward, when it is first called; so
            the encoder is called on this here.

    Returns:
        Whether it could be compiled; if not, the encoder is as before and the log says why.
    """
    try:
        encoder.compile(dynamic=True)
        torch.autograd.grad(encoder(example).sum(), list(encoder.parameters()), materialize_grads=True)
    except Exception as error:  # what compilers raise has no common base
        encoder._compiled_call_impl = None  # torch has no public way back
        reason = _first_line(error)
        log.warning("compile_encoder: torch.compile does not work here, so nothing is compiled (%s)", reason)
        return False
    return True


def supports_autocast(encoder: nn.Module, example: Observation) -> bool:
    """Find out whether the device of ``example``, a batch of observations, runs ``encoder`` in bfloat16.

    Returns:
        Whether it does; if not, the log says why.
    """
    device = next(iter(example.values())).device.type
    try:
        with torch.autocast(device, torch.bfloat16), torch.no_grad():
            encoder(example)
    except RuntimeError as error:
        log.warning("autocast: bfloat16 does not work on %s, so float32 is used (%s)", device, _first_line(error))
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
