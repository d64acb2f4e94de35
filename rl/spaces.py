"""Observation spaces as named leaves, so that buffer and encoders see plain arrays only."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

LEAF_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def leaf_spaces(space: spaces.Space, name: str = "") -> dict[str, spaces.Space]:
    """List the elementary spaces inside ``space`` by name.

    Args:
        space: any nesting of Dict and Tuple spaces.
        name: the name of ``space`` itself, which goes before those of its parts.

    Returns:
        The spaces by leaf name: ``obs`` for a plain space, ``a/b`` for key b inside key a.

    Raises:
        ValueError: a part is neither Box, Discrete, MultiDiscrete, MultiBinary, Dict nor Tuple.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        children: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        nested = [leaf_spaces(child, f"{name}/{key}" if name else str(key)) for key, child in children]
        return {leaf: child for part in nested for leaf, child in part.items()}
    if not isinstance(space, LEAF_SPACES):
        raise ValueError(
            f"observation space {space} is not supported: "
            "use Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"
        )
    return {name or "obs": space}


def leaf_arrays(space: spaces.Space, obs: Any, name: str = "") -> dict[str, np.ndarray]:
    """List the arrays of an observation by leaf name, as ``leaf_spaces`` lists the spaces.

    Args:
        space: the space of one observation.
        obs: an observation, batched or not.
        name: the name of ``obs`` itself, which goes before those of its parts.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return {name or "obs": np.asarray(obs)}
    children: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    nested = [leaf_arrays(child, obs[key], f"{name}/{key}" if name else str(key)) for key, child in children]
    return {leaf: array for part in nested for leaf, array in part.items()}


def get_shape(space: spaces.Space) -> tuple[int, ...]:
    """Return the shape of an elementary space; only composite ones have none."""
    return () if space.shape is None else space.shape


def take_rows(obs: Any, rows: np.ndarray) -> Any:
    """Pick environments from a batched observation.

    Args:
        obs: an array ``[B, ...]``, or a dict or tuple of such.
        rows: ``[n]``, indices of environments.

    Returns:
        The same structure of arrays ``[n, ...]``.
    """
    if isinstance(obs, dict):
        return {key: take_rows(part, rows) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(take_rows(part, rows) for part in obs)
    return np.asarray(obs)[rows]


def split_flat(leaves: Mapping[str, spaces.Space], flat: np.ndarray) -> dict[str, np.ndarray]:
    """Split concatenated Box leaves.

    Args:
        leaves: the spaces in the order of concatenation.
        flat: ``[B, F]``, all leaves of each observation flattened side by side.

    Returns:
        ``[B, *shape]`` for each leaf.

    Raises:
        ValueError: F is not the total size of the leaves.
    """
    shapes = [get_shape(space) for space in leaves.values()]
    sizes = [math.prod(shape) for shape in shapes]
    if flat.shape[-1] != sum(sizes):
        raise ValueError(f"an observation of {flat.shape[-1]} numbers was given, but {sum(sizes)} are expected")
    parts = np.split(flat, np.cumsum(sizes)[:-1], axis=-1)
    return {name: part.reshape(-1, *shape) for name, part, shape in zip(leaves, parts, shapes, strict=True)}
