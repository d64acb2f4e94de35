"""Fully connected layers over everything that is observed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from rl.checks import one_of, positive
from rl.encoders.leaves import Shapes, initialise
from rl.types import Observation

Activation = Literal["elu", "gelu", "relu", "silu", "tanh"]
ACTIVATIONS = {"elu": nn.ELU, "gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """Layers over all leaves put behind one another, the pixels of images included."""

    def __init__(self, input_shapes: Shapes, layers: Sequence[nn.Module], output_size: int):
        super().__init__()
        self.leaves = tuple(input_shapes)
        self.layers = nn.Sequential(*layers)
        self.output_size = output_size

    def forward(self, obs: Observation) -> Tensor:
        """Encode leaves ``[N, ...]`` as ``[N, D]``."""
        features: Tensor = self.layers(torch.cat([obs[leaf].flatten(1) for leaf in self.leaves], dim=-1))
        return features


def mlp(
    input_shapes: Shapes,
    widths: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    layer_norm: bool = False,
) -> MLP:
    """Build fully connected layers over everything that is observed, the pixels of images included.

    Args:
        input_shapes: of the leaves, see ``rl.types.FeatureEncoder``.
        widths: of the layers, from the first to the last.
        activation: behind each layer: elu, gelu, relu, silu or tanh.
        layer_norm: normalise what each layer gives, in front of its activation (Ba et al., 2016).

    Raises:
        ValueError: there is no layer, a width is below 1, or the activation is none of these.
    """
    positive(**{f"widths[{layer}]": width for layer, width in enumerate(widths)})
    one_of(get_args(Activation), activation=activation)
    if not widths:
        raise ValueError("widths=[]: there must be a layer at least, as in [64,64]")
    layers: list[nn.Module] = []
    for before, after in pairwise([sum(map(math.prod, input_shapes.values())), *widths]):
        layers += [nn.Linear(before, after), *([nn.LayerNorm(after)] if layer_norm else []), ACTIVATIONS[activation]()]
    encoder = MLP(input_shapes, layers, widths[-1])
    initialise(encoder)
    return encoder
