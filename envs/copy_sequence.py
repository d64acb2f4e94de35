"""Copy: watch a sequence of symbols, then say it back."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.checks import at_least, positive


class CopySequence(BatchedEnv):
    """``length`` random symbols are shown one by one, then they must be named in order, or in reverse order.

    Observation: ``Box(0, 1, (num_symbols + 1,), float32)``: the symbol one-hot and, while answering, only the go flag.
    Action: ``Discrete(num_symbols)``, counted while the go flag is up.
    Reward: ``1 / length`` for each right answer, ``-1 / (length * (num_symbols - 1))`` for each wrong one.
    End: terminated after ``2 * length`` steps.
    Optimal return: 1.
    Memoryless return: 0, since all observations with the go flag are alike and the symbols equally likely.
    Source: the copy task of Graves et al., "Neural Turing machines" (2014); ``reverse=True`` is POPGym's Autoencode
    (Morad et al., 2023) with independent symbols.
    """

    state_names = ("shown",)

    def __init__(
        self, num_envs: int, length: int = 4, num_symbols: int = 4, reverse: bool = False, device: str | None = None
    ):
        positive(length=length)
        at_least(2, num_symbols=num_symbols)
        self.length, self.num_symbols = int(length), int(num_symbols)
        self.reverse = bool(reverse)
        size = self.num_symbols + 1
        observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        super().__init__(num_envs, observation_space, spaces.Discrete(self.num_symbols), device=device)
        # What each step shows: the symbols, the go flag, and a blank after the last answer.
        shown = np.full((self.num_envs, 2 * self.length + 1), self.num_symbols, dtype=np.int64)
        shown[:, -1] = self.num_symbols + 1
        self.shown = self.xp.asarray(shown)
        self.optimal_return = 1.0
        self.memoryless_return = 0.0
        self._views = self.xp.asarray(np.eye(size + 1, size, dtype=np.float32))

    def _start(self, rows: Array) -> None:
        fresh = self.draws.integers(self.num_symbols, size=(len(rows), self.length))
        self.xp.put(self.shown[:, : self.length], rows, fresh)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        step = self.elapsed_steps
        answering = step >= self.length
        source = 2 * self.length - 1 - step if self.reverse else step - self.length
        right = actions == self.shown[self.rows, source]
        rewards = answering * self.xp.where(right, 1.0, -1.0 / (self.num_symbols - 1)) / self.length
        return rewards, step == 2 * self.length - 1

    def _observe(self) -> Array:
        return self.xp.take(self._views, self.shown[self.rows, self.elapsed_steps])
