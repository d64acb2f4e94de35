"""The hyperparameters of PPO as keyword arguments, and the checks that they and the size of a rollout must pass."""

from math import gcd
from typing import Any, Literal, TypedDict

from rl.checks import one_of, positive, whole, within
from rl.schedules import RateSchedule, Schedule, check_schedules
from rl.types import State

Ratio = Literal["joint", "per_head"]

SCHEDULED = ("learning_rate", "clip", "entropy_coef", "teacher_kl")
"""The hyperparameters that may change in the course of training."""

LARGE_STATE = 8192
"""Bytes of the state of one environment beyond which it is stored as seldom as can be."""


class PPOOptions(TypedDict, total=False):
    """The keyword arguments of ``rl.ppo.PPO``, for agents that pass them on; a test holds both alike."""

    epochs: int
    num_minibatches: int
    bptt: int | None
    burn_in: int
    refresh_states: bool
    gamma: float
    gae_lambda: float
    clip: float
    clip_schedule: Schedule
    clip_final: float | None
    value_clip: float | None
    ratio: Ratio
    value_coef: float
    entropy_coef: float
    entropy_coef_schedule: Schedule
    entropy_coef_final: float | None
    teacher_kl: float
    teacher_kl_schedule: Schedule
    teacher_kl_final: float | None
    recall_coef: float
    normalise_advantages: bool
    target_kl: float | None
    learning_rate: float
    learning_rate_schedule: RateSchedule
    learning_rate_final: float | None
    learning_rate_warmup: float
    learning_rate_min: float
    learning_rate_max: float
    desired_kl: float
    max_grad_norm: float
    graphs: bool
    recompute_parts: int


def check_hyperparameters(values: dict[str, Any]) -> None:
    """Check the fields of ``rl.ppo.PPO``, given by name.

    Raises:
        ValueError: a value is out of range, or two exclude each other.
    """
    optional = ("bptt", "value_clip", "target_kl")
    given = {name: value for name, value in values.items() if value is not None or name not in optional}
    positive(
        **{name: given[name] for name in ("epochs", "num_minibatches", "bptt", "recompute_parts") if name in given}
    )
    whole(0, given.get("bptt"), burn_in=given["burn_in"])
    within(0.0, 1.0, gamma=given["gamma"], gae_lambda=given["gae_lambda"])
    one_of(("joint", "per_head"), ratio=given["ratio"])
    weights = ("value_coef", "entropy_coef", "teacher_kl", "recall_coef")
    within(0.0, float("inf"), **{name: given[name] for name in (*weights, "value_clip", "target_kl") if name in given})
    above_zero = ("clip", "learning_rate", "learning_rate_min", "learning_rate_max", "desired_kl", "max_grad_norm")
    within(1e-12, float("inf"), **{name: given[name] for name in above_zero})
    check_schedules(values, SCHEDULED, RateSchedule)
    if given["burn_in"] and given["refresh_states"]:
        raise ValueError("burn_in and refresh_states both renew the stored states: use one of them")


def choose_stride(given: int | None, length: int, burn_in: int, fixed_size: bool, state: State) -> int:
    """Choose the distance of the stored states in steps: 1, or where they are large the most that can be.

    Args:
        given: the distance that was asked for, if one was.
        length: of the sequences.
        burn_in: steps of warm-up in front of them.
        fixed_size: False if a client may end rollouts at any step.
        state: an example, leaves ``[B, ...]``.
    """
    if given is not None:
        return given
    size = sum(leaf[0].numel() * leaf.element_size() for leaf in state.values())
    return gcd(length, burn_in) if fixed_size and size > LARGE_STATE else 1


def check_rollout(
    bptt: int | None,
    burn_in: int,
    num_minibatches: int,
    num_envs: int,
    num_steps: int,
    state_stride: int,
    fixed_size: bool,
) -> None:
    """Check that rollouts can be cut into sequences and minibatches.

    Args:
        bptt: length of the sequences in steps; None for the whole rollout.
        burn_in: steps of warm-up in front of them.
        num_minibatches: in each epoch.
        num_envs: rows of a rollout.
        num_steps: steps of a rollout.
        state_stride: distance of the stored states in steps.
        fixed_size: False if a client may end rollouts at any step; they are then cut as evenly as possible.

    Raises:
        ValueError: the numbers do not fit each other.
    """
    length = bptt or num_steps
    positive(num_envs=num_envs, num_steps=num_steps, state_stride=state_stride)
    if fixed_size and num_steps % length:
        raise ValueError(f"bptt={length} does not divide num_steps={num_steps}: all sequences must have one length")
    if state_stride > 1 and not fixed_size:
        raise ValueError(f"state_stride={state_stride}: one environment may stop at any step, so it must be 1")
    if length % state_stride or burn_in % state_stride:
        raise ValueError(f"state_stride={state_stride} must divide bptt={length} and burn_in={burn_in}")
    sequences = num_envs * (num_steps // length)
    if fixed_size and num_minibatches > sequences:
        raise ValueError(
            f"num_minibatches={num_minibatches} is more than the {sequences} sequences of a rollout "
            f"({num_envs} environments x {num_steps // length}): lower it, or lower bptt"
        )
