"""The grids in which the agents forage, each one alone in its own."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.checks import at_least, one_of, positive, within
from envs.state_punishment.rules import (
    AGENT,
    FIRST_KIND,
    NOTHING,
    OUTSIDE,
    SAND,
    WALL,
    draw_kinds,
)

NUM_SIGNS = 16  # length of an agent's identity vector
PUNISHED_FOR = 2  # turns for which a view shows a punishment
# Channels of the slot observation: 0 empty (never seen, since free cells read "sand"), 1 me, 2 wall, 3 sand, 4 to 8
# kinds A to E, 9 other agents (never seen, since each is alone), 10 to 25 identity, 26 punished.
SLOT_CHANNELS, SLOT_ME, SLOT_SAND, SLOT_IDENTITY, SLOT_PUNISHED = 27, 1, 3, 10, 26
# Channels of the one-hot observation: 0 empty (all zero), 1 wall, 2 sand, 3 to 7 kinds A to E, 8 agent.
ONEHOT_CHANNELS, ONEHOT_WALL, ONEHOT_SAND, ONEHOT_AGENT = 9, 1, 2, 8


def identities(num_agents: int) -> np.ndarray:
    """Return fixed vectors by which agents can be told apart: random signs / 4, float32 ``[N, 16]`` of length 1."""
    signs = np.random.default_rng(0).choice(np.array([-1, 1], dtype=np.float32), size=(num_agents, NUM_SIGNS))
    return signs / 4


class Grid:
    """Square grids of side ``size``, walls included. They keep no state: the environment does.

    ``cells`` are int8 codes ``[R, P * P]`` of grids widened by ``radius`` on each side (P = size + 2 * radius), so that
    a view is a fixed pattern around the ``position``, int64 ``[R]``. The cell of the agent itself is always SAND.

    Args:
        size: side of a grid.
        radius: cells that an agent sees in each direction.
        observation: "slot" or "onehot", see ``StatePunishment``.
        initial_resources: at the start of an episode.
        max_resources: number beyond which none spawns, None for no limit.
        respawn_prob: probability that an empty cell becomes a resource before a turn.
        chances: of each kind to be drawn, float64 ``[5]``.

    Raises:
        ValueError: a number is out of range, or the first resources do not fit.
    """

    leaf = "image"

    def __init__(
        self,
        size: int,
        radius: int,
        observation: str,
        initial_resources: int,
        max_resources: int | None,
        respawn_prob: float,
        chances: np.ndarray,
    ):
        at_least(3, size=size)
        positive(view_radius=radius)
        one_of(("slot", "onehot"), observation=observation)
        at_least(0, initial_resources=initial_resources)
        room = (size - 2) ** 2 - 1
        if initial_resources > room:
            raise ValueError(f"initial_resources={initial_resources}: it must be at most {room} for size={size}")
        if max_resources is not None:
            at_least(0, max_resources=max_resources)
            if initial_resources > max_resources:
                raise ValueError(
                    f"initial_resources={initial_resources}: it must be at most max_resources={max_resources}"
                )
        within(0, 1, respawn_prob=respawn_prob)
        self.size, self.radius, self.slot = int(size), int(radius), observation == "slot"
        self.initial, self.most = int(initial_resources), max_resources
        self.respawn, self.chances = float(respawn_prob), chances
        self.side = size + 2 * radius
        self.shape = (self.side * self.side,)
        blank = np.full((self.side, self.side), OUTSIDE, dtype=np.int8)
        inner = slice(radius, radius + size)
        blank[inner, inner] = WALL
        blank[radius + 1 : radius + size - 1, radius + 1 : radius + size - 1] = SAND
        self._blank = blank.ravel()
        self.free = np.flatnonzero(self._blank == SAND)
        self._steps = np.array([-self.side, self.side, -1, 1, 0])  # up, down, left, right, stay
        self.window = 2 * radius + 1
        dy, dx = np.indices((self.window, self.window)) - radius
        self._offsets = (dy * self.side + dx).ravel()
        self._centre = self._offsets.size // 2
        self._build_views()

    def _build_views(self) -> None:
        """Tabulate the channel of every code, as an offset into a row of the observation; and make the space."""
        kinds = range(5)
        self.space: spaces.Box
        if self.slot:
            channels = [3, 2, *(4 + kind for kind in kinds), 2]  # sand, wall, A to E, outside
            self.space = spaces.Box(-0.25, 1, (SLOT_CHANNELS, self.window, self.window), np.float32)
        else:
            channels = [ONEHOT_SAND, ONEHOT_WALL, *(3 + kind for kind in kinds), ONEHOT_WALL]
            self.space = spaces.Box(0, 2, (ONEHOT_CHANNELS, self.window, self.window), np.uint8)
        self._channels = np.array(channels) * self._offsets.size

    def start(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Begin ``count`` episodes: cells ``[count, P * P]`` and positions ``[count]``.

        Agents and first resources lie on distinct free cells, uniformly.
        """
        order = np.argsort(rng.random((count, self.free.size), dtype=np.float32), axis=1)
        chosen = self.free[order[:, : self.initial + 1]]
        cells = np.repeat(self._blank[None], count, axis=0)
        kinds = draw_kinds(rng, self.chances, (count, self.initial))
        np.put_along_axis(cells, chosen[:, 1:], kinds, axis=1)
        self.next_turn(rng, cells, chosen[:, 0])
        return cells, chosen[:, 0]

    def act(self, cells: np.ndarray, position: np.ndarray, moves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move the agents, which consume what they enter (in place): events int64 ``[R]`` and new positions ``[R]``."""
        first = np.arange(0, cells.size, self.side * self.side)
        target = position + self._steps.take(moves)
        events = cells.ravel().take(first + target).astype(np.int64)
        position = np.where(events == WALL, position, target)
        cells.ravel()[first + position] = SAND
        events[moves == len(self._steps) - 1] = NOTHING
        return events, position

    def next_turn(self, rng: np.random.Generator, cells: np.ndarray, position: np.ndarray) -> None:
        """Turn every empty cell into a resource with probability ``respawn``, in place.

        Where that would make more than ``most``, those that come into being are drawn without preference.
        """
        if self.respawn == 0:
            return
        drawn = rng.random((len(cells), self.free.size), dtype=np.float32) < self.respawn
        rows, cell = np.divmod(np.flatnonzero(drawn), self.free.size)
        cell = self.free.take(cell)
        empty = (cells[rows, cell] == SAND) & (position.take(rows) != cell)
        rows, cell = rows[empty], cell[empty]
        if self.most is not None and rows.size:
            shuffled = rng.permutation(rows.size)
            shuffled = shuffled[np.argsort(rows[shuffled], kind="stable")]
            rows, cell = rows[shuffled], cell[shuffled]
            touched = np.unique(rows)
            room = np.zeros(len(cells), dtype=np.int64)
            room[touched] = self.most - self.stock(cells[touched])
            fits = np.arange(rows.size) - np.searchsorted(rows, rows) < room.take(rows)
            rows, cell = rows[fits], cell[fits]
        cells[rows, cell] = draw_kinds(rng, self.chances, rows.size)

    def stock(self, cells: np.ndarray) -> np.ndarray:
        """Count the resources in each grid, ``[R]``."""
        return ((cells >= FIRST_KIND) & (cells < OUTSIDE)).sum(axis=1)

    def paint(
        self, out: np.ndarray, cells: np.ndarray, position: np.ndarray, identity: np.ndarray, marked: np.ndarray
    ) -> None:
        """Write the views ``[C, V, V]`` around the agents into the first columns of ``out``.

        Args:
            out: zeros, ``[R, C * V * V + any]``.
            cells: ``[R, P * P]``.
            position: ``[R]``.
            identity: of each agent, float32 ``[R, 16]``; seen in slot views only.
            marked: the agent was punished not long ago, bool ``[R]``; seen in slot views only.
        """
        area, centre = self._offsets.size, self._centre
        first = np.arange(0, cells.size, self.side * self.side) + position
        codes = cells.ravel().take(first[:, None] + self._offsets)  # [R, V * V]
        places = self._channels.take(codes)
        places += np.arange(area)
        places += np.arange(0, out.size, out.shape[1])[:, None]
        out.ravel()[places] = 1
        if self.slot:
            out[:, SLOT_SAND * area + centre] = 0
            out[:, SLOT_ME * area + centre] = 1
            out[:, SLOT_IDENTITY * area + centre : SLOT_PUNISHED * area : area] = identity
            out[:, SLOT_PUNISHED * area + centre] = marked
        else:  # the two layers are added up: sand under everything inside, walls in both layers of the ring
            out[:, ONEHOT_WALL * area : (ONEHOT_WALL + 1) * area] += codes == WALL
            out[:, ONEHOT_SAND * area : (ONEHOT_SAND + 1) * area] = (codes != WALL) & (codes != OUTSIDE)
            out[:, ONEHOT_AGENT * area + centre] = 1

    def drawing(self, cells: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Return the codes of the cells to draw, int ``[R, size, size]``."""
        codes = cells.astype(np.int64)
        codes[np.arange(len(cells)), position] = AGENT
        inner = slice(self.radius, self.radius + self.size)
        return codes.reshape(len(cells), self.side, self.side)[:, inner, inner]
