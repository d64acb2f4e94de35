"""Observation spaces as named leaves, so that buffer and encoders see plain arrays only."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from torch import Tensor

LEAF_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)

PLACEHOLDER = 1e6
"""A bound of this size or more (``finfo.max``, ``2**31 - 1``) says that none is known; it is never a scale."""


def list_leaves(space: spaces.Space, name: str = "") -> dict[str, spaces.Space]:
    """List the elementary spaces inside ``space`` by name, whatever their kind.

    Args:
        space: any nesting of Dict and Tuple spaces.
        name: the name of ``space`` itself, which goes before those of its parts.

    Returns:
        The spaces by leaf name: ``obs`` for a plain space, ``a/b`` for key b inside key a.

    Raises:
        ValueError: two leaves have one name.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return {name or "obs": space}
    children: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    leaves: dict[str, spaces.Space] = {}
    for key, child in children:
        part = list_leaves(child, f"{name}/{key}" if name else str(key))
        if twice := leaves.keys() & part.keys():
            raise ValueError(f"two parts of the observation are named {min(twice)!r}: rename one of them")
        leaves |= part
    return leaves


def find_ignored(space: spaces.Space, ignore_leaves: Sequence[str]) -> list[str]:
    """Return the leaves that ``ignore_leaves`` names; the name of a Dict or Tuple inside stands for all of its parts.

    Args:
        space: of one observation.
        ignore_leaves: names of leaves, or of parts that hold several.

    Raises:
        ValueError: there is no leaf of such a name, or it is no list of names.
    """
    leaves = list_leaves(space)
    if isinstance(ignore_leaves, str):
        raise ValueError(f"ignore_leaves={ignore_leaves}: it must be a list of names, such as [{ignore_leaves}]")
    for name in ignore_leaves:
        if not any(_is_part(leaf, name) for leaf in leaves):
            raise ValueError(f"ignore_leaves={list(ignore_leaves)}: there is no leaf {name!r}, but {', '.join(leaves)}")
    return [leaf for leaf in leaves if any(_is_part(leaf, name) for name in ignore_leaves)]


def _is_part(leaf: str, name: str) -> bool:
    return leaf == name or leaf.startswith(f"{name}/")


def leaf_spaces(space: spaces.Space, ignore_leaves: Sequence[str] = ()) -> dict[str, spaces.Space]:
    """List the elementary spaces inside ``space`` that an agent is to see, by name, see ``list_leaves``.

    Args:
        space: any nesting of Dict and Tuple spaces.
        ignore_leaves: names of leaves that are left out, see ``find_ignored``.

    Raises:
        ValueError: a leaf cannot be an input of a network, a name is unknown, or nothing is left.
    """
    ignored = find_ignored(space, ignore_leaves)
    leaves = {name: leaf for name, leaf in list_leaves(space).items() if name not in ignored}
    for name, leaf in leaves.items():
        if not isinstance(leaf, LEAF_SPACES):
            raise ValueError(_unsupported(space, name, leaf))
        if 0 in get_shape(leaf):
            raise ValueError(
                f"observation {name!r} is {leaf}, which holds no number: leave it out with ignore_leaves=[{name}]"
            )
    if not leaves:
        rest = f" without {', '.join(ignored)}" if ignored else ""
        raise ValueError(f"the observation space {space}{rest} has nothing that an agent could see")
    return leaves


def _unsupported(space: spaces.Space, name: str, leaf: spaces.Space) -> str:
    """Say that a leaf cannot be an input, and how to leave it out."""
    kind = type(leaf).__name__
    if leaf is space:
        return (
            f"observation space {kind} is not supported: "
            "use Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of these"
        )
    wrapper = "a wrapper that drops it"
    if isinstance(space, spaces.Dict):
        top = name.partition("/")[0]
        kept = ", ".join(key for key in space.spaces if key != top)
        wrapper = f"env.wrappers=[{{path: gymnasium.wrappers.FilterObservation, filter_keys: [{kept}]}}]"
    if kind == "MissionSpace":
        wrapper += ", or env.wrappers=[minigrid.wrappers.ImgObsWrapper]"
    return (
        f"observation {name!r} is {kind}, which is not supported: leave it out with agent.ignore_leaves=[{name}], "
        f"or with {wrapper}"
    )


