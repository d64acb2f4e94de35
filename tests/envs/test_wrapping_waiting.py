"""A row that waits for the others takes nothing of what its next episode would have brought."""

import numpy as np

from envs.probes import Counter
from envs.wrapping import wrap_many

NOTHING = np.zeros(2, dtype=np.int64)


class Episodes(Counter):
    """Pays 1 for every step, shows the number of the episode, and may end its second episodes at once."""

    state_names = ("episode",)

    def __init__(self, lengths, end="terminated", short=False):
        self.episode, self.short = np.zeros(2, dtype=np.int64), short
        super().__init__(2, lengths, end)

    def _start(self, rows):
        self.episode[rows] += 1

    def _advance(self, actions):
        _, terminated = super()._advance(actions)
        return np.ones(2), terminated | (self.short & (self.episode == 2))

    def _observe(self):
        return np.stack([self.elapsed_steps, self.episode], axis=1).astype(np.float32)


def step(envs):
    envs.reset(seed=0)
    return envs.step(NOTHING)[1:]


def test_a_waiting_row_is_paid_for_its_own_frames_alone():
    rewards, *_ = step(wrap_many(Episodes([1, 4]), frame_skip=3))
    assert rewards.tolist() == [1.0, 3.0]


def test_what_closed_the_episode_of_a_waiting_row_stays():
    *_, info = step(wrap_many(Episodes([1, 2]), frame_skip=2))
    assert info["final_obs"].tolist() == [[1.0, 1.0], [2.0, 1.0]]


def test_a_cut_episode_is_not_terminated_by_the_end_of_the_next_one():
    _, terminated, truncated, _ = step(wrap_many(Episodes([1, 4], "truncated", short=True), frame_skip=2))
    assert (terminated.tolist(), truncated.tolist()) == ([False, False], [True, False])
