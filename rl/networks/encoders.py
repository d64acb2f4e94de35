"""From an observation to one feature vector: what each leaf needs, and an encoder behind it."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.checks import one_of, positive
from rl.encoders.auto import auto, is_auto
from rl.encoders.leaves import initialise
from rl.networks.categories import ImageEncoding, check_encoding, count_categories
from rl.networks.feature_encoder import make_feature_encoder, name_encoder
from rl.networks.images import ImageEncoder, ImageLayout, find_image_axes
from rl.networks.scales import Scale
from rl.normalisation import RunningMoments
from rl.spaces import get_shape
from rl.types import FeatureEncoder, Observation

MAX_CODES = 2**16
"""Largest size of a one-hot code: each of its numbers has weights of its own."""

BROAD, NARROW = 1024, 256
"""An image of more than BROAD features learns as fast as one of NARROW."""


class LeafEncoder(Protocol):
    """A module for one leaf of an observation."""

    output_size: int
    bounded: bool  # what it gives stays within +-1

    def __call__(self, x: Tensor) -> Tensor:
        """Encode ``[..., *shape]`` as ``[..., output_size]``."""

    def update_moments(self, x: Tensor) -> None:
        """Add ``x [..., *shape]`` to the running moments, if there are any."""

    def correct_scale(self, x: Tensor) -> str | None:
        """Correct a scale that destroys ``x [..., *shape]``; return a sentence about it, None if there is none."""

    def describe(self) -> str:
        """Say in a few words how the leaf is encoded."""


class Encoder(nn.Module):
    """An encoder: ``observation leaves [..., *shape]`` -> ``features [..., output_size]``.

    Images (``rl.networks.images.find_image_axes`` says what is one) are scaled and normalised, all other Box leaves are
    flattened, Discrete and MultiDiscrete become one-hot, MultiBinary stays as it is. Whole numbers, images and numbers
    with wide bounds are scaled by their bounds (``rl.networks.scales``). A chosen ``encoder`` makes features of these,
    see ``rl.types.FeatureEncoder``.

    With ``auto`` images go through a CNN and everything is concatenated. If
    that is wider than ``layer_size``, or if any of it may leave +-1, one fully connected tanh layer follows, so an
    image with scalars beside it keeps its scalars. Else, as with one-hot codes, there is nothing to compress and
    nothing to bound, and the memory reads it as it is: with a layer in between it learns more slowly. A step of Adam
    moves every weight alike, so what it does to the layer grows with the number of features, and thousands of them
    saturate the tanh within a few steps. Those of an image with more than ``BROAD`` are divided by a number and their
    weights begin multiplied by it.

    Args:
        leaves: elementary spaces by name, as ``rl.spaces.leaf_spaces`` gives them.
        layer_size: width of the layer of ``auto``.
        normalise: keep running moments of the Box leaves and normalise by them; images have them always.
        image_layout: where the channels of a Box leaf with three or four axes are. ``auto`` finds out; ``flat`` means
            that no leaf is an image.
        image_encoding: what the numbers of an image mean. ``brightness``; ``categories``, each of which gets a plane
            of its own: so many as the bounds of the space tell, or as MiniGrid has; a list with the number of
            categories of each channel; ``auto`` for categories where ``rl.networks.categories.is_grid`` holds.
        encoder: ``encoder(input_shapes) -> rl.types.FeatureEncoder``.

    Attributes:
        chosen: the encoder that was chosen; None with ``auto``.
        layer: the layer of ``auto``; None without.

    Raises:
        ValueError: ``layer_size`` is below 1, ``image_layout`` is none of the four, there is no leaf, one has too
            many values for a one-hot code, or the encoder keeps not to its contract.
    """

    divisors: Tensor | None  # [sum of output sizes], part of a checkpoint, for the weights have no meaning without it
    parts: Sequence[LeafEncoder]  # a ModuleList, of which a type checker knows only that it holds modules

    def __init__(
        self,
        leaves: dict[str, spaces.Space],
        layer_size: int = 64,
        normalise: bool = False,
        image_layout: ImageLayout = "auto",
        image_encoding: ImageEncoding = "auto",
        encoder: Callable[..., FeatureEncoder | None] = auto,
    ):
        super().__init__()
        positive(layer_size=layer_size)
        one_of(get_args(ImageLayout), image_layout=image_layout)
        check_encoding(image_encoding)
        if not leaves:
            raise ValueError("there is no observation to encode: a mask of the actions alone is none")
        self.names = tuple(leaves)
        self.axes = len(get_shape(leaves[self.names[0]]))
        options = normalise, image_layout, image_encoding, is_auto(encoder)
        parts = [_make_leaf_encoder(name, space, *options) for name, space in leaves.items()]
        self.register_module("parts", nn.ModuleList(parts))
        self.sees_images = any(isinstance(part, ImageEncoder) for part in self.parts)
        self.chosen: nn.Module | None = None
        self.layer: nn.Linear | None = None
        self.register_buffer("divisors", None)
        if is_auto(encoder):
            self._add_layer(layer_size)
        else:
            shapes = (part.shape if isinstance(part, ImageEncoder) else (part.output_size,) for part in self.parts)
            made = make_feature_encoder(encoder, dict(zip(self.names, shapes, strict=True)))
            self.chosen, self.chosen_name, self.output_size = made, name_encoder(encoder), made.output_size

    def _add_layer(self, layer_size: int) -> None:
        """Add the layer of ``auto``, if it is needed, and initialise all weights."""
        width = sum(part.output_size for part in self.parts)
        is_needed = width > layer_size or not all(part.bounded for part in self.parts)
        self.layer = nn.Linear(width, layer_size) if is_needed else None
        self.output_size = layer_size if is_needed else width
        sizes = torch.tensor([part.output_size for part in self.parts])
        broad = (sizes > BROAD) & torch.tensor([isinstance(part, ImageEncoder) for part in self.parts])
        divisors = torch.where(broad, sizes / NARROW, 1.0)
        self.divisors = divisors.repeat_interleave(sizes) if broad.any() else None
        initialise(self)
        if self.divisors is not None and self.layer is not None:
            with torch.no_grad():
                self.layer.weight.mul_(self.divisors)

    def forward(self, obs: Observation) -> Tensor:
        """Encode leaves ``[..., *shape]`` as ``[..., output_size]``."""
        if self.chosen is not None:
            first = obs[self.names[0]]
            features: Tensor = self.chosen(self._prepare(obs))
            return features.reshape(*first.shape[: first.dim() - self.axes], self.output_size)
        parts = [part(obs[name]) for name, part in zip(self.names, self.parts, strict=True)]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        if self.layer is None:
            return joined
        return torch.tanh(self.layer(joined if self.divisors is None else joined / self.divisors))

    def _prepare(self, obs: Observation) -> Observation:
        """Turn leaves ``[..., *shape]`` into what a chosen encoder reads, ``[N, C, H, W]`` or ``[N, D]``."""
        return {
            name: part.prepare(obs[name])
            if isinstance(part, ImageEncoder)
            else part(obs[name]).reshape(-1, part.output_size)
            for name, part in zip(self.names, self.parts, strict=True)
        }

    @property
    def computes(self) -> bool:
        """Whether layers make the features; else the leaves are handed on as they are."""
        return self.layer is not None or self.chosen is not None

    def is_sequence(self, obs: Observation) -> bool:
        """Tell whether the leaves are ``[T, B, *shape]``."""
        return obs[self.names[0]].dim() == 2 + self.axes

    @property
    def normalises(self) -> bool:
        """Whether running moments of a leaf are kept."""
        return any(isinstance(module, RunningMoments) for module in self.modules())

    def update_moments(self, obs: Observation) -> None:
        """Add the leaves ``[..., *shape]`` to the running moments, where these are kept."""
        for name, part in zip(self.names, self.parts, strict=True):
            part.update_moments(obs[name])

    @property
    def corrected(self) -> bool:
        """Whether a scale was corrected."""
        return any(isinstance(module, Scale) and module.corrected for module in self.modules())

    def correct_scales(self, obs: Observation) -> list[str]:
        """Correct, once, the scales that destroy what the leaves ``[..., *shape]`` hold; return a sentence for each."""
        if self.corrected:
            return []
        pairs = zip(self.names, self.parts, strict=True)
        return [sentence for name, part in pairs if (sentence := part.correct_scale(obs[name]))]

    def describe(self) -> list[str]:
        """Say how each leaf is encoded, a line for each."""
        pairs = zip(self.names, self.parts, strict=True)
        lines = [f"observation {name!r}: {part.describe()}" for name, part in pairs]
        if self.chosen is not None:
            number = sum(parameter.numel() for parameter in self.chosen.parameters())
            lines.append(f"encoder: {self.chosen_name}, {self.output_size} features, {number:,} parameters")
        return lines


def _make_leaf_encoder(
    name: str, space: spaces.Space, normalise: bool, layout: ImageLayout, encoding: ImageEncoding, has_cnn: bool
) -> nn.Module:
    if isinstance(space, spaces.Box):
        axes = find_image_axes(space, layout)
        if axes is None:
            return VectorEncoder(name, space, normalise)
        return ImageEncoder(name, space, axes, count_categories(name, space, axes.planes, encoding), has_cnn)
    if isinstance(space, spaces.Discrete):
        return OneHotEncoder(name, np.array([space.n]), np.array([space.start]), scalar=True)
    if isinstance(space, spaces.MultiDiscrete):
        return OneHotEncoder(name, space.nvec.ravel(), space.start.ravel(), scalar=False, axes=space.nvec.ndim)
    return VectorEncoder(name, space, normalise=False)  # MultiBinary


class VectorEncoder(nn.Module):
    """An encoder that flattens ``[..., *shape]`` to float32 ``[..., D]``, scaled where the space asks for it.

    Args:
        name: of the leaf.
        space: a Box or MultiBinary.
        normalise: keep running moments of each number and normalise by them.
    """

    def __init__(self, name: str, space: spaces.Space, normalise: bool):
        super().__init__()
        shape = get_shape(space)
        self.axes = len(shape)
        self.bits = isinstance(space, spaces.MultiBinary)
        self.output_size = math.prod(shape)
        self.scale = Scale(name, space, shared=False)
        self.moments = RunningMoments((self.output_size,)) if normalise else None
        self.bounded = self.moments is None and self.scale.bounded

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[..., *shape]`` as ``[..., D]``."""
        x = self.scale(x.float() if self.axes == 1 else self._flatten(x))
        return x if self.moments is None else self.moments(x)

    def update_moments(self, x: Tensor) -> None:
        """Add ``x [..., *shape]`` to the running moments, if there are any."""
        if self.moments is not None:
            self.moments.update(self.scale(self._flatten(x)))

    def correct_scale(self, x: Tensor) -> str | None:
        """Correct a scale that destroys ``x [..., *shape]``, see ``Scale.correct``."""
        numbers = x.reshape(-1, self.output_size)
        sentence = self.scale.correct(numbers.amin(0), numbers.amax(0), self.moments is not None)
        if sentence and self.moments is not None:
            self.moments.reset()
            self.update_moments(x)
        return sentence

    def describe(self) -> str:
        """Say how many numbers there are, and what becomes of them."""
        if self.bits:
            return f"{self.output_size} bits, as they are"
        what = "a number" if self.output_size == 1 else f"vector of {self.output_size}"
        return f"{what}, {self.scale.describe()}" + (", normalised" if self.moments is not None else "")

    def _flatten(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[: x.dim() - self.axes], self.output_size).float()