def unsupported_leaves(space: spaces.Space) -> list[str]:
    """Return the names of the leaves that cannot be an input of a network, texts and graphs say."""
    return [name for name, leaf in list_leaves(space).items() if not isinstance(leaf, LEAF_SPACES)]


def leaf_arrays(space: spaces.Space, obs: Any, names: Collection[str] | None = None, name: str = "") -> dict[str, Any]:
    """List the arrays of an observation by leaf name, as ``leaf_spaces`` lists the spaces.

    Args:
        space: the space of one observation.
        obs: an observation, batched or not.
        names: of the leaves that are wanted; None for all.
        name: the name of ``obs`` itself, which goes before those of its parts.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        leaf = name or "obs"
        array = obs if isinstance(obs, Tensor) else np.asarray(obs)
        return {leaf: array} if names is None or leaf in names else {}
    children: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    found: dict[str, Any] = {}
    for key, child in children:
        inner = f"{name}/{key}" if name else str(key)
        if names is None or any(_is_part(leaf, inner) for leaf in names):
            found |= leaf_arrays(child, obs[key], names, inner)
    return found


def fed_dtype(space: spaces.Space) -> np.dtype:
    """Return the dtype in which a leaf is stored and fed.

    It is that of its space, but float32 for floats of any other width, and for unsigned integers of more than a byte,
    with which torch can do little, the next larger one that has a sign (float32 for 64 bits).
    """
    dtype = np.dtype(space.dtype)
    if dtype.kind == "f" or dtype == np.uint64:
        return np.dtype(np.float32)
    signed: dict[np.dtype, np.dtype] = {
        np.dtype(np.uint16): np.dtype(np.int32),
        np.dtype(np.uint32): np.dtype(np.int64),
    }
    return signed.get(dtype, dtype)


def are_known(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Say where bounds span a range: both are known, see ``PLACEHOLDER``, and ``high`` lies above ``low``.

    Args:
        low: the smallest values, float64.
        high: the largest values, of the same shape.

    Returns:
        A bool array of that shape.
    """
    return (np.abs(low) < PLACEHOLDER) & (np.abs(high) < PLACEHOLDER) & (high > low)


def get_shape(space: spaces.Space) -> tuple[int, ...]:
    """Return the shape of an elementary space; only composite ones have none."""
    return () if space.shape is None else space.shape


def take_rows(space: spaces.Space, obs: Any, rows: np.ndarray) -> Any:
    """Pick environments from a batched observation.

    Args:
        space: the space of one observation.
        obs: an array ``[B, ...]``, or a dict or tuple of such, as the space has it.
        rows: ``[n]``, indices of environments.

    Returns:
        The same structure of arrays ``[n, ...]``; a leaf that is no array, a text say, becomes a tuple of n.
    """
    if isinstance(obs, np.ndarray):  # of a Dict or Tuple: all leaves side by side
        return obs[rows]
    if isinstance(space, spaces.Dict):
        return {key: take_rows(part, obs[key], rows) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(take_rows(part, obs[i], rows) for i, part in enumerate(space.spaces))
    return np.asarray(obs)[rows] if isinstance(space, LEAF_SPACES) else tuple(obs[row] for row in rows)


def stack_rows(rows: Sequence[Any], space: spaces.Space) -> Any:
    """Bring single observations into one batch, as ``take_rows`` has it; zeros where a row is None.

    Raises:
        ValueError: all of them are None.
    """
    if isinstance(space, spaces.Dict):
        return {
            key: stack_rows([None if row is None else row[key] for row in rows], part)
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Tuple):
        parts = enumerate(space.spaces)
        return tuple(stack_rows([None if row is None else row[i] for row in rows], part) for i, part in parts)
    if not isinstance(space, LEAF_SPACES):
        return tuple(rows)
    given = [np.asarray(row) for row in rows if row is not None]
    if not given:
        raise ValueError(f"there is no observation in {len(rows)} rows, all of them are None")
    batch = np.zeros((len(rows), *given[0].shape), dtype=given[0].dtype)
    for index, row in enumerate(rows):
        if row is not None:
            batch[index] = row
    return batch


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
