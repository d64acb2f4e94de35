"""The deep network of Espeholt et al., "IMPALA: scalable distributed deep-RL" (2018), figure 3, without its LSTM."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

from rl.checks import positive
from rl.encoders.leaves import ImagesAndVectors, Shapes, initialise


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, both 3 x 3. It begins as the identity: its last convolution is zero.

    So the features do not grow with the number of blocks (Zhang, Dauphin and Ma, "Fixup initialization", 2019).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the same shape."""
        inner: Tensor = self.last(relu(self.first(relu(x))))
        return x + inner


def impala(input_shapes: Shapes, channels: Sequence[int] = (16, 32, 32), features: int = 256) -> ImagesAndVectors:
    """Build a residual network for each image; numbers beside it are put behind its features.

    Each section is a convolution of 3 x 3, the largest of each 3 x 3 in steps of 2, which halves the sides (rounded
    up), and two residual blocks; a layer with ReLU follows. For 84 x 84 pixels of four frames these are 1,089,232
    parameters.

    Args:
        input_shapes: of the leaves, see ``rl.types.FeatureEncoder``.
        channels: of each section.
        features: width of the layer.

    Raises:
        ValueError: there is no image, or a size is below 1.
    """
    positive(**{f"channels[{section}]": size for section, size in enumerate(channels)})
    if not channels:
        raise ValueError("channels=[]: there must be a section at least, as in [16,32,32]")

    def convolve(planes: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for before, after in pairwise([planes, *channels]):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.MaxPool2d(3, 2, padding=1)]
            layers += [ResidualBlock(after), ResidualBlock(after)]
        return [*layers, nn.ReLU(), nn.Flatten()]

    encoder = ImagesAndVectors("impala", input_shapes, convolve, features)
    initialise(encoder)
    for module in encoder.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.last.weight)
    return encoder