class OneHotEncoder(nn.Module):
    """An encoder: integers ``[...]`` (Discrete) or ``[..., k]`` (MultiDiscrete) -> one-hot codes, ``[..., sum n]``.

    Args:
        name: of the leaf.
        sizes: the number of values of each integer, ``[k]``.
        offsets: the smallest value of each integer, ``[k]``.
        scalar: the integer is alone, without an axis (Discrete).
        axes: axes of a MultiDiscrete space, which are flattened.

    Raises:
        ValueError: there are more than ``MAX_CODES`` values.
    """

    bounded = True
    codes: Tensor  # [sum n], the value that each column stands for
    column: Tensor  # [sum n], the integer that each column belongs to

    def __init__(self, name: str, sizes: np.ndarray, offsets: np.ndarray, scalar: bool, axes: int = 1):
        super().__init__()
        self.output_size = sum(sizes.tolist())  # a sum of numpy's may overflow
        if self.output_size > MAX_CODES:
            raise ValueError(
                f"observation {name!r} is one of {self.output_size} values, more than the {MAX_CODES} that a one-hot "
                f"code can have: make it a Box, or leave it out with agent.ignore_leaves=[{name}]"
            )
        self.sizes = sizes.tolist()
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

    def correct_scale(self, x: Tensor) -> str | None:
        """Do nothing: codes have no scale."""
        return None

    def describe(self) -> str:
        """Say how many values each integer has."""
        counts = ", ".join(map(str, self.sizes[:4])) + (", ..." if len(self.sizes) > 4 else "")
        return f"one of {counts}, one-hot" if self.scalar else f"{len(self.sizes)} numbers of {counts} values, one-hot"
