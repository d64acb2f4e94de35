"""The level of a world: where it begins, how votes change it, and when they count."""

import numpy as np
import pytest

from envs.state_punishment.rules import level_index
from envs.state_punishment.voting import Voting

NONE, INCREASE, DECREASE = range(3)
RNG = np.random.default_rng(0)


def voting(num_agents=1, **changes):
    arguments = {
        "initial_level": 0.0,
        "vote_step": 0.1,
        "reset_level": True,
        "votes": True,
        "phased_voting": None,
        "random_order": False,
    }
    return Voting(num_agents, **arguments | changes)


def vote(rules, level, votes):
    """Levels that are found, and the level afterwards, of one world."""
    found, after = rules.vote(np.random.default_rng(0), np.array([level]), np.array(votes))
    return found.tolist(), after.tolist()


def test_votes_count_at_once_for_agents_that_act_later():
    found, after = vote(voting(3), 0.4, [INCREASE, INCREASE, DECREASE])
    assert (found, after) == ([0.4, 0.5, 0.6], [0.5])
    assert vote(voting(3), 0.4, [NONE] * 3) == ([0.4] * 3, [0.4])


def test_each_vote_is_clipped_as_it_comes():
    assert vote(voting(3), 0.0, [DECREASE, INCREASE, NONE]) == ([0.0, 0.0, 0.1], [0.1])
    assert vote(voting(3), 1.0, [INCREASE, DECREASE, DECREASE]) == ([1.0, 1.0, 0.9], [0.8])
    assert vote(voting(1, vote_step=0.25), 0.0, [INCREASE]) == ([0.0], [0.25])


def test_votes_cancel_exactly():
    """0.1 + 0.1 + 0.1 is not 0.3 in floating point, so levels are rounded."""
    level = np.zeros(1)
    for votes, expected in ([INCREASE] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]), ([DECREASE] * 5, [0.4, 0.3, 0.2, 0.1, 0.0]):
        for one, then in zip(votes, expected, strict=True):
            _, level = voting().vote(RNG, level, np.array([one]))
            assert level.tolist() == [then]


def test_worlds_vote_apart():
    votes = np.array([INCREASE, NONE, DECREASE, DECREASE])
    found, after = voting(2).vote(RNG, np.array([0.2, 0.9]), votes)
    assert found.tolist() == [0.2, 0.3, 0.9, 0.8] and after.tolist() == [0.3, 0.7]


@pytest.mark.parametrize(("random_order", "share"), [(True, 0.5), (False, 1.0)])
def test_the_order_of_a_turn_is_drawn_anew_for_each_world_and_turn(random_order, share):
    rules, rng, before = voting(2, random_order=random_order), np.random.default_rng(0), None
    for _ in range(2):
        found, _ = rules.vote(rng, np.zeros(2000), np.tile([INCREASE, NONE], 2000))
        later = found[1::2] == 0.1  # the second agent of the world acted after the first
        assert abs(later.mean() - share) <= 4 * np.sqrt(share * (1 - share) / 2000)
        assert before is None or (later == before).mean() == pytest.approx(1 - 2 * share * (1 - share), abs=0.06)
        before = later


def test_phases():
    """Turns 0, 3 and 6 are for voting only, all others for moving only."""
    rules = voting(2, phased_voting=3)
    moves, votes = np.array([0, 1]), np.array([INCREASE, DECREASE])
    for turn in range(7):
        elapsed = np.full(2, turn)
        voting_only = turn in (0, 3, 6)
        assert rules.voting_turn(elapsed).tolist() == [voting_only] * 2
        left = rules.executed(moves, votes, elapsed, rest=4)
        expected = ([4, 4], [INCREASE, DECREASE]) if voting_only else ([0, 1], [NONE, NONE])
        assert tuple(array.tolist() for array in left) == expected
    assert voting().voting_turn(np.zeros(1)) is None


def test_all_is_executed_without_phases_and_no_vote_without_votes():
    moves, votes, elapsed = np.array([0, 1]), np.array([INCREASE, DECREASE]), np.zeros(2)
    assert [array.tolist() for array in voting(2).executed(moves, votes, elapsed, 4)] == [[0, 1], [1, 2]]
    assert [array.tolist() for array in voting(2, votes=False).executed(moves, votes, elapsed, 4)] == [[0, 1], [0, 0]]


def start(rules, level, worlds):
    level = np.array(level)
    rules.start(np.random.default_rng(0), level, np.array(worlds))
    return level.tolist()


def test_a_level_is_reset_in_the_worlds_that_begin():
    assert start(voting(initial_level=0.2), [0.7, 0.8, 0.9], [0, 2]) == [0.2, 0.8, 0.2]
    assert start(voting(initial_level=0.2, reset_level=False), [0.7, np.nan, 0.9], [0, 1, 2]) == [0.7, 0.2, 0.9]


def test_a_random_level_is_uniform():
    level = np.zeros(4000)
    voting(initial_level="random").start(np.random.default_rng(0), level, np.arange(4000))
    counts = np.bincount(level_index(level), minlength=10)
    assert (np.abs(counts - 400) < 5 * np.sqrt(400)).all() and len(counts) == 10
    assert set(level) == {s / 9 for s in range(10)}
    kept = np.where(np.arange(4000) < 10, np.nan, 2.0)
    voting(initial_level="random", reset_level=False).start(np.random.default_rng(0), kept, np.arange(4000))
    assert (kept[10:] == 2).all() and (kept[:10] <= 1).all()


def test_the_prior_over_levels():
    assert voting(initial_level="random").prior().tolist() == [0.1] * 10
    assert voting(initial_level=0.2).prior().tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0]  # of 1.8, the nearest is 2


@pytest.mark.parametrize(
    ("changes", "fixed"),
    [
        ({}, True),
        ({"initial_level": "random"}, True),
        ({"reset_level": False}, True),
        ({"initial_level": "random", "reset_level": False}, False),  # what an episode teaches holds in the next one
        ({"votes": True}, False),
        ({"phased_voting": 2}, False),
    ],
)
def test_whether_the_level_is_fixed(changes, fixed):
    assert voting(**{"votes": False} | changes).is_fixed() is fixed


@pytest.mark.parametrize("level", [-0.1, 1.1, "low", None, True, float("nan")])
def test_bad_initial_levels(level):
    with pytest.raises(ValueError, match=r"^initial_level=.*: it must be a number from 0 to 1, or random$"):
        voting(initial_level=level)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"vote_step": 1.5}, "vote_step=1.5: it must be a number from 0 to 1"),
        ({"phased_voting": 0}, "phased_voting=0: it must be a whole number of at least 1"),
    ],
)
def test_bad_numbers(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        voting(**changes)
