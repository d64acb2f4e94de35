"""POPGym's Battleship: sink hidden ships, seeing only whether the last shot hit."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.popgym_tasks.decks import choose_level

SHIPS = (2, 3, 3, 4)
NUM_SHIP_CELLS = sum(SHIPS)
WATER, SHIP, SHOT = 0, 1, 2  # SHOT is added to what lies in the cell


class Battleship(BatchedEnv):
    """Four ships, of 2, 3, 3 and 4 cells, lie on a square board with a side of 8, 10 or 12 cells; each step is a shot.

    The ships are placed one after the other, each uniformly among the places where it crosses no other.

    Observation: ``Discrete(2)``: whether the last shot hit; 0 at first.
    Action: ``MultiDiscrete([side, side])``: row and column of the shot.
    Reward: ``1 / 12`` for a hit, ``-1 / (side**2 - 12)`` for a miss. A cell is hit only once.
    End: terminated when all ships are sunk, truncated after ``side**2`` steps.
    Optimal return: None, not known exactly.
    Memoryless return: None, not known either.
    Source: POPGym's Battleship.
    """

    state_names = ("cells", "num_hits", "hit")

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        self.level, self.side = level, choose_level(level, easy=8, medium=10, hard=12)
        size = self.side**2
        action_space = spaces.MultiDiscrete([self.side] * 2)
        super().__init__(num_envs, spaces.Discrete(2), action_space, max_episode_steps=size, device=device)
        self.cells = self.xp.zeros((self.num_envs, size), self.xp.int64)  # row by row
        self.num_hits = self.xp.zeros(self.num_envs, self.xp.int64)
        self.hit = self.xp.zeros(self.num_envs, self.xp.int64)
        self._places = {length: self.xp.asarray(_places(self.side, length)) for length in sorted(set(SHIPS))}
        self._rewards = self.xp.asarray(np.array([-1 / (size - NUM_SHIP_CELLS), 1 / NUM_SHIP_CELLS]))

    def _start(self, rows: Array) -> None:
        cells = self.xp.zeros((len(rows), self.side**2), self.xp.int64)
        every = self.xp.arange(len(rows))
        for length in SHIPS:
            places = self._places[length]
            free = (cells[:, places] == WATER).all(1)  # [n, places]
            keys = self.draws.random((len(rows), places.shape[1]))
            chosen = self.xp.where(free, keys, -1.0).argmax(1)
            cells[every, places[:, chosen]] += SHIP
        self.xp.put(self.cells, rows, cells)
        self.xp.put(self.num_hits, rows, 0)
        self.xp.put(self.hit, rows, 0)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        target = actions[:, 0] * self.side + actions[:, 1]
        cell = self.cells[self.rows, target]
        self.cells[self.rows, target] = cell | SHOT
        self.hit = self.xp.renew(self.hit, self.xp.astype(cell == SHIP, self.xp.int64))
        self.num_hits += self.hit
        return self.xp.take(self._rewards, self.hit), self.num_hits == NUM_SHIP_CELLS

    def _observe(self) -> Array:
        return self.xp.copy(self.hit)


def _places(side: int, length: int) -> np.ndarray:
    """Return the cells of every place in which a ship can lie, int64 ``[length, places]``."""
    across = [[row * side + column + i for i in range(length)] for row in range(side) for column in range(side)]
    fits = [place for place in across if place[0] // side == place[-1] // side]
    down = [[cell % side * side + cell // side for cell in place] for place in fits]
    return np.array(fits + down).T
