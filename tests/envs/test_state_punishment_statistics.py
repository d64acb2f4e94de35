"""The game's metrics, its pictures, how it is registered, and what it refuses."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs  # noqa: F401  (registers the id)
from envs.state_punishment import StatePunishment
from envs.state_punishment.picture import CELL, COLOURS
from envs.state_punishment.rules import FIRST_KIND

UP, DOWN, LEFT, RIGHT, STAY = range(5)
RESOURCES = "abcde"
AGENTS = [f"Agent_{agent}/" for agent in range(3)]


def bare(num_worlds, num_agents, **changes):
    settings = {"initial_resources": 0, "punishment_mode": "deterministic", "actions": "factored", "size": 7}
    env = StatePunishment(num_worlds * num_agents, num_agents, **settings | changes)
    env.reset(seed=0)
    env.position[:] = cell(env, 3, 3)
    return env


def cell(env, y, x):
    return (y + env.board.radius) * env.board.side + x + env.board.radius


def test_an_episode_counted_by_hand():
    env = bare(1, 2, max_turns=3, random_order=False)
    env.cells[0, cell(env, 2, 3)] = FIRST_KIND  # A
    env.cells[0, cell(env, 1, 3)] = FIRST_KIND + 3  # D
    env.cells[1, cell(env, 3, 4)] = FIRST_KIND  # A
    assert env.drain_statistics() == {}
    env.step(np.array([[UP, 1], [STAY, 1]]))  # A at level 0, then votes; 12.5
    env.step(np.array([[UP, 0], [RIGHT, 2]]))  # D for 10; A at level 0.2: 20 - 25 * 0.55 and 5 of harm: 1.25
    assert env.drain_statistics() == {}
    env.step(np.array([[UP, 0], [STAY, 0]]))  # a wall, and 5 of harm: -6; nothing
    tags = env.drain_statistics()
    expected = {
        "Agent_0/individual_score": 16.5,
        "Agent_1/individual_score": 1.25,
        "Total/total_individual_score": 17.75,
        "Mean/mean_individual_score": 8.875,
        "Agent_0/social_harm_received": 5,
        "Agent_1/social_harm_received": 5,
        "Total/total_social_harm_received": 10,
        "Mean/mean_social_harm_received": 5,
        "Agent_0/punishments": 1,
        "Agent_1/punishments": 1,
        "Mean/mean_punishments": 1,
        "Agent_0/a_encounters": 1,
        "Agent_0/d_encounters": 1,
        "Agent_0/wall_encounters": 1,
        "Agent_0/emptyentity_encounters": 0,
        "Total/total_a_encounters": 2,
        "Mean/mean_a_encounters": 1,
        "Agent_0/action_freq_up_increase": 1,
        "Agent_0/action_freq_up_no_vote": 2,
        "Agent_1/action_freq_right_decrease": 1,
        "Mean/mean_action_freq_stay_no_vote": 0.5,
        "Global/average_punishment_level": (0.2 + 0.1 + 0.1) / 3,
        "Global/current_punishment_level": 0.1,
        "Global/vote_increase": 2,
        "Global/vote_decrease": 1,
        "Global/total_votes": 3,
        "Global/a_rate_level_0": 1,
        "Global/a_rate_level_2": 0.5,
    }
    for tag, value in expected.items():
        assert tags[tag] == pytest.approx(value), tag
    assert not {"Global/a_rate_level_1", "Global/a_rate_level_3"} & set(tags)
    assert all(type(value) is float for value in tags.values())
    assert env.drain_statistics() == {}


@pytest.mark.parametrize("actions", ["dual", "simple", "composite", "factored"])
def test_the_tags_that_their_readers_know(actions):
    env = StatePunishment(6, 3, max_turns=4, actions=actions, respawn_prob=0.5)
    env.reset(seed=0)
    for _ in range(4):
        env.step(env.action_space.sample())
    names = [f"{entity}_encounters" for entity in (*RESOURCES, "emptyentity", "wall")]
    names += ["individual_score", "social_harm_received", "punishments"]
    names += [f"action_freq_{name}" for name in env.action_set.names]
    known = {f"{group}{name}" for name in names for group in ("Total/total_", "Mean/mean_", *AGENTS)}
    levels = {"average_punishment_level", "current_punishment_level", "vote_increase", "vote_decrease", "total_votes"}
    tags = env.drain_statistics()
    assert {tag for tag in tags if "a_rate_level" not in tag} == known | {f"Global/{name}" for name in levels}
    for agent in AGENTS:
        assert sum(value for tag, value in tags.items() if tag.startswith(f"{agent}action_freq_")) == 4


def test_averages_over_worlds_and_episodes_agree_with_what_was_played():
    """Punishments and votes are counted as they happen (defects 25 and 28)."""
    settings = {"size": 5, "initial_resources": 4, "respawn_prob": 0.2, "actions": "dual", "initial_level": 0.5}
    env = StatePunishment(40, 4, max_turns=5, punishment_visible=True, **settings)
    env.action_space.seed(0)
    env.reset(seed=0)
    rewards, flags, harm, votes = 0, 0, 0, np.zeros(3)
    for _ in range(15):
        action = env.action_space.sample()
        harm += env.account.sum()
        observations, reward, _, truncated, info = env.step(action)
        rewards += reward.sum()
        closing = info["final_obs"] if truncated.any() else observations
        flags += closing["scalars"][:, 2].sum()
        votes += np.bincount(action[:, 1], minlength=3)
    tags, episodes = env.drain_statistics(), 3 * 10
    assert tags["Total/total_individual_score"] == pytest.approx(rewards / episodes)
    assert tags["Total/total_punishments"] == pytest.approx(flags / episodes) and flags > 20
    assert tags["Total/total_social_harm_received"] == pytest.approx(harm / episodes) and harm > 20
    assert tags["Global/vote_increase"] == pytest.approx(votes[1] / episodes)
    assert tags["Global/vote_decrease"] == pytest.approx(votes[2] / episodes)
    agents = [tags[f"Agent_{agent}/individual_score"] for agent in range(4)]
    assert sum(agents) == pytest.approx(tags["Total/total_individual_score"]) and len(set(agents)) == 4


def test_delayed_punishments_count_when_they_are_paid_and_blocked_votes_do_not_count():
    env = bare(1, 1, max_turns=4, delayed_punishment=True, phased_voting=2)
    env.cells[0, cell(env, 2, 3)] = FIRST_KIND
    env.cells[0, cell(env, 1, 3)] = FIRST_KIND
    for _ in range(4):
        env.step(np.array([[UP, 1]]))
    tags = env.drain_statistics()
    assert (tags["Mean/mean_punishments"], tags["Mean/mean_a_encounters"], tags["Global/vote_increase"]) == (1, 2, 2)
    assert tags["Mean/mean_action_freq_up_increase"] == 4


def test_an_episode_that_is_broken_off_is_not_counted():
    env = bare(1, 1, max_turns=2)
    env.step(np.array([[UP, 1]]))
    env.reset()
    env.step(np.array([[UP, 0]]))
    env.step(np.array([[UP, 0]]))
    tags = env.drain_statistics()
    assert tags["Global/total_votes"] == 0 and tags["Mean/mean_action_freq_up_no_vote"] == 2


def centres(picture, agent):
    """The colours of the middles of an agent's cells, `[7, 7, 3]`."""
    return picture[24 + CELL // 2 :: CELL][:7, 40 + agent * 128 + CELL // 2 :: CELL][:, :7]


def test_the_picture_of_a_world():
    env = bare(2, 2, render_mode="rgb_array", random_order=False)
    env.cells[0, cell(env, 2, 3)] = FIRST_KIND + 2
    frames = env.render()
    assert isinstance(frames, tuple) and len(frames) == 1
    frame = frames[0]
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    board = centres(frame, 0)
    assert (board[3, 3] == COLOURS[8]).all() and (board[2, 3] == COLOURS[FIRST_KIND + 2]).all()
    assert (board[0] == COLOURS[1]).all() and (board[1, 1] == COLOURS[0]).all()
    assert (centres(frame, 1)[2, 3] == COLOURS[0]).all()
    env.step(np.array([[UP, 1], [STAY, 2], [STAY, 0], [STAY, 0]]))
    after = env.render()[0]
    assert (centres(after, 0)[2, 3] == COLOURS[8]).all()
    assert (after[:16, 40:144] != 250).any() and (after[:16, 168:] != 250).any()  # the votes
    env.step(np.tile([STAY, 1], (4, 1)))
    bar = env.render()[0][8:-8, 16]
    assert (bar == (200, 40, 40)).all(axis=1).mean() == pytest.approx(0.2, abs=0.01)
    assert StatePunishment(3).render() is None
    menu = StatePunishment(3, menu=True, render_mode="rgb_array")
    menu.reset(seed=0)
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


def refusals():
    five = "must be five numbers, for the kinds A to E, got"
    yield {"num_envs": 7}, "num_envs must be a multiple of num_agents, got 7 and 3."
    yield {"num_agents": 0}, "num_agents must be an integer of at least 1, got 0."
    yield {"size": 2}, "size must be an integer of at least 3, got 2."
    yield {"view_radius": 0}, "view_radius must be an integer of at least 1, got 0."
    yield {"initial_resources": -1}, "initial_resources must be an integer of at least 0, got -1."
    yield {"initial_resources": 64}, "initial_resources must be at most 63 in a grid of size 10, got 64."
    yield {"max_resources": 7}, "initial_resources must be at most max_resources, got 8 and 7."
    yield {"respawn_prob": 1.5}, "respawn_prob must be a number from 0 to 1, got 1.5."
    yield {"spawn_probabilities": (0.5, 0.5)}, f"spawn_probabilities {five} (0.5, 0.5)."
    yield {"spawn_probabilities": (0.5,) * 5}, f"spawn_probabilities must add up to 1, got {(0.5,) * 5}."
    yield (
        {"spawn_probabilities": (2, -1, 0, 0, 0)},
        "each of spawn_probabilities must be a number of at least 0, got -1.",
    )
    yield {"values": "abcde"}, f"values {five} 'abcde'."
    yield {"harms": (1, 2, 3, 4, None)}, "each of harms must be a number, got None."
    yield {"schedule": "tail"}, "schedule must be one of head, seed, generated, got 'tail'."
    yield {"punishment_mode": "x"}, "punishment_mode must be one of probabilistic, deterministic, got 'x'."
    yield {"punishment_magnitude": -1}, "punishment_magnitude must be a number of at least 0, got -1."
    yield {"initial_level": 1.1}, "initial_level must be a number from 0 to 1, got 1.1."
    yield {"initial_level": "low"}, "initial_level must be a number from 0 to 1 or random, got 'low'."
    yield {"vote_step": float("nan")}, "vote_step must be a number from 0 to 1, got nan."
    yield {"phased_voting": 0}, "phased_voting must be an integer of at least 1, got 0."
    yield {"observation": "pixels"}, "observation must be one of slot, onehot, got 'pixels'."
    yield {"actions": "flat"}, "actions must be one of dual, simple, composite, factored, got 'flat'."
    yield {"menu": True, "menu_size": 0}, "menu_size must be an integer of at least 1, got 0."
    yield {"max_turns": 0}, "max_turns must be an integer of at least 1, got 0."
    yield {"render_mode": "human"}, "render_mode must be one of rgb_array, got 'human'."


@pytest.mark.parametrize(("changes", "message"), [*refusals()], ids=lambda value: str(value)[:30])
def test_bad_parameters(changes, message):
    with pytest.raises(ValueError) as caught:
        StatePunishment(**{"num_envs": 6} | changes)
    assert str(caught.value) == message
