"""POPGym's MineSweeper: uncover a board of which only the last cell is shown."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.popgym_tasks.decks import choose_level

CLEAR, MINE, VIEWED = range(3)


class MineSweeper(BatchedEnv):
    """Each step names a cell and shows how many mines lie in and around it; mines must not be hit.

    The square board has a side of 4, 6 or 8 cells with 2, 6 or 10 mines; F cells are free of mines.

    Observation: ``Discrete(min(mines + 1, 10))``: the number of mines in the cell that was named and in its eight
    neighbours; 0 at first.
    Action: ``MultiDiscrete([side, side])``: row and column of the cell.
    Reward: ``1 / F`` for a free cell that is new, ``-0.5 / (F - 2)`` for one that was named before,
    ``-0.5 - 1 / F`` for a mine.
    End: terminated by a mine, or when all free cells have been named; else truncated after F steps.
    Optimal return: None, not known exactly; below 1, since the first cells have to be guessed.
    Memoryless return: None, not known either.
    Source: POPGym's MineSweeper.
    """

    state_names = ("cells", "neighbours", "num_left", "seen")

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        self.side, self.num_mines = choose_level(level, easy=(4, 2), medium=(6, 6), hard=(8, 10))
        self.level, size = level, self.side**2
        self.num_free = size - self.num_mines
        super().__init__(
            num_envs,
            spaces.Discrete(min(self.num_mines + 1, 10)),
            spaces.MultiDiscrete([self.side] * 2),
            max_episode_steps=self.num_free,
            device=device,
        )
        self.cells = self.xp.zeros((self.num_envs, size), self.xp.int64)  # row by row
        self.neighbours = self.xp.zeros((self.num_envs, size), self.xp.int64)
        self.num_left = self.xp.zeros(self.num_envs, self.xp.int64)
        self.seen = self.xp.zeros(self.num_envs, self.xp.int64)
        row, column = np.divmod(np.arange(size), self.side)
        near = (abs(row[:, None] - row) <= 1) & (abs(column[:, None] - column) <= 1)
        self._near = self.xp.asarray(near.astype(np.int64))  # [size, size]
        # In the order of CLEAR, MINE and VIEWED.
        self._rewards = self.xp.asarray(
            np.array([1 / self.num_free, -0.5 - 1 / self.num_free, -0.5 / (self.num_free - 2)])
        )

    def _start(self, rows: Array) -> None:
        mines = self.xp.argsort(self.draws.random((len(rows), self.side**2)))[:, : self.num_mines]
        cells = self.xp.zeros((len(rows), self.side**2), self.xp.int64)
        cells[self.xp.arange(len(rows))[:, None], mines] += MINE
        self.xp.put(self.cells, rows, cells)
        self.xp.put(self.neighbours, rows, self._near[mines].sum(1))
        self.xp.put(self.num_left, rows, self.num_free)
        self.xp.put(self.seen, rows, 0)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        named = actions[:, 0] * self.side + actions[:, 1]
        kind = self.cells[self.rows, named]
        self.cells[self.rows, named] = self.xp.where(kind == CLEAR, VIEWED, kind)
        self.num_left -= self.xp.astype(kind == CLEAR, self.xp.int64)
        self.seen = self.xp.renew(self.seen, self.neighbours[self.rows, named])
        return self.xp.take(self._rewards, kind), (kind == MINE) | (self.num_left == 0)

    def transition(self, actions: Array) -> tuple[Array, Array, Array, Array]:
        """Act in every row; one that terminates is not truncated as well here, as in POPGym."""
        observations, rewards, terminated, truncated = super().transition(actions)
        return observations, rewards, terminated, truncated & ~terminated

    def _observe(self) -> Array:
        return self.xp.copy(self.seen)
