"""Spaces as plain data, which checkpoints may hold, and back."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces


def space_to_data(space: spaces.Space) -> dict[str, Any]:
    """Describe a space of any nesting; of a leaf that no agent can take, its kind alone."""
    if isinstance(space, spaces.Dict):
        return {"dict": [[key, space_to_data(part)] for key, part in space.spaces.items()]}
    if isinstance(space, spaces.Tuple):
        return {"tuple": [space_to_data(part) for part in space.spaces]}
    dtype = np.dtype(space.dtype).str
    if isinstance(space, spaces.Box):
        bounds = {name: _shortened(bound) for name, bound in (("low", space.low), ("high", space.high))}
        return {"box": list(space.shape), "dtype": dtype} | bounds
    if isinstance(space, spaces.Discrete):
        return {"discrete": int(space.n), "start": int(space.start), "dtype": dtype}
    if isinstance(space, spaces.MultiDiscrete):
        return {"multi_discrete": space.nvec.tolist(), "start": space.start.tolist(), "dtype": dtype}
    if isinstance(space, spaces.MultiBinary):
        return {"multi_binary": list(space.shape)}
    return {"unnamed": type(space).__name__}


def _shortened(bound: np.ndarray) -> Any:
    """Return the numbers of a bound as nested lists, or as one number if all are equal."""
    return bound.flat[0].item() if bound.size and (bound == bound.flat[0]).all() else bound.tolist()


def space_from_data(data: Mapping[str, Any]) -> spaces.Space:
    """Make a space again from what ``space_to_data`` gave.

    Raises:
        ValueError: it is damaged, or of a kind that cannot be stored.
    """
    if "dict" in data:
        return spaces.Dict([(key, space_from_data(part)) for key, part in data["dict"]])  # a list keeps its order
    if "tuple" in data:
        return spaces.Tuple([space_from_data(part) for part in data["tuple"]])
    if "box" in data:
        dtype, shape = np.dtype(data["dtype"]), tuple(data["box"])
        low, high = (np.broadcast_to(np.array(data[name], dtype=dtype), shape).copy() for name in ("low", "high"))
        return spaces.Box(low, high, shape, dtype.type)
    if "discrete" in data:
        return _with_dtype(spaces.Discrete, data, int(data["discrete"]), start=int(data["start"]))
    if "multi_discrete" in data:
        return _with_dtype(spaces.MultiDiscrete, data, np.array(data["multi_discrete"]), start=np.array(data["start"]))
    if "multi_binary" in data:
        sizes = data["multi_binary"]
        return spaces.MultiBinary(sizes[0] if len(sizes) == 1 else sizes)
    if "unnamed" in data:
        return spaces.Text(1)  # a stand-in: the agent ignored this leaf
    raise ValueError(f"the checkpoint holds {data!r} where a space should be")


def _with_dtype(kind: Callable[..., spaces.Space], data: Mapping[str, Any], *args: Any, **kwargs: Any) -> spaces.Space:
    """Make a space; its dtype is named only if it is not the usual one, for older versions of Gymnasium take none."""
    dtype = np.dtype(data["dtype"])
    return kind(*args, **kwargs) if dtype == np.int64 else kind(*args, **kwargs, dtype=dtype.type)
