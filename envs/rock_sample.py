"""RockSample: a rover checks rocks from afar with a noisy sensor, and samples the good ones."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.checks import at_least, is_number, positive

STEPS = np.array([[-1, 0], [0, 1], [1, 0], [0, -1]])  # (row, column) of a step north, east, south, west
SAMPLE, CHECK = 4, 5  # CHECK + i checks rock i


class RockSample(BatchedEnv):
    """A rover on a grid of ``size`` x ``size`` cells with ``num_rocks`` rocks, of which each is good or bad.

    The rocks lie where ``map_seed`` puts them, in any column but the last, in all copies and episodes alike. Per
    episode each is good with probability 1/2, and the rover starts anywhere but in the last column.

    Observation: ``Box(-1, 1, (2 * size + num_rocks,), float32)``: the row one-hot, the column one-hot, and for each
    rock 1 or -1 if the last action checked it and the sensor says good or bad, else 0.
    Action: ``Discrete(5 + num_rocks)``: north, east, south, west (off the grid: stay), sample, check rock i.
    Sensor: right with probability ``(1 + 2 ** (-d / half_efficiency_distance)) / 2``, d the distance to the rock.
    Reward: ``good_reward`` for sampling a good rock, which turns bad, ``bad_reward`` for a bad one, 0 where none is;
    ``exit_reward`` for reaching the last column.
    End: terminated in the last column, truncated after ``max_episode_steps``.
    Optimal return: None, not known exactly.
    Memoryless return: None, not known either.
    Source: Smith and Simmons, "Heuristic search value iteration for POMDPs" (2004), in the form of POBAX (Tao et al.,
    "Benchmarking partial observability in reinforcement learning with a suite of memory-improvable domains", 2025),
    whose presets are 5 cells and rocks, 7 and 8, 11 and 11, 15 and 15. That one is not truncated, though it declares
    1000 steps.
    """

    state_names = ("position", "good", "reading")

    def __init__(
        self,
        num_envs: int,
        size: int = 11,
        num_rocks: int = 11,
        map_seed: int = 0,
        half_efficiency_distance: float = 20.0,
        good_reward: float = 10.0,
        bad_reward: float = -10.0,
        exit_reward: float = 10.0,
        max_episode_steps: int = 1000,
        device: str | None = None,
    ):
        at_least(2, size=size)
        positive(num_rocks=num_rocks, max_episode_steps=max_episode_steps)
        at_least(0, map_seed=map_seed)
        self.size, self.num_rocks = int(size), int(num_rocks)
        size, rocks = self.size, self.num_rocks
        if rocks > size * (size - 1):
            raise ValueError(f"num_rocks={rocks}: it must be a whole number of at most {size * (size - 1)}")
        if not is_number(half_efficiency_distance) or half_efficiency_distance <= 0:
            raise ValueError(f"half_efficiency_distance={half_efficiency_distance!r}: it must be a number above 0")
        rewards = {"good_reward": good_reward, "bad_reward": bad_reward, "exit_reward": exit_reward}
        for name, value in rewards.items():
            if not is_number(value):
                raise ValueError(f"{name}={value!r}: it must be a number")
        self.num_actions = CHECK + rocks
        space = spaces.Box(-1.0, 1.0, (2 * size + rocks,), np.float32)
        super().__init__(num_envs, space, spaces.Discrete(self.num_actions), int(max_episode_steps), device)
        free = np.random.default_rng(map_seed).choice(size * (size - 1), rocks, replace=False)
        self.rock_positions = np.stack(np.divmod(free, size - 1), axis=1)  # [rocks, (row, column)]
        self.good_reward, self.bad_reward, self.exit_reward = good_reward, bad_reward, exit_reward

        self.position = self.xp.zeros(self.num_envs, self.xp.int64)  # row * size + column
        self.good = self.xp.zeros((self.num_envs, rocks + 1), self.xp.int64)  # the last one stands for no rock
        self.reading = self.xp.zeros(self.num_envs, self.xp.int64)  # 0, or 1 + 2 * rock + what the sensor says
        row, column = np.divmod(np.arange(size**2), size)
        moved = np.clip(np.stack([row, column])[:, :, None] + STEPS.T[:, None], 0, size - 1)  # [2, cells, 4]
        following = np.arange(size**2)[:, None].repeat(self.num_actions, axis=1)
        following[:, :SAMPLE] = moved[0] * size + moved[1]
        self._next = self.xp.asarray(following.ravel())
        distance = np.hypot(row[:, None] - self.rock_positions[:, 0], column[:, None] - self.rock_positions[:, 1])
        accuracy = np.zeros((size**2, self.num_actions))
        accuracy[:, CHECK:] = (1 + 2 ** (-distance / half_efficiency_distance)) / 2
        self._accuracy = self.xp.asarray(accuracy.ravel())
        rock_at = np.full(size**2, rocks)
        rock_at[self.rock_positions[:, 0] * size + self.rock_positions[:, 1]] = np.arange(rocks)
        self._rock_at = self.xp.asarray(rock_at)
        self._views = self.xp.asarray(self._draw_views(row, column))

    def _draw_views(self, row: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Return the observation in each cell with each reading, ``[cells * (1 + 2 * rocks), 2 * size + rocks]``."""
        readings = 1 + 2 * self.num_rocks
        views = np.zeros((len(row), readings, 2 * self.size + self.num_rocks), dtype=np.float32)
        cells = np.arange(len(row))
        views[cells, :, row] = 1
        views[cells, :, self.size + column] = 1
        reading = np.arange(1, readings)
        views[:, reading, 2 * self.size + (reading - 1) // 2] = (reading - 1) % 2 * 2 - 1
        return views.reshape(len(row) * readings, -1)

    def _start(self, rows: Array) -> None:
        cell = self.draws.integers(self.size * (self.size - 1), size=len(rows))  # of a grid without the last column
        self.xp.put(self.position, rows, cell // (self.size - 1) * self.size + cell % (self.size - 1))
        self.xp.put(self.good[:, :-1], rows, self.draws.integers(2, size=(len(rows), self.num_rocks)))
        self.xp.put(self.reading, rows, 0)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        xp, rows = self.xp, self.rows
        here = self.position * self.num_actions + actions
        rock = xp.take(self._rock_at, self.position)
        good = self.good[rows, rock]
        sampled = actions == SAMPLE
        rewards = sampled * (rock < self.num_rocks) * xp.where(good == 1, self.good_reward, self.bad_reward)
        self.good[rows, rock] = good * ~sampled
        checks = actions >= CHECK
        checked = (actions - CHECK) * checks
        says = self.good[rows, checked] == (self.draws.random(self.num_envs) < xp.take(self._accuracy, here))
        self.reading = xp.renew(self.reading, checks * (1 + 2 * checked + says))
        self.position = xp.renew(self.position, xp.take(self._next, here))
        out = self.position % self.size == self.size - 1
        return rewards + out * self.exit_reward, out

    def _observe(self) -> Array:
        return self.xp.take(self._views, self.position * (1 + 2 * self.num_rocks) + self.reading)
