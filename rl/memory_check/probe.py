"""The memoryless probe: can what is paid be predicted from the present alone, or does the past tell more?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rl.memory_check.history import Steps
from rl.memory_check.regression import Regression, compress, standardise

MOST_SAMPLES = 20_000
MOST_LAGGED = 24  # numbers of an observation of the past
FEWEST_EPISODES, PIECE = 60, 100  # below so many, pieces of so many steps stand for episodes
FITTED, HELD = 0.5, 0.15  # shares of the episodes; the rest is scored
RESAMPLES = 200


class Scores(NamedTuple):
    """How well a number is predicted, as shares of its variance in episodes that nothing was fitted on.

    Attributes:
        clock: from the action and the step of the episode alone.
        present: from the present observation, too.
        history: from what came before in the episode, too.
        present_gain: ``present - clock``.
        present_error: its standard error.
        history_gain: ``history - present``.
        history_error: its standard error.
        source: which part of the past helped most; empty if none did.
        occasions: about how many episodes the variance comes from.
    """

    clock: float
    present: float
    history: float
    present_gain: float
    present_error: float
    history_gain: float
    history_error: float
    source: str
    occasions: float


class Split(NamedTuple):
    """Indices of samples: to fit, to stop at, to score; and the block of episodes of each sample."""

    fitted: np.ndarray
    held: np.ndarray
    scored: np.ndarray
    block: np.ndarray


def split_samples(steps: Steps, at: np.ndarray, rng: np.random.Generator) -> Split:
    """Split samples by episodes, or by pieces of them where there are few.

    Args:
        steps: all that were played.
        at: indices of the samples among them, ``[n]``.
        rng: draws which episodes go where.
    """
    episode = steps.episode[at]
    if len(np.unique(episode)) < FEWEST_EPISODES:
        episode = episode * (steps.time.max() // PIECE + 1) + steps.time[at] // PIECE
    _, block = np.unique(episode, return_inverse=True)
    place = rng.permutation(block.max() + 1)[block] / (block.max() + 1)
    parts = place < FITTED, (place >= FITTED) & (place < FITTED + HELD), place >= FITTED + HELD
    fitted, held, scored = (np.flatnonzero(part) for part in parts)
    return Split(fitted, held, scored, block)


def score_predictions(
    steps: Steps, targets: np.ndarray, known: np.ndarray, branches: Sequence[int], seed: int
) -> Scores | None:
    """Predict a number of each step from the clock, from the present and from the past.

    Each prediction is added to the one before, so that it cannot be worse by much.

    Args:
        steps: what was played.
        targets: the number, ``[N]``.
        known: where it is, bool ``[N]``.
        branches: see ``Regression``.
        seed: of the split and the regressions.

    Returns:
        The scores; None where there is nothing to predict.
    """
    rng = np.random.default_rng(seed)
    at = np.flatnonzero(known)
    if len(at) > MOST_SAMPLES:
        begin = rng.integers(len(at) - MOST_SAMPLES + 1)
        at = at[begin : begin + MOST_SAMPLES]
    if len(at) < 10:
        return None
    split = split_samples(steps, at, rng)
    wanted = targets[at]
    if min(map(len, split[:3])) < 2 or not (wanted[split.fitted].std() > 1e-7 * (1 + np.abs(wanted).max())):
        return None
    wanted = (wanted - wanted[split.fitted].mean()) / wanted[split.fitted].std()
    target = torch.from_numpy(wanted.astype(np.float32))
    chosen = torch.from_numpy(steps.chosen[at])
    fitted, held = torch.from_numpy(split.fitted), torch.from_numpy(split.held)

    def fit(features: np.ndarray, rest: torch.Tensor) -> tuple[torch.Tensor, float]:
        scaled = torch.from_numpy(standardise(features, split.fitted))
        return Regression(scaled, branches, chosen, seed).fit(rest, fitted, held)

    clock = np.concatenate([steps.clock(at), steps.actions[at]], axis=1)
    by_clock, _ = fit(clock, target)
    present = np.concatenate([clock, steps.obs[at]], axis=1)
    by_present = by_clock + fit(present, target - by_clock)[0]
    short = compress(steps.obs, at[split.fitted], MOST_LAGGED)
    seen = np.concatenate([clock, compress(steps.obs[at], split.fitted, 4 * MOST_LAGGED)], axis=1)
    rest = target - by_present
    by_history, least, source = by_present, rest[held].square().mean().item(), ""
    for name, past in steps.past(short, at).items():
        found, error = fit(np.concatenate([seen, past], axis=1), rest)
        if error < least:
            by_history, least, source = by_present + found, error, name
    errors = [(target - guess).square().numpy().astype(np.float64) for guess in (by_clock, by_present, by_history)]
    return compare([wanted**2, *errors], split, source, rng)


def compare(errors: Sequence[np.ndarray], split: Split, source: str, rng: np.random.Generator) -> Scores:
    """Compare squared errors ``[n]`` on the episodes to score, with standard errors by resampling episodes.

    Args:
        errors: of the mean, the clock, the present and the history.
        split: which samples count, and their episodes.
        source: see ``Scores``.
        rng: draws the episodes.
    """
    _, block = np.unique(split.block[split.scored], return_inverse=True)
    sums = np.stack([np.bincount(block, error[split.scored]) for error in errors])  # [4, episodes]
    draws = rng.integers(sums.shape[1], size=(RESAMPLES, sums.shape[1]))
    drawn = sums[:, draws].sum(axis=2)  # [4, RESAMPLES]
    shares, total = 1 - drawn[1:] / np.maximum(drawn[0], 1e-12), sums.sum(axis=1)
    clock, present, history = (float(share) for share in 1 - total[1:] / max(total[0], 1e-12))
    gains = np.diff(shares, axis=0).std(axis=1)
    occasions = total[0] ** 2 / max((sums[0] ** 2).sum(), 1e-12)
    return Scores(
        clock,
        present,
        history,
        present - clock,
        float(gains[0]),
        history - present,
        float(gains[1]),
        source,
        float(occasions),
    )
