"""The tasks equal, step by step, a plain reference and, where it is installed, POPGym itself."""

import inspect

import numpy as np
import pytest
from gymnasium import spaces

from envs.popgym_tasks.battleship import Battleship
from envs.popgym_tasks.card_streams import Autoencode, HigherLower, RepeatFirst, RepeatPreviousCards
from envs.popgym_tasks.cartpole import NoisyPositionOnlyCartPole, VelocityOnlyCartPole
from envs.popgym_tasks.concentration import Concentration
from envs.popgym_tasks.count_recall import CountRecall
from envs.popgym_tasks.mine_sweeper import MineSweeper
from tests.envs.popgym_tasks import reference

DEALT = [
    *(Autoencode, Battleship, Concentration, CountRecall),
    *(HigherLower, MineSweeper, RepeatFirst, RepeatPreviousCards),
]
LEVELS = pytest.mark.parametrize("level", ["easy", "medium", "hard"])
ROWS = 8


def flat(*observation):
    """Whatever an observation is made of, as one row of numbers."""
    return np.concatenate([np.ravel(part) for part in observation])


class Original:
    """A task of POPGym as the references are: `hidden` has what it drew, in the order of ours."""

    def __init__(self, popgym, cls, level):
        name = cls.__name__.removesuffix("Cards") + level.capitalize()
        self.env = getattr(popgym.envs, name)()

    def reset(self, **options):
        observation, _ = self.env.reset(**options)
        return flat(*observation) if isinstance(observation, tuple) else observation

    def step(self, action):
        observation, *rest, _ = self.env.step(action)
        return flat(*observation) if isinstance(observation, tuple) else observation, *rest

    @property
    def hidden(self):
        env = self.env
        match type(env).__mro__[1].__name__:
            case "MineSweeper":
                return {"cells": env.hidden_grid.ravel(), "neighbours": env.neighbor_grid.ravel()}
            case "Battleship":
                return {"cells": env.board.ravel()}
            case "Concentration":
                return {"cards": env.deck_idx_type[env.deck.idx]}
            case "CountRecall":
                decks = {"values": env.value_deck, "queries": env.query_deck}
                return {name: env.deck_idx_type[deck.idx[::-1]] for name, deck in decks.items()}  # dealt from the end
            case "HigherLower":
                return {"cards": env.deck.ranks_idx[env.deck.idx[::-1]]}
            case _:
                return {"cards": env.deck.suits_idx[env.deck.idx[::-1]]}


def begin(env, row, one):
    """Begin an episode of `one` and give the row what it drew."""
    first = one.reset()
    hidden = one.hidden if isinstance(one.hidden, dict) else {name: getattr(one, name) for name in one.hidden}
    for name, values in hidden.items():
        assert np.shape(values) == getattr(env, name)[row].shape
        getattr(env, name)[row] = values
    if isinstance(env, CountRecall):
        env.counts[row] = np.arange(env.num_kinds) == env.values[row, 0]
    np.testing.assert_array_equal(env._observe()[row], first)


def check_equality(env, ones, num_steps):
    """Play, well and badly by turns; returns how many episodes terminated, were truncated, and with what returns."""
    env.reset(seed=0)
    env.action_space.seed(0)
    rng = np.random.default_rng(0)
    for row, one in enumerate(ones):
        begin(env, row, one)
    skill = rng.choice([0.0, 0.5, 0.9, 1.0], size=env.num_envs)  # the share of right actions
    ends, returns, totals = {"terminated": 0, "truncated": 0}, [], np.zeros(env.num_envs)
    for _ in range(num_steps):
        well = rng.random(env.num_envs) < skill
        actions = env.action_space.sample()
        actions[well] = reference.act_well(env)[well]
        observations, rewards, terminated, truncated, info = env.step(actions)
        totals += rewards
        for row, one in enumerate(ones):
            *observation, reward, one_terminated, one_truncated = one.step(actions[row])
            ended = one_terminated or one_truncated
            found = (info["final_obs"] if ended else observations)[row]
            np.testing.assert_array_equal(np.ravel(found), flat(*observation))
            assert rewards[row] == pytest.approx(reward, rel=1e-12)
            assert (terminated[row], truncated[row]) == (one_terminated, one_truncated)
            if ended:
                ends["terminated"] += one_terminated
                ends["truncated"] += one_truncated
                returns.append(totals[row])
                totals[row], skill[row] = 0, rng.choice([0.0, 0.5, 0.9, 1.0])
                begin(env, row, one)
    return ends, returns


