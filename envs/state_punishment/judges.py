"""Judges of what each kind is worth taking, for the scripted players: blind, informed, or learning the level."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from envs.state_punishment.bounds import backward, expected_best
from envs.state_punishment.environment import StatePunishment
from envs.state_punishment.menu import Menu
from envs.state_punishment.rules import KINDS, level_index

NOT_A_KIND = -1
ENCOUNTERS = 0.4  # resources that a walker meets in a turn, roughly


class Judge(Protocol):
    """An adviser of a player: says what each kind is worth taking."""

    def begin(self, rows: np.ndarray) -> None:
        """Forget what was learned in these rows (bool ``[R]``)."""

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        """Learn from the last action.

        Args:
            taken: the kinds that were taken, int ``[R]``, -1 for none.
            punished: a punishment was paid, bool ``[R]``.
        """

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Return the worth of each kind, float64 ``[R, 5]``; kinds whose worth is not positive are left alone.

        Args:
            scalars: as observed, ``[R, n]``.
            left: turns to go, int ``[R]``.
        """


class FixedJudge:
    """A judge that does not learn: each kind has the same worth always.

    Args:
        worths: of the kinds, ``[5]``.
        flag: index of a scalar; kind A is left alone while it is up. None for no such flag.
    """

    def __init__(self, worths: np.ndarray, flag: int | None = None):
        self.worths, self.flag = worths, flag

    def begin(self, rows: np.ndarray) -> None:
        """Forget nothing, as nothing was learned."""

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        """Learn nothing."""

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Return the given worths, ``[R, 5]``, but -1 for kind A in rows where the flag is up."""
        worths = np.tile(self.worths, (len(scalars), 1))
        if self.flag is not None:
            worths[scalars[:, self.flag] > 0, 0] = -1
        return worths


class InformedJudge:
    """A judge that knows the level, which has to be visible.

    Raises:
        ValueError: it is not.
    """

    def __init__(self, env: StatePunishment):
        if not env.scalars.level:
            raise ValueError("an informed player needs level_visible=True")
        self.net = env.payoffs.net_values()

    def begin(self, rows: np.ndarray) -> None:
        """Forget nothing, as nothing was learned."""

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        """Learn nothing."""

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Return the net values at the level that is seen, ``[R, 5]``."""
        return self.net[level_index(scalars[:, 0])]


class BayesianJudge:
    """A judge that holds the exact posterior over the ten levels, from its own punishments.

    Worth of a kind: its expected net value; for kind A plus the value of the information that taking it brings, from
    the dynamic programme ``bounds.backward`` at the numbers of A taken and punished so far. With a menu of one arm that
    is always A this is the optimal player. Elsewhere it is a good one: the programme does not know that the other kinds
    tell of the level, too, and in the grid it guesses how often an A is met.

    Raises:
        ValueError: the environment has a level that changes, or punishments that cannot be told.
    """

    def __init__(self, env: StatePunishment):
        blind = env.delayed_punishment or not env.payoffs.probabilistic or env.scalars.punishment is None
        if env.voting.votes or blind:
            raise ValueError(
                "a Bayesian player needs votes=False, delayed_punishment=False, "
                "punishment_mode=probabilistic and punishment_visible=True"
            )
        self.net, self.chance = env.payoffs.net_values(), env.payoffs.chances()
        self.prior, self.turns = env.voting.prior(), env.max_turns
        self.belief = np.tile(self.prior, (env.num_envs, 1))  # [R, 10]
        self.counts = np.zeros((2, env.num_envs), dtype=np.int64)  # A taken, A punished
        offers: tuple[float, np.ndarray | float, float] = (ENCOUNTERS * env.chances[0], 0.0, 0.0)
        if isinstance(env.board, Menu):
            offers = _offers(self.net, env.chances, env.board.size)
        programme = backward(self.net[:, 0], self.chance[:, 0], self.prior, self.turns, *offers)
        self.information = [information for _, information in programme]  # by turns left, from 1

    def begin(self, rows: np.ndarray) -> None:
        """Return to the prior in these rows (bool ``[R]``)."""
        self.belief[rows], self.counts[:, rows] = self.prior, 0

    def learn(self, taken: np.ndarray, punished: np.ndarray) -> None:
        """Update the posterior of each row, and the numbers of A taken and punished."""
        rows = np.flatnonzero(taken != NOT_A_KIND)
        chance = self.chance[:, taken[rows]].T  # [rows, 10]
        self.belief[rows] *= np.where(punished[rows, None], chance, 1 - chance)
        self.belief[rows] /= self.belief[rows].sum(axis=1, keepdims=True)
        self.counts += np.stack([taken == 0, (taken == 0) & punished])

    def worth(self, scalars: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Return the expected net values, ``[R, 5]``; that of kind A with the value of what taking it tells."""
        worths = self.belief @ self.net
        for turns in np.unique(left):
            rows = left == turns
            worths[rows, 0] += self.information[turns - 1][*self.counts[:, rows]]
        return worths


def _offers(net: np.ndarray, chances: np.ndarray, size: int) -> tuple[float, np.ndarray, float]:
    """Return how often A is on a menu, what the best other arm is worth then, ``[10]``, and how often there is one."""
    other = 1 - chances[0] ** (size - 1)  # probability that one of the other arms is of another kind
    without_a = np.where(np.arange(len(KINDS)) == 0, 0, net)  # [10, 5]
    best = np.array([expected_best(row, chances, size - 1) for row in without_a])
    return 1 - (1 - chances[0]) ** size, best / max(other, 1e-12), other
