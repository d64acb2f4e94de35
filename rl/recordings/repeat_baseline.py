"""What "repeat the last action" is worth on a recording: the rival of every network that sees its last action."""

from collections.abc import Sequence

import numpy as np


def repeat_nll(
    actions: np.ndarray, begins: np.ndarray, fit: np.ndarray, test: np.ndarray, sizes: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Negative log-likelihoods in nats of two rules fitted to some steps, for each column of the actions of others.

    Of integers: the marginal rule knows how often each value occurs (counts plus one); the repeat rule takes the last
    value with a probability k and the marginal otherwise, p(a | b) = k [a = b] + (1 - k) m(a), with the k of greatest
    likelihood. Of real numbers: normal distributions around the mean and around the last value.

    Args:
        actions: ``[N, columns]``.
        begins: bool ``[N]``: an episode begins, so there is no last action; both rules are then the marginal one.
        fit, test: step numbers ``[n]`` to fit to, and to judge.
        sizes: number of values of each column; None for real numbers.

    Returns:
        Those of the repeat rule and those of the marginal rule, each ``[len(test), columns]``.
    """
    rule = _repeat_numbers if sizes is None else _repeat_integers
    columns = [
        rule(actions[:, column], begins, fit, test, None if sizes is None else sizes[column])
        for column in range(actions.shape[1])
    ]
    repeat, marginal = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    return repeat, marginal


def changes(actions: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Where an action ``[N, columns]`` differs from the last one of its episode, bool ``[N]``."""
    return (actions != np.roll(actions, 1, axis=0)).any(axis=1) & ~begins


def keep_probability(same: np.ndarray, marginal: np.ndarray, rounds: int = 200) -> float:
    """The k of greatest likelihood of p = k [same] + (1 - k) m, by expectation maximisation (one success and one
    failure are added, so that neither a repeat nor a change is ever impossible).

    Args:
        same: bool ``[n]``: the value was repeated.
        marginal: ``[n]``, the marginal probability of the value.
    """
    k = 0.5
    for _ in range(rounds):
        k = float((np.where(same, k / (k + (1 - k) * marginal), 0.0).sum() + 1) / (len(same) + 2))
    return k


def _repeat_integers(
    column: np.ndarray, begins: np.ndarray, fit: np.ndarray, test: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(column[fit], minlength=size) + 1
    marginal = (counts / counts.sum())[column]  # [N]
    same = column == np.roll(column, 1)  # of no meaning where an episode begins
    later = fit[~begins[fit]]
    k = keep_probability(same[later], marginal[later])
    p = np.where(begins, marginal, k * same + (1 - k) * marginal)
    return -np.log(p[test]), -np.log(marginal[test])


def _repeat_numbers(
    column: np.ndarray, begins: np.ndarray, fit: np.ndarray, test: np.ndarray, _: None
) -> tuple[np.ndarray, np.ndarray]:
    column = column.astype(np.float64)
    step = column - np.roll(column, 1)
    later = fit[~begins[fit]]

    def nll(error: np.ndarray, std: float) -> np.ndarray:
        return 0.5 * (error / std) ** 2 + np.log(std) + 0.5 * np.log(2 * np.pi)

    marginal = nll(column - column[fit].mean(), max(float(column[fit].std()), 1e-3))
    spread = max(float(np.sqrt((step[later] ** 2).mean())), 1e-3) if len(later) else 1.0
    return np.where(begins, marginal, nll(step, spread))[test], marginal[test]
