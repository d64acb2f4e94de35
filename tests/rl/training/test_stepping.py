"""One meaning of a step, whatever the environment's autoreset mode and final observations; episode statistics."""

from functools import partial

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.vector.utils import iterate

from envs.probes import Counter, SpaceProbe
from envs.single_env import SingleEnv
from rl.training import stepping
from rl.training.stepping import Episodes, StepResult, VectorEnvAdapter

BOX, WORD = spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(9)


@pytest.fixture
def counters():
    """Two single Counters of 2 and 3 steps as Gymnasium vectorises them: object arrays of final observations."""

    def make(mode, end="truncated"):
        made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end=end) for n in (2, 3)]
        return SyncVectorEnv(made, autoreset_mode=mode)

    return make


@pytest.fixture
def run():
    """The first observation and the results of ``steps`` steps with action 0."""

    def take_steps(envs, steps, seed=0):
        adapter = VectorEnvAdapter(envs)
        first = adapter.reset(seed)
        return first, [adapter.step(np.zeros(envs.num_envs, dtype=np.int64)) for _ in range(steps)]

    return take_steps


def counts(results):
    return [result.obs[:, 0].tolist() for result in results]


def test_same_step_with_a_batch_of_final_observations(run):
    """Rows of 2 and 3 steps: after steps 2, 3, 4, 6 a row is truncated, and the next episode is already shown."""
    first, results = run(Counter(2, [2, 3], "truncated"), 6)
    assert first[:, 0].tolist() == [0, 0]
    assert counts(results) == [[1, 1], [0, 2], [1, 0], [0, 1], [1, 2], [0, 0]]
    assert [result.truncated.tolist() for result in results] == [
        [False, False], [True, False], [False, True], [True, False], [False, False], [True, True]
    ]  # fmt: skip
    assert [None if result.final_obs is None else result.final_obs[:, 0].tolist() for result in results] == [
        None, [2, 2], [1, 3], [2, 1], None, [2, 3]
    ]  # fmt: skip
    assert all(not result.ignored.any() for result in results)
    assert all(np.array_equal(result.ended, result.truncated) for result in results)


def test_same_step_with_an_object_array_of_final_observations(run, counters):
    """As above, but valid only where an episode was cut; elsewhere any number may stand."""
    _, results = run(counters(AutoresetMode.SAME_STEP), 6)
    assert counts(results) == [[1, 1], [0, 2], [1, 0], [0, 1], [1, 2], [0, 0]]
    for result, lengths in zip(results, [{}, {0: 2}, {1: 3}, {0: 2}, {}, {0: 2, 1: 3}], strict=True):
        assert set(np.flatnonzero(result.truncated)) == set(lengths)
        assert (result.final_obs is None) == (not lengths)
        for row, count in lengths.items():
            assert result.final_obs[row].tolist() == [count, 0]  # each single Counter is row 0 of its own
            assert result.final_obs.dtype == np.float32
            assert result.final_obs.shape == (2, 2)


def test_terminations_need_no_final_observation(run, counters):
    for envs in (Counter(2, [2, 3]), counters(AutoresetMode.SAME_STEP, "terminated")):
        _, results = run(envs, 6)
        assert all(result.final_obs is None for result in results)
        assert results[1].terminated.tolist() == [True, False]
        assert results[1].ended.tolist() == [True, False]


def test_where_it_is_asked_for_terminations_have_a_final_observation_too(counters):
    """Of episodes of 2 and 3 steps: after step 2 of row 0, after step 3 of row 1."""
    for envs in (
        Counter(2, [2, 3]),
        counters(AutoresetMode.SAME_STEP, "terminated"),
        counters(AutoresetMode.NEXT_STEP, "terminated"),
    ):
        adapter = VectorEnvAdapter(envs, final_obs_of_terminated=True)
        adapter.reset(0)
        results = [adapter.step(np.zeros(2, dtype=np.int64)) for _ in range(3)]
        assert [result.terminated.tolist() for result in results] == [[False, False], [True, False], [False, True]]
        assert results[0].final_obs is None
        assert results[1].final_obs[0, 0] == 2
        assert results[2].final_obs[1, 0] == 3


