"""One check of what a file holds, against a schema that stands beside the code that writes it.

A schema is a tensor (the same dtype and shape), a dict (at least these entries), a list (as many parts), a type or a
tuple of types, or a function ``f(value, name)`` that raises.
"""

import math
from typing import Any

from torch import Tensor


def check_entry(value: Any, schema: Any, name: str) -> None:
    """Check a value and all that is inside it.

    Args:
        value: what was read.
        schema: what it must be, see above.
        name: of the entry, for the message; empty for the whole file.

    Raises:
        ValueError: an entry is missing, or of another type or shape; the message names it.
    """
    if isinstance(schema, Tensor):
        if not isinstance(value, Tensor) or value.dtype != schema.dtype or value.shape != schema.shape:
            raise _wrong(value, name, describe(schema))
    elif isinstance(schema, dict):
        before = f"{name}." if name else ""
        if not isinstance(value, dict):
            raise _wrong(value, name, "entries by name")
        missing = [str(key) for key in schema if key not in value]
        if missing:
            raise ValueError(f"the checkpoint has no entry {', '.join(f'{before}{key}' for key in sorted(missing))}")
        for key, part in schema.items():
            check_entry(value[key], part, f"{before}{key}")
    elif isinstance(schema, list):
        if not isinstance(value, (list, tuple)) or len(value) != len(schema):
            raise _wrong(value, name, f"a list of {len(schema)}")
        for index, part in enumerate(schema):
            check_entry(value[index], part, f"{name}.{index}")
    elif isinstance(schema, (type, tuple)):
        if not isinstance(value, schema):
            kinds = schema if isinstance(schema, tuple) else (schema,)
            raise _wrong(value, name, " or ".join(kind.__name__ for kind in kinds))
    else:
        schema(value, name)


def natural(value: Any, name: str) -> None:
    """Check that a value is a whole number of at least 0.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(value, name, "a whole number of at least 0")


def finite(value: Any, name: str) -> None:
    """Check that a value is a finite number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _wrong(value, name, "a finite number")


def finite_list(value: Any, name: str) -> None:
    """Check that a value is a list of finite numbers.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, list):
        raise _wrong(value, name, "a list of numbers")
    for index, part in enumerate(value):
        finite(part, f"{name}.{index}")


def like(value: Any) -> Any:
    """Make the schema of values that have the structure of ``value``: types, dtypes, shapes and names are the same."""
    if isinstance(value, dict):
        return {key: like(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [like(part) for part in value]
    return value if isinstance(value, Tensor) else type(value)


def describe(value: Any) -> str:
    """Name a value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, (dict, list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


def _wrong(value: Any, name: str, wanted: str) -> ValueError:
    return ValueError(f"the entry {name} of the checkpoint is {describe(value)}: it must be {wanted}")
