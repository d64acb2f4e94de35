"""The exact returns of the hidden level, and the scripted players that reach them."""

from functools import cache

import numpy as np
import pytest

from envs.state_punishment import StatePunishment, bounds
from envs.state_punishment.players import (
    GRID_OF_STUDIES,
    ONLY_A,
    BayesianJudge,
    FixedJudge,
    InformedJudge,
    Player,
    hidden_level,
    returns,
)
from envs.state_punishment.rules import FIRST_KIND, SAND

ONE_ARM = {"menu": True, "menu_size": 1, "spawn_probabilities": ONLY_A, "num_agents": 1}
UNIFORM = np.full(10, 0.1)


def tables():
    net, chance = bounds.net_values(hidden_level(1))
    return net[:, 0], chance[:, 0]


def assert_mean(sample, expected):
    assert abs(sample.mean() - expected) <= 4 * sample.std() / np.sqrt(sample.size) + 1e-9, (sample.mean(), expected)


@pytest.mark.parametrize("turns", [1, 2, 5, 9])
def test_the_programme_equals_a_search_over_all_histories(turns):
    """A tree of takes, punishments and leaves; nothing is assumed about when to stop, or what to count."""
    net, chance = tables()

    @cache
    def best(belief, left):  # not normalised
        if left == 0:
            return 0.0
        weights = np.array(belief)
        struck, spared = tuple(weights * chance), tuple(weights * (1 - chance))
        return max(best(belief, left - 1), weights @ net + best(struck, left - 1) + best(spared, left - 1))

    assert bounds.bayes_return(net, chance, UNIFORM, turns) == pytest.approx(best(tuple(UNIFORM), turns), abs=1e-9)


def test_returns_that_are_known_in_closed_form():
    net, chance = tables()
    assert net == pytest.approx([12.5, 10, 6.25, 2.5, -1.25, -3.75, -5, -5, -5, -5])
    certain = np.eye(10)
    for level, value in ((0, 12.5), (3, 2.5), (4, 0), (9, 0)):
        assert bounds.bayes_return(net, chance, certain[level], 100) == pytest.approx(100 * value)
    # leaving once after each punishment, for two turns: take, then take again unless punished
    twice = UNIFORM @ (net + (1 - chance) * net)
    assert bounds.memoryless_return(net, chance, UNIFORM, 2) == pytest.approx(twice)
    assert bounds.memoryless_return(net, 0 * chance, UNIFORM, 100) == pytest.approx(62.5)
    fine = bounds.memoryless_return(net, chance, UNIFORM, 100, steps=100)
    assert bounds.memoryless_return(net, chance, UNIFORM, 100) == pytest.approx(fine)  # the corner is the best
    assert bounds.memoryless_return(-abs(net), chance, UNIFORM, 100) == 0


def test_the_best_of_a_menu():
    values, chances = np.array([3.0, -1.0, 5.0, 2.0, 2.0]), np.array([0.1, 0.4, 0.2, 0.2, 0.1])
    pairs = sum(chances[i] * chances[j] * max(values[i], values[j], 0) for i in range(5) for j in range(5))
    assert bounds.expected_best(values, chances, 2) == pytest.approx(pairs)
    assert bounds.expected_best(values, chances, 1) == pytest.approx(0.3 + 1.0 + 0.4 + 0.2)
    assert bounds.expected_best(values, chances, 0) == 0


def test_the_returns_of_the_set_up():
    env = hidden_level(1, **ONE_ARM)
    assert env.optimal_return == pytest.approx(287.54, abs=0.01)
    assert env.memoryless_return == pytest.approx(97.13, abs=0.01)
    seen = hidden_level(1, **ONE_ARM, level_visible=True)
    assert seen.optimal_return == seen.memoryless_return == pytest.approx(312.5)
    blind = hidden_level(1, **ONE_ARM, punishment_visible=False)
    assert blind.optimal_return is None and blind.memoryless_return == pytest.approx(62.5)
    fixed = hidden_level(1, **ONE_ARM, initial_level=1 / 9)
    assert fixed.optimal_return == fixed.memoryless_return == pytest.approx(1000)
    many = hidden_level(3, **ONE_ARM | {"num_agents": 3})
    assert (many.optimal_return, many.memoryless_return) == (env.optimal_return, env.memoryless_return)


@pytest.mark.parametrize(
    "changes",
    [
        {"votes": True},
        {"reset_level": False},
        {"delayed_punishment": True},
        {"menu_size": 2},
        {"spawn_probabilities": (0.9, 0.1, 0, 0, 0)},
        {"menu": False},
        {"phased_voting": 10},
        {"num_agents": 3, "harms": (5, 0, 0, 0, 0)},
        {"num_agents": 3, "observe_others_punished": True},
    ],
)
def test_returns_that_are_not_known(changes):
    env = hidden_level(3, **ONE_ARM | changes)
    assert env.optimal_return is None and env.memoryless_return is None


