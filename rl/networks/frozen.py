"""Copies of networks that no longer learn."""

from copy import deepcopy
from typing import TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(network: Network) -> Network:
    """A copy of ``network`` that is not trained and drops nothing out."""
    return deepcopy(network).requires_grad_(False).eval()
