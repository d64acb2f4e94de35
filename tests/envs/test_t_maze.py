import numpy as np
import pytest

from envs.t_maze import BACK, DOWN, EAST, FORWARD, NORTH, UP, WEST, PobaxTMaze, TMaze


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


class OptimalPobax:
    """Remembers whether the first observation showed the cue "south"."""

    cue = 0

    def __call__(self, observations, starts):
        self.cue = np.where(starts, observations[:, 0], self.cue).astype(int)
        return np.where(observations[:, 2] == 1, NORTH + self.cue, EAST)


def wait_or_turn_north(observations, starts):
    """Without a memory: who sees "south" stays where it is."""
    return np.where(observations[:, 0] == 1, NORTH, np.where(observations[:, 2] == 1, NORTH, EAST))


@pytest.mark.parametrize("length", [1, 10])
def test_scripted_policies_reach_the_exact_returns_of_pobax(assert_mean_return, length):
    env = PobaxTMaze(1024, length, max_episode_steps=20)
    assert (env.optimal_return, env.memoryless_return) == (4.0, 2.0)
    assert_mean_return(env, OptimalPobax(), env.optimal_return)
    assert_mean_return(env, wait_or_turn_north, env.memoryless_return)


class PobaxReference:
    """One copy of POBAX's T-maze, as it is described."""

    def __init__(self, length, cue):
        self.length, self.cue, self.cell = length, cue, 0

    def show(self):
        if self.cell == self.length + 1:
            return [0, 0, 1, 0]
        return [1, 1, 0, 0] if self.cell == 0 and self.cue else [0, 1, 0, 0]

    def step(self, action):
        if action >= EAST:
            self.cell = min(self.cell + 1, self.length + 1) if action == EAST else max(self.cell - 1, 0)
            return self.show(), 0.0, False
        if self.cell <= self.length:
            return self.show(), 0.0, False
        self.cell += 1
        return self.show(), 4.0 if action == self.cue else -0.1, True


@pytest.mark.parametrize("length", [1, 5])
def test_steps_are_those_of_a_reference_of_pobax(length):
    env, rng, ends = PobaxTMaze(8, length, max_episode_steps=25), np.random.default_rng(0), [0, 0]
    env.reset(seed=0)
    ones, times, paid = [PobaxReference(length, cue) for cue in env.cue], np.zeros(8, dtype=int), set()
    for _ in range(400):
        actions = rng.choice([0, 1, EAST, EAST, WEST], size=8)
        observations, rewards, terminated, truncated, info = env.step(actions)
        times += 1
        for row, one in enumerate(ones):
            observation, reward, ended = one.step(actions[row])
            late = times[row] == 25
            assert (rewards[row], terminated[row], truncated[row]) == (reward, ended, late)
            found = info["final_obs"] if ended or late else observations
            assert found[row].tolist() == observation
            paid.add(reward)
            if ended or late:
                ends[int(late)] += 1
                ones[row], times[row] = PobaxReference(length, env.cue[row]), 0
                assert observations[row].tolist() == ones[row].show()
    assert paid == {0.0, 4.0, -0.1} and min(ends) >= 2


@pytest.mark.parametrize(
    ("parameters", "returns"),
    [
        ({"bad_reward": 1.0}, (4.0, 2.5)),
        ({"good_reward": -1.0, "bad_reward": -2.0}, (None, None)),
        ({"max_episode_steps": 11}, (None, None)),  # the junction cannot be turned at in time
        ({"max_episode_steps": 12}, (4.0, 2.0)),
    ],
)
def test_returns_of_other_rewards_and_limits(parameters, returns):
    env = PobaxTMaze(1, 10, **parameters)
    assert (env.optimal_return, env.memoryless_return) == returns


def test_bad_parameters_of_pobax():
    with pytest.raises(ValueError, match=r"^length=0: it must be a whole number of at least 1$"):
        PobaxTMaze(2, length=0)
    with pytest.raises(ValueError, match=r"^bad_reward=nan: it must be a number$"):
        PobaxTMaze(2, bad_reward=float("nan"))