def test_next_step_marks_the_steps_that_only_reset(run, counters):
    """Row 0: steps 1, 2 count, 3 resets, 4, 5 count, 6 resets; row 1: 1, 2, 3 count, 4 resets, 5, 6, 7 count."""
    first, results = run(counters(AutoresetMode.NEXT_STEP), 7)
    assert first[:, 0].tolist() == [0, 0]
    assert counts(results) == [[1, 1], [2, 2], [0, 3], [1, 0], [2, 1], [0, 2], [1, 3]]
    assert [result.ignored.tolist() for result in results] == [
        [False, False], [False, False], [True, False], [False, True], [False, False], [True, False], [False, False]
    ]  # fmt: skip
    assert [result.ended.tolist() for result in results] == [
        [False, False], [True, False], [True, True], [False, True], [True, False], [True, False], [False, True]
    ]  # fmt: skip
    assert [result.rewards.tolist() for result in results] == [
        [0, 0], [1, 1], [0, 2], [0, 0], [1, 0], [0, 1], [0, 2]
    ]  # fmt: skip
    assert results[1].final_obs[0].tolist() == [2, 0]  # the observation of the step itself
    assert results[2].final_obs[1].tolist() == [3, 0]
    assert results[3].final_obs is None


def test_a_reset_forgets_that_a_row_was_about_to_reset(counters):
    envs = counters(AutoresetMode.NEXT_STEP)
    adapter = VectorEnvAdapter(envs)
    adapter.reset(0)
    for _ in range(2):
        adapter.step(np.zeros(2, dtype=np.int64))
    adapter.reset(0)
    result = adapter.step(np.zeros(2, dtype=np.int64))
    assert not result.ignored.any()
    assert result.obs[:, 0].tolist() == [1, 1]


class Marking(VectorWrapper):
    """Says of the steps 2 and 3 that row 1 is idle."""

    def __init__(self, envs):
        super().__init__(envs)
        self.metadata = {**envs.metadata, "ignores_steps": True}

    def reset(self, **given):
        self.time = 0
        return super().reset(**given)

    def step(self, actions):
        *results, info = super().step(actions)
        self.time += 1
        marks = {"ignored": np.array([False, True])} if self.time in (2, 3) else {}
        return *results, info | marks


@pytest.mark.parametrize(
    ("mode", "resets"), [(AutoresetMode.SAME_STEP, set()), (AutoresetMode.NEXT_STEP, {(3, 0), (4, 1)})]
)
def test_steps_that_the_environment_marks_are_ignored_in_either_mode(mode, resets, run, counters):
    """Beside those that only reset, see above: (step, row)."""
    _, results = run(Marking(counters(mode)), 4)
    ignored = {(step, row) for step, after in enumerate(results, 1) for row in np.flatnonzero(after.ignored)}
    assert ignored == {(2, 1), (3, 1)} | resets
    assert all(after.ended[after.ignored].all() for after in results)
    assert all(after.ignored.dtype == np.bool_ for after in results)


def test_such_a_mark_means_nothing_where_it_is_not_declared(run, counters):
    """An environment of a user may have an entry of that name in its info, of whatever kind."""
    envs = Marking(counters(AutoresetMode.SAME_STEP))
    envs.metadata = {**envs.metadata, "ignores_steps": False}
    assert not any(after.ignored.any() for after in run(envs, 4)[1])


class Silent(VectorWrapper):
    """Tells no final observation."""

    def step(self, actions):
        return *super().step(actions)[:4], {}


def test_a_truncation_without_a_final_observation_is_refused(run):
    assert len(run(Silent(Counter(2, [2, 3])), 4)[1]) == 4  # what is terminated needs none
    with pytest.raises(ValueError, match=r"ended an episode, but its info has no 'final_obs', the observation that"):
        run(Silent(Counter(2, [2, 3], "truncated")), 4)


def test_other_modes_are_refused(counters):
    with pytest.raises(ValueError, match=r"not supported: use SAME_STEP or NEXT_STEP"):
        VectorEnvAdapter(counters(AutoresetMode.DISABLED))
    silent = Counter(1)
    silent.metadata = {}
    with pytest.raises(ValueError, match="autoreset mode None"):
        VectorEnvAdapter(silent)


