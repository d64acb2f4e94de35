"""The tasks of POPGym by their short names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium.vector import VectorEnv

from envs.gymnasium_env import Wrapper, complete_id, make_gymnasium


def make_popgym(
    id: str = "RepeatPreviousEasy",
    num_envs: int = 1,
    wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (),
    frame_skip: int = 1,
    frame_stack: int = 1,
    **kwargs: Any,
) -> VectorEnv:
    """Build copies of a task of POPGym; the returns of most lie from -1 to 1.

    Args:
        id: of the task, "RepeatPreviousEasy" for popgym-RepeatPreviousEasy-v0.
        num_envs: the number of copies.
        wrappers: see ``make_gymnasium``.
        frame_skip: steps that each action lasts, see ``make_gymnasium``.
        frame_stack: observations that are shown at once, see ``make_gymnasium``.
        **kwargs: those of ``make_gymnasium`` and of the task.

    Raises:
        ValueError: an unknown task.
        ModuleNotFoundError: the extra ``envs`` is not installed.

    Source: Morad et al. 2023, "POPGym: Benchmarking Partially Observable Reinforcement Learning",
    https://github.com/proroklab/popgym.
    """
    return make_gymnasium(
        complete_id(id, "popgym-", "-v0"), num_envs, wrappers, frame_skip=frame_skip, frame_stack=frame_stack, **kwargs
    )
