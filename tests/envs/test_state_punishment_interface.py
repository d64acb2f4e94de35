"""What an agent sees of the game and can do in it, that every parameter matters, and that games can be resumed."""

import pickle

import numpy as np
import pytest
from gymnasium import spaces

from envs.state_punishment import StatePunishment
from envs.state_punishment.rules import FIRST_KIND, SAND

# Much happens: resources and punishments everywhere, votes, harm, short episodes.
LIVELY = {
    "num_agents": 4,
    "size": 6,
    "initial_resources": 6,
    "max_resources": 8,
    "respawn_prob": 0.1,
    "harms": (5.0, 1.0, 0.0, 0.0, 0.0),
    "initial_level": 0.5,
    "max_turns": 9,
}


def play(env, num_steps, seed=0, drain=False):
    """Everything that comes back, with random actions."""
    env.action_space.seed(seed)
    results = [env.reset(seed=seed)]
    for _ in range(num_steps):
        results.append(env.step(env.action_space.sample()))
        if drain:
            results.append(env.drain_statistics())
    return results


def same(left, right):
    try:
        np.testing.assert_equal(left, right)
    except AssertionError:
        return False
    return True


def cell(env, y, x):
    return (y + env.board.radius) * env.board.side + x + env.board.radius


def view_of(env, row, slot):
    """The view of one agent, cell by cell as the rules say."""
    radius, size = env.board.radius, env.board.size
    codes = env.cells[row].reshape(env.board.side, env.board.side)
    y0, x0 = np.divmod(env.position[row], env.board.side) - np.array(radius)
    view = np.zeros((27 if slot else 9, 2 * radius + 1, 2 * radius + 1))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x, at = y0 + dy, x0 + dx, (slice(None), dy + radius, dx + radius)
            inside = 0 <= y < size and 0 <= x < size
            wall = not (0 < y < size - 1 and 0 < x < size - 1)
            kind = codes[y + radius, x + radius] - FIRST_KIND if not wall else -1
            if slot:
                view[at][2 if wall else 1 if dy == dx == 0 else 4 + kind if kind >= 0 else 3] = 1
            elif wall:
                view[at][1] = 2 if inside else 1
            else:
                view[at][2] = 1
                if dy == dx == 0:
                    view[at][8] = 1
                elif kind >= 0:
                    view[at][3 + kind] = 1
    if slot:
        signs = np.random.default_rng(0).choice([-1, 1], (env.num_agents, 16))
        view[10:26, radius, radius] = signs[row % env.num_agents] / 4
        view[26, radius, radius] = env.recent[row] > 0
    return view


@pytest.mark.parametrize("observation", ["slot", "onehot"])
@pytest.mark.parametrize(("size", "radius"), [(6, 4), (9, 2)])
def test_views_cell_by_cell(observation, size, radius):
    env = StatePunishment(40, **LIVELY | {"size": size, "view_radius": radius, "observation": observation})
    for observations, *_ in play(env, 8)[-1:]:
        image = observations["image"]
        assert image.dtype == (np.float32 if observation == "slot" else np.uint8)
        for row in range(40):
            np.testing.assert_array_equal(image[row], view_of(env, row, observation == "slot"))
    assert env.recent.any() and (env.cells[:, env.board.free] != SAND).any()


@pytest.mark.parametrize("changes", [{}, {"observation": "onehot"}, {"menu": True}, {"observe_others_punished": True}])
def test_flat_is_the_picture_and_then_the_scalars(changes):
    split_env, flat_env = (StatePunishment(8, **LIVELY | changes, flat=flat) for flat in (False, True))
    for split, flat in zip(play(split_env, 12), play(flat_env, 12), strict=True):
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


