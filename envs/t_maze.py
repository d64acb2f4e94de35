"""T-maze: remember a cue for the length of a corridor."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import is_number, positive
from envs.drawing import Picture, RenderMode, t_maze

FORWARD, UP, DOWN, BACK = range(4)
NORTH, SOUTH, EAST, WEST = range(4)


class TMaze(BatchedEnv):
    """A corridor of ``length`` cells leads to a junction; a cue says whether to turn up or down there.

    Observation: ``Box(0, 1, (4,), float32)``: cue "up", cue "down", in the corridor, at the junction. With
    ``passive=True`` the cue is shown at the first step only. With ``passive=False`` it is shown in an oracle cell, one
    step behind the start.
    Action: ``Discrete(3)``: forward, up, down; with ``passive=False`` ``Discrete(4)``, where 3 is a step back.
    Reward: +1 for the turn that the cue showed, 0 for the other one. Any action that neither moves forward nor turns
    at the junction costs ``1 / length`` (and has no effect, but for the step back).
    End: terminated by a turn at the junction, truncated after ``2 * length + 2`` steps.
    Optimal return: 1, or with ``passive=False`` ``1 - 1 / length``, for the step back to the oracle (0.5 if that is
    more).
    Memoryless return: 0.5, since all observations at the junction are alike and the cues equally likely.
    Source: Bakker, "Reinforcement learning with long short-term memory" (2001); the active form follows Ni et al.,
    "When do transformers shine in RL?" (2023).
    """

    metadata = DRAWN
    state_names = ("position", "cue")

    def __init__(
        self,
        num_envs: int,
        length: int = 10,
        passive: bool = True,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        positive(length=length)
        self.length = int(length)
        self.passive = bool(passive)
        super().__init__(
            num_envs,
            spaces.Box(0.0, 1.0, (4,), np.float32),
            spaces.Discrete(3 if self.passive else 4),
            max_episode_steps=2 * self.length + 2,
            device=device,
            render_mode=render_mode,
        )
        self.start_cell = 0 if self.passive else 1  # cell 0 of the active form is the oracle
        self.junction = self.start_cell + self.length
        self.position = self.xp.zeros(self.num_envs, self.xp.int64)
        self.cue = self.xp.zeros(self.num_envs, self.xp.int64)  # 0 is up, 1 is down
        self.optimal_return = 1.0 if self.passive else max(0.5, 1.0 - 1.0 / self.length)
        self.memoryless_return = 0.5
        # The four possible observations: corridor, corridor with either cue, junction.
        views = [[0, 0, 1, 0], [1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
        self._views = self.xp.asarray(np.array(views, dtype=np.float32))

    def _start(self, rows: Array) -> None:
        self.xp.put(self.position, rows, self.start_cell)
        self.xp.put(self.cue, rows, self.draws.integers(2, size=len(rows)))

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        at_junction = self.position == self.junction
        moved = (actions == FORWARD) & ~at_junction
        turned = at_junction & ((actions == UP) | (actions == DOWN))
        right = turned & (actions == self.cue + UP)
        rewards = right + ~(moved | turned) * (-1.0 / self.length)
        self.position += moved
        if not self.passive:
            self.position += ((actions == BACK) & (self.position > 0)) * -1
        return rewards, turned

    def _shows_cue(self) -> Array:
        return self.elapsed_steps == 0 if self.passive else self.position == 0

    def _observe(self) -> Array:
        view = self._shows_cue() * (self.cue + 1)
        self.xp.put(view, self.position == self.junction, 3)
        return self.xp.take(self._views, view)

    def _draw(self, row: int) -> Picture:
        position, cue, shown = int(self.position[row]), int(self.cue[row]), bool(self._shows_cue()[row])
        action = FORWARD if self.last_actions is None else int(self.last_actions[row])
        turned = position == self.junction and self.elapsed_steps[row] > 0 and action in (UP, DOWN)
        return t_maze(self.length, not self.passive, position, cue, shown, action - UP if turned else None)


class PobaxTMaze(BatchedEnv):
    """POBAX's T-maze: a hallway of ``length`` cells between the start, where the cue is, and the junction.

    It differs from ``TMaze`` in its actions and rewards, and in that the agent may walk back to the cue.

    Observation: ``Box(0, 1, (4,), float32)``: cue "south", in the hallway, at the junction, and 0. The start is a cell
    of the hallway that shows the cue; the cue "north" shows nothing, so with it the start looks like the hallway. So
    does the cell behind the junction, which closes an episode.
    Action: ``Discrete(4)``: north, south, east (towards the junction), west. North and south do nothing in the hallway.
    Reward: at the junction ``good_reward`` for turning to where the cue pointed, ``bad_reward`` for the other side.
    End: terminated by a turn at the junction, truncated after ``max_episode_steps``. POBAX's is not truncated, though
    it declares 1000 steps.
    Optimal return: ``good_reward``.
    Memoryless return: ``(good_reward + max(bad_reward, 0)) / 2``, if good_reward is positive and no less than
    bad_reward; else None. The junction looks alike with both cues, but who sees "south" may stay at the start, and turn
    north otherwise.
    Source: POBAX (Tao et al., "Benchmarking partial observability in reinforcement learning with a suite of
    memory-improvable domains", 2025), after Bakker (2001).
    """

    state_names = ("position", "cue")

    def __init__(
        self,
        num_envs: int,
        length: int = 10,
        good_reward: float = 4.0,
        bad_reward: float = -0.1,
        max_episode_steps: int = 1000,
        device: str | None = None,
    ):
        positive(length=length, max_episode_steps=max_episode_steps)
        for name, value in {"good_reward": good_reward, "bad_reward": bad_reward}.items():
            if not is_number(value):
                raise ValueError(f"{name}={value!r}: it must be a number")
        self.length, self.good_reward, self.bad_reward = int(length), float(good_reward), float(bad_reward)
        space = spaces.Box(0.0, 1.0, (4,), np.float32)
        super().__init__(num_envs, space, spaces.Discrete(4), int(max_episode_steps), device)
        self.junction = self.length + 1
        self.position = self.xp.zeros(self.num_envs, self.xp.int64)
        self.cue = self.xp.zeros(self.num_envs, self.xp.int64)  # 0 is north, 1 is south
        if self.good_reward > 0 and self.good_reward >= self.bad_reward and self.max_episode_steps > self.junction:
            self.optimal_return = self.good_reward
            self.memoryless_return = (self.good_reward + max(self.bad_reward, 0.0)) / 2
        # The three possible observations: hallway, start with the cue "south", junction.
        views = [[0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]
        self._views = self.xp.asarray(np.array(views, dtype=np.float32))

    def _start(self, rows: Array) -> None:
        self.xp.put(self.position, rows, 0)
        self.xp.put(self.cue, rows, self.draws.integers(2, size=len(rows)))

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        at_junction = self.position == self.junction
        turned = at_junction & (actions < EAST)
        rewards = turned * self.xp.where(actions == self.cue, self.good_reward, self.bad_reward)
        self.position += ((actions == EAST) & ~at_junction) | turned
        self.position += ((actions == WEST) & (self.position > 0)) * -1
        return rewards, turned

    def _observe(self) -> Array:
        view = (self.position == 0) * self.cue
        self.xp.put(view, self.position == self.junction, 2)
        return self.xp.take(self._views, view)
