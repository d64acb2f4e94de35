"""The game's metrics: what is counted in every step, and the tags under which it is reported."""

from __future__ import annotations

import numpy as np

from envs.state_punishment.rules import FIRST_KIND, KINDS, NUM_LEVELS

# Sums over an episode by agent, one row each in a tally `[rows, R]`; the level is a world's, repeated for its agents.
SCORE, HARM, PUNISHMENTS, LEVEL, LAST_LEVEL, INCREASES, DECREASES, EPISODES, EVENTS = range(9)
ENTITIES = ("emptyentity", "wall", *KINDS)  # what an event is called; NOTHING, the last event, has no name
FIRST_ACTION = EVENTS + len(ENTITIES) + 1


def empty_tally(num_actions: int, num_rows: int) -> np.ndarray:
    """A tally of `num_rows` agents with nothing in it."""
    return np.zeros((FIRST_ACTION + num_actions, num_rows))


def count_events(tally: np.ndarray, events: np.ndarray, codes: np.ndarray) -> None:
    """Adds one event and one action code for each agent, in place."""
    rows = np.arange(len(events))
    flat = tally.ravel()
    flat[(EVENTS + events) * len(rows) + rows] += 1
    flat[(FIRST_ACTION + codes) * len(rows) + rows] += 1


def count_by_level(by_level: np.ndarray, levels: np.ndarray, events: np.ndarray) -> None:
    """Adds the resources that were met at each level to `[10, 2]` (others, kind A), in place."""
    met = (events >= FIRST_KIND) & (events < FIRST_KIND + len(KINDS))
    places = levels[met] * 2 + (events[met] == FIRST_KIND)
    by_level += np.bincount(places, minlength=2 * NUM_LEVELS).reshape(NUM_LEVELS, 2)


def tags(finished: np.ndarray, by_level: np.ndarray, names: tuple[str, ...], turns: int) -> dict[str, float]:
    """The metrics of finished episodes `[rows, N]` by tag; see `StatePunishment.drain_statistics`."""
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
