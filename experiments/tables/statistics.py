"""Statistics of runs that differ in their seed: interquartile means with bootstrap intervals, profiles, comparisons.

As Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice" (2021), have them. Scores are
given as one array ``[runs, ...]`` for each task; a bootstrap draws runs within each task (it is stratified).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Of the intervals."""

FEWEST = 3
"""Runs of a task from which on an interval says anything."""

RESAMPLES = 10_000
RESAMPLES_OF_CURVES = 2_000
LARGEST = 4_000_000  # numbers that are drawn at a time

Statistic = Callable[[list[np.ndarray]], np.ndarray]
"""Takes ``[R, runs, ...]`` for each task, R draws of its runs; returns ``[R, ...]``."""


@dataclass(frozen=True)
class Estimate:
    """A statistic of some runs, and the interval that it lies in.

    Attributes:
        value: float64 ``[...]``, of the runs as they are.
        low: float64 ``[...]``, the lower end of the interval; None where a task has fewer than ``FEWEST`` runs.
        high: float64 ``[...]``, the upper end.
    """

    value: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def to_numbers(self) -> dict[str, float | None]:
        """Return value and interval of a single number, for a JSON file."""
        ends = {"low": self.low, "high": self.high}
        return {"value": float(self.value)} | {key: None if end is None else float(end) for key, end in ends.items()}


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Return the mean without the lowest and the highest quarter, each rounded down to whole runs.

    Of fewer than four runs it is the mean, of ten that of the six in the middle; with a NaN among them it is NaN.

    Args:
        values: ``[runs, ...]``.
        axis: that of the runs.
    """
    ordered = np.sort(values, axis=axis)
    count = ordered.shape[axis]
    middle = np.take(ordered, range(count // 4, count - count // 4), axis=axis).mean(axis=axis)
    return np.where(np.isnan(np.take(ordered, -1, axis=axis)), np.nan, middle)  # a NaN is sorted to the end


def estimate(tasks: Sequence[np.ndarray], statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return a statistic with its percentile bootstrap interval.

    Args:
        tasks: the scores ``[runs, ...]`` of each task; their trailing axes are equal.
        statistic: what is to be known of them.
        resamples: so many draws; the runs of a task are drawn with replacement among themselves.
        seed: of the draws.
    """
    scores = [np.asarray(task, dtype=np.float64) for task in tasks]
    value = statistic([task[None] for task in scores])[0]
    if min(len(task) for task in scores) < FEWEST:
        return Estimate(value)
    rng = np.random.default_rng(seed)
    size = max(1, LARGEST // sum(task.size for task in scores))  # draws at a time
    drawn = []
    for begin in range(0, resamples, size):
        shape = min(size, resamples - begin)
        drawn.append(statistic([task[rng.integers(len(task), size=(shape, len(task)))] for task in scores]))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.concatenate(drawn), (tail, 1 - tail), axis=0)
    return Estimate(value, low, high)


def estimate_iqm(tasks: Sequence[np.ndarray], resamples: int = RESAMPLES) -> Estimate:
    """Return the interquartile mean of all runs of all tasks, with its interval.

    Args:
        tasks: the scores ``[runs, ...]`` of each task, on one scale if there are several.
        resamples: see ``estimate``.
    """
    return estimate(tasks, lambda drawn: interquartile_mean(np.concatenate(drawn, axis=1), axis=1), resamples)


def estimate_profile(tasks: Sequence[np.ndarray], levels: np.ndarray) -> Estimate:
    """Return a performance profile: the share of runs, averaged over tasks, whose score lies above each level.

    Args:
        tasks: the scores ``[runs]`` of each task.
        levels: ``[levels]``.

    Returns:
        Shares and interval ``[levels]``.
    """

    def share(drawn: list[np.ndarray]) -> np.ndarray:
        return np.mean([above.mean(axis=1) for above in drawn], axis=0)

    return estimate([np.asarray(task)[:, None] > levels for task in tasks], share, RESAMPLES_OF_CURVES)


def estimate_improvement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate:
    """Return the probability of improvement: that a run of ours scores higher than one of theirs on the same task.

    Ties count as a half. It is averaged over tasks.

    Args:
        ours: the scores ``[runs]`` of each task.
        theirs: those of the other, in the same order of tasks.
    """
    count = len(ours)

    def share(drawn: list[np.ndarray]) -> np.ndarray:
        parts = []
        for mine, other in zip(drawn[:count], drawn[count:], strict=True):
            difference = mine[:, :, None] - other[:, None, :]  # [R, runs of ours, runs of theirs]
            parts.append(((difference > 0) + 0.5 * (difference == 0)).mean(axis=(1, 2)))
        return np.mean(parts, axis=0)

    return estimate([*ours, *theirs], share, RESAMPLES_OF_CURVES)


def normalise(score: np.ndarray | float, low: float, high: float) -> np.ndarray:
    """Return scores on the scale on which ``low`` is 0 and ``high`` 1."""
    return (np.asarray(score, dtype=np.float64) - low) / (high - low)
