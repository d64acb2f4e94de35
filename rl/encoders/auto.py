"""The encoder that fits itself to every observation; ``rl.networks.Encoder`` makes it."""

from collections.abc import Callable
from typing import Any


def auto(input_shapes: dict[str, tuple[int, ...]]) -> None:
    """Stand for what ``rl.networks.Encoder`` makes of an observation by itself; it is looked at, never called."""


def is_auto(encoder: Callable[..., Any]) -> bool:
    """Say whether an agent was given ``auto``, which a configuration or a checkpoint wraps into a ``partial``."""
    return getattr(encoder, "func", encoder) is auto
