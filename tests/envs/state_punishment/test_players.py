"""The scripted players reach the exact returns, and walk as they should."""

import numpy as np
import pytest

from envs.state_punishment import players as players_module
from envs.state_punishment.bounds import expected_best
from envs.state_punishment.judges import BayesianJudge, FixedJudge, InformedJudge
from envs.state_punishment.players import GRID_OF_STUDIES, ONLY_A, Player, hidden_level, main, players, returns
from envs.state_punishment.rules import FIRST_KIND, SAND

ONE_ARM = {"menu": True, "menu_size": 1, "spawn_probabilities": ONLY_A, "num_agents": 1}
UNIFORM = np.full(10, 0.1)


def assert_mean(sample, expected):
    assert abs(sample.mean() - expected) <= 4 * sample.std() / np.sqrt(sample.size) + 1e-9, (sample.mean(), expected)


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


def test_nothing_is_remembered_across_episodes(play):
    env = hidden_level(400, **ONE_ARM, max_turns=30)
    judge = BayesianJudge(env)
    first, second = play(env, Player(env, judge))
    assert_mean(second, env.optimal_return)
    judge.begin(np.ones(400, dtype=bool))
    assert (judge.belief == 0.1).all() and not judge.counts.any() and not np.array_equal(first, second)


def test_a_menu_of_several_kinds():
    env = hidden_level(4000, menu=True)
    net, chances = env.payoffs.net_values(), env.chances
    blind = UNIFORM @ net
    assert_mean(returns(env, Player(env, FixedJudge(blind))), 100 * expected_best(blind, chances, 3))
    seen = hidden_level(4000, menu=True, level_visible=True)
    informed = 100 * UNIFORM @ [expected_best(row, chances, 3) for row in net]
    assert_mean(returns(seen, Player(seen, InformedJudge(seen))), informed)
    bayesian = returns(env, Player(env, BayesianJudge(env)))
    assert 100 * expected_best(blind, chances, 3) < bayesian.mean() < informed


class Notes(FixedJudge):
    """Writes down what the player tells it."""

    def __init__(self, worths):
        super().__init__(worths)
        self.told, self.begun, self.left = [], [], []

    def begin(self, rows):
        self.begun.append(rows.tolist())

    def learn(self, taken, punished):
        self.told.append(list(zip(taken.tolist(), punished.tolist(), strict=True)))

    def worth(self, scalars, left):
        self.left.append(left.tolist())
        return super().worth(scalars, left)


def test_a_judge_is_told_what_happened():
    """Worlds of an arm that is always punished: A is taken in every turn, and the turns count down."""
    env = hidden_level(2, **ONE_ARM, initial_level=1.0, max_turns=3)
    judge = Notes(np.array([1.0, 0, 0, 0, 0]))
    player = Player(env, judge)
    observations, _ = env.reset(seed=0)
    starts = np.ones(2, dtype=bool)
    for _ in range(4):
        observations, _, _, starts, _ = env.step(player(observations, starts))
    assert judge.left == [[3, 3], [2, 2], [1, 1], [3, 3]]
    nothing, struck = [(-1, False)] * 2, [(0, True)] * 2
    assert judge.told == [nothing, struck, struck, nothing]  # the last punishment of an episode cannot be learned
    assert judge.begun == [[True] * 2, [False] * 2, [False] * 2, [True] * 2]


def test_a_judge_is_told_of_the_kinds_on_the_way():
    env = hidden_level(1, initial_resources=0, initial_level=1.0)
    judge = Notes(np.full(5, 9.0))
    walk(env, judge, 4, b=[(4, 5)], d=[(4, 7)])
    assert [taken for ((taken, _),) in judge.told] == [-1, 1, -1, 3]


def test_an_arm_that_is_not_worth_it_is_left():
    env = hidden_level(1, menu=True, menu_size=3)
    player = Player(env, FixedJudge(np.array([-1.0, 0.0, 2.0, 1.0, -3.0])))
    for menu, move, taken in (([0, 1, 4], 3, -1), ([3, 0, 3], 0, 3), ([0, 3, 2], 2, 2)):
        shown = {"menu": np.eye(5, dtype=np.uint8)[None, menu], "scalars": np.zeros((1, 3), np.float32)}
        assert player(shown, np.ones(1, dtype=bool)).tolist() == [[move, 0]]
        assert player.taken.tolist() == [taken]


def walk(env, judge, moves, **kinds):
    """The path of a walker among resources at (y, x), as cells of the grid."""
    env.reset(seed=0)
    env.cells[:, env.board.free] = SAND
    side, radius = env.board.side, env.board.radius
    for kind, places in kinds.items():
        for y, x in places:
            env.cells[:, (y + radius) * side + x + radius] = FIRST_KIND + "abcde".index(kind)
    env.position[:] = (4 + radius) * side + 4 + radius
    observations, path, starts = env._observe(), [], np.ones(1, dtype=bool)
    player = Player(env, judge if isinstance(judge, FixedJudge) else FixedJudge(np.array(judge)))
    for _ in range(moves):
        observations, *_ = env.step(player(observations, starts))
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


def test_a_greater_worth_may_lie_farther_away():
    """A step costs four fifths of the draw: 10 at distance 2 draws as 2, less than 3 at distance 1; 100 draws as 20."""
    env = hidden_level(1, initial_resources=0)
    assert walk(env, [3.0, 10, 0, 0, 0], 1, a=[(3, 4)], b=[(4, 6)]) == [(3, 4)]
    assert walk(env, [3.0, 100, 0, 0, 0], 1, a=[(3, 4)], b=[(4, 6)]) == [(4, 5)]


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


def test_the_table_of_players(monkeypatch, capsys):
    """The blind take A or never do, and the more a player knows the more it gets."""
    monkeypatch.setattr(players_module, "SETTINGS", {"one": players_module.SETTINGS["menu of one, always A"]})
    main(episodes=400)
    title, *lines, known, informed = capsys.readouterr().out.splitlines()
    assert title == "one"
    assert known == "    exact: memoryless 97.13, Bayesian 287.54"
    assert informed == "    exact: blind to punishments 62.50, level known 312.50"
    means = {line[4:28].strip(): float(line[28:].split("+-")[0]) for line in lines}
    assert list(means) == ["takes A", "never A", "no A after a punishment", "Bayesian", "knows the level"]
    assert means["never A"] == 0
    assert means["takes A"] < means["no A after a punishment"] < means["Bayesian"] < means["knows the level"] + 40
    env, player = players(6, menu=True)["knows the level"]
    assert env.scalars.level and isinstance(player.judge, InformedJudge)
