"""Steps that were played, one after the other, and what came before each: all that a prediction may see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GAMMA = 0.95  # of what remains to be paid: beyond some 60 steps nothing is left to predict
FAR = 60
MOST_CLOCK = 64  # steps of an episode that the clock tells one by one
FIRST, FEW, MANY, EVER = "the first observation", "the last 4 steps", "the last 16 steps", "all that came before"


@dataclass
class Steps:
    """N steps, those of each episode one after the other.

    Attributes:
        obs: what was acted upon, float32 ``[N, F]``.
        actions: as numbers, float32 ``[N, A]``.
        chosen: choices of a discrete action, int64 ``[N, branches]``.
        rewards: float64 ``[N]``.
        time: steps since the episode began, int64 ``[N]``.
        last: whether the step ended its episode, bool ``[N]``; the last one of the record may not have.
    """

    obs: np.ndarray
    actions: np.ndarray
    chosen: np.ndarray
    rewards: np.ndarray
    time: np.ndarray
    last: np.ndarray

    @property
    def episode(self) -> np.ndarray:
        """The number of the episode of each step, int64 ``[N]``."""
        return np.cumsum(self.time == 0) - 1

    def remainders(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is still paid after each step, discounted, ``[N]``, and where it is known, bool ``[N]``.

        It is known in episodes that ended, and so long before the end of the record that the rest counts for nothing.
        """
        follows = np.append(self.time[1:] > 0, False)  # the next step belongs to the same episode
        remainders, known = np.zeros(len(self.time)), np.zeros(len(self.time), dtype=bool)
        rest, steps_left = 0.0, 0
        for i in range(len(self.time) - 1, -1, -1):
            if follows[i]:
                rest, steps_left = GAMMA * (self.rewards[i + 1] + rest), steps_left + 1
                known[i] = known[i + 1] or steps_left >= FAR
            else:
                rest, steps_left, known[i] = 0.0, 0, self.last[i]
            remainders[i] = rest
        return remainders, known

    def clock(self, at: np.ndarray) -> np.ndarray:
        """Return the step of the episode as numbers, float32 ``[n, ...]``.

        Args:
            at: indices of steps, ``[n]``.
        """
        time = self.time[at]
        each = np.minimum(time, MOST_CLOCK - 1)[:, None] == np.arange(MOST_CLOCK)
        return np.concatenate([each, np.log1p(time)[:, None], time[:, None]], axis=1, dtype=np.float32)

    def past(self, obs: np.ndarray, at: np.ndarray) -> dict[str, np.ndarray]:
        """Return what came before each step in its episode, in several forms, float32 ``[n, ...]`` each.

        Args:
            obs: observations, of fewer numbers perhaps than those of the present, ``[N, C]``.
            at: indices of steps, ``[n]``.
        """
        scale = self.rewards.std() or 1.0
        paid = (self.rewards / scale).astype(np.float32)[:, None]
        each = np.concatenate([obs, self.actions, paid], axis=1)
        ever = np.concatenate([each, self.actions * paid], axis=1)
        return {
            FIRST: obs[at - self.time[at]],
            FEW: self._lags(each, at, 4),
            MANY: self._lags(each, at, 16),
            EVER: np.concatenate([self._means(ever)[at], self._lags(self._largest(obs), at, 1)], axis=1),
        }

    def _lags(self, values: np.ndarray, at: np.ndarray, count: int) -> np.ndarray:
        """Return the values 1 to ``count`` steps ago, zeros before the episode."""
        parts = [values[np.maximum(at - lag, 0)] * (self.time[at] >= lag)[:, None] for lag in range(1, count + 1)]
        return np.concatenate(parts, axis=1)

    def _means(self, values: np.ndarray) -> np.ndarray:
        """Return the means over all earlier steps of the episode, ``[N, C]``."""
        sums = np.cumsum(values, axis=0, dtype=np.float64) - values
        sums -= sums[np.arange(len(values)) - self.time]
        return (sums / np.maximum(self.time, 1)[:, None]).astype(np.float32)

    def _largest(self, values: np.ndarray) -> np.ndarray:
        """Return the largest values of the episode so far, ``[N, C]``, by steps that double."""
        largest, reach = values.copy(), 1
        while reach <= self.time.max(initial=0):
            rows = np.flatnonzero(self.time >= reach)
            largest[rows] = np.maximum(largest[rows], largest[rows - reach])
            reach *= 2
        return largest
