"""Frames that are skipped and stacked, and rewards that are changed: by hand, and beside Gymnasium's own wrappers."""

from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.agent_rows import AgentRows
from envs.guest_vector import adapt
from envs.guests import vectorise
from envs.gymnasium_env import make_gymnasium
from envs.probes import Counter, SpaceProbe
from envs.repeat_previous import RepeatPrevious
from envs.single_env import SingleEnv
from envs.state_punishment import StatePunishment
from envs.t_maze import TMaze
from envs.wrapping import wrap_many, wrap_one

NOTHING = np.zeros(2, dtype=np.int64)


def follow(envs, steps, actions=NOTHING):
    """What a vector environment shows and pays: (observations, rewards, ended, final observations where ended)."""
    rows = [(envs.reset(seed=3)[0], None, None, None)]
    for _ in range(steps):
        obs, rewards, terminated, truncated, info = envs.step(actions)
        ended = terminated | truncated
        assert ("final_obs" in info) == ended.any()
        final = [info["final_obs"][row] for row in np.flatnonzero(ended)] if ended.any() else []
        rows.append((obs, rewards.tolist(), ended.tolist(), final))
    return rows


# --------------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_a_row_that_ends_waits_for_the_others(end):
    """Episodes of 5 and 3 steps, each paid with the number of steps before it, two steps an action."""
    found = follow(wrap_many(Counter(2, [5, 3], end), frame_skip=2), 5)
    assert [obs[:, 0].tolist() for obs, *_ in found] == [[0, 0], [2, 2], [4, 0], [0, 2], [2, 0], [4, 2]]
    assert [rewards for _, rewards, *_ in found[1:]] == [[1, 1], [5, 2], [4, 1], [1, 2], [5, 1]]
    assert [ended for *_, ended, _ in found[1:]] == [[0, 0], [0, 1], [1, 0], [0, 1], [0, 0]]
    assert [np.concatenate(final)[::2].tolist() for *_, final in found[1:] if final] == [[3], [5], [3]]


def test_flags_are_those_of_the_end():
    """Row 0 ends at the first of its frames, row 1 at the second, both by a limit and by themselves."""
    envs = wrap_many(Counter(2, [1, 2], "both"), frame_skip=2)
    envs.reset(seed=0)
    _, rewards, terminated, truncated, info = envs.step(NOTHING)
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == ([0, 1], [True] * 2, [True] * 2)
    assert info["_final_obs"].tolist() == [True, True]
    assert info["final_obs"][:, 0].tolist() == [1, 2]


def test_a_stack_begins_anew_with_an_episode_and_its_end_stands_behind_its_own_frames():
    """Episodes of 3 and 2 steps; the oldest frame first."""
    envs = wrap_many(Counter(2, [3, 2]), frame_stack=3)
    assert envs.single_observation_space == spaces.Box(0.0, np.inf, (3, 2), np.float32)
    assert envs.observation_space.shape == (2, 3, 2)
    found = follow(envs, 4)
    assert [obs[0, :, 0].tolist() for obs, *_ in found] == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [0, 0, 0], [0, 0, 1]]
    assert [obs[1, :, 0].tolist() for obs, *_ in found] == [[0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 0]]
    closing = [[frames[:, 0].tolist() for frames in final] for *_, final in found[1:]]
    assert closing == [[], [[0, 1, 2]], [[1, 2, 3]], [[0, 1, 2]]]
    assert all(obs in envs.observation_space for obs, *_ in found)


