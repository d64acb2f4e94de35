"""Exact returns where the level is hidden and never changes: one kind on offer, to take or to leave, turn after turn.

Leaving teaches nothing about the level, so this is a bandit with one arm: it is optimal to take until the posterior,
which depends on the number n of takes and k of punishments alone, says to stop for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from envs.state_punishment.rules import FIRST_KIND, NUM_EVENTS, NUM_LEVELS, level_index

if TYPE_CHECKING:
    from envs.state_punishment.environment import StatePunishment


def prior(env: StatePunishment) -> np.ndarray:
    """Probabilities of the level indices at the start of an episode, `[10]`."""
    if env.initial_level is None:
        return np.full(NUM_LEVELS, 1 / NUM_LEVELS)
    return np.eye(NUM_LEVELS)[level_index(env.initial_level)]


def net_values(env: StatePunishment) -> tuple[np.ndarray, np.ndarray]:
    """By level and kind, `[10, 5]` each: the value less the expected punishment, and the chance of a punishment."""
    kinds = slice(FIRST_KIND, NUM_EVENTS - 1)
    return (env.worth - env.magnitude * env.punished)[:, kinds], env.punished[:, kinds]


def backward(
    net: np.ndarray,
    chance: np.ndarray,
    belief: np.ndarray,
    turns: int,
    offer: float = 1.0,
    alternative: np.ndarray | float = 0.0,
    alternative_offer: float = 0.0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Dynamic programming over (turns left t, takes n, punishments k), for t = 1, 2, ..., `turns`.

    Args:
        net, chance: net value and chance of a punishment by level, `[10]` each.
        belief: the prior over levels, `[10]`.
        turns: length of an episode.
        offer: probability that the kind is on offer in a turn.
        alternative: net value of what else can be taken in such a turn by level, `[10]` or the same at all levels.
        alternative_offer: probability that there is anything else in such a turn.

    Yields:
        The expected gain over never taking it, and the value of the information that a take brings, by n and k up to
        the number of turns gone, `[turns - t + 1, turns - t + 1]` each.
    """
    n, k = np.indices((turns + 1, turns + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = belief * chance ** k[..., None] * (1 - chance) ** np.maximum(n - k, 0)[..., None]
        weights /= weights.sum(axis=-1, keepdims=True)
    weights = np.nan_to_num(weights)  # of what cannot happen
    mean, punished, other = (weights @ np.broadcast_to(row, NUM_LEVELS) for row in (net, chance, alternative))
    gain = np.zeros_like(mean)
    for left in range(1, turns + 1):
        gone = slice(turns - left + 1)
        p, later = punished[gone, gone], gain[gone, gone]
        information = p * gain[1:, 1:][gone, gone] + (1 - p) * gain[1:, :-1][gone, gone] - later
        worth, rival = mean[gone, gone] + information, np.maximum(other[gone, gone], 0)
        best = (1 - alternative_offer) * np.maximum(worth, 0) + alternative_offer * np.maximum(worth - rival, 0)
        gain = later + offer * best
        yield gain, information


def bayes_return(net: np.ndarray, chance: np.ndarray, belief: np.ndarray, turns: int) -> float:
    """Best expected return of an agent that sees its punishments and remembers them."""
    *_, (gain, _) = backward(net, chance, belief, turns)
    return float(gain[0, 0])


def memoryless_return(net: np.ndarray, chance: np.ndarray, belief: np.ndarray, turns: int, steps: int = 20) -> float:
    """Best expected return of an agent that knows of its last action only whether it was punished.

    Its policies are two probabilities of taking, after a punishment and else; searched in multiples of `1 / steps`.
    """
    calm, struck = np.indices((steps + 1, steps + 1))[..., None] / steps  # [steps + 1, steps + 1, 1]
    flag, total = np.zeros(NUM_LEVELS), 0.0
    for _ in range(turns):
        takes = (1 - flag) * calm + flag * struck
        total = total + takes * net
        flag = takes * chance
    return float((total @ belief).max())


def expected_best(values: np.ndarray, chances: np.ndarray, size: int) -> float:
    """Mean of the greatest of 0 and the `values` (by kind, `[5]`) of `size` kinds drawn with `chances`."""
    order = np.argsort(values)
    none_above = np.append(0, np.cumsum(chances[order])) ** size
    return float(np.maximum(values[order], 0) @ np.diff(none_above))


def known_returns(env: StatePunishment) -> tuple[float | None, float | None]:
    """Optimal and memoryless return of an agent, None where it is not known.

    They are known for a menu of one arm that is always of the same kind, if the level cannot change, punishments are
    paid at once and nobody can be harmed:
    with a level that is visible or always the same, both are the sum over turns of the positive net values;
    with a hidden random level and visible own punishments the optimal return is `bayes_return` (20 per A, "head", 100
    turns: 287.54) and the memoryless one is `memoryless_return` (97.13, by leaving once after each punishment);
    with neither visible the memoryless return is that of always or never taking (62.5).
    """
    kind, belief, turns = int(env.chances.argmax()), prior(env), env.max_episode_steps
    one_kind = env.board.leaf == "menu" and env.board.size == 1 and env.chances[kind] == 1
    fixed = not env.votes and (env.reset_level or env.initial_level is not None) and env.phased_voting is None
    alone = env.num_agents == 1 or env.harm[FIRST_KIND + kind] == 0
    if not (one_kind and fixed and alone) or env.delayed_punishment:
        return None, None
    net, chance = (table[:, kind] for table in net_values(env))
    if env.scalars.level or env.initial_level is not None:
        known = turns * float(belief @ np.maximum(net, 0))
        return known, known
    if env.scalars.others and env.num_agents > 1:  # the punishments of others tell of the level, too
        return None, None
    if env.scalars.punishment is None:
        return None, turns * max(0.0, float(belief @ net))
    if not env.probabilistic:
        return None, None
    return bayes_return(net, chance, belief, turns), memoryless_return(net, chance, belief, turns)
