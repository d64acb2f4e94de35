"""How long a fresh memory with gates remembers: the one place where ``memory_span`` becomes the bias of a gate."""

import inspect
from collections.abc import Callable
from functools import partial
from math import log

import torch
from torch import Tensor

from rl.checks import within
from rl.types import Core

SHORTEST = 2.0
"""The shortest memory span in steps: such a memory halves in every step, as one whose gates have no bias."""


def check_span(memory_span: float | None) -> None:
    """Check a memory span.

    Raises:
        ValueError: it is shorter than ``SHORTEST``.
    """
    if memory_span is not None:
        within(SHORTEST, float("inf"), memory_span=memory_span)


def keep_biases(hidden_size: int, memory_span: float | None, given: float | None, usual: float) -> Tensor:
    """Choose the biases of gates that keep a memory: spread, so that units last from 2 up to ``memory_span`` steps.

    A gate of bias log(s - 1) keeps 1 - 1/s of its unit in each step, which so lasts about s steps (Tallec and Ollivier,
    2018, "Can recurrent neural networks warp time?"). Here the biases are spread evenly, not s: half of the units are
    then quick, where slow ones would be in the way of whatever changes every few steps.

    Args:
        hidden_size: H, the number of units.
        memory_span: in steps; None for one bias in all units.
        given: that bias, whatever the span; None for the usual one.
        usual: that bias where nothing is given.

    Returns:
        ``[H]``, ascending from 0 where they are spread.

    Raises:
        ValueError: the span is shorter than ``SHORTEST``.
    """
    check_span(memory_span)
    if given is None and memory_span is not None:
        return torch.linspace(0.0, log(memory_span - 1.0), hidden_size)
    return torch.full((hidden_size,), usual if given is None else given)


def window_of(window_size: int | None, memory_span: float | None, usual: int) -> int:
    """Choose the steps that attention sees: what is given, else the memory span, else the usual number."""
    check_span(memory_span)
    if window_size is not None:
        return window_size
    return usual if memory_span is None else round(memory_span)


def with_memory_span(core: Callable[..., Core], memory_span: float | None, default: int) -> Callable[..., Core]:
    """Hand a memory span to a constructor of cores that takes one and was not given another.

    A core with a span of its own, or with a ``window_size``, gets only one that was asked for. Each step of a window is
    stored, so it gets no more than ``default``; a ``window_size`` may be larger.

    Args:
        core: ``core(input_size) -> Core``.
        memory_span: in steps; None for ``default``, or the shortest if that is longer.
        default: length in steps of the sequences that are learned from.

    Raises:
        ValueError: the span is shorter than ``SHORTEST``.
    """
    check_span(memory_span)
    parameters, sequence = inspect.signature(core).parameters, max(SHORTEST, default)
    given = isinstance(core, partial) and core.keywords.get("memory_span") is not None
    if "memory_span" not in parameters or given:
        return core
    windowed = "window_size" in parameters
    if memory_span is None:
        has_own = windowed or parameters["memory_span"].default is not None
        return core if has_own else partial(core, memory_span=sequence)
    return partial(core, memory_span=min(memory_span, sequence) if windowed else memory_span)
