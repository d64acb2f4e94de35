"""Bring what an environment returns into the shapes and types that it has declared, or say in a sentence what is wrong.

Everything here returns new arrays, so an environment may use its own again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.faults import MisfitError

Fit = Callable[[Any], Any]


def to_array(value: Any, what: str) -> np.ndarray:
    """Return numbers as an array: of numpy, of a list, of a tensor of any device.

    Raises:
        MisfitError: they are no numbers, or form no array.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise MisfitError(f"{what}={value!r}: it must be an array of numbers") from error
    if array.dtype.kind not in "fiub":
        raise MisfitError(
            f"{what}={_shorten(value)}: it must be {'a number' if array.ndim == 0 else 'an array of numbers'}"
        )
    return array


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def make_fit(space: spaces.Space, leaf: str = "") -> Fit:
    """Return a function that brings an observation into ``space``, in new arrays.

    Shapes must be the same. Numbers are converted where none is lost; they need not lie within the bounds of a ``Box``,
    but must be finite. A space of another kind than Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple is left
    to whatever uses it.

    Args:
        space: of the observation.
        leaf: its name within the whole, for messages.

    Returns:
        The function; it raises ``MisfitError`` with a sentence that names the leaf and what was expected.
    """
    what = f"observation {leaf!r}" if leaf else "observation"
    if isinstance(space, spaces.Dict):
        parts = {key: make_fit(part, f"{leaf}/{key}" if leaf else str(key)) for key, part in space.spaces.items()}
        return lambda value: _fit_dict(value, parts, what)
    if isinstance(space, spaces.Tuple):
        row = [make_fit(part, f"{leaf}/{index}" if leaf else str(index)) for index, part in enumerate(space.spaces)]
        return lambda value: _fit_tuple(value, row, what)
    if isinstance(space, spaces.Discrete):
        return lambda value: _fit_choice(value, space, what)
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        bounds = None if isinstance(space, spaces.Box) else _choices(space)
        return _make_fit_of_numbers(space, bounds, what)
    return deepcopy


def _make_fit_of_numbers(space: spaces.Space, bounds: tuple[Any, Any] | None, what: str) -> Fit:
    shape, dtype = space.shape, space.dtype
    assert dtype is not None
    is_float, usual = dtype.kind == "f", bounds is None

    def fit(value: Any) -> np.ndarray:
        if usual and type(value) is np.ndarray and value.dtype == dtype and value.shape == shape:  # a matter of speed
            array = value.copy()
            if not is_float or np.count_nonzero(np.isfinite(array)) == array.size:
                return array
        return _fit_numbers(value, space, bounds, what)

    return fit


def _fit_dict(value: Any, parts: dict[str, Fit], what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not parts.keys() <= value.keys():
        held = ", ".join(map(repr, value)) if isinstance(value, Mapping) else _shorten(value)
        raise MisfitError(f"{what} holds {held}: it must be a dict with {', '.join(map(repr, parts))}")
    return {key: fit(value[key]) for key, fit in parts.items()}


def _fit_tuple(value: Any, parts: Sequence[Fit], what: str) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)) or len(value) != len(parts):
        raise MisfitError(f"{what}={_shorten(value)}: it must be a tuple of {len(parts)}")
    return tuple(fit(part) for fit, part in zip(parts, value, strict=True))


def _fit_choice(value: Any, space: spaces.Discrete, what: str) -> np.integer:
    array = to_array(value, what)
    number = array.item() if array.size == 1 else None
    if number is None or number != number // 1 or not space.start <= number < space.start + space.n:
        raise MisfitError(f"{what}={_shorten(value)}: it must be one of {space.start} to {space.start + space.n - 1}")
    return space.dtype.type(number)


def _choices(space: spaces.MultiDiscrete | spaces.MultiBinary) -> tuple[Any, Any]:
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    return space.start, space.start + space.nvec - 1


