"""Images: which leaves are some, where their sides, frames and channels are, and the CNN behind them."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.encoders.leaves import count_features
from rl.encoders.nature import SMALLEST_SIDE, convolve
from rl.networks.categories import Categories
from rl.networks.scales import Scale
from rl.normalisation import RunningMoments

ImageLayout = Literal["auto", "channels_first", "channels_last", "flat"]

BYTE_SIDE = 16
"""A matrix of bytes 0 ... 255 is an image from such sides on."""

STACK_SIDE = 7
"""Four axes hold a stack of images from such sides on."""


class ImageAxes(NamedTuple):
    """The meaning of the axes of an image.

    Attributes:
        rows: the axis of the height; that of the width is the next one.
        planes: all other axes, which together are the input channels.
    """

    rows: int
    planes: tuple[int, ...]


def find_image_axes(space: spaces.Space, layout: ImageLayout = "auto") -> ImageAxes | None:
    """Find the sides of an image among the axes of a leaf.

    A Box is an image if it has

    * two axes: bytes 0 ... 255 with sides of 16 and more, or any numbers with sides of 36 and more;
    * three axes, whatever their sizes: one of channels, or of stacked gray frames, and two sides;
    * four axes with sides of 7 and more: frames, channels and two sides.

    The sides are two neighbouring axes: equal ones, or else those of the largest product, the later ones in doubt. So
    channels and frames may come first or last.

    Args:
        space: of the leaf.
        layout: where the channels of a leaf with three or four axes are, ``auto`` to find out; ``flat`` for no image.

    Returns:
        The axes; None if it is no image.
    """
    if not isinstance(space, spaces.Box) or layout == "flat" or len(space.shape) not in (2, 3, 4):
        return None
    shape, count = space.shape, len(space.shape)
    if count == 2:
        byte = space.dtype == np.uint8 and space.low.min() == 0 and space.high.max() == 255
        return ImageAxes(0, ()) if min(shape) >= (BYTE_SIDE if byte else SMALLEST_SIDE) else None
    if layout == "auto":
        rows = max(range(count - 1), key=lambda axis: _rate_sides(shape[axis], shape[axis + 1], axis))
        if count == 4 and min(shape[rows : rows + 2]) < STACK_SIDE:
            return None
    else:
        rows = count - 2 if layout == "channels_first" else count - 3
    return ImageAxes(rows, tuple(axis for axis in range(count) if axis not in (rows, rows + 1)))


def _rate_sides(height: int, width: int, axis: int) -> tuple[bool, int, int]:
    """Rate how likely two neighbouring axes are the sides of an image."""
    return height == width and height > 2, height * width, axis


class ImageEncoder(nn.Module):
    """An encoder: images ``[..., *shape]`` of bytes or floats -> ``[..., D]``.

    Values are scaled from the bounds of the space to 0 ... 1, see ``rl.networks.scales``, then each channel is
    normalised by running moments: from numbers that are all positive it is learned later, or not at all. Frames times
    channels are the input channels of a CNN: for sides of 36 and more that of Mnih et al. (2015), for smaller ones two
    layers of 3 x 3.

    Where the numbers are categories each of these has a plane of its own in place of the channel, 0 or 1, which is
    normalised alike: so what is rarely seen stands out.

    Args:
        name: of the leaf.
        space: a Box.
        axes: of the image, see ``find_image_axes``.
        categories: the number of categories of each channel; None for brightness.
        has_cnn: False leaves the CNN to others, who take what ``prepare`` gives.

    Attributes:
        shape: of the prepared image, (C, H, W).
    """

    bounded = False

    def __init__(
        self,
        name: str,
        space: spaces.Box,
        axes: ImageAxes,
        categories: Sequence[int] | None = None,
        has_cnn: bool = True,
    ):
        super().__init__()
        self.rank = len(space.shape)
        self.sides = space.shape[axes.rows : axes.rows + 2]
        self.planes = tuple(space.shape[axis] for axis in axes.planes)
        channels = math.prod(self.planes)
        self.categories = None
        if categories is not None:
            self.categories = Categories(name, categories, channels // len(categories))
            channels = len(self.categories.codes)
        self.shape = channels, *self.sides
        self.order = (0, *(1 + axis for axis in (*axes.planes, axes.rows, axes.rows + 1)))
        self.scale = Scale(name, space, shared=True)
        layers: Sequence[nn.Module]
        self.cnn, layers = _make_cnn(*self.shape) if has_cnn else ("", [nn.Flatten()])
        self.layers = nn.Sequential(*layers)
        self.output_size = count_features(layers, *self.shape)
        self.moments = RunningMoments((self.shape[0], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Encode images as ``[..., D]``."""
        return self.layers(self.prepare(x)).view(*x.shape[: x.dim() - self.rank], self.output_size)

    def prepare(self, x: Tensor) -> Tensor:
        """Turn ``[..., *shape]`` into ``[N, C, H, W]`` that a CNN can read."""
        return self.moments(self._scale(self._arrange(x)))

    def update_moments(self, x: Tensor) -> None:
        """Add images to the running moments."""
        images = self._arrange(x)
        if self.categories is not None:
            self.categories.check(images)
        images = self._scale(images)
        self.moments.update(images.movedim(-3, -1).reshape(-1, images.shape[-3], 1, 1))

    def _arrange(self, x: Tensor) -> Tensor:
        """Turn ``[..., *shape]`` into ``[batch, planes, H, W]``."""
        x = x.reshape(-1, *x.shape[x.dim() - self.rank :]).permute(self.order)
        # convolutions of few channels are fastest in this layout
        return x.to(torch.float32, memory_format=torch.contiguous_format).reshape(x.shape[0], -1, *self.sides)

    def _scale(self, x: Tensor) -> Tensor:
        """Turn ``[batch, planes, H, W]`` into ``[batch, C, H, W]`` in 0 ... 1."""
        return self.scale(x) if self.categories is None else self.categories(x)

    def correct_scale(self, x: Tensor) -> str | None:
        """Correct a scale that destroys ``x [..., *shape]``, see ``Scale.correct``."""
        if self.categories is not None:
            self.categories.check(self._arrange(x))
            return None
        sentence = self.scale.correct(x.amin(), x.amax(), normalised=False)  # nor are they in the first rollout
        if sentence:
            self.moments.reset()
            self.update_moments(x)
        return sentence

    def describe(self) -> str:
        """Say how the image is encoded."""
        height, width = self.sides
        if len(self.planes) == 2:
            planes = f"{self.planes[0]} x {self.planes[1]} frames and channels"
        elif self.planes in ((), (1,)):
            planes = "gray"
        else:
            planes = f"{self.planes[0]} {'channels' if self.planes == (3,) else 'frames or channels'}"
        network = f"CNN '{self.cnn}', " if self.cnn else ""
        numbers = self.scale.describe() if self.categories is None else self.categories.describe()
        return f"image {height}x{width}, {planes}, {network}{numbers}, normalised"


def _make_cnn(channels: int, height: int, width: int) -> tuple[str, list[nn.Module]]:
    """Return the name and the layers of the network for images of such sides."""
    if min(height, width) >= SMALLEST_SIDE:
        return "nature", convolve(channels)
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    return "two 3x3 layers", [*layers, nn.Flatten()]
