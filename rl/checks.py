"""Checks of arguments: one clear sentence that names the value and what is allowed."""

import math
from collections.abc import Collection
from numbers import Integral, Real


def positive(**sizes: int) -> None:
    """Check that every value is a whole number of at least 1.

    Raises:
        ValueError: a value is not; the message names the first such value and its argument.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}={value!r}: it must be a whole number of at least 1")


def whole(low: int, high: int | None = None, **values: int) -> None:
    """Check that every value is a whole number with ``low <= value <= high``.

    Args:
        low: the smallest value that is allowed.
        high: the largest value that is allowed; None for no limit.
        values: the values by the names of their arguments.

    Raises:
        ValueError: a value is not; the message names the first such value and its argument.
    """
    for name, value in values.items():
        number = isinstance(value, Integral) and not isinstance(value, bool)
        if not number or value < low or (high is not None and value > high):
            allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"{name}={value!r}: it must be a whole number {allowed}")


def within(low: float, high: float, **values: float) -> None:
    """Check that every value is a finite number with ``low <= value <= high``.

    Args:
        low: the smallest value that is allowed.
        high: the largest value that is allowed; ``math.inf`` for no limit.
        values: the values by the names of their arguments.

    Raises:
        ValueError: a value is not; the message names the first such value and its argument.
    """
    for name, value in values.items():
        number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not low <= value <= high:
            allowed = f"from {low:.10g} to {high:.10g}" if math.isfinite(high) else f"of at least {low:g}"
            raise ValueError(f"{name}={value!r}: it must be a number {allowed}")


def one_of(allowed: Collection[object], **values: object) -> None:
    """Check that every value is one of ``allowed``.

    Raises:
        ValueError: a value is not; the message names the first such value and its argument.
    """
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: it must be one of {', '.join(map(repr, allowed))}")
