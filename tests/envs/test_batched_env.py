"""What every environment of the package promises, tested on all of them."""

import hashlib
import pickle
from copy import deepcopy

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import create_empty_array

from envs.batched_env import BatchedEnv
from envs.bernoulli_bandit import BernoulliBandit
from envs.classic_control import CartPoleNoVelocity, MountainCarContinuousNoVelocity, PendulumNoVelocity
from envs.copy_sequence import CopySequence
from envs.delayed_recall import DelayedRecall
from envs.memory_grid import MemoryGrid
from envs.probes import ActionReward, ConstantReward, Counter, DelayedReward, EchoCue, SignReward, SpaceProbe
from envs.repeat_previous import RepeatPrevious
from envs.single_env import SingleEnv
from envs.state_punishment import StatePunishment
from envs.t_maze import TMaze
from envs.witness_vote import WitnessVote
from tests.envs.field_tasks import FIELD_TASKS

# Short episodes, so that rows end often.
TASKS = {
    "t_maze": (TMaze, {"length": 2}),
    "t_maze_active": (TMaze, {"length": 2, "passive": False}),
    "delayed_recall": (DelayedRecall, {"delay": 3}),
    "repeat_previous": (RepeatPrevious, {"k": 2, "episode_length": 6}),
    "copy_sequence": (CopySequence, {"length": 2}),
    "bernoulli_bandit": (BernoulliBandit, {"episode_length": 4}),
    "cartpole": (CartPoleNoVelocity, {}),
    "pendulum": (PendulumNoVelocity, {}),
    "mountain_car": (MountainCarContinuousNoVelocity, {}),
    "witness_vote": (WitnessVote, {"corridor": 2}),
    "state_punishment": (StatePunishment, {"num_agents": 1, "max_turns": 9, "respawn_prob": 0.1}),
    "memory_grid": (MemoryGrid, {"size": 7}),
    **FIELD_TASKS,
}
PROBES = {
    "constant_reward": (ConstantReward, {}),
    "sign_reward": (SignReward, {}),
    "action_reward": (ActionReward, {}),
    "delayed_reward": (DelayedReward, {}),
    "echo_cue": (EchoCue, {}),
    "counter": (Counter, {"episode_length": 3, "end": "both"}),
    "dict_box": (SpaceProbe, {"observation": "dict", "action": "box"}),
    "tuple_multi_discrete": (SpaceProbe, {"observation": "tuple", "action": "multi_discrete"}),
    "discrete_multi_binary": (SpaceProbe, {"observation": "discrete", "action": "multi_binary"}),
    "image_last": (SpaceProbe, {"observation": "image_last"}),
}
ALL = [pytest.param(*value, id=name) for name, value in (TASKS | PROBES).items()]
TASKS_ONLY = [pytest.param(*value, id=name) for name, value in TASKS.items()]


def leaves(tree):
    if isinstance(tree, (dict, tuple)):
        return [leaf for part in (tree.values() if isinstance(tree, dict) else tree) for leaf in leaves(part)]
    return [tree]


def assert_same(left, right):
    left, right = leaves(left), leaves(right)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        if not np.array_equal(a, b):  # eight times as fast, but without a word of where, and no NaN is equal
            np.testing.assert_array_equal(a, b)


def rollout(env, actions):
    return [env.step(action) for action in actions]


def random_actions(env, num_steps, seed=0):
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(num_steps)]


def num_steps(env):
    """Enough for some rows to end."""
    return 1010 if isinstance(env, MountainCarContinuousNoVelocity) else 210


@pytest.mark.parametrize(("cls", "parameters"), ALL)
def test_spaces_contain_what_is_returned(cls, parameters):
    env = cls(5, **parameters)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP and env.render_mode is None and env.spec is None
    observations, info = env.reset(seed=0)
    assert observations in env.observation_space and info == {}
    empty = leaves(create_empty_array(env.single_observation_space, n=5))
    assert [leaf.dtype for leaf in leaves(observations)] == [leaf.dtype for leaf in empty]
    ends = 0
    for action in random_actions(env, num_steps(env)):
        assert action in env.action_space
        observations, rewards, terminated, truncated, info = env.step(action)
        assert observations in env.observation_space
        assert rewards.dtype == np.float64 and rewards.shape == (5,) and np.isfinite(rewards).all()
        for flags in (terminated, truncated):
            assert flags.dtype == np.bool_ and flags.shape == (5,)
        ended = terminated | truncated
        assert info.keys() == ({"final_obs", "_final_obs"} if ended.any() else set())
        if ended.any():
            assert info["final_obs"] in env.observation_space and info["_final_obs"].dtype == np.bool_
            np.testing.assert_array_equal(info["_final_obs"], ended)
        ends += ended.sum()
    assert ends >= 5