def test_scalars_one_by_one():
    settings = LIVELY | {"punishment_visible": True, "observe_others_punished": True, "phased_voting": 3}
    env = StatePunishment(8, **settings)
    for turn, (observations, *_) in enumerate(play(env, 8)):
        scalars = observations["scalars"]
        assert scalars.shape == (8, 3 + 1 + 3)
        assert (scalars[:, 2] == (turn % 3 == 0)).all()
    np.testing.assert_array_equal(scalars[:, 0], np.repeat(env.level, 4).astype(np.float32))
    np.testing.assert_array_equal(scalars[:, 1], env.account)
    flags = (env.recent == 2).astype(int).reshape(2, 4)
    assert flags.any() and env.account.any()
    np.testing.assert_array_equal(scalars[:, 3].reshape(2, 4), flags)
    for agent in range(4):
        np.testing.assert_array_equal(scalars.reshape(2, 4, 7)[:, agent, 4:], np.delete(flags, agent, axis=1))
    hidden = StatePunishment(8, **LIVELY, level_visible=False, harm_visible=False)
    assert not any(result[0]["scalars"].any() for result in play(hidden, 8))


def test_a_punishment_is_shown_for_two_turns_in_the_view_and_for_one_in_the_scalars():
    """Also where nobody observes the punishments of others (defect 29)."""
    env = StatePunishment(1, 1, initial_resources=0, initial_level=1.0, punishment_visible=True, actions="factored")
    env.reset(seed=0)
    env.position[:] = cell(env, 4, 4)
    env.cells[0, cell(env, 3, 4)] = FIRST_KIND
    shown = []
    for move in (0, 4, 4):
        observations = env.step(np.array([[move, 0]]))[0]
        shown.append((observations["image"][0, 26, 4, 4], observations["scalars"][0, 2]))
    assert shown == [(1, 1), (1, 0), (0, 0)]


def test_every_agent_sees_itself_and_its_own_identity_once():
    """The identity is fed at all (defect 30)."""
    env = StatePunishment(8, **LIVELY)
    for observations, *_ in play(env, 12):
        image = observations["image"]
        assert (image[:, 1].sum(axis=(1, 2)) == 1).all() and not image[:, [0, 9]].any()
        vectors = image[:, 10:26, 4, 4]
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
        assert len(np.unique(vectors[:4], axis=0)) == 4 and (vectors[:4] == vectors[4:]).all()
        assert (np.abs(image[:, 10:26]).sum(axis=(1, 2, 3)) == 4).all()


ACTIONS = [("dual", 12), ("simple", 7), ("composite", 13), ("factored", 15)]