def check_ends(cls, ends, returns):
    if cls in (Battleship, Concentration, MineSweeper):
        assert ends["terminated"] >= 3 and ends["truncated"] >= 3
    assert max(returns) == pytest.approx(1.0) or cls is HigherLower
    assert min(returns) < 0


@pytest.mark.parametrize(("level", "rows", "num_steps"), [("easy", ROWS, 420), ("medium", 2, 420), ("hard", 1, 840)])
@pytest.mark.parametrize("cls", DEALT)
def test_steps_are_those_of_the_reference(cls, level, rows, num_steps):
    ones = [getattr(reference, cls.__name__)(level, seed=row) for row in range(rows)]
    ends, returns = check_equality(cls(rows, level), ones, num_steps)
    assert returns
    if level == "easy":
        check_ends(cls, ends, returns)


@LEVELS
@pytest.mark.parametrize("cls", DEALT)
def test_10_000_steps_are_those_of_popgym(cls, level):
    popgym = pytest.importorskip("popgym")
    ones = [Original(popgym, cls, level) for _ in range(ROWS)]
    for row, one in enumerate(ones):
        one.reset(seed=row)
    env, original = cls(ROWS, level), ones[0].env
    assert env.single_action_space == original.action_space
    recoded = spaces.MultiDiscrete([2, 4]) if cls is Autoencode else original.observation_space
    assert env.single_observation_space == recoded
    num_steps = 10_000 // ROWS
    ends, returns = check_equality(env, ones, num_steps)
    if level == "easy":
        check_ends(cls, ends, returns)


@LEVELS
@pytest.mark.parametrize("cls", [NoisyPositionOnlyCartPole, VelocityOnlyCartPole])
def test_one_copy_plays_10_000_steps_of_popgyms_cartpole(cls, level):
    """From the same seed; half of the episodes with a player who keeps the pole up."""
    original = Original(pytest.importorskip("popgym"), cls, level)
    env, rng = cls(1, level), np.random.default_rng(0)
    assert env.single_action_space == original.env.action_space
    assert env.single_observation_space == original.env.observation_space
    np.testing.assert_allclose(env.reset(seed=3)[0][0], original.reset(seed=3), rtol=1e-6)
    ends, careful = {"terminated": 0, "truncated": 0}, False
    for _ in range(10_000):
        x, x_dot, theta, theta_dot = env.state[:, 0]
        action = int(0.5 * x + x_dot + 20 * theta + 3 * theta_dot > 0) if careful else int(rng.integers(2))
        observations, rewards, terminated, truncated, info = env.step(np.array([action]))
        observation, *rest = original.step(action)
        found = info["final_obs"] if info else observations
        np.testing.assert_allclose(found[0], observation, rtol=1e-5, atol=1e-6)
        assert [rewards[0], terminated[0], truncated[0]] == rest
        if info:
            ends["terminated"] += rest[1]
            ends["truncated"] += rest[2]
            careful = not careful
            np.testing.assert_allclose(observations[0], original.reset(), rtol=1e-6, atol=1e-7)
    assert min(ends.values()) >= 5


@pytest.mark.parametrize("cls", [*DEALT, NoisyPositionOnlyCartPole, VelocityOnlyCartPole])
def test_an_unknown_level_is_refused(cls):
    assert inspect.signature(cls).parameters["level"].default == "easy"
    with pytest.raises(ValueError, match=r"^level='simple': it must be one of 'easy', 'medium', 'hard'$"):
        cls(2, "simple")
