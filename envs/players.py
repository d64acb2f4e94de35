"""Scripted players that reach the optimal returns: experts to record.

A player is built with its vector environment and called with observations ``[B, ...]`` and ``starts``, bool ``[B]``,
which says where an episode begins; it returns actions as the environment takes them. Players see what an agent sees.
"""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv

from envs.t_maze import BACK, FORWARD, UP, TMaze
from envs.witness_vote import WitnessVote


class TMazeExpert:
    """An optimal player of ``TMaze``: remembers the cue, fetched from the oracle if it is not shown at the start.

    Raises:
        TypeError: ``envs`` is no ``TMaze``.
    """

    def __init__(self, envs: VectorEnv):
        maze = envs.unwrapped
        if not isinstance(maze, TMaze):
            raise TypeError(f"envs={envs}: it must be a TMaze")
        self.passive = maze.passive
        self.cue = np.zeros(envs.num_envs, dtype=np.int64)  # 0 is up, 1 is down

    def __call__(self, observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the actions, int64 ``[B]``."""
        shown = observations[:, :2].any(axis=1)
        self.cue[shown] = observations[shown, 1]
        actions = np.where(observations[:, 3] == 1, UP + self.cue, FORWARD)
        return actions if self.passive else np.where(starts, BACK, actions)


class WitnessVoteExpert:
    """An optimal player of ``WitnessVote``: walks left until it has seen the culprit, then right, and votes for it.

    Raises:
        TypeError: ``envs`` is no ``WitnessVote``.
    """

    LEFT, RIGHT = 0, 2

    def __init__(self, envs: VectorEnv):
        strip = envs.unwrapped
        if not isinstance(strip, WitnessVote):
            raise TypeError(f"envs={envs}: it must be a WitnessVote")
        self.corridor = strip.corridor
        self.culprit = np.full(envs.num_envs, -1)

    def __call__(self, observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the actions, moves and votes, int64 ``[B, 2]``."""
        self.culprit[starts] = -1
        seen = observations[:, self.corridor :]
        self.culprit = np.where(seen.any(axis=1), seen.argmax(axis=1), self.culprit)
        moves = np.where(self.culprit < 0, self.LEFT, self.RIGHT)
        return np.stack([moves, np.maximum(self.culprit, 0)], axis=1)
