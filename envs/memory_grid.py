"""MiniGrid's memory task: see an object, walk down a hallway, turn towards the same object at its end."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import at_least
from envs.drawing import Picture, RenderMode, memory_grid

LEFT, RIGHT, FORWARD = range(3)
EAST, SOUTH, WEST, NORTH = range(4)
STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # (x, y) of a step east, south, west, north; y points down
UNSEEN, EMPTY, WALL, KEY, BALL = 0, 1, 2, 5, 6  # the numbers that MiniGrid gives to kinds of cells
OBJECTS = np.array([KEY, BALL])
NUM_LAYOUTS = 4  # 2 * cue + order, see MemoryGrid
VIEW = 7  # side of the agent's view, which stands in the middle of its last row, looking towards row 0


class MemoryGrid(BatchedEnv):
    """``MiniGrid-MemoryS<size>-v0``: a cue in the room where a hallway begins tells the way to turn where it ends.

    ``size`` (odd, at least 7) is the side of the square grid. The cue, a key or a ball, lies in cell
    (1, size // 2 - 1). The hallway, one cell wide, leads to the junction in column ``size - 2``; two cells up and down
    from there lie a key and a ball. The agent starts facing east in the middle row, in any column from 1 to
    ``size - 3``. Start column, cue and the order of key and ball are drawn independently and uniformly; one copy draws
    what MiniGrid draws with the same seed. Dynamics, observations, rewards and ends are exactly those of MiniGrid 3.2.

    Observation: ``Box(0, 255, (7, 7, 3), uint8)``, the agent's view as MiniGrid's ``ImgObsWrapper`` gives it: kind,
    colour and state of the cells up to 6 ahead and 3 to either side, ``[from left to right, from far to near]``; walls
    hide.
    Action: ``Discrete(7)`` as in MiniGrid: 0 turns left, 1 turns right, 2 steps forward unless a wall or an object is
    there. 3 to 6 only let time pass (pickup is turned into toggle in this task, no object here reacts to toggle, and
    with nothing picked up there is nothing to drop).
    Reward: ``1 - 0.9 * t / (5 * size**2)`` for reaching, as step t, the cell between the junction and the object that
    equals the cue; else 0.
    End: terminated in the cell between the junction and either object, truncated after ``5 * size**2`` steps.
    Optimal return: the mean over start columns x of the reward at t = size - x + d, where ``size - x`` is the shortest
    way and d the detour to see the cue: 0 for x = 1, 2 for x up to 4 (turn left and back), 4 for x up to 7 (turn
    round twice), 2 more for each further column. With sizes 7 and 9 d is at most 2, since one can look back from the
    junction. 0.97796 for size 7, 0.98407 for 9, 0.98587 for 11, 0.98754 for 13, 0.98955 for 17.
    Memoryless return: from size 11 on half of the mean reward of the shortest way, 0.49517 for size 11: no view at the
    junction shows the cue, and each visit to it begins facing east, so the odds of ending up or down cannot depend
    on the cue, which matches either side equally often. Walking straight on and turning left gets it. None for
    sizes 7 and 9: there a look back from the junction shows the cue and both objects at once, and a memoryless
    policy that sometimes looks back comes near the optimal return.
    Source: Chevalier-Boisvert et al., "Minigrid & Miniworld: modular & customizable reinforcement learning
    environments for goal-oriented tasks" (2023).
    """

    metadata = DRAWN
    state_names = ("situation",)

    def __init__(self, num_envs: int, size: int = 11, device: str | None = None, render_mode: RenderMode = None):
        at_least(7, size=size)
        if size % 2 == 0:
            raise ValueError(f"size={size}: it must be odd")
        self.size = int(size)
        super().__init__(
            num_envs,
            spaces.Box(0, 255, (VIEW, VIEW, 3), np.uint8),
            spaces.Discrete(7),
            max_episode_steps=5 * self.size**2,
            device=device,
            render_mode=render_mode,
        )
        # Layout, x, y and direction in one number, so that a step is a look-up in each of the tables below.
        self.shape = (NUM_LAYOUTS, self.size, self.size, 4)
        self.situation = self.xp.zeros(self.num_envs, self.xp.int64)
        layout, x, y, direction = np.indices(self.shape).reshape(4, -1)
        self._worlds = worlds = _worlds(self.size)
        self._views = self.xp.asarray(_views(worlds, layout, x, y, direction))  # [N, 7, 7, 3]
        self._next = self.xp.asarray(self._moves(worlds, layout, x, y, direction).ravel())  # [N * 7]
        upwards = layout // 2 + layout % 2 == 1  # the object that equals the cue lies above the junction
        ends = (x == self.size - 2) & (np.abs(y - self.size // 2) == 1)
        self._ends = self.xp.asarray(ends)  # [N]
        self._succeeds = self.xp.asarray(ends & ((y < self.size // 2) == upwards))  # [N]

        starts = np.arange(1, self.size - 2)
        shows_cue_at_junction = self.size < 11
        detour = np.where((starts <= 4) | shows_cue_at_junction, 2, 4 + 2 * np.maximum(starts - 7, 0))
        detour[0] = 0
        self.optimal_return = float(self._reward(self.size - starts + detour).mean())
        self.memoryless_return = None if shows_cue_at_junction else float(self._reward(self.size - starts).mean() / 2)

    def _reward(self, step: Array) -> Array:
        return 1 - 0.9 * (step / self.max_episode_steps)

    def _moves(self, worlds: np.ndarray, *place: np.ndarray) -> np.ndarray:
        """Work out the situation after each action in each situation, int ``[N, 7]``.

        The agent cannot get into a wall, so what stands for a pose inside one does not matter.

        Args:
            worlds: kinds of cells by layout, ``[4, size, size]``.
            place: layout, x, y and direction of each situation, ``[N]`` each.
        """
        layout, x, y, direction = place
        ahead = np.clip(np.stack([x, y]) + STEPS[direction].T, 0, self.size - 1)
        free = worlds[layout, *ahead] == EMPTY
        moves = np.arange(len(layout))[:, None].repeat(7, axis=1)
        moves[:, LEFT] += (direction - 1) % 4 - direction
        moves[:, RIGHT] += (direction + 1) % 4 - direction
        moves[free, FORWARD] = np.ravel_multi_index((layout, *ahead, direction), self.shape)[free]
        return moves

    def _start(self, rows: Array) -> None:
        x = self.draws.integers(1, self.size - 2, size=len(rows))  # in the order in which MiniGrid draws
        cue = self.draws.integers(2, size=len(rows))  # 0 is a key, 1 a ball
        order = self.draws.integers(2, size=len(rows))  # 0: the ball is above the junction; 1: the key
        column = (2 * cue + order) * self.size + x  # its number among the columns of all layouts
        self.xp.put(self.situation, rows, (column * self.size + self.size // 2) * 4 + EAST)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        self.situation = self.xp.renew(self.situation, self.xp.take(self._next, self.situation * 7 + actions))
        rewards = self.xp.take(self._succeeds, self.situation) * self._reward(self.elapsed_steps + 1)
        return rewards, self.xp.take(self._ends, self.situation)

    def _observe(self) -> Array:
        return self.xp.take(self._views, self.situation)

    def _draw(self, row: int) -> Picture:
        layout, *place = np.unravel_index(int(self.situation[row]), self.shape)
        kinds, seen = self._worlds[layout], np.zeros((self.size, self.size), dtype=np.bool_)
        lit = np.asarray(self.xp.export(self._views[int(self.situation[row])]))[..., 0] != UNSEEN
        columns = np.stack(_seen_cells(*(np.array([part]) for part in place)))[:, 0, lit]  # [2, cells]
        inside = ((columns >= 0) & (columns < self.size)).all(axis=0)
        seen[*columns[:, inside]] = True
        pose = np.array([*place[:2], *STEPS[place[2]]])
        return memory_grid(kinds == WALL, kinds == KEY, kinds == BALL, seen, pose)


def _worlds(size: int) -> np.ndarray:
    """Return the kind of each cell in each layout, ``[4, x, y]``; cells that no view reaches count as walls."""
    middle, junction = size // 2, size - 2
    worlds = np.full((NUM_LAYOUTS, size, size), WALL)
    worlds[:, 1:4, middle - 1 : middle + 2] = EMPTY  # the room
    worlds[:, 4:junction, middle] = EMPTY  # the hallway
    worlds[:, junction, 1:-1] = EMPTY
    cue, order = np.divmod(np.arange(NUM_LAYOUTS), 2)
    worlds[:, 1, middle - 1] = OBJECTS[cue]
    worlds[:, junction, middle - 2] = OBJECTS[1 - order]
    worlds[:, junction, middle + 2] = OBJECTS[order]
    return worlds


def _views(worlds: np.ndarray, layout: np.ndarray, x: np.ndarray, y: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Draw the agent's view in each situation, uint8 ``[N, 7, 7, 3]``.

    Args:
        worlds: kinds of cells by layout, ``[4, size, size]``.
        layout: of each situation, ``[N]``; likewise ``x``, ``y`` and ``direction``, where the agent stands and looks.
        x: column.
        y: row.
        direction: EAST, SOUTH, WEST or NORTH.
    """
    margin = VIEW - 1
    padded = np.pad(worlds, ((0, 0), (margin, margin), (margin, margin)), constant_values=WALL)
    seen_x, seen_y = _seen_cells(x, y, direction)
    kinds = padded[layout[:, None, None], seen_x + margin, seen_y + margin]  # [N, 7, 7]
    kinds[~_visible(kinds != WALL)] = UNSEEN
    kinds[:, VIEW // 2, -1] = EMPTY  # the agent does not see itself
    codes = np.zeros((BALL + 1, 3), dtype=np.uint8)  # kind, colour, state
    codes[:, 0] = np.arange(BALL + 1)
    codes[WALL, 1] = 5  # grey
    codes[OBJECTS, 1] = 1  # green
    return codes[kinds]


def _seen_cells(x: np.ndarray, y: np.ndarray, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row of each cell of the view from each pose ``[N]``, int ``[N, 7, 7]`` both."""
    side, ahead = np.indices((VIEW, VIEW)) - np.array([VIEW // 2, 0])[:, None, None]
    ahead = VIEW - 1 - ahead
    dx, dy = STEPS[direction].T[:, :, None, None]  # [N, 1, 1]; to the right of it lies (-dy, dx)
    return x[:, None, None] + dx * ahead - dy * side, y[:, None, None] + dy * ahead + dx * side


def _visible(clear: np.ndarray) -> np.ndarray:
    """Find the cells that are lit, given those that let light through, bool ``[N, 7, 7]`` both.

    Light starts at the agent. Row by row, away from it, a lit clear cell lights its neighbours in the row, and then the
    three cells in front of it.
    """
    lit = np.zeros_like(clear)
    lit[:, VIEW // 2, -1] = True
    for row in reversed(range(VIEW)):
        for column in range(VIEW - 1):
            lit[:, column + 1, row] |= lit[:, column, row] & clear[:, column, row]
        for column in reversed(range(1, VIEW)):
            lit[:, column - 1, row] |= lit[:, column, row] & clear[:, column, row]
        if row > 0:
            shining = lit[:, :, row] & clear[:, :, row]
            lit[:, :, row - 1] = shining
            lit[:, 1:, row - 1] |= shining[:, :-1]
            lit[:, :-1, row - 1] |= shining[:, 1:]
    return lit
