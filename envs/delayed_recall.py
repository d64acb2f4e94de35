"""Delayed recall: name, after a delay full of distractors, the cue that was shown first."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import at_least, positive
from envs.drawing import Picture, RenderMode, cards


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

    metadata = DRAWN
    state_names = ("cue", "distractor")

    def __init__(
        self,
        num_envs: int,
        num_cues: int = 4,
        delay: int = 10,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        at_least(2, num_cues=num_cues)
        positive(delay=delay)
        self.num_cues, self.delay = int(num_cues), int(delay)
        size = 2 * self.num_cues + 1
        observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        super().__init__(num_envs, observation_space, spaces.Discrete(self.num_cues), None, device, render_mode)
        self.cue = self.xp.zeros(self.num_envs, self.xp.int64)
        self.distractor = self.xp.zeros(self.num_envs, self.xp.int64)
        self.optimal_return = 1.0
        self.memoryless_return = 0.0
        # The last row is blank: after the answer.
        self._views = self.xp.asarray(np.eye(size + 1, size, dtype=np.float32))

    def _start(self, rows: Array) -> None:
        self.xp.put(self.cue, rows, self.draws.integers(self.num_cues, size=len(rows)))

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        asked = self.elapsed_steps == self.delay
        wrong = -1.0 / (self.num_cues - 1)
        rewards = asked * self.xp.where(actions == self.cue, 1.0, wrong)
        distractor = self.draws.integers(self.num_cues, size=self.num_envs)
        self.distractor = self.xp.renew(self.distractor, distractor)
        return rewards, asked

    def _observe(self) -> Array:
        step = self.elapsed_steps
        query = 2 * self.num_cues + (step > self.delay)
        view = self.xp.where(step < self.delay, self.num_cues + self.distractor, query)
        return self.xp.take(self._views, self.xp.where(step == 0, self.cue, view))

    def _draw(self, row: int) -> Picture:
        step, cue = int(self.elapsed_steps[row]), int(self.cue[row])
        shown = cue if step == 0 else int(self.distractor[row]) if step < self.delay else None
        answer = None if self.last_actions is None or step == 0 else int(self.last_actions[row])
        share = step / (self.delay + 1)
        return cards(self.num_cues, shown, step >= self.delay, answer, cue if step > self.delay else None, share)
