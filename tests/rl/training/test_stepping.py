"""One meaning of a step, whatever the vector environment's autoreset mode and form of final observations."""

from functools import partial

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from envs.probes import Counter, SpaceProbe
from envs.single_env import SingleEnv
from rl.training.stepping import Outcome, VectorEnvAdapter, dense


@pytest.fixture
def counters():
    """Two single Counters of 2 and 3 steps as Gymnasium vectorises them: object arrays of final observations."""

    def make(mode, end="truncated"):
        made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end=end) for n in (2, 3)]
        return SyncVectorEnv(made, autoreset_mode=mode)

    return make


@pytest.fixture
def run():
    """All outcomes of ``steps`` steps with action 0, after the first observation."""

    def play(envs, steps, seed=0):
        stepper = VectorEnvAdapter(envs)
        first = stepper.reset(seed)
        return first, [stepper.step(np.zeros(envs.num_envs, dtype=np.int64)) for _ in range(steps)]

    return play


def counts(outcomes):
    return [outcome.obs[:, 0].tolist() for outcome in outcomes]


def test_same_step_with_dense_final_observations(run):
    """Rows of 2 and 3 steps: after steps 2, 3, 4, 6 someone is cut, and the next episode is already shown."""
    first, outcomes = run(Counter(2, [2, 3], "truncated"), 6)
    assert first[:, 0].tolist() == [0, 0]
    assert counts(outcomes) == [[1, 1], [0, 2], [1, 0], [0, 1], [1, 2], [0, 0]]
    assert [outcome.truncated.tolist() for outcome in outcomes] == [
        [False, False], [True, False], [False, True], [True, False], [False, False], [True, True]
    ]  # fmt: skip
    assert [None if outcome.final_obs is None else outcome.final_obs[:, 0].tolist() for outcome in outcomes] == [
        None, [2, 2], [1, 3], [2, 1], None, [2, 3]
    ]  # fmt: skip
    assert all(not outcome.ignored.any() for outcome in outcomes)
    assert all(np.array_equal(outcome.ended, outcome.truncated) for outcome in outcomes)


def test_same_step_with_an_object_array_of_final_observations(run, counters):
    """As above, but valid only where an episode was cut; elsewhere any number may stand."""
    _, outcomes = run(counters(AutoresetMode.SAME_STEP), 6)
    assert counts(outcomes) == [[1, 1], [0, 2], [1, 0], [0, 1], [1, 2], [0, 0]]
    for outcome, lengths in zip(outcomes, [{}, {0: 2}, {1: 3}, {0: 2}, {}, {0: 2, 1: 3}], strict=True):
        assert set(np.flatnonzero(outcome.truncated)) == set(lengths)
        assert (outcome.final_obs is None) == (not lengths)
        for row, count in lengths.items():
            assert outcome.final_obs[row].tolist() == [count, 0]  # each single Counter is row 0 of its own
            assert outcome.final_obs.dtype == np.float32
            assert outcome.final_obs.shape == (2, 2)


def test_terminations_need_no_final_observation(run, counters):
    for envs in (Counter(2, [2, 3]), counters(AutoresetMode.SAME_STEP, "terminated")):
        _, outcomes = run(envs, 6)
        assert all(outcome.final_obs is None for outcome in outcomes)
        assert outcomes[1].terminated.tolist() == [True, False]
        assert outcomes[1].ended.tolist() == [True, False]


def test_next_step_marks_the_steps_that_only_reset(run, counters):
    """Row 0: steps 1, 2 count, 3 resets, 4, 5 count, 6 resets; row 1: 1, 2, 3 count, 4 resets, 5, 6, 7 count."""
    first, outcomes = run(counters(AutoresetMode.NEXT_STEP), 7)
    assert first[:, 0].tolist() == [0, 0]
    assert counts(outcomes) == [[1, 1], [2, 2], [0, 3], [1, 0], [2, 1], [0, 2], [1, 3]]
    assert [outcome.ignored.tolist() for outcome in outcomes] == [
        [False, False], [False, False], [True, False], [False, True], [False, False], [True, False], [False, False]
    ]  # fmt: skip
    assert [outcome.ended.tolist() for outcome in outcomes] == [
        [False, False], [True, False], [True, True], [False, True], [True, False], [True, False], [False, True]
    ]  # fmt: skip
    assert [outcome.rewards.tolist() for outcome in outcomes] == [
        [0, 0], [1, 1], [0, 2], [0, 0], [1, 0], [0, 1], [0, 2]
    ]  # fmt: skip
    assert outcomes[1].final_obs[0].tolist() == [2, 0]  # the observation of the step itself
    assert outcomes[2].final_obs[1].tolist() == [3, 0]
    assert outcomes[3].final_obs is None


def test_a_reset_forgets_that_a_row_was_about_to_reset(counters):
    envs = counters(AutoresetMode.NEXT_STEP)
    stepper = VectorEnvAdapter(envs)
    stepper.reset(0)
    for _ in range(2):
        stepper.step(np.zeros(2, dtype=np.int64))
    stepper.reset(0)
    outcome = stepper.step(np.zeros(2, dtype=np.int64))
    assert not outcome.ignored.any()
    assert outcome.obs[:, 0].tolist() == [1, 1]


