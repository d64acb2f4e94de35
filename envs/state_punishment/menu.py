"""The game without a grid: in every turn a few resources are on offer, one of which may be taken."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.checks import positive
from envs.state_punishment.rules import FIRST_KIND, KINDS, NOTHING, draw_kinds


class Menu:
    """A menu of ``size`` arms, each of a kind that is drawn anew every turn. It keeps no state: the environment does.

    ``cells`` are the kinds on offer, int8 ``[R, size]``; there is no ``position``. The methods are those of ``Grid``.
    An agent that takes arm i has the event ``cells[:, i]``.

    Args:
        size: the number of arms.
        chances: of each kind to be drawn, float64 ``[5]``.

    Raises:
        ValueError: ``size`` is no whole number of at least 1.
    """

    leaf = "menu"

    def __init__(self, size: int, chances: np.ndarray):
        positive(menu_size=size)
        self.size, self.chances = int(size), chances
        self.shape = (size,)
        self.space: spaces.Box = spaces.Box(0, 1, (size, len(KINDS)), np.uint8)

    def start(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Begin ``count`` episodes: the first arms ``[count, size]``, and positions ``[count]``, which stay 0."""
        return draw_kinds(rng, self.chances, (count, self.size)), np.zeros(count, dtype=np.int64)

    def act(self, cells: np.ndarray, position: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Let each agent take an arm or leave: events int64 ``[R]`` and the positions ``[R]``."""
        padded = np.concatenate([cells, np.full((len(cells), 1), NOTHING, dtype=np.int8)], axis=1)
        return padded[np.arange(len(cells)), moves].astype(np.int64), position

    def next_turn(self, rng: np.random.Generator, cells: np.ndarray, position: np.ndarray) -> None:
        """Draw new arms, in place."""
        cells[:] = draw_kinds(rng, self.chances, cells.shape)

    def paint(
        self, out: np.ndarray, cells: np.ndarray, position: np.ndarray, identity: np.ndarray, marked: np.ndarray
    ) -> None:
        """Write the kind of each arm, one-hot ``[size, 5]``, into the first columns of ``out``.

        Args:
            out: ``[R, size * 5 + any]``.
            cells: kinds on offer, ``[R, size]``.
            position: not used, as there is no grid; nor are ``identity`` and ``marked``.
            identity: not used.
            marked: not used.
        """
        kinds = np.arange(FIRST_KIND, FIRST_KIND + len(KINDS), dtype=np.int8)
        out[:, : self.size * len(KINDS)] = (cells[:, :, None] == kinds).reshape(len(cells), -1)

    def drawing(self, cells: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return the codes of the cells to draw, int ``[R, 1, size]``."""
        return cells[:, None, :].astype(np.int64)
