"""Tables in Markdown, and the numbers in their cells."""

from collections.abc import Iterable, Sequence

import numpy as np


def write_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table.

    Args:
        head: the names of its columns.
        rows: a cell for each column.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def format_known(*returns: float | None) -> str:
    """Write returns that are known of a task, best and memoryless say; a question mark for one that is not."""
    return " / ".join("?" if value is None else f"{value:.4g}" for value in returns)


def format_seeds(values: list[float], wanted: int) -> str:
    """Write mean and standard error; if runs are missing, also how many of the ``wanted`` there are."""
    if not values:
        return "failed"
    text = format_number(float(np.mean(values)))
    if len(values) > 1:
        text += f" +- {format_number(float(np.std(values, ddof=1) / np.sqrt(len(values))), 2)}"
    return text if len(values) == wanted else f"{text} ({len(values)} of {wanted} seeds)"


def format_number(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, or as many as a whole number has; never with an exponent."""
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return np.format_float_positional(value, digits, unique=False, fractional=False, trim="-")
