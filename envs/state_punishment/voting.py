"""The punishment level of each world: how it begins, and how the votes of its agents change it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from envs.checks import is_number, positive, within
from envs.state_punishment.actions import DECREASE, INCREASE, NO_VOTE
from envs.state_punishment.rules import NUM_LEVELS, level_index


class Voting:
    """The rules of the level; see ``StatePunishment`` for the parameters. The levels are kept by the environment.

    Attributes:
        initial_level: the level at which a world begins, None for a random one.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        num_agents: int,
        initial_level: float | Literal["random"],
        vote_step: float,
        reset_level: bool,
        votes: bool,
        phased_voting: int | None,
        random_order: bool,
    ):
        if initial_level != "random" and not (is_number(initial_level) and 0 <= initial_level <= 1):
            raise ValueError(f"initial_level={initial_level!r}: it must be a number from 0 to 1, or random")
        within(0, 1, vote_step=vote_step)
        if phased_voting is not None:
            positive(phased_voting=phased_voting)
        self.num_agents = num_agents
        self.initial_level = None if initial_level == "random" else float(initial_level)
        self.vote_step, self.reset_level, self.votes = float(vote_step), reset_level, votes
        self.phased_voting, self.random_order = phased_voting, random_order

    def is_fixed(self) -> bool:
        """Tell whether no turn is for voting, and every episode has one level, drawn from ``prior`` for it alone."""
        lasts = not self.reset_level and self.initial_level is None
        return not self.votes and self.phased_voting is None and not lasts

    def prior(self) -> np.ndarray:
        """Return the probabilities of the level indices at the start of an episode, float64 ``[10]``."""
        if self.initial_level is None:
            return np.full(NUM_LEVELS, 1 / NUM_LEVELS)
        return np.eye(NUM_LEVELS)[level_index(self.initial_level)]

    def start(self, rng: np.random.Generator, level: np.ndarray, worlds: np.ndarray) -> None:
        """Set the level at which an episode begins, in place.

        Args:
            rng: draws the level, if it is random.
            level: of each world, float64 ``[W]``; NaN where none was ever set.
            worlds: in which an episode begins, int ``[n]``.
        """
        if not self.reset_level:
            worlds = worlds[np.isnan(level[worlds])]
        if self.initial_level is None:
            level[worlds] = rng.integers(NUM_LEVELS, size=len(worlds)) / (NUM_LEVELS - 1)
        else:
            level[worlds] = self.initial_level

    def voting_turn(self, elapsed_steps: np.ndarray) -> np.ndarray | None:
        """Tell whether the coming turn is for voting only, bool ``[R]``; None if turns have no phases."""
        return None if self.phased_voting is None else elapsed_steps % self.phased_voting == 0

    def executed(
        self, moves: np.ndarray, votes: np.ndarray, elapsed_steps: np.ndarray, rest: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the moves and votes ``[R]`` that the phase of the turn, and whether votes count, leave.

        Args:
            moves: as chosen, int ``[R]``.
            votes: as chosen, int ``[R]``.
            elapsed_steps: turns gone in the episode, int ``[R]``.
            rest: the move that stands for none.
        """
        voting = self.voting_turn(elapsed_steps)
        if voting is not None:
            moves, votes = np.where(voting, rest, moves), np.where(voting, votes, NO_VOTE)
        return moves, votes if self.votes else np.zeros_like(votes)

    def vote(self, rng: np.random.Generator, level: np.ndarray, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let the agents of each world vote one after another.

        Args:
            rng: draws the order, if it is random.
            level: of each world, float64 ``[W]``.
            votes: int ``[R]``.

        Returns:
            The level that each agent finds when its turn comes, ``[R]``, and the level of each world after all votes,
            ``[W]``.
        """
        if not votes.any():
            return np.repeat(level, self.num_agents), level
        change = (self.vote_step * ((votes == INCREASE) * 1.0 - (votes == DECREASE))).reshape(-1, self.num_agents)
        found = np.empty_like(change)  # [W, N]
        order = np.broadcast_to(np.arange(self.num_agents), change.shape)
        if self.random_order:
            order = np.argsort(rng.random(change.shape), axis=1)
        worlds = np.arange(len(change))
        for agent in order.T:  # of each world, [W]
            found[worlds, agent] = level
            level = np.clip(np.round(level + change[worlds, agent], 10), 0, 1)
        return found.ravel(), level