@pytest.mark.parametrize(("cls", "parameters"), ALL)
def test_what_was_returned_never_changes(cls, parameters):
    env = cls(4, **parameters)
    env.reset(seed=0)
    kept, copies = [], []
    for action in random_actions(env, 30):
        kept.append(env.step(action))
        copies.append(deepcopy(kept[-1]))
    assert_same(tuple(kept), tuple(copies))


@pytest.mark.parametrize(("cls", "parameters"), ALL)
def test_one_row_equals_gymnasiums_same_step_autoreset(cls, parameters):
    """Row i of SyncVectorEnv(SAME_STEP) over single environments is the batched form with one row and the same seed."""
    task = f"{cls.__module__}:{cls.__name__}"
    sync = SyncVectorEnv([lambda: SingleEnv(task, **parameters)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    batched = [cls(1, **parameters) for _ in range(3)]
    observations, _ = sync.reset(seed=7)
    for row, env in enumerate(batched):
        env_observations, _ = env.reset(seed=7 + row)
        assert_same(tuple(leaf[row] for leaf in leaves(observations)), tuple(x[0] for x in leaves(env_observations)))
    ends = 0
    for actions in random_actions(sync, num_steps(batched[0])):
        observations, rewards, terminated, truncated, info = sync.step(actions)
        for row, env in enumerate(batched):
            result = env.step(actions[row : row + 1])
            expected = (*leaves(observations), rewards, terminated, truncated)
            assert_same(tuple(x[row] for x in expected), tuple(x[0] for x in leaves(result[:4])))
            assert ("_final_obs" in result[4]) == (terminated[row] or truncated[row])
            if "_final_obs" in result[4]:
                ends += 1
                assert_same(info["final_obs"][row], tuple(x[0] for x in leaves(result[4]["final_obs"])))
    assert ends >= 3


def test_rows_with_their_own_lengths_equal_gymnasiums_same_step_autoreset():
    lengths, task = (1, 2, 3, 5), "envs.probes:Counter"
    sync = SyncVectorEnv(
        [lambda length=length: SingleEnv(task, episode_length=length) for length in lengths],
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    env = Counter(4, lengths)
    sync.reset()
    env.reset()
    for _ in range(31):
        expected, got = sync.step(np.zeros(4, dtype=int)), env.step(np.zeros(4, dtype=int))
        np.testing.assert_array_equal(expected[0][:, 0], got[0][:, 0])
        assert_same(expected[1:4], got[1:4])
        np.testing.assert_array_equal(expected[4]["_final_obs"], got[4]["_final_obs"])
        for row in np.flatnonzero(got[4]["_final_obs"]):
            assert expected[4]["final_obs"][row][0] == got[4]["final_obs"][row, 0]


@pytest.mark.parametrize(("cls", "parameters"), TASKS_ONLY)
def test_seeds(cls, parameters):
    env, twin = cls(32, **parameters), cls(32, **parameters)
    actions = random_actions(env, 20)

    def play(env, seed):
        return (env.reset(seed=seed), *rollout(env, actions))

    first = play(env, 1)
    assert_same(tuple(first), tuple(play(twin, 1)))
    assert_same(tuple(first), tuple(play(env, 1)))  # the past of an environment leaves nothing behind
    other = play(env, 2)
    assert any((a != b).any() for a, b in zip(leaves(first[0][0]), leaves(other[0][0]), strict=True)) or any(
        (a[1] != b[1]).any() for a, b in zip(first[1:], other[1:], strict=True)
    )


@pytest.mark.parametrize(("cls", "parameters"), ALL)
@pytest.mark.parametrize("steps_before", [0, 13])
def test_a_restored_environment_goes_on_bit_identically(cls, parameters, steps_before):
    env = cls(6, **parameters)
    actions = random_actions(env, steps_before + num_steps(env))
    env.reset(seed=3)
    rollout(env, actions[:steps_before])
    state = env.state_dict()
    frozen = deepcopy(state)
    expected = rollout(env, actions[steps_before:])
    np.testing.assert_equal(state, frozen)  # a copy, which going on leaves alone
    restored = cls(6, **parameters)
    restored.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert_same(tuple(rollout(restored, actions[steps_before:])), tuple(expected))
    env.load_state_dict(state)
    assert_same(tuple(rollout(env, actions[steps_before:])), tuple(expected))
    np.testing.assert_equal(state, frozen)


# Of the state after 50 steps: the first digits of a checksum of whole numbers, the mean of others.
STREAMS = {
    "t_maze": "d49ea2ef2eea",
    "t_maze_active": "1f741fad1c03",
    "delayed_recall": "c8ede6a9979f",
    "repeat_previous": "8f343ae9cb9c",
    "copy_sequence": "33324a93b0b5",
    "bernoulli_bandit": [0.5241556055613876, 1.1875],
    "cartpole": [0.030344175598839843],
    "pendulum": [0.35601543979984895, 0.4010446839780504],
    "mountain_car": [-0.5360296964645386, -0.00037625175900757313],
    "witness_vote": "532c0ae8a228",
    "memory_grid": "6e9e0faaefc5",
    "pobax_t_maze": "311f5f00f0c9",
    "rock_sample": "4814c1950209",
    "repeat_first": "034fdfb7ac05",
    "repeat_previous_cards": "034fdfb7ac05",
    "autoencode": "034fdfb7ac05",
    "higher_lower": "85bfbcb48897",
    "count_recall": "315f0b510eb4",
    "concentration": "fb7ea263f712",
    "mine_sweeper": "6ec0f9d8d165",
    "battleship": "79d671413963",
    "velocity_only_cartpole": [0.030344175598839843],
    "noisy_position_only_cartpole": [0.01890645384212995, -0.007197932805866003],
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_seed_plays_in_numpy_what_it_always_played(name):
    """Published results rest on it. Numbers of the first eleven are from before there were tensors."""
    found = stream(*TASKS[name])
    assert found == (STREAMS[name] if isinstance(found, str) else pytest.approx(STREAMS[name], rel=1e-4))


def stream(cls, parameters):
    env = cls(16, **parameters)
    env.reset(seed=0)
    rollout(env, random_actions(env, 50))
    state = [getattr(env, name) for name in env.state_names]
    if state[0].dtype.kind == "f":
        return [float(array.mean()) for array in state]
    return hashlib.sha256(np.concatenate([array.ravel() for array in state]).tobytes()).hexdigest()[:12]


def test_state_dict_holds_plain_values_and_knows_whether_reset_was_called():
    env = TMaze(2)
    for value in env.state_dict().values():
        assert isinstance(value, (np.ndarray, bool, dict))
    restored = TMaze(2)
    restored.load_state_dict(env.state_dict())
    with pytest.raises(ResetNeeded):
        restored.step(np.zeros(2, dtype=int))


def test_a_foreign_state_is_refused():
    env = TMaze(4)
    for state in (TMaze(3).state_dict(), DelayedRecall(4).state_dict()):
        with pytest.raises(ValueError, match=r"does not belong to this environment: expected arrays .*position"):
            env.load_state_dict(state)


@pytest.mark.parametrize(("cls", "parameters"), ALL)
def test_bad_actions(cls, parameters):
    env = cls(3, **parameters)
    env.reset(seed=0)
    good = random_actions(env, 1)[0]
    space = str(env.single_action_space).split("(")[0]
    bad_values = [np.nan, np.inf, 5.0, -5.0] if isinstance(env.single_action_space, spaces.Box) else [99, -1]
    for value in bad_values:
        bad = good.copy()
        bad[1] = value
        with pytest.raises(ValueError, match=rf"^actions={value}: it must lie in {space}"):
            env.step(bad)
    with pytest.raises(ValueError, match=r"^actions\.shape=\(2.*\): it must be \(3"):
        env.step(good[:2])
    kind = "numbers" if isinstance(env.single_action_space, spaces.Box) else "integers"
    with pytest.raises(ValueError, match=rf"^actions\.dtype=complex128: it must be a dtype of {kind}, for {space}"):
        env.step(good.astype(complex))
    with pytest.raises(ValueError, match=r"^actions\.shape=\(3, .*\): it must be \(3"):
        env.step(good[..., None])
    env.step(good)


def test_actions_of_any_precision_are_taken_as_float32():
    narrow, wide = PendulumNoVelocity(3), PendulumNoVelocity(3)
    narrow.reset(seed=0)
    wide.reset(seed=0)
    actions = np.full((3, 1), 0.1)
    assert_same(narrow.step(actions.astype(np.float32))[:2], wide.step(actions)[:2])
    assert_same(narrow.speed, wide.speed)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
def test_any_integer_dtype_is_an_action_but_floats_are_not(dtype):
    env = WitnessVote(2)
    env.reset(seed=0)
    env.step(np.array([[2, 3], [0, 0]], dtype=dtype))
    with pytest.raises(ValueError, match=r"actions\.dtype=float64: it must be a dtype of integers, for Multi"):
        env.step(np.array([[2.0, 3.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"^actions=3: it must lie in MultiDiscrete\(\[3 4\]\)$"):
        env.step(np.array([[3, 3], [0, 0]], dtype=dtype))  # allowed for the vote, not for the move


def test_a_bit_is_an_action():
    env = SpaceProbe(2, action="multi_binary", episode_length=1)
    env.reset(seed=0)
    assert env.step(np.repeat(env.bit[:, None] == 1, 2, axis=1))[1].tolist() == [1, 1]


def test_step_before_reset():
    with pytest.raises(ResetNeeded, match=r"Call reset\(\) before step\(\)"):
        TMaze(2).step(np.zeros(2, dtype=int))


@pytest.mark.parametrize(("cls", "parameters"), ALL)
@pytest.mark.parametrize("num_envs", [0, -1, 1.5, None, True])
def test_bad_num_envs(cls, parameters, num_envs):
    with pytest.raises(ValueError, match=f"^num_envs={num_envs}: it must be a whole number of at least 1$"):
        cls(num_envs, **parameters)


def test_numpy_integers_are_sizes_too():
    env = TMaze(np.int64(2), np.int8(100))
    assert type(env.num_envs) is type(env.length) is int
    assert env.max_episode_steps == 202 and env.optimal_return == 1  # which an int8 could not hold


class Diary(Counter):
    """Writes down which rows begin, and how many steps of theirs are gone by then."""

    def __init__(self, *args):
        self.begun = []
        super().__init__(*args)

    def _start(self, rows):
        self.begun.append((rows.tolist(), self.elapsed_steps[rows].tolist()))


@pytest.mark.parametrize("end", ["terminated", "truncated", "both"])
def test_only_ended_rows_begin_anew_and_count_from_zero(end):
    """Episodes of 2 and 3 steps; they are truncated in their last step, not in the one after it."""
    env = Diary(2, (2, 3), end)
    env.reset()
    flags = [[*env.step(np.zeros(2, dtype=int))[2:4]] for _ in range(4)]
    assert env.begun == [([0, 1], [0, 0]), ([0], [0]), ([1], [0]), ([0], [0])]
    expected = [[False, False], [True, False], [False, True], [True, False]]
    for index, kind in enumerate(("terminated", "truncated")):
        assert [each[index].tolist() for each in flags] == (expected if end in (kind, "both") else [[False] * 2] * 4)


def test_the_methods_a_task_must_write():
    env = BatchedEnv(1, spaces.Discrete(2), spaces.Discrete(2))
    with pytest.raises(NotImplementedError):
        env.reset()


@pytest.mark.parametrize("actions", [spaces.Discrete(3, start=5), spaces.MultiDiscrete([2, 3], start=[0, 1])])
def test_actions_that_do_not_begin_with_0_are_refused(actions):
    """They would be checked, and passed on, as if they did."""

    class Shifted(BatchedEnv):
        def __init__(self):
            super().__init__(1, spaces.Discrete(2), actions)

    with pytest.raises(ValueError, match="the actions of these environments begin with 0"):
        Shifted()
