"""Observation spaces as named leaves, so that buffer and encoders see plain arrays only."""

from typing import Any

import numpy as np
from gymnasium import spaces

LEAF_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def leaf_spaces(space: spaces.Space, name: str = "") -> dict[str, spaces.Space]:
    """The elementary spaces inside ``space`` by name: ``obs`` for a plain one, ``a/b`` for key b inside key a.

    Raises:
        ValueError: a part that is neither Box, Discrete, MultiDiscrete, MultiBinary, Dict nor Tuple.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        children = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        nested = [leaf_spaces(child, f"{name}/{key}" if name else str(key)) for key, child in children]
        return {leaf: child for part in nested for leaf, child in part.items()}
    if not isinstance(space, LEAF_SPACES):
        raise ValueError(
            f"observation space {space} is not supported: "
            "use Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"
        )
    return {name or "obs": space}


def leaf_arrays(space: spaces.Space, obs: object, name: str = "") -> dict[str, np.ndarray]:
    """The arrays of an observation (batched or not) by leaf name; the counterpart of :func:`leaf_spaces`."""
    if isinstance(space, spaces.Dict):
        pairs = [(key, child, obs[key]) for key, child in space.spaces.items()]
    elif isinstance(space, spaces.Tuple):
        pairs = [(index, child, obs[index]) for index, child in enumerate(space.spaces)]
    else:
        return {name or "obs": np.asarray(obs)}
    nested = [leaf_arrays(child, part, f"{name}/{key}" if name else str(key)) for key, child, part in pairs]
    return {leaf: array for part in nested for leaf, array in part.items()}


def take_rows(obs: Any, rows: np.ndarray) -> Any:
    """The rows ``[n]`` of a batched observation: an array, or a dict or tuple of such."""
    if isinstance(obs, dict):
        return {key: take_rows(part, rows) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(take_rows(part, rows) for part in obs)
    return np.asarray(obs)[rows]


def split_flat(leaves: dict[str, spaces.Space], flat: np.ndarray) -> dict[str, np.ndarray]:
    """Cuts rows ``[B, F]`` of concatenated Box leaves into those leaves, ``[B, *shape]`` each.

    Raises:
        ValueError: F is not the total size of the leaves.
    """
    sizes = [int(np.prod(space.shape)) for space in leaves.values()]
    if flat.shape[-1] != sum(sizes):
        raise ValueError(f"an observation of {flat.shape[-1]} numbers was given, but {sum(sizes)} are expected")
    parts = np.split(flat, np.cumsum(sizes)[:-1], axis=-1)
    return {name: part.reshape(-1, *space.shape) for (name, space), part in zip(leaves.items(), parts, strict=True)}
