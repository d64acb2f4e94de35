"""Recordings: no piece of an episode is lost, repeated or joined to another, and no bad value comes in."""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces

from rl.recordings.recording import deal, hold_out, split_into_pieces


@pytest.mark.parametrize("seed", range(20))
def test_streams_hold_every_step_once_and_no_piece_crosses_an_episode(make_recording, seed):
    """Random lengths, streams, piece lengths and warm-ups."""
    rng = np.random.default_rng(seed)
    recording = make_recording(rng.integers(1, 15, size=rng.integers(1, 12)).tolist())
    piece_steps = None if seed % 3 == 0 else int(rng.integers(1, 8))
    burn_in = 0 if piece_steps is None else int(rng.integers(0, 4))
    pieces = split_into_pieces(np.stack([recording.bounds[:-1], recording.bounds[1:]], axis=1), piece_steps, burn_in)
    streams = deal(pieces, int(rng.integers(1, 6)), seed)

    counts = np.bincount(streams.steps[streams.counted], minlength=recording.bounds[-1])
    assert (counts == 1).all()
    episode = np.searchsorted(recording.bounds, streams.steps, side="right") - 1
    used = np.zeros_like(streams.starts)
    for column in range(used.shape[1]):  # what comes before the last step that counts
        used[: np.flatnonzero(streams.counted[:, column]).max() + 1, column] = True
    goes_on = ~streams.starts[1:] & used[1:]
    assert (np.diff(streams.steps, axis=0)[goes_on] == 1).all()
    assert (np.diff(episode, axis=0)[goes_on] == 0).all()
    assert streams.starts[0].all()
    warm = used & ~streams.counted
    assert warm.sum() == (pieces[:, 1] - pieces[:, 0]).sum() and (burn_in or not warm.any())


def test_pieces_of_a_long_episode_are_warmed_by_the_steps_before():
    assert split_into_pieces(np.array([[0, 7], [7, 9]]), piece_steps=3, burn_in=2).tolist() == [
        [0, 0, 3],
        [1, 3, 6],
        [4, 6, 7],
        [7, 7, 9],
    ]


def test_an_order_is_drawn_by_the_seed_and_left_alone_without_one():
    pieces = split_into_pieces(np.array([[0, 2], [2, 4], [4, 6], [6, 8], [8, 10]]))
    assert deal(pieces, 1).steps[:, 0].tolist() == list(range(10))
    orders = [deal(pieces, 1, seed).steps[::2, 0].tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2]) == [0, 2, 4, 6, 8]


def test_there_are_no_more_streams_than_pieces():
    assert deal(split_into_pieces(np.array([[0, 3], [3, 5]])), 5).steps.shape == (3, 2)


def test_streams_are_about_equally_long():
    streams = deal(split_into_pieces(np.array([[0, 6], [6, 8], [8, 10], [10, 12]])), 2)
    assert streams.steps.T.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert streams.starts.T.astype(int).tolist() == [[1, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0]]


def test_windows_follow_each_other():
    streams = deal(split_into_pieces(np.array([[0, 5], [5, 7]])), 2)
    windows = list(streams.windows(2))
    assert [len(window.steps) for window in windows] == [2, 2, 1]
    for part in ("steps", "starts", "counted"):
        joined = np.concatenate([getattr(window, part) for window in windows])
        assert joined.tolist() == getattr(streams, part).tolist()
    assert streams.counted.T.tolist() == [[True] * 5, [True] * 2 + [False] * 3]


# --------------------------------------------------------------------------------------------------------------- split


@pytest.mark.parametrize("seed", range(10))
def test_a_split_shares_no_episode_and_no_group(make_recording, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 5, size=12)
    groups[:2] = 0, 1
    recording = make_recording(rng.integers(1, 9, size=12).tolist(), groups=groups)
    train, held = hold_out(recording, 0.3, "episodes", seed)
    spans = np.stack([recording.bounds[:-1], recording.bounds[1:]], axis=1).tolist()
    group_of = dict(zip(map(tuple, spans), groups.tolist(), strict=True))
    sides = [{group_of[tuple(span)] for span in side.tolist()} for side in (train, held)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]
    assert len(train) + len(held) == 12
    assert (hold_out(recording, 0.3, "episodes", seed)[1] == held).all()


