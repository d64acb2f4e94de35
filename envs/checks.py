"""Checks of arguments: one clear sentence that names the value and what is allowed.

``rl.checks`` says the same sentences. The two are apart because ``envs`` does not import ``rl``.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real


def is_number(value: object) -> bool:
    """Tell whether ``value`` is a finite number, of Python or of numpy. True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def at_least(low: int, **sizes: int) -> None:
    """Check that every value is a whole number of at least ``low``.

    Raises:
        ValueError: the first one that is not.
    """
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < low:
            raise ValueError(f"{name}={value!r}: it must be a whole number of at least {low}")


def positive(**sizes: int) -> None:
    """Check that every value is a whole number of at least 1.

    Raises:
        ValueError: the first one that is not.
    """
    at_least(1, **sizes)


def within(low: float, high: float, **values: float) -> None:
    """Check that every value is a finite number with ``low <= value <= high``.

    Raises:
        ValueError: the first one that is not.
    """
    for name, value in values.items():
        if not is_number(value) or not low <= value <= high:
            allowed = f"from {low:.10g} to {high:.10g}" if math.isfinite(high) else f"of at least {low:g}"
            raise ValueError(f"{name}={value!r}: it must be a number {allowed}")


def one_of(allowed: Collection[object], **values: object) -> None:
    """Check that every value is one of ``allowed``.

    Raises:
        ValueError: the first one that is not.
    """
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: it must be one of {', '.join(map(repr, allowed))}")
