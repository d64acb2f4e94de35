"""The game's metrics: what is counted, and under which tags it is reported."""

import numpy as np
import pytest

from envs.state_punishment import StatePunishment, statistics
from envs.state_punishment.rules import FIRST_KIND, NOTHING, SAND, WALL

UP, DOWN, LEFT, RIGHT, STAY = range(5)
A, B, C, D, E = range(5)
AGENTS = [f"Agent_{agent}/" for agent in range(3)]


def test_an_episode_counted_by_hand(game):
    played = game(1, 2, max_turns=3, random_order=False)
    played.put(3, 4, A, rows=0)
    played.put(2, 4, D, rows=0)
    played.put(4, 5, A, rows=1)
    played.env.cells[0, played.cell(1, 4)] = WALL
    drain = played.env.drain_statistics
    assert drain() == {}
    played.step([UP, STAY], [1, 1])  # A at level 0, then votes: 12.5
    played.step([UP, RIGHT], [0, 2])  # D for 10; A at level 0.2: 20 - 25 * 0.55 and 5 of harm: 1.25
    assert drain() == {}
    played.step([UP, STAY], [0, 0])  # a wall, and 5 of harm: -6; nothing
    tags = drain()
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
    assert drain() == {}


@pytest.mark.parametrize("actions", ["dual", "simple", "composite", "factored"])
def test_the_tags_that_their_readers_know(actions):
    env = StatePunishment(6, 3, max_turns=4, actions=actions, respawn_prob=0.5)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(4):
        env.step(env.action_space.sample())
    names = [f"{entity}_encounters" for entity in (*"abcde", "emptyentity", "wall")]
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


def test_delayed_punishments_count_when_they_are_paid_and_blocked_votes_do_not_count(game):
    played = game(max_turns=4, delayed_punishment=True, phased_voting=2)
    played.put(3, 4, A)
    played.put(2, 4, A)
    for _ in range(4):
        played.step(UP, 1)
    tags = played.env.drain_statistics()
    assert (tags["Mean/mean_punishments"], tags["Mean/mean_a_encounters"], tags["Global/vote_increase"]) == (1, 2, 2)
    assert tags["Mean/mean_action_freq_up_increase"] == 4


def test_an_episode_that_is_broken_off_is_not_counted(game):
    played = game(max_turns=2)
    played.step(UP, 1)
    played.env.reset()
    played.step(UP, 0)
    played.step(UP, 0)
    tags = played.env.drain_statistics()
    assert tags["Global/total_votes"] == 0 and tags["Mean/mean_action_freq_up_no_vote"] == 2


def test_a_seed_clears_the_statistics(game):
    played = game(max_turns=1)
    played.put(3, 4, A)
    played.step(UP, 1)
    played.env.reset(seed=0)
    assert played.env.drain_statistics() == {} and not played.env.by_level.any()


def test_a_turn_is_added_to_the_tally_of_each_agent():
    tally = statistics.empty_tally(4, 2)
    assert tally.shape == (statistics.FIRST_ACTION + 4, 2)
    events, codes = np.array([FIRST_KIND + 4, NOTHING]), np.array([3, 0])
    for level in (0.2, 0.3):
        rewards, harm, levels = np.array([1.5, -2]), np.array([0, 5.0]), np.array([level, level])
        statistics.count_turn(tally, rewards, harm, np.array([False, True]), levels, np.array([1, 2]), events, codes)
    expected = np.zeros_like(tally)
    expected[statistics.SCORE] = [3, -4]
    expected[statistics.HARM] = [0, 10]
    expected[statistics.PUNISHMENTS] = [0, 2]
    expected[statistics.LEVEL] = 0.5
    expected[statistics.INCREASES] = [2, 0]
    expected[statistics.DECREASES] = [0, 2]
    expected[statistics.EVENTS + FIRST_KIND + 4] = [2, 0]
    expected[statistics.EVENTS + NOTHING] = [0, 2]
    expected[statistics.FIRST_ACTION + 3] = [2, 0]
    expected[statistics.FIRST_ACTION] = [0, 2]
    np.testing.assert_array_equal(tally, expected)


def test_resources_are_counted_by_the_level_at_which_they_were_taken():
    by_level = np.zeros((10, 2))
    events = np.array([FIRST_KIND, FIRST_KIND, FIRST_KIND + 1, FIRST_KIND + 4, SAND, WALL, NOTHING])
    for _ in range(2):
        statistics.count_by_level(by_level, np.array([9, 9, 9, 2, 2, 2, 2]), events)
    assert by_level[9].tolist() == [2, 4] and by_level[2].tolist() == [2, 0] and by_level.sum() == 8


def test_only_episodes_that_end_are_finished():
    """Three worlds of two agents, of which the first and the last end."""
    finished, tally = np.zeros((12, 2)), np.ones((12, 6)) * np.arange(6)
    ends, levels = np.array([True, True, False, False, True, True]), np.array([0.5, 0.5, 0.9, 0.9, 0.25, 0.25])
    statistics.count_episodes(finished, tally, ends, levels)
    assert finished[statistics.SCORE].tolist() == [4, 6] and finished[statistics.EPISODES].tolist() == [2, 2]
    assert finished[statistics.LAST_LEVEL].tolist() == [0.75, 0.75]


def test_a_level_at_which_others_but_no_a_was_taken_has_a_rate_of_zero():
    finished, by_level = statistics.empty_tally(1, 2) + 1, np.zeros((10, 2))
    by_level[4], by_level[7] = [3, 0], [1, 3]
    tags = statistics.tags(finished, by_level, ("up",), 5)
    rates = {tag: rate for tag, rate in tags.items() if "a_rate" in tag}
    assert rates == {"Global/a_rate_level_4": 0, "Global/a_rate_level_7": 0.75}