def single(task, frame_skip, frame_stack, **parameters):
    return wrap_one(SingleEnv(task, **parameters), frame_skip, frame_stack)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("envs.probes:Counter", {"episode_length": 5}),
        ("envs.probes:Counter", {"episode_length": 7, "end": "truncated"}),
    ],
)
@pytest.mark.parametrize(("frame_skip", "frame_stack"), [(1, 3), (2, 1), (3, 2), (9, 2)])
def test_it_is_what_gymnasiums_wrappers_make_of_single_copies(name, parameters, frame_skip, frame_stack):
    ours = wrap_many(Counter(2, **parameters), frame_skip=frame_skip, frame_stack=frame_stack)
    make = partial(single, name, frame_skip, frame_stack, **parameters)
    theirs = SyncVectorEnv([make, make], autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.single_observation_space == theirs.single_observation_space
    for (obs, *one, final), (other_obs, *other, other_final) in zip(follow(ours, 9), follow(theirs, 9), strict=True):
        np.testing.assert_array_equal(obs[..., 0], other_obs[..., 0])  # the second number is the row
        assert one == other
        np.testing.assert_array_equal(
            [part[..., 0] for part in final or ()], [part[..., 0] for part in other_final or ()]
        )


@pytest.mark.parametrize("observation", ["image", "discrete", "dict", "tuple"])
def test_observations_of_every_kind_are_stacked(observation):
    envs = wrap_many(SpaceProbe(3, observation, episode_length=3), frame_stack=2, frame_skip=2)
    obs, _ = envs.reset(seed=0)
    assert obs in envs.observation_space
    before = obs
    for _ in range(4):
        obs, *_, info = envs.step(np.ones(3, dtype=np.int64))
        assert obs in envs.observation_space
        if "final_obs" in info:
            assert info["final_obs"] in envs.observation_space
        assert obs is not before
        before = obs


class Reuses(gymnasium.Env):
    """Shows one array for ever, which counts steps; ends after 3."""

    observation_space, action_space = spaces.Box(0.0, 9.0, (1,), np.float32), spaces.Discrete(2)

    def __init__(self):
        self.shown = np.zeros(1, dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown[:] = 0
        return self.shown, {}

    def step(self, action):
        self.shown += 1
        return self.shown, 1.0, bool(self.shown[0] == 3), False, {}


def test_frames_of_an_environment_that_uses_its_array_again_stay():
    envs = vectorise(lambda: wrap_one(Reuses(), frame_stack=2), 2, "Reuses")
    found = follow(envs, 3)
    assert [obs[0, :, 0].tolist() for obs, *_ in found] == [[0, 0], [0, 1], [1, 2], [0, 0]]
    assert found[-1][-1][0][:, 0].tolist() == [2, 3]


def test_what_is_stored_goes_on_exactly():
    make = lambda: wrap_many(RepeatPrevious(2, episode_length=11), frame_skip=2, frame_stack=3)  # noqa: E731
    envs, other = make(), make()
    follow(envs, 3)
    state = envs.state_dict()
    other.reset(seed=9)
    other.load_state_dict(state)
    for _ in range(8):
        for one, same in zip(envs.step(NOTHING), other.step(NOTHING), strict=True):
            np.testing.assert_equal(one, same)
    fewer = wrap_many(RepeatPrevious(2, episode_length=11), frame_skip=2, frame_stack=2)
    fewer.reset(seed=0)
    with pytest.raises(ValueError, match=r"^the frames have the shapes \(2, 3"):
        fewer.load_state_dict(state)


# -------------------------------------------------------------------------------------------------------------- rewards


@pytest.mark.parametrize(
    ("options", "expected"),
    [  # of rewards 0, 1, 2, 3, 4
        ({"scale_rewards": 0.5}, [0.0, 0.5, 1.0, 1.5, 2.0]),
        ({"clip_rewards": 1.5}, [0.0, 1.0, 1.5, 1.5, 1.5]),
        ({"scale_rewards": 10.0, "clip_rewards": 25}, [0.0, 10.0, 20.0, 25.0, 25.0]),
        ({"clip_rewards": 2.0, "frame_skip": 2}, [1.0, 2.0, 2.0]),  # of the sums 1, 5, 4
    ],
)
def test_rewards_are_scaled_then_clipped_and_told_as_they_were(options, expected):
    envs = wrap_many(Counter(2), **options)
    plain = wrap_many(Counter(2), frame_skip=options.get("frame_skip", 1))
    assert envs.metadata["changes_rewards"]
    envs.reset(seed=0), plain.reset(seed=0)
    for reward in expected:
        _, rewards, *_, info = envs.step(NOTHING)
        assert rewards.tolist() == [reward, reward]
        assert info["unchanged_rewards"].tolist() == plain.step(NOTHING)[1].tolist()


def test_negative_rewards_are_clipped_at_the_negative_bound():
    envs = wrap_many(RepeatPrevious(64, k=1, episode_length=9), clip_rewards=0.01)
    envs.reset(seed=0)
    seen = np.concatenate([envs.step(np.zeros(64, dtype=np.int64))[1] for _ in range(8)])
    assert {*np.round(seen, 6)} == {-0.01, 0.0, 0.01}


# ------------------------------------------------------------------------------------------------------------- refusals


class Masked(gymnasium.Env):
    """Shows a mask."""

    observation_space = spaces.Dict({"x": spaces.Discrete(2), "action_mask": spaces.MultiBinary(2)})
    action_space = spaces.Discrete(2)


class World:
    """Two agents that see and do the same."""

    possible_agents = agents = ("a", "b")

    def observation_space(self, agent):
        return spaces.Discrete(2)

    action_space = observation_space

    def close(self):
        pass


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (lambda: Counter(2), {"frame_skip": 0}, "frame_skip=0: it must be"),
        (lambda: Counter(2), {"frame_stack": 1.5}, r"frame_stack=1\.5: it must be"),
        (lambda: Counter(2), {"scale_rewards": 0.0}, r"scale_rewards=0\.0: it must be a number of at least 1e-12"),
        (lambda: Counter(2), {"clip_rewards": -1.0}, r"clip_rewards=-1\.0: it must be a number of at least 1e-12"),
        (lambda: TMaze(2, device="cpu"), {"clip_rewards": 1.0}, "clip_rewards: mine gives tensors"),
        (lambda: AgentRows(World, 2), {"frame_stack": 2}, "frame_stack: mine steps all its rows itself"),
        (lambda: StatePunishment(3), {"frame_skip": 2}, "frame_skip=2: rows of StatePunishment cannot wait"),
        (lambda: adapt(SyncVectorEnv([Reuses] * 2), 2, "x"), {"frame_skip": 2}, "frame_skip: mine steps all"),
    ],
)
def test_what_cannot_be_is_told_in_a_sentence(make, options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        wrap_many(make(), "mine", **options)


def test_masks_are_not_stacked():
    with pytest.raises(ValueError, match=r"^frame_stack=2: the observation has a leaf 'action_mask'"):
        wrap_one(Masked(), frame_stack=2)


def test_what_nothing_is_asked_of_stays_as_it_is():
    envs, env = TMaze(2, device="cpu"), Reuses()
    assert wrap_many(envs) is envs
    assert wrap_one(env) is env


# ------------------------------------------------------------------------------------------------------------ Gymnasium


class Skips(Reuses):
    """Has an argument of that name itself."""

    def __init__(self, frame_skip=5):
        super().__init__()
        self.frame_skip = frame_skip


@pytest.fixture
def registered():
    ids = {"Reuses": "TestWrappingReuses-v0", "Skips": "TestWrappingSkips-v0"}
    gymnasium.register(ids["Reuses"], entry_point=Reuses)
    gymnasium.register(ids["Skips"], entry_point=Skips)
    yield ids
    for name in ids.values():
        del gymnasium.registry[name]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_environments_of_gymnasium_are_wrapped_one_by_one(registered, mode):
    envs = make_gymnasium(registered["Reuses"], 2, vectorization_mode=mode, frame_skip=2, frame_stack=2)
    found = follow(envs, 2)
    envs.close()
    assert [obs[1, :, 0].tolist() for obs, *_ in found] == [[0, 0], [0, 2], [0, 0]]
    assert [rewards for _, rewards, *_ in found[1:]] == [[2, 2], [1, 1]]
    assert found[-1][-1][0][:, 0].tolist() == [2, 3]


def test_an_argument_of_the_environment_itself_comes_first(registered):
    envs = make_gymnasium(registered["Skips"], 2, frame_skip=3)
    assert [env.unwrapped.frame_skip for env in envs.envs] == [3, 3]
    assert [rewards for _, rewards, *_ in follow(envs, 1)[1:]] == [[1, 1]]


def test_a_vector_of_an_environments_own_takes_no_wrapper():
    with pytest.raises(ValueError, match="vectorization_mode='vector_entry_point'"):
        make_gymnasium("CartPole-v1", 2, vectorization_mode="vector_entry_point", frame_stack=2)
