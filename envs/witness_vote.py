"""Witness and vote: see the culprit at one end of a strip, walk to the other end, vote there."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import at_least
from envs.drawing import Picture, RenderMode, witness_vote


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

    metadata = DRAWN
    state_names = ("position", "culprit")
    action_names = ("move", "vote")

    def __init__(
        self,
        num_envs: int,
        num_suspects: int = 4,
        corridor: int = 5,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        at_least(2, num_suspects=num_suspects, corridor=corridor)
        self.num_suspects, self.corridor = int(num_suspects), int(corridor)
        size = self.corridor + self.num_suspects
        observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        action_space = spaces.MultiDiscrete([3, self.num_suspects])
        super().__init__(num_envs, observation_space, action_space, None, device, render_mode)
        self.position = self.xp.zeros(self.num_envs, self.xp.int64)
        self.culprit = self.xp.zeros(self.num_envs, self.xp.int64)
        self.optimal_return = 1.0
        self.memoryless_return = 0.0
        # The first rows show a position alone, the last ones cell 0 with a culprit.
        views = np.eye(size, dtype=np.float32)
        views[self.corridor :, 0] = 1.0
        self._views = self.xp.asarray(views)

    def _start(self, rows: Array) -> None:
        self.xp.put(self.position, rows, self.draws.integers(self.corridor, size=len(rows)))
        self.xp.put(self.culprit, rows, self.draws.integers(self.num_suspects, size=len(rows)))

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        last = self.elapsed_steps == 2 * self.corridor - 1
        right = (actions[:, 1] == self.culprit) & (self.position == self.corridor - 1)
        rewards = last * self.xp.where(right, 1.0, -1.0 / (self.num_suspects - 1))
        position = self.xp.maximum(self.position + actions[:, 0] - 1, 0)
        self.position = self.xp.renew(self.position, self.xp.minimum(position, self.corridor - 1))
        return rewards, last

    def _sees(self) -> Array:
        return (self.position == 0) & (self.elapsed_steps < self.corridor)

    def _observe(self) -> Array:
        view = self.xp.where(self._sees(), self.corridor + self.culprit, self.position)
        return self.xp.take(self._views, view)

    def _draw(self, row: int) -> Picture:
        step, position, culprit = (int(array[row]) for array in (self.elapsed_steps, self.position, self.culprit))
        vote = None if self.last_actions is None or step == 0 else int(self.last_actions[row, 1])
        share, seen = step / (2 * self.corridor), bool(self._sees()[row])
        return witness_vote(self.corridor, self.num_suspects, position, culprit, seen, vote, share)
