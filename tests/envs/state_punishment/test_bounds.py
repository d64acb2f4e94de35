"""The exact returns of the bandit with one arm."""

from functools import cache

import numpy as np
import pytest

from envs.state_punishment import bounds
from envs.state_punishment.rules import Payoffs

PAYOFFS = Payoffs("head", (20, 10, 10, 10, 10), (0,) * 5, False, "probabilistic", 25.0)
NET, CHANCE = PAYOFFS.net_values()[:, 0], PAYOFFS.chances()[:, 0]  # of kind A, by level
UNIFORM = np.full(10, 0.1)


@pytest.mark.parametrize("turns", [1, 2, 5, 9])
def test_the_programme_equals_a_search_over_all_histories(turns):
    """A tree of takes, punishments and leaves; nothing is assumed about when to stop, or what to count."""

    @cache
    def best(belief, left):  # not normalised
        if left == 0:
            return 0.0
        weights = np.array(belief)
        struck, spared = tuple(weights * CHANCE), tuple(weights * (1 - CHANCE))
        return max(best(belief, left - 1), weights @ NET + best(struck, left - 1) + best(spared, left - 1))

    assert bounds.bayes_return(NET, CHANCE, UNIFORM, turns) == pytest.approx(best(tuple(UNIFORM), turns), abs=1e-9)


def test_the_programme_with_a_rare_offer_and_an_alternative_by_hand():
    """Two levels, told apart by one take: at the first A pays 4, at the second it costs 8 and is always punished.

    One turn left: at the prior A is worth -2, so not taken; after no punishment 4, after one -8. With something else on
    offer that pays 1, A gains 4 - 1 = 3 over it. Two turns left: a take tells, worth half of what A gains next turn.
    """
    net, chance = np.array([4.0, *[-8.0] * 9]), np.array([0.0, *[1.0] * 9])
    belief = np.array([0.5, 0.5, *[0.0] * 8])
    steps = list(bounds.backward(net, chance, belief, 2, 0.5, 1.0, 0.25))
    (gain, information), (first, value) = steps
    assert gain.shape == (2, 2) and first.shape == (1, 1)
    after_none = 0.5 * (0.75 * 4 + 0.25 * 3)  # on offer half the time, beside something else a quarter of it
    assert gain[0, 0] == 0 and gain[1, 0] == pytest.approx(after_none) and gain[1, 1] == 0
    assert not information.any()
    assert value[0, 0] == pytest.approx(0.5 * after_none)
    assert first[0, 0] == 0  # -2 + 0.94 is still a loss


def test_returns_that_are_known_in_closed_form():
    assert NET.tolist() == pytest.approx([12.5, 10, 6.25, 2.5, -1.25, -3.75, -5, -5, -5, -5])
    certain = np.eye(10)
    for level, value in ((0, 12.5), (3, 2.5), (4, 0), (9, 0)):
        assert bounds.bayes_return(NET, CHANCE, certain[level], 100) == pytest.approx(100 * value)
    # leaving once after each punishment, for two turns: take, then take again unless punished
    twice = UNIFORM @ (NET + (1 - CHANCE) * NET)
    assert bounds.memoryless_return(NET, CHANCE, UNIFORM, 2) == pytest.approx(twice)
    assert bounds.memoryless_return(NET, 0 * CHANCE, UNIFORM, 100) == pytest.approx(62.5)
    fine = bounds.memoryless_return(NET, CHANCE, UNIFORM, 100, steps=100)
    assert bounds.memoryless_return(NET, CHANCE, UNIFORM, 100) == pytest.approx(fine)  # the corner is the best
    assert bounds.memoryless_return(-abs(NET), CHANCE, UNIFORM, 100) == 0


def test_the_best_of_a_menu():
    values, chances = np.array([3.0, -1.0, 5.0, 2.0, 2.0]), np.array([0.1, 0.4, 0.2, 0.2, 0.1])
    pairs = sum(chances[i] * chances[j] * max(values[i], values[j], 0) for i in range(5) for j in range(5))
    assert bounds.expected_best(values, chances, 2) == pytest.approx(pairs)
    assert bounds.expected_best(values, chances, 1) == pytest.approx(0.3 + 1.0 + 0.4 + 0.2)
    assert bounds.expected_best(values, chances, 0) == 0


def known(**changes):
    facts = {"level_known": False, "punishment_visible": True, "others_visible": False, "probabilistic": True}
    return bounds.known_returns(NET, CHANCE, UNIFORM, 100, **facts | changes)


def test_which_returns_are_known():
    assert known() == pytest.approx((287.54, 97.13), abs=0.01)
    assert known(level_known=True) == pytest.approx((312.5, 312.5))
    assert known(level_known=True, others_visible=True) == pytest.approx((312.5, 312.5))
    optimal, memoryless = known(punishment_visible=False)
    assert optimal is None and memoryless == pytest.approx(62.5)
    assert known(punishment_visible=False, probabilistic=False) == (None, pytest.approx(62.5))
    assert known(others_visible=True) == known(others_visible=True, punishment_visible=False) == (None, None)
    assert known(probabilistic=False) == (None, None)


def test_never_taking_is_the_least():
    facts = {"level_known": False, "punishment_visible": False, "others_visible": False, "probabilistic": True}
    assert bounds.known_returns(NET - 10, CHANCE, UNIFORM, 100, **facts) == (None, 0)
