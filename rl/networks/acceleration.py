"""Optional ways to run an encoder faster, for machines that have them; elsewhere a sentence says why not."""

import logging

import torch
from torch import nn

from rl.types import Observation

log = logging.getLogger(__name__)


def compile_encoder(encoder: nn.Module, example: Observation) -> bool:
    """Compiles ``encoder`` in place with ``torch.compile``; its weights keep their names.

    torch compiles a module when it is first called, forward and backward, so that is done here, on ``example``.

    Returns:
        Whether it could be compiled; if not, the encoder is as before and the log says why.
    """
    try:
        encoder.compile(dynamic=True)
        torch.autograd.grad(encoder(example).sum(), list(encoder.parameters()), materialize_grads=True)
    except Exception as error:  # what compilers raise has no common base
        encoder._compiled_call_impl = None  # there is no public way back
        log.warning(
            "compile_encoder: torch.compile does not work here, so nothing is compiled (%s)", _first_line(error)
        )
        return False
    return True


def supports_autocast(encoder: nn.Module, example: Observation) -> bool:
    """Whether the device of ``example`` runs ``encoder`` in bfloat16; if not, the log says why."""
    device = next(iter(example.values())).device
    try:
        with torch.autocast(device.type, torch.bfloat16), torch.no_grad():
            encoder(example)
    except RuntimeError as error:
        log.warning("autocast: bfloat16 does not work on %s, so float32 is used (%s)", device, _first_line(error))
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
