"""The rules of a turn: rewards, punishments, harm, votes; and what the environment refuses."""

import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401  (registers the id)
from envs.state_punishment import StatePunishment
from envs.state_punishment.rules import FIRST_KIND, SAND, SCHEDULES, WALL, level_index

UP, DOWN, LEFT, RIGHT, STAY = range(5)
NONE, INCREASE, DECREASE = range(3)
A, B, C, D, E = range(5)


@pytest.mark.parametrize("schedule", ["head", "seed", "generated"])
@pytest.mark.parametrize("kind", [A, B, E])
def test_a_resource_pays_its_value_less_its_punishment(game, schedule, kind):
    for level in (0.0, 0.4, 1.0):
        played = game(schedule=schedule, initial_level=level, values=(20, 10, 11, 12, 13))
        played.put(3, 4, kind)
        q = SCHEDULES[schedule][level_index(level), kind]
        assert played.step(UP) == pytest.approx((20, 10, 11, 12, 13)[kind] - 25 * q)
        assert played.env.position == played.cell(3, 4) and played.env.cells[0, played.cell(3, 4)] == SAND
        assert played.step(DOWN) == 0 and played.step(UP) == 0  # it is gone


def test_walls_cost_one(game):
    played = game()
    played.place(1, 1)
    assert played.step(UP) == -1 and played.step(RIGHT) == 0 and played.step(STAY) == 0


def test_harm_is_observed_before_it_is_paid_by_all_others(game):
    played = game(num_agents=3, punishment_magnitude=0)
    played.put(3, 4, A, rows=0)
    played.put(4, 5, A, rows=1)
    played.put(4, 3, B, rows=2)
    assert played.step([UP, RIGHT, LEFT]).tolist() == [20, 20, 10]
    assert played.scalars(1) == [5, 5, 10]
    played.put(2, 4, A, rows=0)
    assert played.step([UP, STAY, STAY]).tolist() == [20 - 5, -5, -10]  # what the first does now is paid later
    assert played.scalars(1) == [0, 5, 5]
    assert played.step(STAY).tolist() == [0, -5, -5] and not played.env.account.any()


def test_worlds_do_not_harm_each_other(game):
    played = game(num_worlds=2, num_agents=2, punishment_magnitude=0)
    played.put(3, 4, A, rows=0)
    played.step([UP, STAY, STAY, STAY])
    assert played.env.account.tolist() == [0, 5, 0, 0]


def test_the_observed_account_is_exactly_what_is_paid():
    env = StatePunishment(40, 10, values=(0,) * 5, harms=(5, 1, 2.5, 0, 0), punishment_magnitude=0, respawn_prob=0.1)
    observations, _ = env.reset(seed=0)
    env.action_space.seed(0)
    paid = 0
    for _ in range(150):  # over the end of an episode, too
        before = observations["scalars"][:, 1]
        observations, rewards, *_ = env.step(env.action_space.sample())
        assert set(rewards + before) <= {0, -1}
        paid += before.sum()
    assert paid > 100


def test_votes_count_at_once_for_those_that_act_later(game):
    played = game(num_agents=3, random_order=False, initial_level=0.4)
    played.put(3, 4, A)
    rewards = played.step(UP, [INCREASE, INCREASE, DECREASE])
    # at 0.4 and 0.5 the index is 4, at 0.6 it is 5; no vote counts for its own agent
    assert rewards == pytest.approx([20 - 25 * 0.85, 20 - 25 * 0.85, 20 - 25 * 0.95])
    assert played.env.level == [0.5] and played.scalars(0) == pytest.approx([0.5] * 3)


def test_a_random_order_is_drawn(game):
    played = game(num_worlds=2000, num_agents=2, random_order=True)
    played.put(3, 4, A, rows=slice(1, None, 2))
    rewards = played.step(np.tile([STAY, UP], 2000), np.tile([INCREASE, NONE], 2000))[1::2]
    later = np.isclose(rewards, 20 - 25 * 0.4).mean()  # found the level at 0.1
    assert abs(later - 0.5) <= 4 * np.sqrt(0.25 / 2000)


def test_without_votes_the_level_stays(game):
    played = game(num_agents=2, votes=False, initial_level=0.3)
    played.step(STAY, INCREASE)
    assert played.env.level == [0.3] and not played.env.last_votes.any()


def test_a_delayed_punishment_is_paid_with_the_next_action_and_never_across_episodes(game):
    played = game(delayed_punishment=True, max_turns=3, punishment_visible=True)
    played.put(3, 4, A)
    played.put(2, 4, A)
    assert played.step(UP) == 20 and played.scalars(2) == [0]
    assert played.step(UP) == 20 - 7.5 and played.scalars(2) == [1]
    played.put(1, 4, A)
    assert played.step(UP) == 20 - 7.5  # the last turn; its own punishment is never paid
    assert played.step(STAY) == 0 and not played.env.pending.any()


