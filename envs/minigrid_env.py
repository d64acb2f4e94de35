"""The tasks of MiniGrid as picture and direction, without the text of the mission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gymnasium.vector import VectorEnv
from gymnasium.wrappers import FilterObservation

from envs.gymnasium_env import Wrapper, complete_id, make_gymnasium


def make_minigrid(
    id: str = "MemoryS7",
    num_envs: int = 1,
    wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (),
    frame_skip: int = 1,
    frame_stack: int = 1,
    **kwargs: Any,
) -> VectorEnv:
    """Build copies of a task of MiniGrid.

    An observation holds ``image``, uint8 ``[7, 7, 3]``, what the agent sees before it, and ``direction``, one of 4. The
    mission is left out: of many tasks it is always the same. Where it is not (MiniGrid-GoToDoor, BabyAI), use
    ``make_gymnasium`` with a wrapper that makes numbers of it.

    Args:
        id: of the task, "MemoryS7" for MiniGrid-MemoryS7-v0.
        num_envs: the number of copies.
        wrappers: further ones, see ``make_gymnasium``.
        frame_skip: steps that each action lasts, see ``make_gymnasium``.
        frame_stack: observations that are shown at once, see ``make_gymnasium``.
        **kwargs: those of ``make_gymnasium`` and of the task: ``agent_view_size``, ``see_through_walls``.

    Raises:
        ValueError: an unknown task.
        ModuleNotFoundError: the extra ``envs`` is not installed.

    Source: Chevalier-Boisvert et al. 2023, "Minigrid & Miniworld", https://github.com/Farama-Foundation/Minigrid.
    """
    shown = partial(FilterObservation, filter_keys=["image", "direction"])
    return make_gymnasium(
        complete_id(id, "MiniGrid-", "-v0"),
        num_envs,
        [shown, *wrappers],
        frame_skip=frame_skip,
        frame_stack=frame_stack,
        **kwargs,
    )
