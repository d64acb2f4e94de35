"""Observations as the arrays that a network takes: one for each leaf of the space, of its shape and dtype."""

import math
from collections.abc import Collection
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.spaces import fed_dtype, get_shape, leaf_arrays, list_leaves, split_flat


def seen_leaves(space: spaces.Space, input_names: Collection[str]) -> dict[str, spaces.Space]:
    """List the leaves of an observation that a network takes, by name; it may ignore others."""
    return {name: leaf for name, leaf in list_leaves(space).items() if name in input_names}


def name_leaves(space: spaces.Space, leaves: dict[str, spaces.Space], observation: Any) -> dict[str, np.ndarray]:
    """List the arrays of an observation by the names of the leaves.

    Args:
        space: of one observation.
        leaves: of it, those that are wanted.
        observation: batched or not. For a composite space it may be flat, ``[F]`` or ``[B, F]``.

    Raises:
        ValueError: a part is missing, or the numbers cannot be laid out as an array.
    """
    try:
        if not isinstance(space, (spaces.Dict, spaces.Tuple)):
            return {"obs": np.asarray(observation)}
        flat = isinstance(observation, np.ndarray)
        if isinstance(space, spaces.Dict) and isinstance(observation, (list, tuple)):
            observation, flat = np.asarray(observation), True
        if not flat:
            return leaf_arrays(space, observation, leaves)
    except (LookupError, TypeError) as error:
        kind, names = type(observation).__name__, ", ".join(leaves)
        raise ValueError(f"an observation with the parts {names} is expected, but this {kind} lacks {error}") from error
    parts = split_flat(leaves, observation)
    return {name: part[0] for name, part in parts.items()} if observation.ndim == 1 else parts


