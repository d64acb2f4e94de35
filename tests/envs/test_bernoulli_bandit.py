import itertools
from functools import cache

import numpy as np
import pytest

from envs.bernoulli_bandit import BernoulliBandit


@cache
def value_and_arm(counts, pulls_left):
    """The textbook recursion over (wins, losses) of every arm."""
    if pulls_left == 0:
        return 0.0, 0
    best = (-1.0, 0)
    for arm, (wins, losses) in enumerate(counts):
        chance = (wins + 1) / (wins + losses + 2)
        won = (*counts[:arm], (wins + 1, losses), *counts[arm + 1 :])
        lost = (*counts[:arm], (wins, losses + 1), *counts[arm + 1 :])
        after_win, after_loss = value_and_arm(won, pulls_left - 1)[0], value_and_arm(lost, pulls_left - 1)[0]
        best = max(best, (chance * (1 + after_win) + (1 - chance) * after_loss, arm))
    return best


class Optimal:
    """Counts wins and losses of every arm and asks the recursion."""

    def __init__(self, num_arms, episode_length):
        self.num_arms, self.episode_length = num_arms, episode_length

    def __call__(self, observations, starts):
        if starts.all():
            self.counts = np.zeros((len(starts), self.num_arms, 2), dtype=int)
            self.pulls_left = self.episode_length
        else:
            arms, won = observations[:, : self.num_arms].argmax(axis=1), observations[:, self.num_arms] == 1
            self.counts[np.arange(len(starts)), arms, np.where(won, 0, 1)] += 1
            self.pulls_left -= 1
        states = [tuple(map(tuple, counts)) for counts in self.counts.tolist()]
        return np.array([value_and_arm(state, self.pulls_left)[1] for state in states])


def win_stay_lose_shift(observations, starts):
    num_arms = observations.shape[1] - 2
    arms, lost = observations[:, :num_arms].argmax(axis=1), observations[:, num_arms] == 0
    return np.where(starts, 0, (arms + lost) % num_arms)


@pytest.mark.parametrize(("num_arms", "episode_length"), [(2, 20), (3, 5)])
def test_scripted_policies_reach_the_exact_returns(assert_mean_return, num_arms, episode_length):
    env = BernoulliBandit(2048, num_arms, episode_length)
    assert_mean_return(env, Optimal(num_arms, episode_length), env.optimal_return)
    assert_mean_return(env, win_stay_lose_shift, env.memoryless_return)


def test_scripted_policies_reach_the_exact_returns_on_a_device(assert_mean_return, device):
    env = BernoulliBandit(2048, 3, 5, device=device)
    assert_mean_return(env, Optimal(3, 5), env.optimal_return)
    assert_mean_return(env, win_stay_lose_shift, env.memoryless_return)


@pytest.mark.parametrize(("num_arms", "episode_length"), [(2, 1), (2, 20), (3, 7)])
def test_the_optimum_equals_the_textbook_recursion(num_arms, episode_length):
    expected = value_and_arm(((0, 0),) * num_arms, episode_length)[0] / episode_length
    assert BernoulliBandit(1, num_arms, episode_length).optimal_return == pytest.approx(expected, abs=1e-12)


def test_known_numbers():
    env = BernoulliBandit(1, num_arms=2, episode_length=20)
    assert env.optimal_return == pytest.approx(0.62156, abs=5e-6)
    assert env.memoryless_return == pytest.approx(0.58520, abs=5e-6)
    # Two pulls by hand: 1/2, then 2/3 after a win and 1/2 after a loss.
    assert BernoulliBandit(1, 2, 2).memoryless_return == pytest.approx((0.5 + 0.5 * 2 / 3 + 0.5 * 0.5) / 2)


def test_no_memoryless_policy_beats_win_stay_lose_shift():
    """Every policy of the last arm and its outcome, its chances of staying on a grid, integrated over both arms."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    chance = np.stack(np.meshgrid((nodes + 1) / 2, (nodes + 1) / 2))  # [2, 12, 12]
    returns = {}
    for stay in itertools.product((0, 0.25, 0.5, 0.75, 1), repeat=4):
        stay_after_loss, stay_after_win = np.reshape(stay, (2, 2, 1, 1))
        stay_chance = chance * stay_after_win + (1 - chance) * stay_after_loss
        pulled, total = np.full_like(chance, 0.5), 0.0
        for _ in range(20):
            total += np.einsum("i,j,aij->", weights / 2, weights / 2, pulled * chance)
            pulled = pulled * stay_chance + (pulled * (1 - stay_chance))[::-1]
        returns[stay] = total / 20
    best = max(returns, key=returns.get)
    assert best == (0, 0, 1, 1)
    assert BernoulliBandit(1, 2, 20).memoryless_return == pytest.approx(returns[best], abs=1e-12)


def test_too_large_for_an_exact_optimum():
    assert BernoulliBandit(1, num_arms=10, episode_length=100).optimal_return is None


def test_the_arms_pay_with_their_probabilities_and_the_observation_tells():
    env = BernoulliBandit(4000, num_arms=3, episode_length=10)
    observations, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observations, np.tile([0, 0, 0, 0, 1], (4000, 1)).astype(np.float32))
    probabilities = env.probabilities.copy()
    wins = np.zeros(4000)
    for _ in range(9):
        observations, rewards, *_ = env.step(np.full(4000, 2))
        np.testing.assert_array_equal(observations[:, 3], rewards * 10)
        assert (observations[:, [0, 1, 2, 4]] == [0, 0, 1, 0]).all()
        wins += observations[:, 3]
    error = wins / 9 - probabilities[:, 2]
    assert abs(error.mean()) < 0.01 and np.corrcoef(wins, probabilities[:, 2])[0, 1] > 0.8
    assert abs(np.corrcoef(wins, probabilities[:, 0])[0, 1]) < 0.1


@pytest.mark.parametrize(("name", "value", "minimum"), [("num_arms", 1, 2), ("episode_length", 0, 1)])
def test_bad_parameters(name, value, minimum):
    with pytest.raises(ValueError, match=f"^{name}={value}: it must be a whole number of at least {minimum}$"):
        BernoulliBandit(2, **{name: value})
