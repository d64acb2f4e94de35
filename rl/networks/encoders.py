"""From an observation to one feature vector: a small network for each leaf, concatenated, then one layer."""

import math
from collections.abc import Sequence
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.checks import one_of, positive
from rl.normalisation import RunningMoments
from rl.spaces import get_shape
from rl.types import Observation

ImageLayout = Literal["auto", "channels_first", "channels_last", "flat"]


class LeafEncoder(Protocol):
    """A module for one leaf of an observation."""

    output_size: int

    def __call__(self, x: Tensor) -> Tensor:
        """Encode ``[..., *shape]`` as ``[..., output_size]``."""

    def update_moments(self, x: Tensor) -> None:
        """Add ``x [..., *shape]`` to the running moments, if there are any."""


class Encoder(nn.Module):
    """An encoder: ``observation leaves [..., *shape]`` -> ``features [..., layer_size]``.

    Images (Box with three axes) go through a CNN, Box leaves of any other shape are flattened, Discrete and
    MultiDiscrete become one-hot, MultiBinary stays as it is; everything is concatenated in front of one fully connected
    tanh layer, so an image with scalars beside it keeps its scalars.

    Args:
        leaves: elementary spaces by name, as ``rl.spaces.leaf_spaces`` gives them.
        layer_size: width of the last layer.
        normalise: keep running moments of the Box leaves (of each channel for images) and normalise by them.
        image_layout: what the axes of a Box leaf with three axes mean. ``auto`` takes the smaller of the first and the
            last axis for the channels (the first, if they are equal); ``flat`` means that the leaf is no image.

    Raises:
        ValueError: ``layer_size`` is below 1, or ``image_layout`` is none of the four.
    """

    parts: Sequence[LeafEncoder]  # a ModuleList, of which a type checker knows only that it holds modules

    def __init__(
        self,
        leaves: dict[str, spaces.Space],
        layer_size: int = 64,
        normalise: bool = False,
        image_layout: ImageLayout = "auto",
    ):
        super().__init__()
        positive(layer_size=layer_size)
        one_of(get_args(ImageLayout), image_layout=image_layout)
        self.names = tuple(leaves)
        parts = [_make_leaf_encoder(space, normalise, image_layout) for space in leaves.values()]
        self.register_module("parts", nn.ModuleList(parts))
        self.layer = nn.Linear(sum(part.output_size for part in self.parts), layer_size)
        self.output_size = layer_size
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.orthogonal_(module.weight, math.sqrt(2))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, obs: Observation) -> Tensor:
        """Encode leaves ``[..., *shape]`` as ``[..., layer_size]``."""
        features = [part(obs[name]) for name, part in zip(self.names, self.parts, strict=True)]
        return torch.tanh(self.layer(features[0] if len(features) == 1 else torch.cat(features, dim=-1)))

    def update_moments(self, obs: Observation) -> None:
        """Add the leaves ``[..., *shape]`` to the running moments, where these are kept."""
        for name, part in zip(self.names, self.parts, strict=True):
            part.update_moments(obs[name])


def _make_leaf_encoder(space: spaces.Space, normalise: bool, layout: ImageLayout) -> nn.Module:
    if isinstance(space, spaces.Box):
        if layout != "flat" and len(space.shape) == 3:
            return ImageEncoder(space, normalise, layout)
        return VectorEncoder(space, normalise)
    if isinstance(space, spaces.Discrete):
        return OneHotEncoder(np.array([space.n]), np.array([space.start]), scalar=True)
    if isinstance(space, spaces.MultiDiscrete):
        return OneHotEncoder(space.nvec.ravel(), space.start.ravel(), scalar=False, axes=space.nvec.ndim)
    return VectorEncoder(space, normalise=False)  # MultiBinary


