"""Differences between tensors in proportion to what they hold, and sequences to compare on."""

import torch
from torch import Generator, Tensor

from rl.memory_check.subject import Inputs
from rl.types import State

BOUND = 1e-3
"""Largest difference of two outputs that are the same but for rounding, in standard deviations of their column."""

FORBIDDEN = -1e8
"""Outputs below this stand for actions that a mask forbids."""


def measure_difference(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two tensors ``[..., P]``, in standard deviations of its column of ``expected``.

    A column that hardly varies counts with a thousandth of its largest number. Where both are forbidden by a mask they
    are equal. Infinite where a number is not finite.
    """
    columns = expected.shape[-1]
    actual, expected = actual.detach().reshape(-1, columns).double(), expected.detach().reshape(-1, columns).double()
    if actual.numel() == 0:
        return 0.0
    masked = (actual < FORBIDDEN) & (expected < FORBIDDEN)
    kept = expected.masked_fill(expected < FORBIDDEN, 0.0)
    scale = kept.std(0, unbiased=False) + 1e-3 * kept.abs().amax(0) + 1e-8
    differences = ((actual - expected).abs() / scale).masked_fill(masked, 0.0)
    return float(torch.nan_to_num(differences, nan=torch.inf, posinf=torch.inf).max())


def measure_state_difference(actual: State, expected: State) -> float:
    """Return the largest difference of two states, leaves ``[N, ...]``, in standard deviations of the whole leaf."""
    if actual.keys() != expected.keys():
        return float("inf")
    pairs = ((actual[name], leaf) for name, leaf in expected.items())
    return max((measure_difference(one.reshape(-1, 1), other.reshape(-1, 1)) for one, other in pairs), default=0.0)


def draw_sequences(samples: Inputs, steps: int, rows: int, generator: Generator) -> Inputs:
    """Draw inputs ``[steps, rows, D]`` from ``samples``, leaves ``[n, D]``, with a little noise.

    The noise, a tenth of a standard deviation, makes every step another one where an environment shows always the
    same.
    """
    count = len(next(iter(samples.values())))
    index = torch.randint(count, (steps, rows), generator=generator)
    drawn = {name: leaf.detach()[index.to(leaf.device)].clone() for name, leaf in samples.items()}
    return add_noise(drawn, 0.1, generator)


def add_noise(leaves: dict[str, Tensor], share: float, generator: Generator) -> dict[str, Tensor]:
    """Add normal noise to leaves of floats, ``share`` of the leaf's own standard deviation, of 1 if it has none."""
    noisy = {}
    for name, leaf in leaves.items():
        if not leaf.is_floating_point() or leaf.numel() == 0:
            noisy[name] = leaf
            continue
        spread = leaf.std(unbiased=False)
        spread = torch.where(spread > 1e-6, spread, torch.ones_like(spread))
        noisy[name] = leaf + share * spread * torch.randn(leaf.shape, generator=generator).to(leaf)
    return noisy


def flatten_steps(inputs: Inputs) -> Inputs:
    """Join the first two axes: ``[T, B, D]`` -> ``[T * B, D]``."""
    return {name: leaf.flatten(0, 1) for name, leaf in inputs.items()}


def take_steps(leaves: dict[str, Tensor], steps: slice) -> dict[str, Tensor]:
    """Return the leaves of some steps."""
    return {name: leaf[steps] for name, leaf in leaves.items()}


def take_rows(leaves: dict[str, Tensor], rows: Tensor, axis: int) -> dict[str, Tensor]:
    """Return the leaves of some rows, which lie on ``axis``."""
    return {name: leaf.index_select(axis, rows.to(leaf.device)) for name, leaf in leaves.items()}
