import numpy as np
import pytest

from envs.t_maze import BACK, DOWN, FORWARD, UP, TMaze


class Optimal:
    """Remembers the cue (0 up, 1 down), having fetched it from the oracle if it is not shown at the start."""

    def __init__(self, passive):
        self.passive = passive
        self.cue = None

    def __call__(self, observations, starts):
        if self.cue is None:
            self.cue = np.zeros(len(starts), dtype=int)
        sees_cue = observations[:, :2].any(axis=1)
        self.cue[sees_cue] = observations[sees_cue, 1]
        actions = np.where(observations[:, 3] == 1, UP + self.cue, FORWARD)
        return actions if self.passive else np.where(starts, BACK, actions)


def forward_then_up(observations, starts):
    return np.where(observations[:, 3] == 1, UP, FORWARD)


@pytest.mark.parametrize(("length", "passive"), [(1, True), (10, True), (30, True), (10, False)])
def test_scripted_policies_reach_the_exact_returns(assert_mean_return, length, passive):
    env = TMaze(2048, length, passive)
    assert_mean_return(env, Optimal(passive), env.optimal_return)
    assert_mean_return(env, forward_then_up, env.memoryless_return)


@pytest.mark.parametrize("passive", [True, False])
def test_scripted_policies_reach_the_exact_returns_on_a_device(assert_mean_return, passive, device):
    env = TMaze(2048, 10, passive, device)
    assert_mean_return(env, Optimal(passive), env.optimal_return)
    assert_mean_return(env, forward_then_up, env.memoryless_return)


def test_one_episode_step_by_step():
    env = TMaze(1, length=2)
    observations, _ = env.reset(seed=0)
    cue = int(observations[0, 1])
    np.testing.assert_array_equal(observations, [[1 - cue, cue, 1, 0]])
    expected = [
        (UP, [0, 0, 1, 0], -0.5),
        (FORWARD, [0, 0, 1, 0], 0),
        (FORWARD, [0, 0, 0, 1], 0),
        (FORWARD, [0, 0, 0, 1], -0.5),
    ]
    for action, observation, reward in expected:
        observations, rewards, terminated, truncated, _ = env.step(np.array([action]))
        np.testing.assert_array_equal(observations, [observation])
        assert rewards == [reward] and not terminated and not truncated
    _, rewards, terminated, truncated, info = env.step(np.array([UP + cue]))
    assert rewards == [1] and terminated and not truncated
    np.testing.assert_array_equal(info["final_obs"], [[0, 0, 0, 1]])


def test_a_wrong_turn_ends_the_episode_without_reward():
    env = TMaze(64, length=1)
    observations, _ = env.reset(seed=0)
    cue = observations[:, 1].astype(int)
    env.step(np.full(64, FORWARD))
    _, rewards, terminated, _, _ = env.step(np.where(cue == 0, DOWN, UP))
    assert terminated.all() and not rewards.any()


def test_the_time_limit_truncates():
    env = TMaze(3, length=4)
    env.reset(seed=0)
    truncated = [env.step(np.full(3, UP))[3] for _ in range(10)]
    assert np.array(truncated).sum(axis=0).tolist() == [1, 1, 1] and truncated[-1].all()


def test_the_active_cue_is_shown_in_the_oracle_cell_only():
    env = TMaze(16, length=3, passive=False)
    shown = [env.reset(seed=0)[0][:, :2].sum(axis=1)]
    for action in (BACK, BACK, FORWARD, FORWARD):
        shown.append(env.step(np.full(16, action))[0][:, :2].sum(axis=1))
    assert [cues.mean() for cues in shown] == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("length", [0, -3, 2.5, "10", True])
def test_bad_length(length):
    with pytest.raises(ValueError, match=f"^length={length!r}: it must be a whole number of at least 1$"):
        TMaze(2, length)
