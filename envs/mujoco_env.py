"""MuJoCo's control tasks with parts of the state hidden: what is not shown has to be remembered and inferred."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import gymnasium
from gymnasium.vector import VectorEnv

from envs.checks import one_of
from envs.gymnasium_env import DropObservation, Wrapper, complete_id, make_gymnasium

Hidden = Literal["velocities", "positions", "none"]

VELOCITIES = ("qvel", "cvel")
POSITIONS = ("qpos", "cinert")
BESIDES = ("skipped_qpos", "ten_length", "ten_velocity")
"""What a task counts among the parts of its observation and shows in its info alone."""

PARTS: dict[str, tuple[tuple[str, int], ...]] = {
    "InvertedDoublePendulumEnv": (("qpos", 5), ("qvel", 3), ("qfrc_constraint", 1)),
    "PusherEnv": (("qpos", 7), ("qvel", 7), ("qpos", 9)),
    "ReacherEnv": (("qpos", 6), ("qvel", 2), ("qpos", 2)),
}
"""The parts of the tasks that do not tell them: sines and cosines of angles, and places of bodies, are positions."""


def make_mujoco(
    id: str = "Hopper",
    num_envs: int = 1,
    hide: Hidden = "velocities",
    wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (),
    frame_skip: int = 1,
    frame_stack: int = 1,
    **kwargs: Any,
) -> VectorEnv:
    """Build copies of a MuJoCo task of Gymnasium, of which only a part of the state is seen.

    Args:
        id: of the task, "Hopper" for Hopper-v5.
        num_envs: the number of copies.
        hide: "velocities" shows positions and forces alone, "positions" the velocities and forces; "none" all.
        wrappers: further ones, see ``make_gymnasium``.
        frame_skip: steps that each action lasts, see ``make_gymnasium``.
        frame_stack: observations that are shown at once, see ``make_gymnasium``.
        **kwargs: those of ``make_gymnasium`` and of the task.

    Raises:
        ValueError: an unknown task, or one whose parts are not known.
        ModuleNotFoundError: the extra ``mujoco`` is not installed.

    Source: Todorov et al. 2012, "MuJoCo"; hidden like this by Ni et al. 2022, "Recurrent Model-Free RL Can Be a Strong
    Baseline for Many POMDPs".
    """
    one_of(("velocities", "positions", "none"), hide=hide)
    own = [] if hide == "none" else [partial(hide_parts, hide=hide)]
    return make_gymnasium(
        complete_id(id, "", "-v5"),
        num_envs,
        [*own, *wrappers],
        frame_skip=frame_skip,
        frame_stack=frame_stack,
        **kwargs,
    )


def hide_parts(env: gymnasium.Env, hide: Hidden) -> gymnasium.Env:
    """Leave velocities or positions out of the observation of a MuJoCo task."""
    names = VELOCITIES if hide == "velocities" else POSITIONS
    begin, hidden = 0, list[int]()
    for name, size in find_parts(env):
        if name in names:
            hidden += range(begin, begin + size)
        begin += size
    return DropObservation(env, hidden)


def find_parts(env: gymnasium.Env) -> list[tuple[str, int]]:
    """Return the parts of the observation of a MuJoCo task in their order, each with its size.

    They are called as in MuJoCo's data; a task of version 5 counts them from the sizes of its model.

    Raises:
        ValueError: they are not known, or do not add up to the observation.
    """
    task = env.unwrapped
    told: Iterable[tuple[str, int]] = getattr(task, "observation_structure", {}).items()
    parts = [(name, int(size)) for name, size in told if name not in BESIDES] or PARTS.get(type(task).__name__, ())
    if sum(size for _, size in parts) != math.prod(env.observation_space.shape or ()):
        id = task.spec.id if task.spec else type(task).__name__
        raise ValueError(f"{id}: it is not known which numbers are velocities; take version 5, or env.hide=none")
    return list(parts)
