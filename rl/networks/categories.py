"""Images whose numbers are no brightness but categories: which are some, and one plane for each category."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.checks import one_of

ImageEncoding = Literal["auto", "brightness", "categories"] | Sequence[int]

MINIGRID = (11, 6, 4)
"""The number of kinds of objects, of colours and of states that MiniGrid has; a state may be one of four directions."""

EARLIER: ImageEncoding = "brightness"
"""What all images were read as before there was a choice."""

PICTURE_SIDE = 16
"""From such sides on bytes in three channels are a picture, unless it is said that they are categories."""

LARGEST = 255
"""A number that may be as large as this says nothing of how many categories there are."""


def check_encoding(encoding: ImageEncoding) -> None:
    """Check the argument ``image_encoding``.

    Raises:
        ValueError: it is neither of the three words nor a list of whole numbers above 1.
    """
    if isinstance(encoding, str):
        one_of(("auto", "brightness", "categories"), image_encoding=encoding)
        return
    counts = list(encoding) if isinstance(encoding, Sequence) else []
    if not counts or not all(isinstance(n, int) and not isinstance(n, bool) and 2 <= n <= LARGEST + 1 for n in counts):
        raise ValueError(
            f"image_encoding={encoding!r}: it must be one of 'auto', 'brightness', 'categories', or a list of the "
            f"number of categories of each channel, 2 to {LARGEST + 1}, such as {list(MINIGRID)}"
        )


def is_grid(space: spaces.Box, planes: Sequence[int]) -> bool:
    """Say whether an image looks like a view of MiniGrid: bytes 0 ... 255, ``[n, n, 3]``, n odd and below 16.

    Its partial views have such sides. A picture as small as that would have to be square, of odd sides and with its
    channels last to be taken for one, and the first number beyond the categories says so.

    Args:
        space: of the leaf.
        planes: its axes of frames and channels, see ``rl.networks.images.ImageAxes``.
    """
    return (
        space.dtype == np.uint8
        and tuple(planes) == (2,)
        and space.shape[2] == len(MINIGRID)
        and space.shape[0] == space.shape[1] < PICTURE_SIDE
        and space.shape[0] % 2 == 1
        and bool((space.low == 0).all() and (space.high == LARGEST).all())
    )


def count_categories(
    name: str, space: spaces.Box, planes: Sequence[int], encoding: ImageEncoding
) -> tuple[int, ...] | None:
    """Find how many categories the numbers of each channel of an image may be of, beginning with 0.

    Args:
        name: of the leaf, for messages.
        space: of it.
        planes: its axes of frames and channels, see ``rl.networks.images.ImageAxes``; the last one has the channels.
        encoding: see ``rl.networks.encoders.Encoder``.

    Returns:
        One number for each channel; None if the image is one of brightness.

    Raises:
        ValueError: categories are asked for, and the leaf has none, or their number is not known.
    """
    if encoding == "brightness" or (encoding == "auto" and not is_grid(space, planes)):
        return None
    channels = space.shape[planes[-1]] if planes else 1
    what = f"image_encoding={encoding!r}: observation {name!r}"
    if not np.issubdtype(space.dtype, np.integer) or space.low.min() < 0:
        raise ValueError(f"{what} is {space}, and categories are whole numbers from 0 on: set brightness")
    if not isinstance(encoding, str):
        if len(encoding) != channels:
            raise ValueError(f"{what} has {channels} channel(s): give a number of categories for each")
        return tuple(encoding)
    if is_grid(space, planes):
        return MINIGRID
    others = tuple(axis for axis in range(len(space.shape)) if not planes or axis != planes[-1])
    highest = np.atleast_1d(space.high.max(axis=others))
    if (highest >= LARGEST).any() or (highest < 1).any():
        raise ValueError(
            f"{what} is {space}, whose bounds do not say how many categories there are: give their number for each "
            f"channel, such as image_encoding={list(MINIGRID)}"
        )
    return tuple(int(high) + 1 for high in highest)


class Categories(nn.Module):
    """Planes of categories: numbers ``[N, C, H, W]`` -> one-hot ``[N, S, H, W]``, float32.

    A number that is no category is never passed over: where a policy plays on a CPU it is an error; elsewhere, where
    looking at it would make the device wait, its planes are not finite, so nothing behind them is.

    Args:
        name: of the leaf, for messages.
        counts: the number of categories of each channel.
        frames: of which each has these channels, so there are C = frames * channels.
    """

    codes: Tensor  # [S, 1, 1], the category that each plane stands for; in checkpoints, for ``means_brightness``
    channel: Tensor  # [S], the channel that each plane belongs to
    highest: Tensor  # [C, 1, 1], the last category of each channel

    def __init__(self, name: str, counts: Sequence[int], frames: int = 1):
        super().__init__()
        self.name, self.counts = name, tuple(counts)
        sizes = torch.tensor(self.counts * frames)
        codes = torch.cat([torch.arange(n, dtype=torch.float32) for n in sizes])
        self.register_buffer("codes", codes.view(-1, 1, 1))
        self.register_buffer("channel", torch.repeat_interleave(torch.arange(len(sizes)), sizes), persistent=False)
        self.register_buffer("highest", (sizes - 1.0).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn numbers ``[N, C, H, W]`` into planes ``[N, S, H, W]``.

        Raises:
            ValueError: see ``check``.
        """
        if x.device.type == "cpu" and torch.is_inference_mode_enabled() and not _is_traced():
            self.check(x)
        planes = (x[:, self.channel] == self.codes).float()
        return planes.masked_fill((x > self.highest)[:, self.channel], torch.nan)

    def check(self, x: Tensor) -> None:
        """Check that all numbers ``[N, C, H, W]`` are categories.

        Raises:
            ValueError: one is not.
        """
        if bool((x > self.highest).any()):
            highest = [int(n) for n in x.amax((0, 2, 3)).tolist()]
            raise ValueError(
                f"observation {self.name!r} holds numbers up to {highest} in its channels, but there are "
                f"{list(self.counts)} categories, 0 included: set agent.image_encoding=brightness if it is a picture, "
                "or to a list with the right numbers"
            )

    def describe(self) -> str:
        """Say how many categories there are."""
        counts = ", ".join(map(str, self.counts))
        return f"one-hot planes of {counts} categories (agent.image_encoding=brightness reads a picture)"


def _is_traced() -> bool:
    """Say whether a graph is being made, which no look at the numbers may become part of."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def means_brightness(weights: Mapping[str, Any]) -> bool:
    """Say whether no image of a network has categories, as none had before there was ``image_encoding``.

    Args:
        weights: of the network, by name.
    """
    return not any(name.endswith(".categories.codes") for name in weights)
