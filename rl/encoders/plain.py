"""No encoder at all: the memory reads what is observed."""

import math

import torch
from torch import Tensor, nn

from rl.encoders.leaves import Shapes
from rl.types import Observation


class Plain(nn.Module):
    """All leaves put behind one another, the pixels of images included; there are no weights."""

    def __init__(self, input_shapes: Shapes):
        super().__init__()
        self.leaves = tuple(input_shapes)
        self.output_size = sum(map(math.prod, input_shapes.values()))

    def forward(self, obs: Observation) -> Tensor:
        """Join leaves ``[N, ...]`` to ``[N, D]``."""
        return torch.cat([obs[leaf].flatten(1) for leaf in self.leaves], dim=-1)


def plain(input_shapes: Shapes) -> Plain:
    """Build an encoder without layers: the memory reads what is observed, one-hot and scaled by bounds, but no more.

    Args:
        input_shapes: of the leaves, see ``rl.types.FeatureEncoder``.
    """
    return Plain(input_shapes)
