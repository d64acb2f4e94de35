"""How a hyperparameter changes in the course of training: one place for what falls, what warms up, what adapts.

A hyperparameter ``NAME`` with a schedule has options beside it: ``NAME_schedule``, and ``NAME_final`` for its value at
the end. A learning rate has ``learning_rate_warmup`` as well. What an agent of earlier versions said of these in other
words, ``translated`` says in the words of today.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rl.checks import one_of, within

Schedule = Literal["constant", "linear", "cosine"]
"""How a hyperparameter gets to its final value."""

RateSchedule = Literal["constant", "linear", "cosine", "adaptive"]
"""The same for a learning rate, which the divergence of the policy may set, too."""

WARMUP_START = 0.1
"""A warm-up begins with this share of the learning rate: from 0, the first rollout would be played for nothing."""

FACTOR = 1.5
"""By which an adaptive learning rate becomes larger or smaller."""


def scheduled(options: Any, name: str, progress: float) -> float:
    """Compute what a hyperparameter is when the share ``progress`` of training is done.

    Args:
        options: has the attributes ``name``, ``name_schedule``, ``name_final`` and, if it warms up, ``name_warmup``.
        name: of the hyperparameter.
        progress: 0 to 1; beyond 1 all stays as it is at 1.
    """
    schedule, first = getattr(options, f"{name}_schedule"), getattr(options, name)
    return value_at(progress, schedule, first, getattr(options, f"{name}_final"), getattr(options, f"{name}_warmup", 0))


def value_at(progress: float, schedule: RateSchedule, first: float, final: float | None, warmup: float = 0.0) -> float:
    """Compute the value of a schedule.

    ``linear`` goes from ``first`` to ``final`` on a line, ``cosine`` on half a period of a cosine, which is level at
    both ends (Loshchilov and Hutter, 2017, equation 5, without restarts). Both begin where the warm-up ends, so that
    what is reached there is ``first``.

    Args:
        progress: share of training done.
        schedule: of ``constant`` and ``adaptive`` the value is ``first``.
        first: at the beginning.
        final: at the end; None for 0.
        warmup: share of training in which it rises on a line, from ``WARMUP_START * first`` to ``first``.
    """
    if progress < warmup:
        return first * (WARMUP_START + (1.0 - WARMUP_START) * progress / warmup)
    if schedule in ("constant", "adaptive"):
        return first
    last, done = final or 0.0, min(1.0, (progress - warmup) / (1.0 - warmup))
    left = 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return last + (first - last) * left


def adapted(rate: Tensor, kl: Tensor, desired_kl: float, low: float, high: float) -> Tensor:
    """Compute the learning rate for a step from the divergence of the policy before it.

    Above 2 * ``desired_kl`` it is divided by 1.5, below ``desired_kl`` / 2 multiplied by 1.5. So does ``PPO.update`` of
    RSL-RL (``rsl_rl/algorithms/ppo.py``; Schwarke et al., 2025) for each minibatch; nothing waits for the host.

    Args:
        rate: 0-d, of the step before.
        kl: 0-d, of the policy that played and the one of now; 0 says nothing.
        desired_kl: to be stayed near to.
        low: the smallest learning rate.
        high: the largest.

    Returns:
        0-d, a new tensor.
    """
    rises = (kl < desired_kl / 2.0) & (kl > 0.0)
    kept = torch.where(rises, (rate * FACTOR).clamp_max(high), rate)
    return torch.where(kl > desired_kl * 2.0, (rate / FACTOR).clamp_min(low), kept)


def check_schedules(values: Mapping[str, Any], names: Iterable[str], rate: Any = Schedule) -> None:
    """Check the options of schedules.

    Args:
        values: all hyperparameters by name.
        names: of those with a schedule.
        rate: the schedules that ``learning_rate`` may have.

    Raises:
        ValueError: a value is out of range, or two exclude each other.
    """
    for name in names:
        allowed = get_args(rate if name == "learning_rate" else Schedule)
        schedule, final = values[f"{name}_schedule"], values[f"{name}_final"]
        one_of(allowed, **{f"{name}_schedule": schedule})
        if final is None:
            continue
        within(0.0, math.inf, **{f"{name}_final": final})
        if schedule in ("constant", "adaptive"):
            raise ValueError(
                f"{name}_final={final!r}: it goes with {name}_schedule='linear' or 'cosine', not {schedule!r}"
            )
    if "learning_rate_warmup" in values:
        within(0.0, 0.99, learning_rate_warmup=values["learning_rate_warmup"])
    if values.get("learning_rate_schedule") == "adaptive":
        _check_adaptive(values)


def _check_adaptive(values: Mapping[str, Any]) -> None:
    """Check what goes with an adaptive learning rate."""
    low, high = values["learning_rate_min"], values["learning_rate_max"]
    within(low, high, learning_rate=values["learning_rate"])
    if values["learning_rate_warmup"]:
        raise ValueError(
            f"learning_rate_warmup={values['learning_rate_warmup']!r}: learning_rate_schedule='adaptive' finds the "
            "learning rate by itself, use one of them"
        )


def check_length(options: Any, total_steps: int | None) -> None:
    """Check that it is known what a warm-up is a share of.

    Raises:
        ValueError: it is not.
    """
    if options.learning_rate_warmup and total_steps is None:
        raise ValueError(
            f"learning_rate_warmup={options.learning_rate_warmup!r}: it is a share of training, so it needs total_steps"
        )


def translated(options: Mapping[str, Any]) -> dict[str, Any]:
    """Say in the words of today what hyperparameters of earlier versions said of schedules; others stay as they are.

    ``anneal_learning_rate`` and ``anneal_clip`` said that a value falls to 0 on a line. A final weight said by itself
    that a weight gets there on a line, and no final weight that it stays.
    """
    given = dict(options)
    for name in ("learning_rate", "clip"):
        if f"anneal_{name}" in given:
            given[f"{name}_schedule"] = "linear" if given.pop(f"anneal_{name}") else "constant"
    for name in ("entropy_coef", "teacher_kl"):
        if f"{name}_final" in given and f"{name}_schedule" not in given:
            given[f"{name}_schedule"] = "constant" if given[f"{name}_final"] is None else "linear"
    return given