class VectorEncoder(nn.Module):
    """An encoder that flattens ``[..., *shape]`` to float32 ``[..., D]``.

    Args:
        space: a Box or MultiBinary.
        normalise: keep running moments of each number and normalise by them.
    """

    def __init__(self, space: spaces.Space, normalise: bool):
        super().__init__()
        shape = get_shape(space)
        self.axes = len(shape)
        self.output_size = math.prod(shape)
        self.moments = RunningMoments((self.output_size,)) if normalise else None

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[..., *shape]`` as ``[..., D]``."""
        x = x.float() if self.axes == 1 else self._flatten(x)
        return x if self.moments is None else self.moments(x)

    def update_moments(self, x: Tensor) -> None:
        """Add ``x [..., *shape]`` to the running moments, if there are any."""
        if self.moments is not None:
            self.moments.update(self._flatten(x))

    def _flatten(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.dim() - self.axes], self.output_size).float()


class OneHotEncoder(nn.Module):
    """An encoder: integers ``[...]`` (Discrete) or ``[..., k]`` (MultiDiscrete) -> one-hot codes, ``[..., sum n]``.

    Args:
        sizes: the number of values of each integer, ``[k]``.
        offsets: the smallest value of each integer, ``[k]``.
        scalar: the integer is alone, without an axis (Discrete).
        axes: axes of a MultiDiscrete space, which are flattened.
    """

    codes: Tensor  # [sum n], the value that each column stands for
    column: Tensor  # [sum n], the integer that each column belongs to

    def __init__(self, sizes: np.ndarray, offsets: np.ndarray, scalar: bool, axes: int = 1):
        super().__init__()
        self.output_size = int(sizes.sum())
        self.scalar, self.axes = scalar, axes
        codes = np.concatenate([np.arange(n) + start for n, start in zip(sizes, offsets, strict=True)])
        self.register_buffer("codes", torch.from_numpy(codes), persistent=False)
        self.register_buffer("column", torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[...]`` or ``[..., k]`` as ``[..., sum n]``."""
        x = x.unsqueeze(-1) if self.scalar else x.flatten(x.dim() - self.axes)[..., self.column]
        return (x == self.codes).float()  # not nn.functional.one_hot: that reads the largest code back to the host

    def update_moments(self, x: Tensor) -> None:
        """Do nothing: codes are not normalised."""


class ImageEncoder(nn.Module):
    """An encoder: images ``[..., C, H, W]`` or ``[..., H, W, C]``, uint8 or float -> ``[..., D]``.

    Values are scaled from the bounds of the space to 0 ... 1. Sides of 36 and more get the network of Mnih et al.
    (2015), smaller ones two 3 x 3 layers.

    Args:
        space: a Box with three axes.
        normalise: keep running moments of each channel and normalise by them.
        layout: where the channels are, as for ``Encoder``.
    """

    def __init__(self, space: spaces.Box, normalise: bool, layout: ImageLayout = "auto"):
        super().__init__()
        self.channels_last = layout == "channels_last" or (layout == "auto" and space.shape[-1] < space.shape[0])
        channels, *sides = (space.shape[-1], *space.shape[:2]) if self.channels_last else space.shape
        low, high = float(space.low.min()), float(space.high.max())
        bounded = math.isfinite(low) and math.isfinite(high) and high > low
        self.low, self.width = (low, high - low) if bounded else (0.0, 1.0)
        self.moments = RunningMoments((channels, 1, 1)) if normalise else None
        layers: list[nn.Module]
        if min(sides) >= 36:
            layers = [nn.Conv2d(channels, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU()]
            layers += [nn.Conv2d(64, 64, 3, 1), nn.ReLU(), nn.Flatten()]
        else:
            layers = [nn.Conv2d(channels, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten()]
        self.layers = nn.Sequential(*layers)
        self.output_size = self.layers(torch.zeros(1, channels, *sides)).shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Encode images as ``[..., D]``."""
        images = self._scale(x)
        if self.moments is not None:
            images = self.moments(images)
        return self.layers(images).view(*x.shape[:-3], self.output_size)

    def update_moments(self, x: Tensor) -> None:
        """Add images to the running moments, if there are any."""
        if self.moments is not None:
            images = self._scale(x)
            self.moments.update(images.movedim(-3, -1).reshape(-1, images.shape[-3], 1, 1))

    def _scale(self, x: Tensor) -> Tensor:
        """Turn ``[..., *shape]`` into ``[batch, C, H, W]`` in 0 ... 1."""
        x = x.reshape(-1, *x.shape[-3:])
        x = x.permute(0, 3, 1, 2) if self.channels_last else x
        # convolutions of few channels are fastest in this layout
        x = x.to(torch.float32, memory_format=torch.contiguous_format)
        return (x - self.low) / self.width
