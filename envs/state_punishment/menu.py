"""The game without a grid: every turn a few resources are on offer, one of which may be taken."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.state_punishment.rules import FIRST_KIND, KINDS, NOTHING, draw_kinds


class Menu:
    """`size` arms, each of a kind drawn anew every turn; `cells` of the state are int8 `[R, size]`, no `position`.

    Has the same methods as `Grid`; an agent that takes arm i has the event `cells[:, i]`.
    """

    leaf = "menu"

    def __init__(self, size: int, chances: np.ndarray):
        self.size, self.chances = size, chances
        self.shape = (size,)
        self.space = spaces.Box(0, 1, (size, len(KINDS)), np.uint8)

    def start(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """First turns: arms `[count, size]` and positions, which stay 0."""
        return draw_kinds(rng, self.chances, (count, self.size)), np.zeros(count, dtype=np.int64)

    def act(self, cells: np.ndarray, position: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What each agent took, int64 `[R]`, and the positions."""
        padded = np.concatenate([cells, np.full((len(cells), 1), NOTHING, dtype=np.int8)], axis=1)
        return padded[np.arange(len(cells)), moves].astype(np.int64), position

    def next_turn(self, rng: np.random.Generator, cells: np.ndarray, position: np.ndarray) -> None:
        """New arms, in place."""
        cells[:] = draw_kinds(rng, self.chances, cells.shape)

    def paint(
        self, out: np.ndarray, cells: np.ndarray, position: np.ndarray, identity: np.ndarray, marked: np.ndarray
    ) -> None:
        """Writes the kind of each arm, one-hot `[size, 5]`, into the first columns of `out`, `[R, size * 5 + any]`."""
        kinds = np.arange(FIRST_KIND, FIRST_KIND + len(KINDS), dtype=np.int8)
        out[:, : self.size * len(KINDS)] = (cells[:, :, None] == kinds).reshape(len(cells), -1)

    def drawing(self, cells: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Codes of the cells to draw, int `[R, 1, size]`."""
        return cells[:, None, :].astype(np.int64)
