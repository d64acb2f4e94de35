"""What the judges make of kinds: fixed, informed, and learned from punishments."""

import itertools

import numpy as np
import pytest

from envs.state_punishment import StatePunishment
from envs.state_punishment.judges import BayesianJudge, FixedJudge, InformedJudge
from envs.state_punishment.players import ONLY_A, Player, hidden_level
from envs.state_punishment.rules import SCHEDULES

ONE_ARM = {"menu": True, "menu_size": 1, "spawn_probabilities": ONLY_A}


def test_a_fixed_judge_leaves_a_alone_while_a_flag_is_up():
    worths = np.array([3.0, 1, 2, 3, 4])
    scalars = np.array([[0, 0, 1], [0, 1, 0]], dtype=np.float32)
    left = np.array([5, 5])
    assert FixedJudge(worths).worth(scalars, left).tolist() == [worths.tolist()] * 2
    flagged = FixedJudge(worths, 2)
    assert flagged.worth(scalars, left).tolist() == [[-1, 1, 2, 3, 4], [3, 1, 2, 3, 4]]
    assert worths[0] == 3  # the worths themselves are left alone


def test_an_informed_judge_knows_the_level():
    env = hidden_level(2, level_visible=True)
    scalars = np.array([[0, 0, 0], [1 / 3, 0, 0]])
    worths = InformedJudge(env).worth(scalars, np.array([9, 9]))
    assert worths[:, 0] == pytest.approx([20 - 25 * 0.3, 20 - 25 * 0.7])


def test_a_posterior_by_hand():
    """After A was taken and punished, then spared, a level is as likely as q (1 - q)."""
    env = hidden_level(3, menu=True)
    judge, q = BayesianJudge(env), SCHEDULES["head"][:, 0]
    taken, punished = np.array([0, 0, -1]), np.array([True, True, False])
    judge.learn(taken, punished)
    assert judge.counts.tolist() == [[1, 1, 0], [1, 1, 0]]
    judge.learn(np.array([0, 1, -1]), np.array([False, False, False]))
    q_b = SCHEDULES["head"][:, 1]
    for row, weights in enumerate((q * (1 - q), q * (1 - q_b), np.ones(10))):
        assert judge.belief[row] == pytest.approx(weights / weights.sum())
    assert judge.counts.tolist() == [[2, 1, 0], [1, 1, 0]]  # of A alone
    judge.begin(np.array([True, False, False]))
    assert judge.belief[0] == pytest.approx(np.full(10, 0.1)) and judge.counts.tolist() == [[0, 1, 0], [0, 1, 0]]


def test_the_worth_of_a_holds_the_value_of_what_it_tells():
    """With one turn left nothing is gained by knowing; with more turns, ever more."""
    env = hidden_level(1, **ONE_ARM)
    judge = BayesianJudge(env)
    worths = [judge.worth(None, np.array([left]))[0] for left in (1, 2, 100)]
    mean = np.full(10, 0.1) @ env.payoffs.net_values()
    assert worths[0] == pytest.approx(mean)
    assert worths[0][0] < worths[1][0] < worths[2][0]
    assert worths[2][1:] == pytest.approx(mean[1:])
    q, net = SCHEDULES["head"][:, 0], env.payoffs.net_values()[:, 0]
    # two turns: after a punishment and after none, the last take if it is worth it, over the last take at the prior
    later = max(0, (q * 0.1) @ net) + max(0, ((1 - q) * 0.1) @ net) - max(0, mean[0])
    assert worths[1][0] == pytest.approx(mean[0] + later)


def value_of_telling(env, offer, other, rival):
    """What taking A tells with two turns left: what A gains in the last turn then, over what it gains at the prior.

    A is on offer with probability ``offer``, something else beside it with probability ``other``, which is worth
    ``rival`` by level.
    """
    q, net = SCHEDULES["head"][:, 0], env.payoffs.net_values()[:, 0]

    def gain(weights):  # not normalised
        worth, instead = weights @ net, max(0, weights @ np.broadcast_to(rival, 10))
        return offer * ((1 - other) * max(0, worth) + other * max(0, worth - instead))

    prior = np.full(10, 0.1)
    return gain(prior * q) + gain(prior * (1 - q)) - gain(prior)


def test_a_menu_offers_a_beside_other_kinds():
    """Menus of three arms, listed one by one: how often there is an A, and the best of the other two arms."""
    chances = np.array([0.4, 0.3, 0.1, 0.2, 0.0])
    env = hidden_level(1, menu=True, menu_size=3, spawn_probabilities=chances, values=(20, 3, 9, 1, 0))
    others = env.payoffs.net_values() * (np.arange(5) > 0)  # another A is no alternative to A
    offer = other = 0.0
    rival = np.zeros(10)
    for arms in itertools.product(range(5), repeat=3):
        offer += chances[[*arms]].prod() * (0 in arms)
    for pair in itertools.product(range(5), repeat=2):
        chance = chances[[*pair]].prod()
        other += chance * (pair != (0, 0))
        rival += chance * np.maximum(0, others[:, pair].max(axis=1))
    expected = value_of_telling(env, offer, other, rival / other)
    judge = BayesianJudge(env)
    assert judge.information[1][0, 0] == pytest.approx(expected) and expected > 0.1
    assert judge.worth(None, np.array([2]))[0][0] == pytest.approx(
        0.1 * env.payoffs.net_values()[:, 0].sum() + expected
    )


def test_a_walker_meets_a_as_often_as_it_spawns():
    env = hidden_level(1, spawn_probabilities=(0.5, 0.5, 0, 0, 0))
    expected = value_of_telling(env, 0.4 * 0.5, 0, 0)
    assert BayesianJudge(env).information[1][0, 0] == pytest.approx(expected) and expected > 0.1


def test_the_posterior_is_exact_in_play():
    env = hidden_level(20_000, menu=True, menu_size=2, max_turns=6)
    judge = BayesianJudge(env)
    player = Player(env, judge)
    observations, _ = env.reset(seed=0)
    starts = np.ones(env.num_envs, dtype=bool)
    levels = np.rint(9 * env.level).astype(int)
    for _ in range(5):
        observations, *_ = env.step(player(observations, starts))
        starts[:] = False
    player(observations, starts)
    for level in (0, 3, 9):  # where it says x, that level is there with probability x
        belief, there = judge.belief[:, level], levels == level
        for low, high in ((0, 0.1), (0.1, 0.2), (0.2, 1)):
            bin_ = (belief >= low) & (belief < high)
            error = np.sqrt((belief * (1 - belief))[bin_].sum()) / max(bin_.sum(), 1)
            assert bin_.sum() < 100 or abs(there[bin_].mean() - belief[bin_].mean()) < 4 * error
    assert judge.belief.max() > 0.25 and np.abs(judge.belief.sum(axis=1) - 1).max() < 1e-9


def test_judges_say_what_they_need():
    with pytest.raises(ValueError, match="an informed player needs level_visible=True"):
        InformedJudge(hidden_level(1))
    needs = "a Bayesian player needs votes=False, delayed_punishment=False, punishment_mode=probabilistic and"
    with pytest.raises(ValueError, match=needs):
        BayesianJudge(StatePunishment(3, punishment_visible=True))
    for changes in (
        {"delayed_punishment": True},
        {"punishment_mode": "deterministic"},
        {"punishment_visible": False},
    ):
        with pytest.raises(ValueError, match=needs):
            BayesianJudge(hidden_level(1, **changes))
