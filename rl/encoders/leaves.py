"""What the encoders of this package do alike with the leaves of an observation."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rl.checks import positive
from rl.types import Observation

Shapes = dict[str, tuple[int, ...]]
"""The shape of each leaf that an encoder is given: ``(C, H, W)`` of an image, ``(D,)`` of everything else."""


class ImagesAndVectors(nn.Module):
    """A network for each image, a layer with ReLU behind it; what is no image is put behind these features, as it is.

    Espeholt et al. (2018) put the last reward and action behind the features of the image in this way.

    Args:
        name: of the encoder, for messages.
        input_shapes: of the leaves.
        convolve: ``convolve(C) -> layers, [N, C, H, W] -> [N, size]``.
        features: width of the layer, for each image.
        smallest_side: of an image.

    Raises:
        ValueError: there is no image, one is too small, or ``features`` is below 1.
    """

    def __init__(
        self,
        name: str,
        input_shapes: Shapes,
        convolve: Callable[[int], list[nn.Module]],
        features: int,
        smallest_side: int = 1,
    ):
        super().__init__()
        positive(features=features)
        self.images = tuple(leaf for leaf, shape in input_shapes.items() if len(shape) == 3)
        self.others = tuple(leaf for leaf in input_shapes if leaf not in self.images)
        if not self.images:
            told = " and ".join(f"{leaf!r}" for leaf in self.others)
            raise ValueError(
                f"encoder {name} needs an image, and there is none among the observations {told}: take auto or mlp, or "
                "say with image_layout where the channels of an image are"
            )
        cnns = []
        for leaf in self.images:
            channels, height, width = input_shapes[leaf]
            if min(height, width) < smallest_side:
                raise ValueError(
                    f"observation {leaf!r} is an image of {height} x {width}, and encoder {name} needs "
                    f"{smallest_side} x {smallest_side} at least: take auto or impala, or a larger image"
                )
            layers = convolve(channels)
            size = count_features(layers, channels, height, width)
            cnns.append(nn.Sequential(*layers, nn.Linear(size, features), nn.ReLU()))
        self.cnns = nn.ModuleList(cnns)
        self.output_size = features * len(self.images) + sum(input_shapes[leaf][0] for leaf in self.others)

    def forward(self, obs: Observation) -> Tensor:
        """Encode leaves ``[N, ...]`` as ``[N, D]``."""
        features = [cnn(obs[leaf]) for leaf, cnn in zip(self.images, self.cnns, strict=True)]
        return torch.cat([*features, *(obs[leaf] for leaf in self.others)], dim=-1)


def count_features(layers: Sequence[nn.Module], channels: int, height: int, width: int) -> int:
    """Return how many numbers ``layers`` make of an image."""
    with torch.no_grad():
        return int(nn.Sequential(*layers)(torch.zeros(1, channels, height, width)).shape[1])


def initialise(module: nn.Module) -> None:
    """Make all weights orthogonal, with the gain of layers with ReLU or tanh, and all biases zero."""
    for layer in module.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
