"""Repeat previous: at every step, name the symbol of k steps ago."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import at_least, positive
from envs.drawing import Picture, RenderMode, cards


class RepeatPrevious(BatchedEnv):
    """A stream of independent random symbols; the answer is the symbol that was shown ``k`` steps before.

    Observation: ``Box(0, 1, (num_symbols,), float32)``: the current symbol one-hot.
    Action: ``Discrete(num_symbols)``, counted from step ``k`` on (the first step is 0).
    Reward: ``1 / (episode_length - k)`` for the right symbol, minus as much for a wrong one.
    End: terminated after ``episode_length`` steps.
    Optimal return: 1.
    Memoryless return: ``2 / num_symbols - 1``, since the current symbol says nothing about an earlier one.
    Source: POPGym's RepeatPrevious (Morad et al., 2023), with independent symbols in place of a shuffled deck.
    """

    metadata = DRAWN
    state_names = ("symbols",)

    def __init__(
        self,
        num_envs: int,
        k: int = 4,
        num_symbols: int = 4,
        episode_length: int = 52,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        positive(k=k)
        at_least(2, num_symbols=num_symbols)
        at_least(k + 1, episode_length=episode_length)
        self.k, self.num_symbols, self.episode_length = int(k), int(num_symbols), int(episode_length)
        size = self.num_symbols
        observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        super().__init__(num_envs, observation_space, spaces.Discrete(size), None, device, render_mode)
        # The symbol after the last step is the blank one, ``num_symbols``.
        self.symbols = self.xp.asarray(np.full((self.num_envs, self.episode_length + 1), size, dtype=np.int64))
        self.optimal_return = 1.0
        self.memoryless_return = 2.0 / size - 1.0
        self._views = self.xp.asarray(np.eye(size + 1, size, dtype=np.float32))

    def _start(self, rows: Array) -> None:
        fresh = self.draws.integers(self.num_symbols, size=(len(rows), self.episode_length))
        self.xp.put(self.symbols[:, :-1], rows, fresh)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        counted = self.elapsed_steps >= self.k
        right = actions == self.symbols[self.rows, self.elapsed_steps - self.k]
        rewards = counted * self.xp.where(right, 1.0, -1.0) / (self.episode_length - self.k)
        return rewards, self.elapsed_steps == self.episode_length - 1

    def _observe(self) -> Array:
        return self.xp.take(self._views, self.symbols[self.rows, self.elapsed_steps])

    def _draw(self, row: int) -> Picture:
        step, size = int(self.elapsed_steps[row]), self.num_symbols
        symbols = [int(symbol) for symbol in self.symbols[row]]
        answer = None if self.last_actions is None or step == 0 else int(self.last_actions[row])
        right = symbols[step - 1 - self.k] if step > self.k else None  # of the last answer
        shown, share = symbols[step] if symbols[step] < size else None, step / self.episode_length
        return cards(size, shown, step >= self.k, answer, right, share)
