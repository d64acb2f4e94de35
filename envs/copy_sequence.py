"""Copy: watch a sequence of symbols, then say it back."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import at_least, positive
from envs.drawing import Picture, RenderMode, cards


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

    metadata = DRAWN
    state_names = ("shown",)

    def __init__(
        self,
        num_envs: int,
        length: int = 4,
        num_symbols: int = 4,
        reverse: bool = False,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        positive(length=length)
        at_least(2, num_symbols=num_symbols)
        self.length, self.num_symbols = int(length), int(num_symbols)
        self.reverse = bool(reverse)
        size = self.num_symbols + 1
        observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        super().__init__(num_envs, observation_space, spaces.Discrete(self.num_symbols), None, device, render_mode)
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
        right = actions == self.shown[self.rows, self._source(step)]
        rewards = answering * self.xp.where(right, 1.0, -1.0 / (self.num_symbols - 1)) / self.length
        return rewards, step == 2 * self.length - 1

    def _source(self, step: Array) -> Array:
        """Return the step that showed what must be named at ``step``."""
        return 2 * self.length - 1 - step if self.reverse else step - self.length

    def _observe(self) -> Array:
        return self.xp.take(self._views, self.shown[self.rows, self.elapsed_steps])

    def _draw(self, row: int) -> Picture:
        step, size = int(self.elapsed_steps[row]), self.num_symbols
        shown = [int(symbol) for symbol in self.shown[row]]
        answer = None if self.last_actions is None or step == 0 else int(self.last_actions[row])
        right = shown[self._source(step - 1)] if step > self.length else None  # of the last answer
        card = shown[step] if shown[step] < size else None
        return cards(size, card, step >= self.length, answer, right, step / (2 * self.length))
