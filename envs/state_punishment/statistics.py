"""The game's metrics: what is counted in every step, and the tags under which it is reported."""

from __future__ import annotations

import numpy as np

from envs.state_punishment.actions import DECREASE, INCREASE
from envs.state_punishment.rules import FIRST_KIND, KINDS, NUM_LEVELS

# Sums over an episode by agent, one row each in a tally ``[rows, R]``; the level is a world's, repeated for its agents.
SCORE, HARM, PUNISHMENTS, LEVEL, LAST_LEVEL, INCREASES, DECREASES, EPISODES, EVENTS = range(9)
ENTITIES = ("emptyentity", "wall", *KINDS)  # what an event is called; NOTHING, the last event, has no name
FIRST_ACTION = EVENTS + len(ENTITIES) + 1


def empty_tally(num_actions: int, num_rows: int) -> np.ndarray:
    """Return a tally of ``num_rows`` agents with nothing in it, float64 ``[rows, num_rows]``."""
    return np.zeros((FIRST_ACTION + num_actions, num_rows))


def count_turn(
    tally: np.ndarray,
    rewards: np.ndarray,
    harm: np.ndarray,
    punished: np.ndarray,
    level: np.ndarray,
    votes: np.ndarray,
    events: np.ndarray,
    codes: np.ndarray,
) -> None:
    """Add a turn of each agent, in place.

    Args:
        tally: ``[rows, R]``.
        rewards: ``[R]``.
        harm: that was paid, ``[R]``.
        punished: a punishment was paid, bool ``[R]``.
        level: of the world after the turn, ``[R]``.
        votes: that were executed, int ``[R]``.
        events: in which the moves ended, int ``[R]``.
        codes: of the actions, int ``[R]``.
    """
    tally[SCORE] += rewards
    tally[HARM] += harm
    tally[PUNISHMENTS] += punished
    tally[LEVEL] += level
    tally[INCREASES] += votes == INCREASE
    tally[DECREASES] += votes == DECREASE
    rows = np.arange(len(events))
    flat = tally.ravel()
    flat[(EVENTS + events) * len(rows) + rows] += 1
    flat[(FIRST_ACTION + codes) * len(rows) + rows] += 1


def count_by_level(by_level: np.ndarray, levels: np.ndarray, events: np.ndarray) -> None:
    """Add the resources that were taken at each level, in place.

    Args:
        by_level: by level index, ``[10, 2]``: of other kinds, and of kind A.
        levels: index of the level that each agent found, int ``[R]``.
        events: in which the moves ended, int ``[R]``.
    """
    met = (events >= FIRST_KIND) & (events < FIRST_KIND + len(KINDS))
    places = levels[met] * 2 + (events[met] == FIRST_KIND)
    by_level += np.bincount(places, minlength=2 * NUM_LEVELS).reshape(NUM_LEVELS, 2)


def count_episodes(finished: np.ndarray, tally: np.ndarray, ends: np.ndarray, level: np.ndarray) -> None:
    """Add the tallies of episodes that end to those of finished ones, in place.

    Args:
        finished: by agent, ``[rows, N]``.
        tally: ``[rows, R]``; its rows of the last level and of episodes are set here.
        ends: the episode ends, bool ``[R]``.
        level: of the world after the last turn, ``[R]``.
    """
    tally[LAST_LEVEL] = level
    tally[EPISODES] = 1
    finished += (tally * ends).reshape(len(tally), -1, finished.shape[1]).sum(axis=1)


def tags(finished: np.ndarray, by_level: np.ndarray, names: tuple[str, ...], turns: int) -> dict[str, float]:
    """Return the metrics of finished episodes by tag, empty if there are none.

    Args:
        finished: tallies of finished episodes by agent, ``[rows, N]``.
        by_level: resources that were taken by level index, ``[10, 2]``: of other kinds, and of kind A.
        names: of the action codes.
        turns: length of an episode.
    """
    episodes = finished[EPISODES, 0]
    if episodes == 0:
        return {}
    means = finished / episodes
    rows = {"individual_score": SCORE, "social_harm_received": HARM, "punishments": PUNISHMENTS}
    rows |= {f"{entity}_encounters": EVENTS + event for event, entity in enumerate(ENTITIES)}
    rows |= {f"action_freq_{name}": FIRST_ACTION + code for code, name in enumerate(names)}
    result = {}
    for name, row in rows.items():
        for agent, value in enumerate(means[row]):
            result[f"Agent_{agent}/{name}"] = float(value)
        result[f"Total/total_{name}"] = float(means[row].sum())
        result[f"Mean/mean_{name}"] = float(means[row].mean())
    increases, decreases = float(means[INCREASES].sum()), float(means[DECREASES].sum())
    result |= {
        "Global/average_punishment_level": float(means[LEVEL, 0] / turns),
        "Global/current_punishment_level": float(means[LAST_LEVEL, 0]),
        "Global/vote_increase": increases,
        "Global/vote_decrease": decreases,
        "Global/total_votes": increases + decreases,
    }
    for level, (others, a) in enumerate(by_level):
        if others + a > 0:
            result[f"Global/a_rate_level_{level}"] = float(a / (others + a))
    return result
