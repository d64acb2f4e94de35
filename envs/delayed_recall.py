"""Delayed recall: name, after a delay full of distractors, the cue that was shown first."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.batched_env import BatchedEnv
from envs.checks import at_least, positive


class DelayedRecall(BatchedEnv):
    """One of ``num_cues`` cues is shown at step 0, then random distractors, and the query at step ``delay``.

    Observation: ``Box(0, 1, (2 * num_cues + 1,), float32)``: the cue one-hot, the distractor one-hot, the query flag.
    Action: ``Discrete(num_cues)``, of which only the one at the query counts.
    Reward: at the query +1 for naming the cue, else ``-1 / (num_cues - 1)``; 0 before.
    End: terminated by the answer, after ``delay + 1`` steps.
    Optimal return: 1.
    Memoryless return: 0, since a guess is right with probability ``1 / num_cues``.
    Source: the cue-recall tasks of the LSTM literature (Hochreiter and Schmidhuber, 1997); bsuite's ``memory_len``.
    """

    state_names = ("cue", "distractor")

    def __init__(self, num_envs: int, num_cues: int = 4, delay: int = 10):
        at_least(2, num_cues=num_cues)
        positive(delay=delay)
        self.num_cues, self.delay = int(num_cues), int(delay)
        size = 2 * self.num_cues + 1
        super().__init__(num_envs, spaces.Box(0.0, 1.0, (size,), np.float32), spaces.Discrete(self.num_cues))
        self.cue = np.zeros(self.num_envs, dtype=np.int64)
        self.distractor = np.zeros(self.num_envs, dtype=np.int64)
        self.optimal_return = 1.0
        self.memoryless_return = 0.0
        self._views = np.eye(size + 1, size, dtype=np.float32)  # the last row is blank: after the answer

    def _start(self, rows: np.ndarray) -> None:
        self.cue[rows] = self.np_random.integers(self.num_cues, size=len(rows))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked = self.elapsed_steps == self.delay
        wrong = -1.0 / (self.num_cues - 1)
        rewards = asked * np.where(actions == self.cue, 1.0, wrong)
        self.distractor = self.np_random.integers(self.num_cues, size=self.num_envs)
        return rewards, asked

    def _observe(self) -> np.ndarray:
        step = self.elapsed_steps
        query = 2 * self.num_cues + (step > self.delay)
        view = np.where(step < self.delay, self.num_cues + self.distractor, query)
        return self._views.take(np.where(step == 0, self.cue, view), axis=0)