def test_rewards_beyond_float32_become_infinite_without_a_warning():
    """The agent refuses them in a sentence, which a warning of NumPy's would precede."""
    envs = Counter(2)
    step = envs.step
    envs.step = lambda actions: (step(actions)[0], np.array([1e300, 1.0]), *step(actions)[2:])
    adapter = VectorEnvAdapter(envs)
    adapter.reset(seed=1)
    assert adapter.step(np.zeros(2, dtype=int)).rewards.tolist() == [float("inf"), 1.0]


def test_rewards_are_float32_and_flags_bool(run, counters):
    for envs in (Counter(2), counters(AutoresetMode.SAME_STEP), counters(AutoresetMode.NEXT_STEP)):
        _, results = run(envs, 3)
        for result in results:
            assert result.rewards.dtype == np.float32
            for flags in (result.terminated, result.truncated, result.ignored, result.ended):
                assert flags.dtype == np.bool_
                assert flags.shape == (2,)


def test_a_seed_decides_the_environments(run):
    one, other = (run(SpaceProbe(8, "discrete"), 4, seed=3)[1] for _ in range(2))
    assert all(np.array_equal(a.obs, b.obs) for a, b in zip(one, other, strict=True))
    different = run(SpaceProbe(8, "discrete"), 4, seed=4)[1]
    assert not all(np.array_equal(a.obs, b.obs) for a, b in zip(one, different, strict=True))


class TruncatedProbe(SingleEnv):
    """A SpaceProbe that is truncated at the second step; ``last`` is what it then observed."""

    def step(self, action):
        self.last, reward, _, _, info = super().step(action)
        self._ended = self.batched.elapsed_steps[0] == 2
        return self.last, reward, False, bool(self._ended), info


