"""Copies of networks that no longer learn."""

from copy import deepcopy
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """Copy ``network``; the copy asks for no gradients and is in evaluation mode, so it drops nothing out."""
    return deepcopy(network).requires_grad_(False).eval()