def test_phased_voting(game):
    played = game(num_agents=2, phased_voting=3, max_turns=7, random_order=False)
    played.put(3, 4, E)
    flags, levels, positions = [], [], []
    for _ in range(7):
        flags.append(played.scalars(2))
        played.step(UP, INCREASE)
        levels.append(played.env.level[0])
        positions.append(played.env.position[0])
    assert flags == [[i in (0, 3, 6)] * 2 for i in range(7)]
    # the level of the new episode in the last place, where the old one would have had 0.6
    assert levels == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.0])
    assert positions[:6] == [played.cell(y, 4) for y in (4, 3, 2, 2, 1, 1)]
    assert played.scalars(2)[0] == 1  # the next episode begins with a vote


def test_a_random_level_is_drawn_in_every_episode(game):
    played = game(num_worlds=4000, initial_level="random", max_turns=1)
    first = played.env.level.copy()
    played.step(STAY)
    assert abs((first == played.env.level).mean() - 0.1) < 0.03


@pytest.mark.parametrize("initial_level", [0.2, "random"])
def test_a_level_that_is_not_reset_lasts_until_a_seed(game, initial_level):
    played = game(num_worlds=50, reset_level=False, initial_level=initial_level, max_turns=2)
    start = played.env.level.copy()
    for _ in range(3):
        played.step(STAY, DECREASE)
    expected = np.maximum(start - 0.3, 0)
    assert played.env.level == pytest.approx(expected, abs=1e-9)
    played.env.reset()
    assert played.env.level == pytest.approx(expected, abs=1e-9)
    played.env.reset(seed=0)
    np.testing.assert_array_equal(played.env.level, start)
    again = game(initial_level=0.2, max_turns=2)
    for _ in range(2):
        again.step(STAY, DECREASE)
    assert again.env.level == [0.2]


def test_the_menu_has_the_same_rewards_and_new_arms_each_turn(game):
    played = game(num_worlds=2, num_agents=2, menu=True, menu_size=2, random_order=False, initial_level=0.4)
    env = played.env
    env.cells[:] = FIRST_KIND + np.array([[A, B], [C, A], [B, B], [D, E]])
    # takes A and votes; takes its second arm, A, at 0.5; leaves; takes E
    rewards = played.step([0, 1, 2, 1], [INCREASE, NONE, NONE, NONE])
    assert rewards == pytest.approx([20 - 25 * 0.85, 20 - 25 * 0.85, 0, 10])
    assert env.account.tolist() == [5, 5, 0, 0] and env.level.tolist() == [0.5, 0.4]
    kinds = np.array([env.cells.copy() for _ in range(300) if played.step(2) is not None])
    assert np.bincount(kinds.ravel() - FIRST_KIND) / kinds.size == pytest.approx([0.2] * 5, abs=0.04)
    assert (kinds[1:] != kinds[:-1]).mean() == pytest.approx(0.8, abs=0.04)


def test_a_punishment_is_shown_for_two_turns_in_the_view_and_for_one_in_the_scalars(game):
    """Also where the punishments of others are not observed (defect 29)."""
    played = game(initial_level=1.0, punishment_visible=True)
    played.put(3, 4, A)
    shown = []
    for move in (UP, STAY, STAY):
        played.step(move)
        shown.append((played.seen["image"][0, 26, 1, 1], *played.scalars(2)))
    assert shown == [(1, 1), (1, 0), (0, 0)]


def test_every_agent_sees_itself_and_its_own_identity_once(lively, play_randomly):
    """The identity is fed at all (defect 30)."""
    for observations, *_ in play_randomly(lively(8), 12):
        image = observations["image"]
        assert (image[:, 1].sum(axis=(1, 2)) == 1).all() and not image[:, [0, 9]].any()
        vectors = image[:, 10:26, 4, 4]
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
        assert len(np.unique(vectors[:4], axis=0)) == 4 and (vectors[:4] == vectors[4:]).all()
        assert (np.abs(image[:, 10:26]).sum(axis=(1, 2, 3)) == 4).all()


@pytest.mark.parametrize("changes", [{}, {"observation": "onehot"}, {"menu": True}, {"observe_others_punished": True}])
def test_flat_is_the_picture_and_then_the_scalars(lively, play_randomly, same, changes):
    split_env, flat_env = (lively(8, **changes, flat=flat) for flat in (False, True))
    for split, flat in zip(play_randomly(split_env, 12), play_randomly(flat_env, 12), strict=True):
        parts = [split[0][leaf].reshape(8, -1) for leaf in split[0]]
        np.testing.assert_array_equal(flat[0], np.concatenate(parts, axis=1, dtype=np.float32))
        assert list(split[0])[-1] == "scalars" and same(split[1:4], flat[1:4])


