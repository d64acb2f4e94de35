"""The repeat rule, worked by hand on a few steps."""

import numpy as np
import pytest

from rl.recordings.repeat_baseline import find_changes, fit_repeat_probability, repeat_nll

ACTIONS = np.array([[0], [0], [1], [1], [1], [0], [0], [1]])
STARTS = np.array([True, False, False, False, True, False, False, False])
EVERY = np.arange(8)


def test_marginal_counts_plus_one():
    """Fitted to the first episode, two of each of three values: (2 + 1) / (4 + 3), and 1 / 7 for the third."""
    _, marginal = repeat_nll(ACTIONS, STARTS, np.arange(4), np.array([4, 5]), [3])
    assert marginal == pytest.approx(-np.log([[3 / 7], [3 / 7]]))


def test_the_keep_probability_has_the_greatest_likelihood():
    same, marginal = np.array([True, True, False, True, False]), np.array([0.2, 0.5, 0.3, 0.2, 0.5])

    def log_likelihood(k):  # with one success and one failure added
        return np.log(k * same + (1 - k) * marginal).sum() + np.log(k) + np.log(1 - k)

    grid = np.linspace(0.001, 0.999, 9981)
    best = grid[np.argmax([log_likelihood(k) for k in grid])]
    assert fit_repeat_probability(same, marginal) == pytest.approx(best, abs=2e-4)


def test_repeat_by_hand():
    """m = 1/2; of six later steps three repeat. With an expected repeat r = k / (k + (1 - k) / 2) of each of these
    k = (3 r + 1) / 8, so 8 k (k + 1) = 6 k + k + 1, and k = (sqrt(33) - 1) / 16."""
    repeat, _ = repeat_nll(ACTIONS, STARTS, EVERY, EVERY, [2])
    k = (np.sqrt(33) - 1) / 16
    kept, changed = k + (1 - k) / 2, (1 - k) / 2
    expected = [0.5, kept, changed, kept, 0.5, changed, kept, changed]
    assert repeat[:, 0] == pytest.approx(-np.log(expected), abs=1e-6)


def test_an_episode_that_begins_has_no_last_action():
    """Its first step is judged by the marginal, though the row before it holds the same action."""
    repeat, marginal = repeat_nll(ACTIONS, STARTS, EVERY, np.array([4]), [2])
    assert ACTIONS[3] == ACTIONS[4] and repeat == pytest.approx(marginal)


def test_columns_are_judged_one_by_one():
    both = np.concatenate([ACTIONS, 1 - ACTIONS[::-1]], axis=1)
    together, _ = repeat_nll(both, STARTS, EVERY, EVERY, [2, 2])
    for column in (0, 1):
        alone, _ = repeat_nll(both[:, [column]], STARTS, EVERY, EVERY, [2])
        assert (together[:, [column]] == alone).all()


def test_real_numbers():
    """Steps of +1 and -1 from the last number, around which the repeat rule has a standard deviation of 1."""
    numbers = np.array([[0.0], [1.0], [2.0], [1.0]])
    repeat, marginal = repeat_nll(numbers, np.array([True, False, False, False]), np.arange(4), np.arange(4), None)
    assert repeat[1:] == pytest.approx(0.5 + 0.5 * np.log(2 * np.pi))
    std = np.sqrt(0.5)
    assert marginal[0, 0] == pytest.approx(0.5 * (1 / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi))
    assert repeat[0] == marginal[0]


def test_changes():
    assert find_changes(ACTIONS, STARTS).astype(int).tolist() == [0, 0, 1, 0, 0, 1, 0, 1]


def test_one_branch_that_changes_is_a_change():
    actions = np.array([[0, 0], [0, 1], [1, 1], [1, 1]])
    assert find_changes(actions, np.array([True, False, False, False])).tolist() == [False, True, True, False]


def test_numbers_are_fitted_to_what_is_learned_from_alone():
    """Steps of 1 there, of 10 in what is judged: their spread is 1."""
    actions, starts = np.array([[0.0], [1.0], [2.0], [12.0]]), np.array([True, False, False, False])
    repeat, marginal = repeat_nll(actions, starts, np.arange(3), np.array([3]), None)
    std = np.sqrt(2 / 3)  # of 0, 1, 2
    assert repeat[0, 0] == pytest.approx(0.5 * 10**2 + 0.5 * np.log(2 * np.pi))
    assert marginal[0, 0] == pytest.approx(0.5 * (11 / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi))
