"""The network of Mnih et al., "Human-level control through deep reinforcement learning" (2015)."""

from torch import nn

from rl.encoders.leaves import ImagesAndVectors, Shapes, initialise

SMALLEST_SIDE = 36
"""With smaller sides nothing is left of an image for the last convolution: 36, then 8, 3 and 1."""


def convolve(channels: int) -> list[nn.Module]:
    """Make the convolutions, ``[N, C, H, W] -> [N, D]``: 8 x 8 in steps of 4, 4 x 4 in steps of 2, 3 x 3."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU()]
    return [*layers, nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten()]


def nature(input_shapes: Shapes, features: int = 512) -> ImagesAndVectors:
    """Build three convolutions and a layer with ReLU for each image; numbers beside it are put behind its features.

    For 84 x 84 pixels of four frames these are 1,684,128 parameters.

    Args:
        input_shapes: of the leaves, see ``rl.types.FeatureEncoder``.
        features: width of the layer.

    Raises:
        ValueError: there is no image, one has a side below 36, or ``features`` is below 1.
    """
    encoder = ImagesAndVectors("nature", input_shapes, convolve, features, SMALLEST_SIDE)
    initialise(encoder)
    return encoder
