"""Exact returns where the level is hidden and never changes: one kind on offer, to take or to leave, turn after turn.

Leaving teaches nothing about the level, so this is a bandit with one arm: it is optimal to take until the posterior,
which depends on the number n of takes and k of punishments alone, says to stop for good.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from envs.state_punishment.rules import NUM_LEVELS


def backward(
    net: np.ndarray,
    chance: np.ndarray,
    belief: np.ndarray,
    turns: int,
    offer: float = 1.0,
    alternative: np.ndarray | float = 0.0,
    alternative_offer: float = 0.0,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run the dynamic programme over (turns left t, takes n, punishments k), for t = 1, 2, ..., ``turns``.

    Args:
        net: net value of taking the kind by level, ``[10]``.
        chance: chance of a punishment by level, ``[10]``.
        belief: the prior over levels, ``[10]``.
        turns: length of an episode.
        offer: probability that the kind is on offer in a turn.
        alternative: net value of what else can be taken in such a turn by level, ``[10]`` or the same at all levels.
        alternative_offer: probability that there is anything else in such a turn.

    Yields:
        The expected gain over never taking it, and the value of the information that a take brings, by n and k up to
        the number of turns gone, ``[turns - t + 1, turns - t + 1]`` each.
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
    """Return the best expected return of an agent that sees its punishments and remembers them.

    Args:
        net: net value of taking the kind by level, ``[10]``.
        chance: chance of a punishment by level, ``[10]``.
        belief: the prior over levels, ``[10]``.
        turns: length of an episode.
    """
    *_, (gain, _) = backward(net, chance, belief, turns)
    return float(gain[0, 0])


def memoryless_return(net: np.ndarray, chance: np.ndarray, belief: np.ndarray, turns: int, steps: int = 20) -> float:
    """Return the best expected return of an agent that knows of its last action only whether it was punished.

    Its policies are two probabilities of taking, after a punishment and else.

    Args:
        net: net value of taking the kind by level, ``[10]``.
        chance: chance of a punishment by level, ``[10]``.
        belief: the prior over levels, ``[10]``.
        turns: length of an episode.
        steps: the probabilities are searched in multiples of ``1 / steps``.
    """
    calm, struck = np.indices((steps + 1, steps + 1))[..., None] / steps  # [steps + 1, steps + 1, 1]
    flag, total = np.zeros(NUM_LEVELS), np.zeros(NUM_LEVELS)
    for _ in range(turns):
        takes = (1 - flag) * calm + flag * struck
        total = total + takes * net
        flag = takes * chance
    return float((total @ belief).max())


def expected_best(values: np.ndarray, chances: np.ndarray, size: int) -> float:
    """Return the mean of the greatest of 0 and the values of ``size`` kinds that are drawn.

    Args:
        values: by kind, ``[5]``.
        chances: of each kind to be drawn, ``[5]``.
        size: the number of draws.
    """
    order = np.argsort(values)
    none_above = np.append(0, np.cumsum(chances[order])) ** size
    return float(np.maximum(values[order], 0) @ np.diff(none_above))


def known_returns(
    net: np.ndarray,
    chance: np.ndarray,
    belief: np.ndarray,
    turns: int,
    *,
    level_known: bool,
    punishment_visible: bool,
    others_visible: bool,
    probabilistic: bool,
) -> tuple[float | None, float | None]:
    """Return the optimal and the memoryless return of the bandit with one arm, each None where it is not known.

    With a level that is visible or always the same, both are the sum over turns of the positive net values.
    With a hidden random level and visible own punishments the optimal return is ``bayes_return`` (20 per A, "head", 100
    turns: 287.54) and the memoryless one is ``memoryless_return`` (97.13, by leaving once after each punishment).
    With neither visible the memoryless return is that of always or never taking (62.5).

    Args:
        net: net value of taking the kind by level, ``[10]``.
        chance: chance of a punishment by level, ``[10]``.
        belief: the prior over levels, ``[10]``.
        turns: length of an episode.
        level_known: the level is observed, or always the same.
        punishment_visible: agents observe whether they were punished.
        others_visible: agents observe whether others were punished, which tells of the level, too.
        probabilistic: a punishment is paid with its chance; else its expectation is paid every time.
    """
    if level_known:
        known = turns * float(belief @ np.maximum(net, 0))
        return known, known
    if others_visible:
        return None, None
    if not punishment_visible:
        return None, turns * max(0.0, float(belief @ net))
    if not probabilistic:
        return None, None
    return bayes_return(net, chance, belief, turns), memoryless_return(net, chance, belief, turns)