@pytest.mark.parametrize("num_agents", [1, 4])
def test_players_of_the_one_armed_bandit_reach_the_exact_returns(num_agents):
    env = hidden_level(4000, **ONE_ARM | {"num_agents": num_agents})
    rows = slice(None, None, num_agents)  # one of each world, since those of a world share a level
    assert_mean(returns(env, Player(env, BayesianJudge(env)))[rows], env.optimal_return)
    always = np.array([1.0, 0, 0, 0, 0])
    assert_mean(returns(env, Player(env, FixedJudge(always)))[rows], 62.5)
    cautious = FixedJudge(always, env.scalars.punishment)
    assert_mean(returns(env, Player(env, cautious))[rows], env.memoryless_return)
    seen = hidden_level(4000, **ONE_ARM, level_visible=True)
    assert_mean(returns(seen, Player(seen, InformedJudge(seen))), seen.optimal_return)


def test_the_posterior_is_exact():
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


def test_nothing_is_remembered_across_episodes(play):
    env = hidden_level(400, **ONE_ARM, max_turns=30)
    judge = BayesianJudge(env)
    first, second = play(env, Player(env, judge))
    assert_mean(second, env.optimal_return)
    judge.begin(np.ones(400, dtype=bool))
    assert (judge.belief == 0.1).all() and not judge.counts.any() and not np.array_equal(first, second)


def test_a_menu_of_several_kinds():
    env = hidden_level(4000, menu=True)
    net, chances = bounds.net_values(env)[0], env.chances
    blind = UNIFORM @ net
    assert_mean(returns(env, Player(env, FixedJudge(blind))), 100 * bounds.expected_best(blind, chances, 3))
    seen = hidden_level(4000, menu=True, level_visible=True)
    informed = 100 * UNIFORM @ [bounds.expected_best(row, chances, 3) for row in net]
    assert_mean(returns(seen, Player(seen, InformedJudge(seen))), informed)
    bayesian = returns(env, Player(env, BayesianJudge(env)))
    assert 100 * bounds.expected_best(blind, chances, 3) < bayesian.mean() < informed


def walk(env, worths, moves, **kinds):
    """The path of a walker among resources at (y, x), as cells of the grid."""
    env.reset(seed=0)
    env.cells[:, env.board.free] = SAND
    side, radius = env.board.side, env.board.radius
    for kind, places in kinds.items():
        for y, x in places:
            env.cells[:, (y + radius) * side + x + radius] = FIRST_KIND + "abcde".index(kind)
    env.position[:] = (4 + radius) * side + 4 + radius
    player, path, starts = Player(env, FixedJudge(np.array(worths))), [], np.ones(1, dtype=bool)
    for _ in range(moves):
        env.step(player(env._observe(), starts))
        starts = np.zeros(1, dtype=bool)
        path.append(tuple(int(i) - radius for i in np.divmod(env.position[0], side)))
    return path


@pytest.mark.parametrize("observation", ["slot", "onehot"])
def test_walkers_go_to_what_is_near_and_round_what_they_do_not_want(observation):
    env = hidden_level(1, initial_resources=0, observation=observation)
    worths = [-1.0, 10.0, 10.0, 10.0, 10.0]
    assert walk(env, worths, 2, b=[(4, 6)], c=[(8, 4)]) == [(4, 5), (4, 6)]
    path = walk(env, worths, 4, a=[(4, 5)], b=[(4, 6)])
    assert (4, 5) not in path and path[-1] == (4, 6)
    assert walk(env, [1.0, 0, 0, 0, 0], 2, a=[(4, 5)], b=[(4, 6), (3, 5), (5, 5)])[0] == (4, 5)


def test_walkers_explore_until_they_see_something():
    env = hidden_level(1, initial_resources=0, size=16)
    for corner in ((14, 14), (1, 14)):
        assert corner in walk(env, [1.0] * 5, 100, e=[corner])


def test_memory_is_worth_much_in_a_grid_of_one_kind():
    settings = GRID_OF_STUDIES | {"spawn_probabilities": ONLY_A}
    env = hidden_level(300, **settings)
    bayesian = returns(env, Player(env, BayesianJudge(env)))
    blind = returns(env, Player(env, FixedJudge(np.ones(5))))
    assert bayesian.mean() - blind.mean() > 4 * np.hypot(bayesian.std(), blind.std()) / np.sqrt(300)


def test_players_say_what_they_need():
    with pytest.raises(ValueError, match="an informed player needs level_visible=True"):
        InformedJudge(hidden_level(1))
    with pytest.raises(ValueError, match="a Bayesian player needs votes=False"):
        BayesianJudge(StatePunishment(3))
    env = hidden_level(1)
    with pytest.raises(ValueError, match="the action set dual has no action for staying in place"):
        env.action_set.encode(np.array([4]))
