"""The game's tables: the codes of what an agent can step on, what that pays, and how often it is punished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.checks import is_number, one_of, within

KINDS = ("a", "b", "c", "d", "e")
NUM_LEVELS = 10
# What lies in a cell: nothing, a wall, one of the five kinds, or (only in views and pictures) what is outside the grid
# or the agent. A move ends in an event: the code of the cell that it led to, or NOTHING where there was no move.
SAND, WALL, FIRST_KIND, OUTSIDE, AGENT = 0, 1, 2, 7, 8
NOTHING = 7
NUM_EVENTS = 8
EVENTS_OF_KINDS = slice(FIRST_KIND, FIRST_KIND + len(KINDS))
PUNISHMENT_MODES = ("probabilistic", "deterministic")

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
    """Return the schedule that a rule makes, ``[10, 5]``: steeper in the kind as the level rises."""
    level = np.arange(NUM_LEVELS)[:, None]
    raw = 1 + level / 2 + (2 + 0.12 * level) ** np.arange(len(KINDS))
    return np.clip(raw / int(raw.max()) * np.array([1, 1.1, 1.25, 1.45, 1.95]), 0, 1)


def _table(a: Sequence[int] | None = None) -> np.ndarray:
    """Return the tabulated schedule, ``[10, 5]``, with another column for kind A if one is given."""
    table = np.array(_SEED) / 100
    if a is not None:
        table[:, 0] = np.array(a) / 100
    return table


SCHEDULES = {"head": _table(_HEAD_A), "seed": _table(), "generated": _generated()}  # [10, 5] each


class Payoffs:
    """A table of events: what each pays, does to the others and risks; see ``StatePunishment`` for the parameters.

    Attributes:
        worth: the reward of each event, not counting punishments, float64 ``[8]``.
        harm: what each event puts on the account of every other agent, float64 ``[8]``.
        punished: the probability of a punishment by level index and event, float64 ``[10, 8]``.
        magnitude: of a punishment.
        probabilistic: punishments are drawn; else every event pays its expected punishment.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        schedule: str,
        values: Sequence[float],
        harms: Sequence[float],
        important_rule: bool,
        punishment_mode: str,
        punishment_magnitude: float,
    ):
        one_of(tuple(SCHEDULES), schedule=schedule)
        one_of(PUNISHMENT_MODES, punishment_mode=punishment_mode)
        within(0, np.inf, punishment_magnitude=punishment_magnitude)
        self.probabilistic = punishment_mode == "probabilistic"
        self.magnitude = float(punishment_magnitude)
        self.worth, self.harm = np.zeros(NUM_EVENTS), np.zeros(NUM_EVENTS)
        self.worth[EVENTS_OF_KINDS] = per_kind("values", values)
        self.worth[WALL] = -1
        self.harm[EVENTS_OF_KINDS] = per_kind("harms", harms)
        self.punished = np.zeros((NUM_LEVELS, NUM_EVENTS))
        self.punished[:, EVENTS_OF_KINDS] = SCHEDULES[schedule]
        if important_rule:
            self.punished[:, FIRST_KIND] = 0

    def punish(self, rng: np.random.Generator, levels: np.ndarray, events: np.ndarray) -> np.ndarray:
        """Return the punishment of each event, float64 ``[R]``.

        Args:
            rng: draws them, if they are matters of chance.
            levels: level indices, int ``[R]``.
            events: int ``[R]``.
        """
        chance = self.punished.take(levels * NUM_EVENTS + events)
        if self.probabilistic:
            chance = rng.random(len(events)) < chance
        return self.magnitude * chance

    def net_values(self) -> np.ndarray:
        """Return the value of each kind less its expected punishment, by level, float64 ``[10, 5]``."""
        return (self.worth - self.magnitude * self.punished)[:, EVENTS_OF_KINDS]

    def chances(self) -> np.ndarray:
        """Return the probability that each kind is punished, by level, float64 ``[10, 5]``."""
        return self.punished[:, EVENTS_OF_KINDS]


def level_index(level: np.ndarray | float) -> np.ndarray:
    """Return the row of a schedule, int64, for levels p in [0, 1]: ``min(round(9 p), 9)``, halves to even."""
    return np.minimum(np.rint(9 * np.asarray(level)), NUM_LEVELS - 1).astype(np.int64)


def per_kind(name: str, values: Any, low: float = -np.inf) -> np.ndarray:
    """Return ``values`` as float64 ``[5]``, one number for each of the kinds A to E.

    Args:
        name: of the argument, for the message.
        values: the argument.
        low: the least that is allowed.

    Raises:
        ValueError: they are not five finite numbers of at least ``low``.
    """
    five = isinstance(values, (Sequence, np.ndarray)) and len(values) == len(KINDS)
    if not five or not all(is_number(value) and value >= low for value in values):
        bound = "" if low == -np.inf else f" of at least {low:g}"
        raise ValueError(f"{name}={values!r}: it must be five numbers{bound}, for the kinds A to E")
    return np.array([float(value) for value in values])


def probabilities(name: str, values: Any) -> np.ndarray:
    """Return ``values`` as probabilities of the five kinds, float64 ``[5]``.

    Args:
        name: of the argument, for the message.
        values: the argument.

    Raises:
        ValueError: they are not five numbers of at least 0 that add up to 1.
    """
    checked = per_kind(name, values, low=0)
    if abs(checked.sum() - 1) > 1e-6:
        raise ValueError(f"{name}={values!r}: it must add up to 1")
    return checked


def draw_kinds(rng: np.random.Generator, chances: np.ndarray, shape: int | tuple[int, ...]) -> np.ndarray:
    """Draw kinds with probabilities ``chances`` (float64 ``[5]``); they come as int8 codes of cells."""
    edges = np.cumsum(chances)
    return (np.searchsorted(edges[:-1] / edges[-1], rng.random(shape), side="right") + FIRST_KIND).astype(np.int8)