def _fit_numbers(value: Any, space: spaces.Space, bounds: tuple[Any, Any] | None, what: str) -> np.ndarray:
    array = value if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else to_array(value, what)
    dtype = space.dtype
    assert dtype is not None
    if array.shape != space.shape:
        raise MisfitError(f"{what} has shape {array.shape}: it must be {space.shape}, as its space {_name(space)} says")
    if dtype.kind == "f":
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MisfitError(f"{what} holds {array[~np.isfinite(array)][0]}: it must be finite")
        return array.astype(dtype)
    if array.dtype != dtype:
        _check_whole(array, dtype, what, space)
    if bounds is not None and not ((array >= bounds[0]) & (array <= bounds[1])).all():
        raise MisfitError(f"{what}={_shorten(value)}: it must lie in {_name(space)}")
    return array.astype(dtype)


def _check_whole(array: np.ndarray, dtype: np.dtype, what: str, space: spaces.Space) -> None:
    """Check that integers of ``dtype`` can hold an array."""
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if array.size == 0:
        return
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and not np.mod(array, 1).any()):
        raise MisfitError(f"{what} holds fractions, but its space {_name(space)} is of {dtype}")
    if array.min() < low or array.max() > high:
        raise MisfitError(f"{what} holds {array.min()} to {array.max()}, but its space {_name(space)} is of {dtype}")


def _name(space: spaces.Space) -> str:
    text = re.sub(r"\s+", " ", str(space))
    return text if len(text) <= 120 else f"{type(space).__name__}{space.shape}"


def fit_reward(reward: Any) -> float:
    """Return a reward as a float: of Python, of numpy or a tensor, also in an array of one number.

    Raises:
        MisfitError: it is none, several, or not finite.
    """
    number = reward if type(reward) is float else _one_number(reward, "reward")
    if not math.isfinite(number):
        raise MisfitError(f"reward={number}: it must be finite")
    return number


def _one_number(value: Any, what: str) -> float:
    if isinstance(value, Mapping):
        raise MisfitError(f"{what}={_shorten(value)}: it must be one number; several agents go with env=pettingzoo")
    array = to_array(value, what)
    if array.size != 1:
        raise MisfitError(f"{what}={_shorten(value)}: it must be one number, but it has shape {array.shape}")
    return float(array.item())


def fit_flag(flag: Any, name: str) -> bool:
    """Return ``terminated`` or ``truncated`` as a bool; 0 and 1 serve, also in an array of one number.

    Raises:
        MisfitError: it is neither true nor false.
    """
    if type(flag) is bool:
        return flag
    number = None if flag is None or isinstance(flag, Mapping) else _one_number(flag, name)
    if number not in (0, 1):
        raise MisfitError(f"{name}={_shorten(flag)}: it must be true or false")
    return bool(number)


def fit_rewards(rewards: Any, num_envs: int) -> np.ndarray:
    """Return the rewards of B environments as float64 ``[B]``.

    Raises:
        MisfitError: they are fewer or more, or one is not finite.
    """
    array = _fit_rows(rewards, num_envs, "rewards").astype(np.float64)
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array)))
        raise MisfitError(f"rewards[{row}]={array[row]}: it must be finite")
    return array


def fit_flags(flags: Any, num_envs: int, name: str) -> np.ndarray:
    """Return ``terminated`` or ``truncated`` of B environments as bool ``[B]``.

    Raises:
        MisfitError: they are fewer or more, or neither true nor false.
    """
    array = _fit_rows(flags, num_envs, name)
    if not np.isin(array, (0, 1)).all():
        raise MisfitError(f"{name}={_shorten(flags)}: each must be true or false")
    return array.astype(np.bool_)


def _fit_rows(values: Any, num_envs: int, name: str) -> np.ndarray:
    array = to_array(values, name)
    if array.shape not in ((num_envs,), (num_envs, 1)):
        raise MisfitError(f"{name} has shape {array.shape}: it must be ({num_envs},), one for each environment")
    return array.reshape(num_envs)