@pytest.mark.parametrize(("actions", "count"), ACTIONS)
def test_every_action_does_what_its_name_says(actions, count):
    """Names in the order of decoding (defect 27), for every code."""
    env = StatePunishment(1, 1, initial_resources=0, initial_level=0.5, actions=actions)
    names = env.action_set.names
    assert len(set(names)) == len(names) == count
    for code, name in enumerate(names):
        env.reset(seed=0)
        env.position[:] = cell(env, 4, 4)
        branched = isinstance(env.single_action_space, spaces.MultiDiscrete)
        env.step(np.array([divmod(code, 3)]) if branched else np.array([code]))
        word = name.split("_")[0]
        y, x = {"up": (3, 4), "down": (5, 4), "left": (4, 3), "right": (4, 5)}.get(word, (4, 4))
        assert env.position == cell(env, y, x)
        assert env.level == [0.6 if "increase" in name else 0.4 if "decrease" in name else 0.5]
        assert word in ("up", "down", "left", "right", "stay", "vote", "noop")
    assert env.action_names == (("move", "vote") if branched else None)
    assert spaces.utils.flatdim(env.single_action_space) == (count if not branched else count // 3 + 3)


def test_codes_of_the_simple_and_composite_sets():
    simple = StatePunishment(3, actions="simple").action_set.names
    assert simple == ("up", "down", "left", "right", "vote_increase", "vote_decrease", "noop")
    composite = StatePunishment(3, actions="composite").action_set.names
    assert composite[:4] == ("up_no_vote", "up_increase", "up_decrease", "down_no_vote") and composite[12] == "noop"
    menu = StatePunishment(3, actions="simple", menu=True, menu_size=2).action_set.names
    assert menu == ("pick_1", "pick_2", "noop", "vote_increase", "vote_decrease")


@pytest.mark.parametrize(("actions", "count"), [("dual", 12), ("simple", 6), ("composite", 10), ("factored", 12)])
def test_every_action_of_the_menu(actions, count):
    env = StatePunishment(1, 1, menu=True, initial_level=0.5, actions=actions, values=(1, 2, 3, 4, 5), schedule="seed")
    names = env.action_set.names
    assert len(set(names)) == len(names) == count
    for code, name in enumerate(names):
        env.reset(seed=0)
        env.cells[:] = FIRST_KIND + np.array([2, 3, 4])
        env.punished[:] = 0
        branched = isinstance(env.single_action_space, spaces.MultiDiscrete)
        reward = env.step(np.array([divmod(code, 3)]) if branched else np.array([code]))[1]
        arm = next((i for i in (1, 2, 3) if f"opt{i}" in name or f"pick_{i}" in name), None)
        assert reward == ([3, 4, 5][arm - 1] if arm else 0)
        assert env.level == [0.6 if "increase" in name else 0.4 if "decrease" in name else 0.5]


# Each parameter with another value than in LIVELY, and what has to be set for it to matter.
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
def test_every_flag_does_something(name):
    value, needed = CHANGES[name]
    plain = play(StatePunishment(32, **LIVELY | needed), 25)
    assert same(plain, play(StatePunishment(32, **LIVELY | needed), 25))
    assert not same(plain, play(StatePunishment(32, **LIVELY | needed | {name: value}), 25))


def test_composite_and_simple_actions_change_the_space():
    """They are no dead flags (defect 26)."""
    kinds = {actions: StatePunishment(3, actions=actions).single_action_space for actions, _ in ACTIONS}
    assert kinds["dual"] == spaces.MultiDiscrete([4, 3]) and kinds["factored"] == spaces.MultiDiscrete([5, 3])
    assert kinds["simple"] == spaces.Discrete(7) and kinds["composite"] == spaces.Discrete(13)
    menu = {name: StatePunishment(3, menu=True, actions=name).single_action_space for name, _ in ACTIONS}
    assert menu["dual"] == menu["factored"] == spaces.MultiDiscrete([4, 3])
    assert menu["simple"] == spaces.Discrete(6) and menu["composite"] == spaces.Discrete(10)


VARIANTS = [
    {},
    {"observation": "onehot", "actions": "factored", "delayed_punishment": True, "reset_level": False},
    {"menu": True, "phased_voting": 2, "punishment_visible": True, "initial_level": "random"},
    {"flat": True, "actions": "composite", "observe_others_punished": True, "harms": (2.17, 2.86, 5.0, 11.57, 31.83)},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_invariants_in_play(changes):
    env = StatePunishment(40, **LIVELY | changes)
    for result in play(env, 50):
        assert result[0] in env.observation_space
        assert ((env.level >= 0) & (env.level <= 1)).all()
        if len(result) == 5:
            ended = result[3].reshape(10, 4)
            assert (ended == ended[:, :1]).all() and not result[2].any()  # whole worlds, and always truncated
        if env.board.leaf != "menu":
            assert (env.cells[np.arange(40), env.position] == SAND).all()
            assert np.isin(env.position, env.board.free).all() and env.board.stock(env.cells).max() <= 8
            np.testing.assert_array_equal(
                np.isin(env.cells, (1, 7)), np.isin(env.board._blank, (1, 7))[None].repeat(40, 0)
            )


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_restored_game_goes_on_exactly(changes):
    env, other = (StatePunishment(20, **LIVELY | changes) for _ in range(2))
    play(env, 13)
    state = pickle.loads(pickle.dumps(env.state_dict()))
    env.action_space.seed(5)
    actions = [env.action_space.sample() for _ in range(30)]
    expected = [(env.step(action), env.drain_statistics()) for action in actions]
    other.load_state_dict(state)
    assert same([(other.step(action), other.drain_statistics()) for action in actions], expected)
    assert {*env.state_names} >= {"level", "account", "pending", "recent", "cells", "position"}


@pytest.mark.parametrize("changes", VARIANTS)
def test_seeds(changes):
    env, twin = (StatePunishment(20, **LIVELY | changes) for _ in range(2))
    first = play(env, 20, drain=True)
    assert same(first, play(twin, 20, drain=True))
    assert same(first, play(env, 20, drain=True))  # the past leaves nothing behind
    env.action_space.seed(0)
    assert not same(first[0], env.reset(seed=1))
