"""Live diagnostics: what the memory of a network does, measured on a few sequences of what it learns from.

All functions return tensors, so nothing waits for the device until ``read_numbers``.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rl.networks.encoders import Encoder
from rl.types import Core, GatedCore, State

LAGS = (1, 8, 32)
"""How many steps back the gradient is looked for."""

NAMES = (
    *("state_staleness", "hidden_norm", "gate_saturation", "dead_features"),
    *(f"gradient_share_older_than_{lag}" for lag in LAGS),
)
"""What is measured here, by metric name."""

SHUT, OPEN = 0.05, 0.95
"""A gate outside these is saturated."""

DEAD = 0.01
"""A feature is dead if its standard deviation is below this; those of ``auto`` lie within +-1."""


class MemoryInputs(NamedTuple):
    """What a memory is measured on: N sequences of L steps.

    Attributes:
        features: ``[L, N, D]``, the inputs of the core.
        state: before the first step, leaves ``[N, ...]``.
        starts: ``[L, N]`` bool on the CPU.
    """

    features: Tensor
    state: State
    starts: Tensor


def count_history(starts: Tensor) -> Tensor:
    """Count for each step the steps of its own episode before it, of those that are there.

    Args:
        starts: ``[T, B]`` bool.

    Returns:
        ``[T, B]`` int64.
    """
    step = torch.arange(len(starts), device=starts.device).unsqueeze(1)  # [T, 1]
    return step - torch.where(starts, step, 0).cummax(dim=0).values


def measure_memory(
    core: Core, given: MemoryInputs, loss: Callable[[Tensor], Tensor], longest: int, counts: Tensor | None = None
) -> dict[str, Tensor]:
    """Measure how large the outputs of a memory are, and from how far back its gradient comes.

    Of each sequence one step t counts, the one with the most steps of its own episode before it in the sequence. With
    g_j = |d loss_t / d features_{t-j}|, where loss_t is what the loss has of the outputs of the memory at step t alone,
    ``gradient_share_older_than_k`` is the sum of g_j over j > k, divided by the sum over all j: the share of the
    gradient that comes from more than k steps back. Both sums run over all sequences in which t has more than k such
    steps before it.

    Where episodes have more than k steps but sequences have not, nothing comes from there: the share is 0. Where
    episodes have not, or too few of these sequences show it, there is no such share.

    Args:
        core: the memory.
        given: the sequences.
        loss: of outputs ``[L, N, H]``, 0-d.
        longest: the longest history known of an episode, in steps.
        counts: ``[L, N]`` bool on the CPU, the steps that may be chosen; None for all.

    Returns:
        By metric name: ``hidden_norm``, the mean over all steps of the norm of the outputs ``[H]``, and the shares.
    """
    with torch.enable_grad():
        features = given.features.detach().requires_grad_()
        starts = given.starts.to(features.device, non_blocking=True)
        outputs, _ = core.unroll(features, given.state, starts)  # [L, N, H]
        result = {"hidden_norm": torch.linalg.vector_norm(outputs.detach(), dim=-1).mean()}
        at_outputs = outputs.detach().requires_grad_()
        (by_outputs,) = torch.autograd.grad(loss(at_outputs), at_outputs)
        history = count_history(given.starts)  # [L, N]
        if counts is not None:
            history = history.masked_fill(~counts, -1)
        most, chosen = history.max(dim=0)  # each [N]
        lag = chosen - torch.arange(len(history)).unsqueeze(1)  # [L, N]
        device = features.device
        by_outputs = by_outputs * (lag == 0).to(device, non_blocking=True).unsqueeze(-1)
        by_features = torch.zeros_like(features)
        if outputs.requires_grad:  # a core may make nothing of its inputs: that is no reason to end a training
            (by_features,) = torch.autograd.grad(outputs, features, by_outputs, materialize_grads=True)
    norms = torch.linalg.vector_norm(by_features.detach(), dim=-1)  # [L, N]; 0 after the chosen step
    for k in LAGS:
        reach = most > k  # [N]
        if reach.any():
            all_of_it, older = torch.stack([reach.expand_as(lag), reach & (lag > k)]).to(device, non_blocking=True)
            result[f"gradient_share_older_than_{k}"] = (norms * older).sum() / (norms * all_of_it).sum()
        elif len(history) <= k + 1 and longest > k:
            result[f"gradient_share_older_than_{k}"] = norms.new_zeros(())
    return result


def measure_gates(core: Core, features: Tensor, state: State, starts: Tensor) -> dict[str, Tensor]:
    """Measure the share of gates that are below .05 or above .95 in single steps.

    Args:
        core: the memory.
        features: ``[B, D]``.
        state: leaves ``[B, ...]``.
        starts: ``[B]`` bool on the device.

    Returns:
        ``gate_saturation``; nothing for a core without gates.
    """
    if not isinstance(core, GatedCore):
        return {}
    with torch.no_grad():
        gates = core.gates(features, state, starts)
    saturated = (gates < SHUT) | (gates > OPEN)
    return {"gate_saturation": saturated.float().mean()} if gates.numel() else {}


def measure_dead_features(encoder: Encoder, features: Tensor) -> dict[str, Tensor]:
    """Measure the share of the features ``[..., D]`` of an encoder that hardly vary.

    Returns:
        ``dead_features``; nothing for an encoder without layers, which hides nothing.
    """
    if not encoder.computes:
        return {}
    spread = features.detach().flatten(0, -2).std(dim=0, unbiased=False)  # [D]
    return {"dead_features": (spread < DEAD).float().mean()}


class Difference:
    """The relative difference of states, |used - right| / |right| over all their numbers but counts."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []  # squared: [difference, size] of each leaf

    def add(self, used: State, right: State, counts: Tensor) -> None:
        """Add states with leaves ``[B, ...]``, of the rows where ``counts [B]``."""
        for name, leaf in right.items():
            if leaf.is_floating_point():
                pair = torch.stack([used[name] - leaf, leaf])
                squares = pair.square().view(2, len(leaf), -1).sum(-1)  # [2, B]
                self.parts.append((squares * counts).sum(-1))

    def compute(self) -> dict[str, Tensor]:
        """Return ``state_staleness``; nothing if nothing was added."""
        if not self.parts:
            return {}
        difference, size = torch.stack(self.parts).sum(0)
        return {"state_staleness": (difference / size).sqrt()}


def read_numbers(found: dict[str, Tensor]) -> dict[str, float]:
    """Read 0-d tensors in one transfer to the host; what could not be measured, 0 / 0, is left out."""
    numbers = torch.stack(list(found.values())).tolist() if found else []
    return {name: number for name, number in zip(found, numbers, strict=True) if math.isfinite(number)}