@pytest.mark.parametrize("observation", ["box", "discrete", "dict", "tuple"])
def test_final_observations_of_every_kind_become_one_batch(observation):
    """Gymnasium puts each row's into an object array; they come out in the kind of the observations."""
    made = partial(TruncatedProbe, "envs.probes:SpaceProbe", observation=observation, episode_length=3)
    envs = SyncVectorEnv([made] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
    adapter = VectorEnvAdapter(envs)
    adapter.reset(0)
    adapter.step(np.zeros(4, dtype=np.int64))
    result = adapter.step(np.zeros(4, dtype=np.int64))
    assert result.truncated.all()
    assert type(result.final_obs) is type(result.obs)
    assert envs.observation_space.contains(result.final_obs)
    rows = list(iterate(envs.observation_space, result.final_obs))
    assert all(same(row, env.unwrapped.last) for row, env in zip(rows, envs.envs, strict=True))
    shown = list(iterate(envs.observation_space, result.obs))
    assert not all(same(row, env.unwrapped.last) for row, env in zip(shown, envs.envs, strict=True))


def same(one, other):
    if isinstance(one, dict):
        return all(same(part, other[key]) for key, part in one.items())
    if isinstance(one, tuple):
        return all(same(*pair) for pair in zip(one, other, strict=True))
    return np.array_equal(one, other)


def test_an_ignored_row_has_ended_too():
    """Its next observation opens an episode, whatever the flags say."""
    off, on = np.array([False, False]), np.array([True, False])
    assert StepResult(None, np.zeros(2), off, off, None, on).ended.tolist() == [True, False]


# ------------------------------------------------------------------------------------- what an environment has besides


def test_statistics_and_state_are_those_of_the_innermost_environment():
    envs = Counter(2, 5)
    adapter, silent = VectorEnvAdapter(VectorWrapper(envs)), VectorEnvAdapter(Counter(2))
    assert adapter.drain_statistics() == silent.drain_statistics() == {}
    envs.drain_statistics = lambda: {"game/votes": 2.0}
    assert adapter.drain_statistics() == {"game/votes": 2.0}
    adapter.reset(0)
    for _ in range(3):
        adapter.step(np.zeros(2, dtype=np.int64))
    state = adapter.state_dict()
    assert state["elapsed_steps"].tolist() == [3, 3]
    other = VectorEnvAdapter(Counter(2, 5))
    other.reset(0)
    other.load_state_dict(state, np.array([True, False]))
    result = other.step(np.zeros(2, dtype=np.int64))
    assert result.obs[:, 0].tolist() == [4, 4]
    assert result.ignored.tolist() == [True, False]


def test_other_environments_have_no_state(counters):
    assert VectorEnvAdapter(counters(AutoresetMode.SAME_STEP)).state_dict() is None


# ------------------------------------------------------------------------------------------------------------ episodes


def result_of(rewards, terminated=(), truncated=(), ignored=()):
    """One step of ``len(rewards)`` rows; flags are given as the rows where they are set."""
    count = len(rewards)
    flags = [np.isin(np.arange(count), rows) for rows in (terminated, truncated, ignored)]
    return StepResult(None, np.array(rewards, dtype=np.float32), flags[0], flags[1], None, flags[2])


def test_returns_and_lengths_of_episodes():
    """Row 0 ends after rewards 1, 2 and again after 4; row 1 never ends."""
    episodes = Episodes(2)
    episodes.add(result_of([1.0, 10.0]))
    assert episodes.drain() == {}
    episodes.add(result_of([2.0, 10.0], terminated=[0]))
    episodes.add(result_of([4.0, 10.0], truncated=[0]))
    assert episodes.drain() == {"charts/episodic_return": 3.5, "charts/episodic_length": 1.5}
    assert episodes.drain() == {}
    assert list(episodes.recent) == [3.0, 4.0]
    assert episodes.returns.tolist() == [0.0, 30.0]
    assert episodes.lengths.tolist() == [0, 3]


def test_rows_that_end_together_are_kept_apart():
    episodes = Episodes(3)
    episodes.add(result_of([1.0, 2.0, 3.0], terminated=[0], truncated=[2]))
    episodes.add(result_of([1.0, 2.0, 3.0], terminated=[1]))
    assert episodes.new == [(1.0, 1), (3.0, 1), (4.0, 2)]
    assert list(episodes.recent) == [1.0, 3.0, 4.0]


def test_ignored_steps_have_no_length_and_end_nothing():
    episodes = Episodes(1)
    for step in (result_of([1.0]), result_of([1.0], [0]), result_of([0.0], ignored=[0]), result_of([1.0], [0])):
        episodes.add(step)
    assert episodes.new == [(2.0, 2), (1.0, 1)]
    assert episodes.drain() == {"charts/episodic_return": 1.5, "charts/episodic_length": 1.5}


def test_the_recent_returns_are_a_window():
    episodes = Episodes(1, window=3)
    for reward in range(5):
        episodes.add(result_of([float(reward)], terminated=[0]))
    assert list(episodes.recent) == [2.0, 3.0, 4.0]
    assert Episodes(1).recent.maxlen == 100


def test_episodes_survive_a_checkpoint():
    episodes = Episodes(2, window=3)
    for step in range(6):
        episodes.add(result_of([1.0, 2.0], terminated=[0] if step % 2 else []))
    other = Episodes(2, window=3)
    other.add(result_of([9.0, 9.0], terminated=[0]))  # nothing of this is left
    other.drain()
    other.load_state_dict(episodes.state_dict())
    for one in (episodes, other):
        one.drain()
        one.add(result_of([1.0, 2.0], terminated=[0, 1]))
    assert episodes.drain() == other.drain() == {"charts/episodic_return": 7.5, "charts/episodic_length": 4.0}
    assert list(other.recent) == list(episodes.recent) == [2.0, 1.0, 14.0]
    assert other.recent.maxlen == 3


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, list])
def test_flags_that_are_no_bools_are_made_so(kind):
    """As indices 0 and 1 they would name the first two rows."""

    class Numbers(VectorWrapper):
        def step(self, actions):
            obs, rewards, *flags, info = self.env.step(actions)
            return obs, rewards, *(flag.tolist() if kind is list else flag.astype(kind) for flag in flags), info

    adapter, episodes = VectorEnvAdapter(Numbers(Counter(4, episode_length=3))), Episodes(4)
    plain, counted = VectorEnvAdapter(Counter(4, episode_length=3)), Episodes(4)
    for each, told in ((adapter, episodes), (plain, counted)):
        each.reset(0)
        for _ in range(7):
            result = each.step(np.zeros(4, dtype=np.int64))
            assert result.terminated.dtype == result.truncated.dtype == bool
            told.add(result)
    assert episodes.new == counted.new and len(counted.new) == 8


def test_scripts_may_use_the_earlier_name():
    assert stepping.Stepper is VectorEnvAdapter
