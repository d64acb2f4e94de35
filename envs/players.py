"""Scripted players that reach the optimal returns: experts to record.

A player is built with its vector environment and called with observations `[B, ...]` and `starts`, bool `[B]`, which
says where an episode begins; it returns actions as the environment takes them. Players see what an agent sees.
"""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv

from envs import t_maze


class TMazeExpert:
    """Remembers the cue, having fetched it from the oracle if it is not shown at the start."""

    def __init__(self, envs: VectorEnv):
        self.passive = envs.unwrapped.passive
        self.cue = np.zeros(envs.num_envs, dtype=np.int64)  # 0 is up, 1 is down

    def __call__(self, observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
        shown = observations[:, :2].any(axis=1)
        self.cue[shown] = observations[shown, 1]
        actions = np.where(observations[:, 3] == 1, t_maze.UP + self.cue, t_maze.FORWARD)
        return actions if self.passive else np.where(starts, t_maze.BACK, actions)


class WitnessVoteExpert:
    """Walks left until it has seen the culprit, then right, and votes for the culprit all the way."""

    LEFT, RIGHT = 0, 2

    def __init__(self, envs: VectorEnv):
        self.corridor = envs.unwrapped.corridor
        self.culprit = np.full(envs.num_envs, -1)

    def __call__(self, observations: np.ndarray, starts: np.ndarray) -> np.ndarray:
        self.culprit[starts] = -1
        seen = observations[:, self.corridor :]
        self.culprit = np.where(seen.any(axis=1), seen.argmax(axis=1), self.culprit)
        moves = np.where(self.culprit < 0, self.LEFT, self.RIGHT)
        return np.stack([moves, np.maximum(self.culprit, 0)], axis=1)