@pytest.mark.parametrize(("share", "held"), [(0.001, 1), (0.3, 3), (0.6, 6), (0.999, 9)])
def test_the_share_that_is_held_out(make_recording, share, held):
    """Of ten groups; at least one is on either side."""
    sides = hold_out(make_recording([2] * 10), share, "episodes", seed=0)
    assert [len(side) for side in sides] == [10 - held, held]


def test_the_seed_draws_what_is_held_out(make_recording):
    recording = make_recording([2] * 10)
    one, other = (hold_out(recording, 0.3, "episodes", seed)[1].tolist() for seed in (1, 2))
    assert one != other


def test_a_split_by_time_holds_out_the_end_of_each_episode(make_recording):
    train, held = hold_out(make_recording((10, 5)), 0.2, "time", seed=0)
    assert train.tolist() == [[0, 8], [10, 14]]
    assert held.tolist() == [[8, 10], [14, 15]]


def test_what_cannot_be_split(make_recording):
    with pytest.raises(ValueError, match="one episode or game only: hold out its last part with split=time"):
        hold_out(make_recording((5, 5), groups=np.array([3, 3])), 0.2, "episodes", 0)
    with pytest.raises(ValueError, match=r"held_out=0.01: an episode of 5 steps cannot be cut there"):
        hold_out(make_recording((5,)), 0.01, "time", 0)
    with pytest.raises(ValueError, match=r"held_out=0.95: an episode of 5 steps cannot be cut there"):
        hold_out(make_recording((5, 9)), 0.95, "time", 0)


# ---------------------------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    ("leaf", "value", "message"),
    [
        ("obs", np.nan, r"observation 'obs' is nan at step 1 of episode 1 of the recording: it must be finite"),
        ("actions", 3, r"action is 3 at step 1 of episode 1 of the recording: it must be in Discrete\(3\)"),
        ("actions", -1, r"action is -1 at step 1"),
        ("rewards", np.inf, r"reward is inf at step 1 of episode 1"),
    ],
)
def test_bad_values(make_recording, leaf, value, message):
    good = make_recording((4, 3))
    array = (good.obs["obs"] if leaf == "obs" else getattr(good, leaf)).copy()
    array[5] = value
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(good, **{leaf: {"obs": array} if leaf == "obs" else array})


@pytest.mark.parametrize(
    ("space", "bad"),
    [
        (spaces.MultiDiscrete([2, 3]), (0, 3)),
        (spaces.MultiBinary(3), (2, 0, 1)),
        (spaces.Discrete(3, start=2), 1),
        (spaces.Discrete(3, start=2), 5),
        (spaces.Box(-1, 1, (2,)), (0, np.nan)),
    ],
)
def test_bad_actions_of_other_kinds(make_recording, space, bad):
    good = make_recording((3,), space)
    actions = good.actions.copy()
    actions[2] = bad
    with pytest.raises(ValueError, match=r"action is .* at step 2 of episode 0"):
        dataclasses.replace(good, actions=actions)


def test_empty_episodes_and_wrong_shapes(make_recording):
    with pytest.raises(ValueError, match="an episode without a step"):
        make_recording((3, 0))
    with pytest.raises(ValueError, match="the recording has no episode"):
        dataclasses.replace(make_recording((3,)), bounds=np.array([3]))
    good = make_recording((3,))
    with pytest.raises(ValueError, match=r"action has shape \(1,\), but its space is Discrete\(3\)"):
        dataclasses.replace(good, actions=good.actions[:, None])


def test_returns_and_beginnings(make_recording):
    recording = make_recording((2, 3))
    assert recording.starts.tolist() == [True, False, True, False, False]
    assert recording.returns == pytest.approx([recording.rewards[:2].sum(), recording.rewards[2:].sum()])