class Marking(VectorWrapper):
    """Says of the steps 2 and 3 that row 1 is idle."""

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
    _, outcomes = run(Marking(counters(mode)), 4)
    ignored = {(step, row) for step, after in enumerate(outcomes, 1) for row in np.flatnonzero(after.ignored)}
    assert ignored == {(2, 1), (3, 1)} | resets
    assert all(after.ended[after.ignored].all() for after in outcomes)
    assert all(after.ignored.dtype == np.bool_ for after in outcomes)


def test_other_modes_are_refused(counters):
    with pytest.raises(ValueError, match=r"not supported: use SAME_STEP or NEXT_STEP"):
        VectorEnvAdapter(counters(AutoresetMode.DISABLED))
    silent = Counter(1)
    silent.metadata = {}
    with pytest.raises(ValueError, match="autoreset mode None"):
        VectorEnvAdapter(silent)


def test_rewards_are_float32_and_flags_bool(run, counters):
    for envs in (Counter(2), counters(AutoresetMode.SAME_STEP), counters(AutoresetMode.NEXT_STEP)):
        _, outcomes = run(envs, 3)
        for outcome in outcomes:
            assert outcome.rewards.dtype == np.float32
            for flags in (outcome.terminated, outcome.truncated, outcome.ignored, outcome.ended):
                assert flags.dtype == np.bool_
                assert flags.shape == (2,)


def test_a_seed_decides_the_environments(run):
    one, other = (run(SpaceProbe(8, "discrete"), 4, seed=3)[1] for _ in range(2))
    assert all(np.array_equal(a.obs, b.obs) for a, b in zip(one, other, strict=True))
    different = run(SpaceProbe(8, "discrete"), 4, seed=4)[1]
    assert not all(np.array_equal(a.obs, b.obs) for a, b in zip(one, different, strict=True))


class Cut(SingleEnv):
    """A SpaceProbe that is cut at the second step instead of ended."""

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        self._ended = self.batched.elapsed_steps[0] == 2
        return obs, reward, False, bool(self._ended), info


@pytest.mark.parametrize("observation", ["box", "discrete", "dict", "tuple"])
def test_final_observations_of_every_kind_become_one_batch(observation):
    """Gymnasium puts each row's into an object array; they come out in the kind of the observations."""
    made = partial(Cut, "envs.probes:SpaceProbe", observation=observation, episode_length=3)
    envs = SyncVectorEnv([made, made], autoreset_mode=AutoresetMode.SAME_STEP)
    stepper = VectorEnvAdapter(envs)
    stepper.reset(0)
    stepper.step(np.zeros(2, dtype=np.int64))
    expected = [env.batched.bit.copy() for env in envs.envs]
    outcome = stepper.step(np.zeros(2, dtype=np.int64))
    assert outcome.truncated.all()
    assert type(outcome.final_obs) is type(outcome.obs)
    assert envs.observation_space.contains(outcome.final_obs)
    assert len(expected) == 2


@pytest.mark.parametrize("kind", ["plain", "dict", "tuple", "discrete"])
def test_dense_fills_in_what_is_there(kind):
    """Row 1 of three ended; the others are zero."""
    number, word = np.array([5.0, 6.0], dtype=np.float32), 7
    forms = {
        "plain": (number, np.zeros((3, 2), dtype=np.float32)),
        "discrete": (word, np.zeros(3, dtype=np.int64)),
        "dict": ({"a": number, "b": {"c": word}}, {"a": np.zeros((3, 2)), "b": {"c": np.zeros(3, dtype=np.int64)}}),
        "tuple": ((number, word), (np.zeros((3, 2)), np.zeros(3, dtype=np.int64))),
    }
    row, obs = forms[kind]
    final = np.empty(3, dtype=object)
    final[1] = row
    batch = dense(final, obs)

    def parts(value):
        if isinstance(value, dict):
            return [leaf for part in value.values() for leaf in parts(part)]
        return [leaf for part in value for leaf in parts(part)] if isinstance(value, tuple) else [np.asarray(value)]

    assert len(parts(batch)) == len(parts(obs)) == len(parts(row))
    for made, like, given in zip(parts(batch), parts(obs), parts(row), strict=True):
        assert made.dtype == like.dtype
        assert made.shape == like.shape
        assert np.array_equal(made[1], given)
        assert not made[[0, 2]].any()


@pytest.mark.parametrize("final", [np.ones((3, 2)), {"a": np.ones((3, 2))}, (np.ones(3),)])
def test_dense_batches_pass_through(final):
    assert dense(final, None) is final


def test_an_ignored_row_has_ended_too():
    """Its next observation opens an episode, whatever the flags say."""
    off, on = np.array([False, False]), np.array([True, False])
    assert Outcome(None, np.zeros(2), off, off, None, on).ended.tolist() == [True, False]
    assert spaces.Discrete(2).contains(1)
