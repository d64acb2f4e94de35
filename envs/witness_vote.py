"""Witness and vote: see the culprit at one end of a strip, walk to the other end, vote there."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.batched_env import BatchedEnv
from envs.checks import at_least


class WitnessVote(BatchedEnv):
    """A strip of ``corridor`` cells, walked and voted on by two action heads; the start is any cell, each as likely.

    Observation: ``Box(0, 1, (corridor + num_suspects,), float32)``: the position one-hot, then the culprit one-hot,
    which is visible only in cell 0 and only during the first ``corridor`` steps.
    Action: ``MultiDiscrete([3, num_suspects])``: move (left, stay, right) and vote. Only the vote of the last step
    counts, together with the cell in which it is cast (the move of that step comes too late).
    Reward: at the last step +1 for a vote for the culprit cast in the last cell, else ``-1 / (num_suspects - 1)``.
    End: terminated after ``2 * corridor`` steps.
    Optimal return: 1, since from every start the culprit can be seen and the last cell reached in time.
    Memoryless return: 0. The observation in the last cell at the last step is always the same, so the vote cannot
    depend on the culprit. (Were an absent voter paid 0, staying away after an unfavourable sight would beat guessing.)
    Source: this project; the smallest task in which both heads need the memory and the reward needs both heads.
    """

    state_names = ("position", "culprit")
    action_names = ("move", "vote")

    def __init__(self, num_envs: int, num_suspects: int = 4, corridor: int = 5):
        at_least(2, num_suspects=num_suspects, corridor=corridor)
        self.num_suspects, self.corridor = int(num_suspects), int(corridor)
        size = self.corridor + self.num_suspects
        super().__init__(
            num_envs, spaces.Box(0.0, 1.0, (size,), np.float32), spaces.MultiDiscrete([3, self.num_suspects])
        )
        self.position = np.zeros(self.num_envs, dtype=np.int64)
        self.culprit = np.zeros(self.num_envs, dtype=np.int64)
        self.optimal_return = 1.0
        self.memoryless_return = 0.0
        # The first rows show a position alone, the last ones cell 0 with a culprit.
        self._views = np.eye(size, dtype=np.float32)
        self._views[self.corridor :, 0] = 1.0

    def _start(self, rows: np.ndarray) -> None:
        self.position[rows] = self.np_random.integers(self.corridor, size=len(rows))
        self.culprit[rows] = self.np_random.integers(self.num_suspects, size=len(rows))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        last = self.elapsed_steps == 2 * self.corridor - 1
        right = (actions[:, 1] == self.culprit) & (self.position == self.corridor - 1)
        rewards = last * np.where(right, 1.0, -1.0 / (self.num_suspects - 1))
        position = self.position + actions[:, 0] - 1
        self.position = np.minimum(np.maximum(position, 0), self.corridor - 1)
        return rewards, last

    def _observe(self) -> np.ndarray:
        visible = (self.position == 0) & (self.elapsed_steps < self.corridor)
        view = np.where(visible, self.corridor + self.culprit, self.position)
        return self._views.take(view, axis=0)
