"""Measures "repeat the last action" on a recording: the rival of every network that sees its last action."""

from collections.abc import Sequence

import numpy as np


def repeat_nll(
    actions: np.ndarray, starts: np.ndarray, fit: np.ndarray, test: np.ndarray, sizes: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the losses of two rules that are fitted to some steps and judged on others.

    A loss is a negative log-likelihood in nats, of each column of the actions.

    Of integers: the marginal rule knows how often each value occurs (counts plus one); the repeat rule takes the last
    value with a probability k and the marginal otherwise, p(a | b) = k [a = b] + (1 - k) m(a), with the k of greatest
    likelihood. Of real numbers: normal distributions around the mean and around the last value.

    Args:
        actions: ``[N, columns]``.
        starts: bool ``[N]``: an episode begins, so there is no last action; both rules are then the marginal one.
        fit: step numbers ``[n]`` to fit to.
        test: step numbers ``[m]`` to judge.
        sizes: number of values of each column; None for real numbers.

    Returns:
        Those of the repeat rule and those of the marginal rule, each ``[m, columns]``.
    """
    if sizes is None:
        columns = [_repeat_numbers(column, starts, fit, test) for column in actions.T]
    else:
        columns = [
            _repeat_integers(column, starts, fit, test, size) for column, size in zip(actions.T, sizes, strict=True)
        ]
    repeat, marginal = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    return repeat, marginal


def find_changes(actions: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Find where an action ``[N, columns]`` differs from the last one of its episode, bool ``[N]``."""
    return (actions != np.roll(actions, 1, axis=0)).any(axis=1) & ~starts


def fit_repeat_probability(same: np.ndarray, marginal: np.ndarray, rounds: int = 200) -> float:
    """Find the k of greatest likelihood of p = k [same] + (1 - k) m, by expectation maximisation.

    One success and one failure are added, so that neither a repeat nor a change is ever impossible.

    Args:
        same: bool ``[n]``: the value was repeated.
        marginal: ``[n]``, the marginal probability of the value.
        rounds: of the maximisation.
    """
    k = 0.5
    for _ in range(rounds):
        k = float((np.where(same, k / (k + (1 - k) * marginal), 0.0).sum() + 1) / (len(same) + 2))
    return k


def _repeat_integers(
    column: np.ndarray, starts: np.ndarray, fit: np.ndarray, test: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the losses ``[m]`` of both rules on a column of integers."""
    counts = np.bincount(column[fit], minlength=size) + 1
    marginal = (counts / counts.sum())[column]  # [N]
    same = column == np.roll(column, 1)  # of no meaning where an episode begins
    later = fit[~starts[fit]]
    k = fit_repeat_probability(same[later], marginal[later])
    p = np.where(starts, marginal, k * same + (1 - k) * marginal)
    return -np.log(p[test]), -np.log(marginal[test])


def _repeat_numbers(
    column: np.ndarray, starts: np.ndarray, fit: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the losses ``[m]`` of both rules on a column of real numbers."""
    column = column.astype(np.float64)
    step = column - np.roll(column, 1)
    later = fit[~starts[fit]]

    def normal_nll(error: np.ndarray, std: float) -> np.ndarray:
        return 0.5 * (error / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi)

    marginal = normal_nll(column - column[fit].mean(), max(float(column[fit].std()), 1e-3))
    spread = max(float(np.sqrt((step[later] ** 2).mean())), 1e-3) if len(later) else 1.0
    return np.where(starts, marginal, normal_nll(step, spread))[test], marginal[test]
