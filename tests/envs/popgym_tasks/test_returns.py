"""Scripted players reach the best returns that the tasks state, with a memory and without."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from envs.popgym_tasks.card_streams import (
    Autoencode,
    HigherLower,
    RepeatFirst,
    RepeatPreviousCards,
    optimal_higher_lower,
)
from envs.popgym_tasks.count_recall import CountRecall

ROWS = 1024


class Memory:
    """Keeps what was shown in this episode; all rows are in the same step."""

    def __init__(self, answer):
        self.answer, self.seen = answer, []

    def __call__(self, observations, starts):
        self.seen = [observations] if starts.all() else [*self.seen, observations]
        return self.answer(self.seen)


def count_asked(seen):
    return sum(observations[:, 0] == seen[-1][:, 1] for observations in seen).astype(int)


def recite(seen):
    naming = len(seen) - 52  # how many were named already
    return seen[-1 if naming < 0 else 51 - naming][:, 1]


def guess_by_what_is_left(seen):
    left = np.full((ROWS, 13), 4)
    for ranks in seen:
        left[np.arange(ROWS), ranks] -= 1
    higher = (left * (np.arange(13) > seen[-1][:, None])).sum(axis=1)
    lower = (left * (np.arange(13) < seen[-1][:, None])).sum(axis=1)
    return (lower > higher) * 1


def other_suit(observations, _):
    return (observations + 1) % 4


BEST = {
    RepeatFirst: lambda seen: seen[0],
    RepeatPreviousCards: lambda seen: seen[-4] if len(seen) >= 4 else seen[-1],
    Autoencode: recite,
    CountRecall: count_asked,
    HigherLower: guess_by_what_is_left,
}
MEMORYLESS = {
    RepeatFirst: lambda observations, _: observations,
    RepeatPreviousCards: other_suit,
    Autoencode: lambda observations, _: observations[:, 1],
    HigherLower: lambda observations, _: (observations > 6) * 1,
}


@pytest.mark.parametrize("cls", BEST)
def test_who_remembers_reaches_the_best_return(assert_mean_return, cls):
    env = cls(ROWS)
    assert_mean_return(env, Memory(BEST[cls]), env.optimal_return)


@pytest.mark.parametrize("cls", MEMORYLESS)
def test_who_does_not_remember_reaches_the_memoryless_return(assert_mean_return, cls):
    env = cls(ROWS)
    assert env.memoryless_return < env.optimal_return
    assert_mean_return(env, MEMORYLESS[cls], env.memoryless_return)


def test_the_memoryless_return_of_count_recall(assert_mean_return):
    """No answer to either kind of question is right more often in the long run than the stated return says."""
    env = CountRecall(4096)
    observations, _ = env.reset(seed=0)
    right = np.zeros((2, 27))  # whether what is dealt is asked for, answer
    for _ in range(51):
        counts = env.counts[env.rows, observations[:, 1]]
        np.add.at(right, ((observations[:, 0] == observations[:, 1]) * 1, counts), 1)
        observations, *_ = env.step(counts)
    share = right.max(axis=1).sum() / right.sum()
    assert env.memoryless_return == pytest.approx(2 * share - 1, abs=0.004)
    answers = right.argmax(axis=1)
    playing = CountRecall(ROWS)
    policy = lambda observations, _: answers[(observations[:, 0] == observations[:, 1]) * 1]  # noqa: E731
    assert_mean_return(playing, policy, env.memoryless_return)


@pytest.mark.parametrize("copies", [1, 2, 4])
def test_the_optimal_return_of_higher_lower_equals_a_sum_over_all_hands(copies):
    total, num_cards = Fraction(0), 13 * copies
    for rank, left in itertools.product(range(13), range(1, num_cards)):
        higher, lower, equal = copies * (12 - rank), copies * rank, copies - 1
        for h, ties in itertools.product(range(min(higher, left) + 1), range(min(equal, left) + 1)):
            low = left - h - ties
            if 0 <= low <= lower:
                ways = comb(higher, h) * comb(lower, low) * comb(equal, ties)
                total += Fraction(ways * abs(h - low), left * comb(num_cards - 1, left))
    assert optimal_higher_lower(copies) == pytest.approx(float(total / num_cards / 13), rel=1e-12)
