"""What is punished how often at which level, the codes of what an agent can step on, and checks of arguments."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

KINDS = ("a", "b", "c", "d", "e")
NUM_LEVELS = 10
# What lies in a cell: nothing, a wall, one of the five kinds, or (only in views and pictures) what is outside the grid
# or the agent. A move ends in an event: the code of the cell that it led to, or NOTHING where there was no move.
SAND, WALL, FIRST_KIND, OUTSIDE, AGENT = 0, 1, 2, 7, 8
NOTHING = 7
NUM_EVENTS = 8

# Probability of a punishment, in hundredths, by level (rows) and kind (columns).
_SEED = [
    [50, 0, 0, 0, 0],
    [55, 5, 0, 0, 0],
    [60, 10, 0, 0, 0],
    [65, 10, 5, 0, 0],
    [70, 10, 10, 0, 0],
    [75, 10, 10, 5, 0],
    [80, 10, 10, 10, 0],
    [85, 15, 10, 10, 5],
    [90, 15, 15, 10, 10],
    [95, 20, 15, 15, 10],
]
_HEAD_A = [30, 40, 55, 70, 85, 95, 100, 100, 100, 100]


def _generated() -> np.ndarray:
    """The rule that makes a schedule instead of a table: steeper in the kind as the level rises."""
    level = np.arange(NUM_LEVELS)[:, None]
    raw = 1 + level / 2 + (2 + 0.12 * level) ** np.arange(len(KINDS))
    return np.clip(raw / int(raw.max()) * np.array([1, 1.1, 1.25, 1.45, 1.95]), 0, 1)


def _table(a: Sequence[int] | None = None) -> np.ndarray:
    table = np.array(_SEED) / 100
    if a is not None:
        table[:, 0] = np.array(a) / 100
    return table


SCHEDULES = {"head": _table(_HEAD_A), "seed": _table(), "generated": _generated()}  # [10, 5] each


def event_tables(
    schedule: str, values: Sequence[float], harms: Sequence[float], important_rule: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By event: worth and harm, float64 `[8]` each, and the probability of a punishment, `[10, 8]`.

    Raises:
        ValueError: an unknown schedule, or not five numbers for the kinds.
    """
    worth, harm, punished = np.zeros(NUM_EVENTS), np.zeros(NUM_EVENTS), np.zeros((NUM_LEVELS, NUM_EVENTS))
    kinds = slice(FIRST_KIND, FIRST_KIND + len(KINDS))
    punished[:, kinds] = SCHEDULES[one_of("schedule", schedule, tuple(SCHEDULES))]
    if important_rule:
        punished[:, FIRST_KIND] = 0
    worth[kinds], harm[kinds] = per_kind("values", values), per_kind("harms", harms)
    worth[WALL] = -1
    return worth, harm, punished


def level_index(level: np.ndarray) -> np.ndarray:
    """Levels in [0, 1] -> int64 rows of the schedule: `min(round(9 p), 9)`, halves to the even neighbour."""
    return np.minimum(np.rint(9 * np.asarray(level)), NUM_LEVELS - 1).astype(np.int64)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> str:
    """`value`, or a ValueError that names the parameter, its value and what is allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")
    return value


def number(name: str, value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """`value` as a float in `[low, high]`, or a ValueError."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not np.isfinite(value) or not low <= value <= high:
        bounds = "" if low == -np.inf else f" of at least {low:g}" if high == np.inf else f" from {low:g} to {high:g}"
        raise ValueError(f"{name} must be a number{bounds}, got {value!r}.")
    return float(value)


def per_kind(name: str, values: Any, low: float = -np.inf) -> np.ndarray:
    """`values` as float64 `[5]`, one number for each of the kinds A to E, or a ValueError."""
    if isinstance(values, str) or not isinstance(values, (Sequence, np.ndarray)) or len(values) != len(KINDS):
        raise ValueError(f"{name} must be five numbers, for the kinds A to E, got {values!r}.")
    return np.array([number(f"each of {name}", value, low) for value in values])


def probabilities(name: str, values: Any) -> np.ndarray:
    """`values` as probabilities of the five kinds, float64 `[5]`, or a ValueError."""
    checked = per_kind(name, values, low=0)
    if abs(checked.sum() - 1) > 1e-6:
        raise ValueError(f"{name} must add up to 1, got {values!r}.")
    return checked


def draw_kinds(rng: np.random.Generator, chances: np.ndarray, shape: int | tuple[int, ...]) -> np.ndarray:
    """Kinds drawn with the `chances` (float64 `[5]`), as int8 codes of cells."""
    edges = np.cumsum(chances)
    return (np.searchsorted(edges[:-1] / edges[-1], rng.random(shape), side="right") + FIRST_KIND).astype(np.int8)
