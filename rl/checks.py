"""Checks of arguments: one clear sentence that names the value and what is allowed."""

import math
from collections.abc import Collection
from numbers import Integral


def positive(**sizes: int) -> None:
    """Every value is a whole number of at least 1.

    Raises:
        ValueError: the first one that is not.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}={value!r}: it must be a whole number of at least 1")


def within(low: float, high: float, **values: float) -> None:
    """Every value is a finite number with ``low <= value <= high``.

    Raises:
        ValueError: the first one that is not.
    """
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high:
            allowed = f"from {low:.10g} to {high:.10g}" if math.isfinite(high) else f"of at least {low:g}"
            raise ValueError(f"{name}={value!r}: it must be a number {allowed}")


def one_of(allowed: Collection[object], **values: object) -> None:
    """Every value is one of ``allowed``.

    Raises:
        ValueError: the first one that is not.
    """
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: it must be one of {', '.join(map(repr, allowed))}")
