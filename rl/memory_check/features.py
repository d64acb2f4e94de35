"""Turn observations and actions of any space into rows of numbers that a small regression can read."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from gymnasium import spaces

from rl.memory_check.play import Leaves
from rl.spaces import LEAF_SPACES, list_leaves

MOST_CHOICES = 512  # of a choice that is written one-hot
MOST_NUMBERS = 1024  # of a leaf that is read as it is
MIXTURES = 256  # random ones, of the numbers of a larger leaf
BLOCKS = 32  # per axis, to which a larger picture is averaged first


def encode(space: spaces.Space, leaf: np.ndarray) -> np.ndarray:
    """Return the rows of one leaf as numbers: choices one-hot, large pictures as random mixtures of their numbers.

    Args:
        space: of one row.
        leaf: ``[n, *shape]``.

    Returns:
        float32 ``[n, F]``.
    """
    count = len(leaf)
    if isinstance(space, spaces.Discrete) and space.n <= MOST_CHOICES:
        return _one_hot(leaf.reshape(count) - space.start, int(space.n))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.sum() <= MOST_CHOICES:
        choices = (leaf - space.start).reshape(count, -1)
        return np.concatenate([_one_hot(choices[:, i], int(n)) for i, n in enumerate(space.nvec.ravel())], axis=1)
    numbers = np.nan_to_num(leaf.astype(np.float32))
    if math.prod(leaf.shape[1:]) <= MOST_NUMBERS:
        return numbers.reshape(count, -1)
    for axis in range(1, leaf.ndim if leaf.ndim > 2 else 1):
        numbers = _average(numbers, axis)
    numbers = numbers.reshape(count, -1)
    return numbers @ _mixing(numbers.shape[1])


def encode_leaves(space: spaces.Space, leaves: Leaves) -> np.ndarray:
    """Return the rows of all leaves side by side, float32 ``[n, F]``; see ``encode``."""
    known = list_leaves(space)
    parts = [encode(known[name], leaf) for name, leaf in leaves.items() if isinstance(known[name], LEAF_SPACES)]
    return np.concatenate(parts, axis=1) if parts else np.zeros((0, 0), dtype=np.float32)


def list_branches(space: spaces.Space) -> list[int]:
    """Return the numbers of choices of a discrete action, one for each branch; empty for any other action."""
    if isinstance(space, spaces.Discrete) and space.n <= MOST_CHOICES:
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.sum() <= MOST_CHOICES:
        return [int(n) for n in space.nvec.ravel()]
    return []


def _one_hot(choices: np.ndarray, count: int) -> np.ndarray:
    return (choices[:, None] == np.arange(count)).astype(np.float32)


@lru_cache
def _mixing(size: int) -> np.ndarray:
    """Return random weights ``[size, MIXTURES]``, always the same ones."""
    weights = np.random.default_rng(0).standard_normal((size, MIXTURES)) / size**0.5
    return weights.astype(np.float32)


def _average(numbers: np.ndarray, axis: int) -> np.ndarray:
    """Average an axis to at most ``BLOCKS`` numbers."""
    size = numbers.shape[axis]
    if size <= BLOCKS:
        return numbers
    begins = np.arange(BLOCKS) * size // BLOCKS
    lengths = np.diff([*begins, size]).astype(np.float32)
    shape = [1] * numbers.ndim
    shape[axis] = BLOCKS
    return np.add.reduceat(numbers, begins, axis=axis) / lengths.reshape(shape)
