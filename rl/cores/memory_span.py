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

SLOWEST = 1000.0
"""Steps that the slowest channels of a fresh state space remember, unless others are given."""

WINDOW = 32
"""Steps that attention sees, unless others are given."""


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


def window_of(window_size: int | None, memory_span: float | None) -> int:
    """Choose the steps that attention sees: what is given, else the memory span, else the usual number."""
    check_span(memory_span)
    if window_size is not None:
        return window_size
    return WINDOW if memory_span is None else round(memory_span)


def with_memory_span(core: Callable[..., Core], memory_span: float | None, default: int) -> Callable[..., Core]:
    """Hand a memory span to a constructor of cores that takes one and was not given another.

    Gates are spread up to it. A core with a span of its own, a number as its default or a ``window_size``, gets
    only a longer one: slow gates blur what changes fast, but state spaces and windows hold both. Each step of a window
    is stored, so a span makes it no longer than ``default``; a ``window_size`` may be.

    Args:
        core: ``core(input_size) -> Core``. A keyword that only repeats the default of the constructor was not given:
            run folders hold the defaults of all that they leave out.
        memory_span: in steps; None for ``default``, or the shortest if that is longer.
        default: length in steps of the sequences that are learned from.

    Raises:
        ValueError: the span is shorter than ``SHORTEST``.
    """
    check_span(memory_span)
    constructor, given = (core.func, core.keywords) if isinstance(core, partial) else (core, {})
    parameters, sequence = inspect.signature(constructor).parameters, max(SHORTEST, default)
    if "memory_span" not in parameters:
        return core
    own = parameters["memory_span"].default
    if own is inspect.Parameter.empty:
        own = None
    if given.get("memory_span", own) not in (None, own):
        return core
    windowed = "window_size" in parameters
    if own is None and not windowed:
        return partial(core, memory_span=sequence if memory_span is None else memory_span)
    if memory_span is None:
        return core
    options: dict[str, float] = {"memory_span": max(memory_span, own or SLOWEST)}
    if windowed and given.get("window_size") is None:
        options["window_size"] = max(WINDOW, round(min(memory_span, sequence)))
    return partial(core, **options)
