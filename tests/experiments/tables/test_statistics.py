"""Statistics of runs: numbers by hand, and intervals that cover what they are of."""

import numpy as np
import pytest

from experiments.tables import statistics
from experiments.tables.statistics import (
    estimate,
    estimate_improvement,
    estimate_iqm,
    estimate_profile,
    interquartile_mean,
    normalise,
)


def test_interquartile_mean_by_hand():
    """Of eight numbers the four in the middle count, of ten six, of three all; the order does not matter."""
    assert interquartile_mean(np.array([100.0, 1, 2, 3, 4, 5, 6, -50])) == (2 + 3 + 4 + 5) / 4
    assert interquartile_mean(np.array([9.0, 0, 1, 2, 3, 4, 5, 6, 7, 80])) == (2 + 3 + 4 + 5 + 6 + 7) / 6
    assert interquartile_mean(np.array([1.0, 2, 6])) == 3
    curves = np.array([[0.0, 9], [1, 5], [2, 6], [50, 0]])  # four seeds, two points
    assert interquartile_mean(curves).tolist() == [1.5, 5.5]
    curves[3, 0] = np.nan  # must not count as the best, which is left out
    assert np.isnan(interquartile_mean(curves)).tolist() == [True, False]


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Mean of 40 runs of two tasks, a hundred times: 95 intervals of 100 cover it, give or take."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        tasks = [rng.normal(1.0, 0.5, size=20), rng.normal(3.0, 2.0, size=20)]
        found = estimate(tasks, lambda drawn: np.mean([part.mean(axis=1) for part in drawn], axis=0), resamples=400)
        covered += int(found.low <= 2.0 <= found.high)
    assert 88 <= covered <= 99


def test_runs_are_drawn_within_their_task():
    """Two tasks without spread of their own, far apart: drawn from one urn, the interval would be wide."""
    found = estimate_iqm([np.zeros(5), np.full(5, 10.0)])
    assert (found.value, found.low, found.high) == (5.0, 5.0, 5.0)


def test_the_interval_of_three_runs_by_hand():
    """Of 27 draws of (0, 0, 3) eight are all 0 and one is all 3: the interval goes from 0 to 3."""
    found = estimate_iqm([np.array([0.0, 0, 3])])
    assert (found.value, found.low, found.high) == (1.0, 0.0, 3.0)
    assert found.to_numbers() == {"value": 1.0, "low": 0.0, "high": 3.0}


def test_two_runs_have_no_interval():
    found = estimate_iqm([np.array([1.0, 3]), np.arange(9.0)])
    assert (found.low, found.high) == (None, None)
    assert estimate_iqm([np.array([1.0, 3])]).to_numbers() == {"value": 2.0, "low": None, "high": None}


def test_draws_in_pieces_are_as_many_and_repeat(monkeypatch):
    seen = []

    def count(drawn):
        seen.append(len(drawn[0]))
        return drawn[0].mean(axis=1)

    tasks = [np.arange(5.0)]
    assert estimate(tasks, count, 100).low == estimate(tasks, count, 100).low
    seen.clear()
    monkeypatch.setattr(statistics, "LARGEST", 5 * 30)
    estimate(tasks, count, 100)
    assert seen == [1, 30, 30, 30, 10]


def test_profile_by_hand():
    """Shares above a level, of each task alone first: a task with more runs counts no more."""
    tasks = [np.array([0.0, 1, 1, 1]), np.array([0.0, 0, 1])]
    found = estimate_profile(tasks, np.array([-1.0, 0, 0.5, 1]))
    np.testing.assert_allclose(found.value, [1, (3 / 4 + 1 / 3) / 2, (3 / 4 + 1 / 3) / 2, 0])
    assert (found.low <= found.value).all() and (found.value <= found.high).all()
    assert found.low[0] == found.high[0] == 1 and found.low[1] < found.high[1]


def test_probability_of_improvement_by_hand():
    """Pairs (2, 1), (2, 2), (0, 1), (0, 2): one is won, one a tie; on the other task all are won."""
    assert estimate_improvement([np.array([2.0, 0])], [np.array([1.0, 2])]).value == 1.5 / 4
    assert estimate_improvement([np.array([1.0, 2])], [np.array([2.0, 0])]).value == 2.5 / 4
    ours, theirs = [np.array([2.0, 0]), np.array([9.0, 8])], [np.array([1.0, 2]), np.array([7.0, 7, 7])]
    assert estimate_improvement(ours, theirs).value == (1.5 / 4 + 1) / 2
    certain = estimate_improvement([np.array([3.0, 4, 5])], [np.array([0.0, 1, 2])])
    assert (certain.value, certain.low, certain.high) == (1, 1, 1)


def test_normalise_by_hand():
    assert normalise(0.75, 0.5, 1.0) == 0.5
    assert normalise(np.array([-150.0, -1200]), -1200, -150).tolist() == [1, 0]


@pytest.mark.parametrize("runs", [3, 10])
def test_intervals_hold_the_value_itself(runs):
    found = estimate_iqm([np.random.default_rng(runs).normal(size=runs)])
    assert found.low < found.value < found.high


def test_an_interval_is_that_of_all_draws_however_many_are_made_at_a_time(monkeypatch):
    scores, counts = [np.arange(6.0), np.arange(4.0)], []

    def count(drawn):
        counts.append(len(drawn[0]))
        return np.full(len(drawn[0]), float(len(counts)))  # 1 of the runs as they are, then the number of the piece

    monkeypatch.setattr(statistics, "LARGEST", 400)  # 40 draws of ten numbers
    found = statistics.estimate(scores, count, resamples=100)
    assert counts == [1, 40, 40, 20]
    assert (found.value, found.low, found.high) == (1.0, 2.0, 4.0)