def test_the_sizes_that_clients_expect():
    assert StatePunishment(3, flat=True).single_observation_space.shape == (2190,)
    assert StatePunishment(3, flat=True, observation="onehot").single_observation_space.shape == (732,)
    space = StatePunishment(3).single_observation_space
    assert {name: leaf.shape for name, leaf in space.items()} == {"image": (27, 9, 9), "scalars": (3,)}
    menu = StatePunishment(3, menu=True, menu_size=2, observe_others_punished=True).single_observation_space
    assert {name: leaf.shape for name, leaf in menu.items()} == {"menu": (2, 5), "scalars": (5,)}
    assert (
        StatePunishment(3).action_names == ("move", "vote")
        and StatePunishment(3, actions="simple").action_names is None
    )


# Each parameter with another value than in a lively game, and what has to be set for it to matter.
CHANGES = {
    "num_agents": (2, {}),
    "size": (7, {}),
    "view_radius": (3, {}),
    "initial_resources": (5, {}),
    "max_resources": (6, {}),
    "respawn_prob": (0.05, {}),
    "spawn_probabilities": ((0.6, 0.1, 0.1, 0.1, 0.1), {}),
    "values": ((19, 10, 10, 10, 10), {}),
    "harms": ((5, 2, 0, 0, 0), {}),
    "schedule": ("seed", {}),
    "punishment_mode": ("deterministic", {}),
    "punishment_magnitude": (24.0, {}),
    "important_rule": (True, {}),
    "delayed_punishment": (True, {}),
    "initial_level": (0.3, {}),
    "vote_step": (0.2, {}),
    "reset_level": (False, {}),
    "votes": (False, {}),
    "phased_voting": (4, {}),
    "random_order": (False, {}),
    "level_visible": (False, {}),
    "harm_visible": (False, {}),
    "punishment_visible": (True, {}),
    "observe_others_punished": (True, {}),
    "observation": ("onehot", {}),
    "flat": (True, {}),
    "actions": ("simple", {}),
    "menu": (True, {}),
    "menu_size": (2, {"menu": True}),
    "max_turns": (8, {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_flag_does_something(lively, play_randomly, same, name):
    value, needed = CHANGES[name]
    plain = play_randomly(lively(32, **needed), 25)
    assert same(plain, play_randomly(lively(32, **needed), 25))
    assert not same(plain, play_randomly(lively(32, **needed | {name: value}), 25))


VARIANTS = [
    {},
    {"observation": "onehot", "actions": "factored", "delayed_punishment": True, "reset_level": False},
    {"menu": True, "phased_voting": 2, "punishment_visible": True, "initial_level": "random"},
    {"flat": True, "actions": "composite", "observe_others_punished": True, "harms": (2.17, 2.86, 5.0, 11.57, 31.83)},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_invariants_in_play(lively, play_randomly, changes):
    env = lively(40, **changes)
    walls = None if "menu" in changes else np.isin(env.board.start(np.random.default_rng(0), 1)[0], (WALL, 7))
    for result in play_randomly(env, 50):
        assert result[0] in env.observation_space
        assert ((env.level >= 0) & (env.level <= 1)).all()
        if len(result) == 5:
            ended = result[3].reshape(10, 4)
            assert (ended == ended[:, :1]).all() and not result[2].any()  # whole worlds, and always truncated
        if walls is not None:
            assert (env.cells[np.arange(40), env.position] == SAND).all()
            assert np.isin(env.position, env.board.free).all() and env.board.stock(env.cells).max() <= 8
            assert (np.isin(env.cells, (WALL, 7)) == walls).all()


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_restored_game_goes_on_exactly(lively, play_randomly, same, changes):
    env, other = (lively(20, **changes) for _ in range(2))
    play_randomly(env, 13)
    state = pickle.loads(pickle.dumps(env.state_dict()))
    env.action_space.seed(5)
    actions = [env.action_space.sample() for _ in range(30)]
    expected = [(env.step(action), env.drain_statistics()) for action in actions]
    other.load_state_dict(state)
    assert same([(other.step(action), other.drain_statistics()) for action in actions], expected)


@pytest.mark.parametrize("changes", VARIANTS)
def test_seeds(lively, play_randomly, same, changes):
    env, twin = (lively(20, **changes) for _ in range(2))
    first = play_randomly(env, 20, drain=True)
    assert same(first, play_randomly(twin, 20, drain=True))
    assert same(first, play_randomly(env, 20, drain=True))  # the past leaves nothing behind
    assert not same(first[0], env.reset(seed=1))


def test_a_frame_shows_the_first_world(game):
    played = game(2, 2, render_mode="rgb_array", size=7)
    blank = played.env.render()
    assert isinstance(blank, tuple) and len(blank) == 1 and blank[0].dtype == np.uint8
    played.put(3, 4, C, rows=slice(2, None))
    played.env.level[1] = 1.0
    np.testing.assert_array_equal(played.env.render()[0], blank[0])  # that is in the second world
    played.put(3, 4, C, rows=1)
    resource = played.env.render()[0]
    played.step(STAY, [0, 2, 0, 0])
    vote = played.env.render()[0]
    played.env.level[0] = 1.0
    assert all(
        (new != old).any() for new, old in ((resource, blank[0]), (vote, resource), (played.env.render()[0], vote))
    )
    restored = game(2, 2, render_mode="rgb_array", size=7).env
    restored.load_state_dict(played.env.state_dict())
    np.testing.assert_array_equal(restored.render()[0], played.env.render()[0])
    played.env.reset()
    assert not played.env.last_votes.any()
    assert StatePunishment(3).render() is None
    menu = game(1, 3, menu=True, render_mode="rgb_array").env
    assert menu.render()[0].shape[2] == 3


def test_it_is_registered():
    """A single environment is one agent in a world of its own."""
    name = "RecurrentPPO/StatePunishment-v0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for changes in ({}, {"flat": True}, {"menu": True, "observation": "onehot"}):
            check_env(gymnasium.make(name, **changes).unwrapped)
        assert gymnasium.make_vec(name, num_envs=6).num_agents == 1
        assert gymnasium.make_vec(name, num_envs=6, num_agents=3).num_agents == 3


ONE_ARM = {
    "num_agents": 1,
    "menu": True,
    "menu_size": 1,
    "spawn_probabilities": (1, 0, 0, 0, 0),
    "initial_level": "random",
    "votes": False,
    "level_visible": False,
    "punishment_visible": True,
}


def known(**changes):
    env = StatePunishment(3, **ONE_ARM | changes)
    return env.optimal_return, env.memoryless_return


def test_returns_that_are_known():
    """An agent alone may be of a harmful kind."""
    assert known() == pytest.approx((287.54, 97.13), abs=0.01)
    assert known(num_agents=3, harms=(0, 5, 0, 0, 0)) == known()
    assert known(observe_others_punished=True) == known()  # there are no others
    assert known(level_visible=True) == pytest.approx((312.5, 312.5))
    assert known(punishment_visible=False) == (None, pytest.approx(62.5))
    assert known(initial_level=1 / 9) == pytest.approx((1000, 1000))
    assert known(initial_level=1 / 9, punishment_visible=False) == pytest.approx((1000, 1000))
    assert known(max_turns=10, spawn_probabilities=(0, 1, 0, 0, 0), initial_level=1.0) == pytest.approx((50, 50))


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
        {"num_agents": 3, "observe_others_punished": True, "harms": (0,) * 5},
        {"punishment_mode": "deterministic"},
    ],
)
def test_returns_that_are_not_known(changes):
    assert known(**changes) == (None, None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_envs": 7}, "num_envs=7: it must be a multiple of num_agents=3"),
        ({"num_envs": 0}, "num_envs=0: it must be a whole number of at least 1"),
        ({"num_agents": 0}, "num_agents=0: it must be a whole number of at least 1"),
        ({"max_turns": 0}, "max_turns=0: it must be a whole number of at least 1"),
        ({"render_mode": "human"}, "render_mode='human': it must be one of None, 'rgb_array'"),
        ({"values": "abcde"}, "values='abcde': it must be five numbers, for the kinds A to E"),
        ({"harms": (1, 2, 3)}, "harms=(1, 2, 3): it must be five numbers, for the kinds A to E"),
        ({"spawn_probabilities": (0.5,) * 5}, f"spawn_probabilities={(0.5,) * 5}: it must add up to 1"),
        ({"schedule": "tail"}, "schedule='tail': it must be one of 'head', 'seed', 'generated'"),
        ({"punishment_mode": "x"}, "punishment_mode='x': it must be one of 'probabilistic', 'deterministic'"),
        ({"punishment_magnitude": -1}, "punishment_magnitude=-1: it must be a number of at least 0"),
        ({"initial_level": 1.1}, "initial_level=1.1: it must be a number from 0 to 1, or random"),
        ({"size": 2}, "size=2: it must be a whole number of at least 3"),
        ({"actions": "flat"}, "actions='flat': it must be one of 'dual', 'simple', 'composite', 'factored'"),
        ({"menu": True, "menu_size": 0}, "menu_size=0: it must be a whole number of at least 1"),
    ],
)
def test_bad_parameters(changes, sentence):
    with pytest.raises(ValueError) as caught:
        StatePunishment(**{"num_envs": 6} | changes)
    assert str(caught.value) == sentence