def fit_leaf(name: str, given: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Bring one leaf into the shape and dtype of its space; most environments hand it over like that.

    Args:
        name: of the leaf.
        given: of its shape, which may have other axes of length 1, or flat, ``[N]`` or ``[B, F]``.
        shape: of a batch of the leaf.
        dtype: of the leaf.

    Raises:
        ValueError: it has another shape, holds no numbers, or numbers that the dtype cannot hold.
    """
    if given.dtype.kind == "O":
        try:
            given = given.astype(np.float64)
        except (TypeError, ValueError):
            raise ValueError(
                f"observation {name!r} holds objects that are no numbers, but its space is {dtype}"
            ) from None
    if given.dtype.kind not in "biuf":
        raise ValueError(f"observation {name!r} holds {given.dtype}, but its space is {dtype}")
    if dtype.kind in "iu" and given.dtype != dtype and given.size:
        if given.dtype.kind == "f" and np.mod(given, 1).any():
            raise ValueError(f"observation {name!r} holds fractions, but its space is {dtype}")
        low, high, allowed = given.min(), given.max(), np.iinfo(dtype)
        if low < allowed.min or high > allowed.max:
            raise ValueError(f"observation {name!r} holds numbers from {low} to {high}, but its space is {dtype}")
    array = np.ascontiguousarray(given, dtype=dtype)
    if array.shape != shape:
        if array.size != math.prod(shape) or (array.ndim > 2 and _without_ones(array.shape) != _without_ones(shape)):
            raise ValueError(f"observation {name!r} has shape {array.shape}, but {shape} is expected")
        array = array.reshape(shape)
    return array


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def read_batch(
    space: spaces.Space, leaves: dict[str, spaces.Space], observation: Any
) -> tuple[dict[str, np.ndarray], int, bool]:
    """Read an observation of any number of rows, or a single one, and check its numbers.

    Args:
        space: of one observation.
        leaves: of it, as ``rl.spaces.leaf_spaces`` lists them.
        observation: with a leading axis B, or without it.

    Returns:
        The leaves ``[B, ...]``; B; and whether it is a single observation, without an axis of its own (B is 1).

    Raises:
        ValueError: it does not fit the space, or a number is not finite or no value of its space.
    """
    arrays = name_leaves(space, leaves, observation)
    sizes = {name: _count_rows(name, array, get_shape(leaves[name])) for name, array in arrays.items()}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name}: {'none' if rows is None else rows}" for name, rows in sizes.items())
        raise ValueError(f"the parts of the observation must have one number of rows, but they have {told}")
    found = next(iter(sizes.values()))
    rows = 1 if found is None else found
    batch = {}
    for name, leaf in leaves.items():
        batch[name] = fit_leaf(name, arrays[name], (rows, *get_shape(leaf)), fed_dtype(leaf))
        _check_values(name, batch[name], leaf)
    return batch, rows, found is None


def _count_rows(name: str, array: np.ndarray, shape: tuple[int, ...]) -> int | None:
    """Return the length of the leading axis in front of ``shape``; None if there is no such axis."""
    if array.shape == shape:
        return None
    if array.ndim == len(shape) + 1 and array.shape[1:] == shape and len(array):
        return len(array)
    batched = ", ".join(["B", *map(str, shape)])
    raise ValueError(f"observation {name!r} has shape {array.shape}: it must be {shape}, or ({batched}) for B rows")


def _check_values(name: str, batch: np.ndarray, leaf: spaces.Space) -> None:
    """Check that the numbers ``[B, ...]`` are finite, and those of a discrete leaf values of its space."""
    if batch.dtype.kind == "f" and not np.isfinite(batch).all():
        row = int(np.argmin(np.isfinite(batch).reshape(len(batch), -1).all(1)))
        raise ValueError(f"observation {name!r} holds a number that is not finite, in row {row}")
    if isinstance(leaf, spaces.Discrete):
        wrong = (batch < leaf.start) | (batch >= leaf.start + leaf.n)
    elif isinstance(leaf, spaces.MultiDiscrete):
        wrong = (batch < leaf.start) | (batch >= leaf.start + leaf.nvec)
    else:
        return
    if wrong.any():
        raise ValueError(f"observation {name!r} holds {batch[wrong][0]}, which is no value of {leaf}")


def as_flags(starts: Any, rows: int) -> np.ndarray:
    """Bring ``starts`` into the shape ``[B]``; None sets none of them.

    Raises:
        ValueError: they are no flags, or of another number.
    """
    if starts is None:
        return np.zeros(rows, dtype=bool)
    flags = np.asarray(starts)
    if flags.dtype != np.bool_ and not (flags.dtype.kind in "iuf" and np.isin(flags, (0, 1)).all()):
        raise ValueError(f"starts={starts!r}: it must hold a bool for each of the {rows} row(s) of the observation")
    if flags.shape != (rows,) and not (rows == 1 and flags.size == 1):
        raise ValueError(f"starts has shape {flags.shape}, but the observation has {rows} row(s): it must be ({rows},)")
    return flags.reshape(rows).astype(bool)


def as_rewards(rewards: Any, starts: np.ndarray) -> np.ndarray:
    """Bring the rewards of the previous step into float32 ``[B]``.

    Raises:
        ValueError: they are missing where no episode starts, of another number, or not finite.
    """
    rows = len(starts)
    if rewards is None:
        if starts.all():
            return np.zeros(rows, dtype=np.float32)
        raise ValueError(
            "rewards=None: this agent is fed the reward of its previous action (previous_action_reward), so act needs "
            "rewards=, unless every row starts an episode"
        )
    with np.errstate(over="ignore"):  # it becomes infinite, which is refused below
        paid = np.asarray(rewards, dtype=np.float32)
    if paid.shape != (rows,) and not (rows == 1 and paid.size == 1):
        raise ValueError(f"rewards has shape {paid.shape}, but the observation has {rows} row(s): it must be ({rows},)")
    if not np.isfinite(paid.reshape(rows)[~starts]).all():
        raise ValueError(f"rewards={rewards}: they must be finite")
    return np.where(starts, np.float32(0), paid.reshape(rows))


def flag_rows(rows: Any, count: int) -> np.ndarray:
    """Turn rows, indices or a bool for each, into bool ``[B]``.

    Raises:
        ValueError: a row is not there.
    """
    indices = np.asarray(rows)
    if indices.dtype == np.bool_ and indices.shape == (count,):
        return indices
    flags = np.zeros(count, dtype=bool)
    if indices.size:
        if indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= count:
            raise ValueError(f"rows={rows!r}: they must be whole numbers from 0 to {count - 1}, or {count} bools")
        flags[indices] = True
    return flags
