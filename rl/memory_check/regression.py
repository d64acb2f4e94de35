"""Small regressions for a probe: fitted on some episodes, stopped early on others, scored on those that are left."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

WIDTH, STEPS, BATCH, EVERY, PATIENCE = 64, 500, 512, 50, 250
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-4
LARGEST_INPUT = 5.0  # in standard deviations


class Regression:
    """A perceptron with two hidden layers that predicts a number for the action that was taken.

    It begins at zero, so that where nothing can be learned, nothing is added to what was predicted without it.

    Args:
        features: float32 ``[N, F]``.
        branches: numbers of choices of a discrete action; each has an output of its own. Empty for one output.
        chosen: int64 ``[N, branches]``, which choices were taken.
        seed: of the weights and of the order of samples.
    """

    def __init__(self, features: Tensor, branches: Sequence[int], chosen: Tensor, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        begins = torch.tensor([0, *np.cumsum(branches)[:-1]])
        self.chosen = chosen + begins if branches else torch.zeros(len(features), 1, dtype=torch.int64)
        self.features = features
        sizes = (features.shape[1], WIDTH, WIDTH)
        self.weights = []
        for inputs, outputs in pairwise(sizes):
            weight = torch.randn(inputs, outputs, generator=self.generator) * (2 / max(inputs, 1)) ** 0.5
            self.weights += [weight, torch.zeros(outputs)]
        self.weights += [torch.zeros(WIDTH, sum(branches) or 1), torch.zeros(sum(branches) or 1)]

    def predict(self, weights: Sequence[Tensor], rows: Tensor | slice) -> Tensor:
        """Return the predictions for some samples, ``[n]``."""
        return self._predict(weights, self.features[rows], self.chosen[rows])

    def _predict(self, weights: Sequence[Tensor], hidden: Tensor, chosen: Tensor) -> Tensor:
        for layer in (0, 2):
            hidden = torch.relu(torch.addmm(weights[layer + 1], hidden, weights[layer]))
        outputs = torch.addmm(weights[5], hidden, weights[4])
        return outputs.gather(1, chosen).sum(1)

    def fit(self, targets: Tensor, fitted: Tensor, held: Tensor) -> tuple[Tensor, float]:
        """Fit, and keep the weights that predict best what is held out.

        Args:
            targets: ``[N]``, around zero.
            fitted: indices of the samples to learn from.
            held: indices of the samples that say when to stop.

        Returns:
            Predictions for all samples, ``[N]``, and the mean squared error on those held out.
        """
        weights = [weight.requires_grad_() for weight in self.weights]
        best = targets[held].square().mean().item()
        kept: list[Tensor] | None = None
        improved = 0
        order = fitted[torch.randperm(len(fitted), generator=self.generator)]  # once: slices are faster than picking
        columns = self.features[order], self.chosen[order], targets[order]
        begins = range(0, max(1, len(order) - BATCH + 1), BATCH)
        with torch.enable_grad():
            optimizer = torch.optim.AdamW(weights, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
            for step in range(1, STEPS + 1):
                begin = begins[step % len(begins)]
                features, chosen, wanted = (column[begin : begin + BATCH] for column in columns)
                loss = (self._predict(weights, features, chosen) - wanted).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / (STEPS + 1))
                if step % EVERY == 0:
                    with torch.no_grad():
                        error = (self.predict(weights, held) - targets[held]).square().mean().item()
                    if error < best:
                        best, kept, improved = error, [weight.detach().clone() for weight in weights], step
                    if step - improved >= PATIENCE:
                        break
        with torch.no_grad():
            return (torch.zeros(len(targets)) if kept is None else self.predict(kept, slice(None))), best


def standardise(features: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Shift and scale columns to mean 0 and standard deviation 1 over the samples to learn from; leave out constants.

    Args:
        features: float32 ``[N, F]``.
        fitted: indices of the samples to learn from.
    """
    deviation = features[fitted].std(axis=0)
    varies = deviation > 1e-8
    scaled = (features[:, varies] - features[fitted][:, varies].mean(axis=0)) / deviation[varies]
    return np.clip(scaled, -LARGEST_INPUT, LARGEST_INPUT, dtype=np.float32)


def compress(features: np.ndarray, fitted: np.ndarray, most: int) -> np.ndarray:
    """Return at most ``most`` principal components of features ``[N, F]``, as many as there are if F is small."""
    if features.shape[1] <= most:
        return features
    centred = torch.from_numpy(features - features[fitted].mean(axis=0))
    sample = centred[fitted[:: max(1, len(fitted) // 4000)]]
    _, vectors = torch.linalg.eigh(sample.T @ sample)
    return (centred @ vectors[:, -most:]).numpy()
