"""The tasks of Memory Gym: commands, paths and spotlights that are seen once and then have to be remembered."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import ResizeObservation

from envs.checks import positive
from envs.gymnasium_env import Wrapper, complete_id, make_gymnasium, require


def make_memory_gym(
    id: str = "MortarMayhem-Grid",
    num_envs: int = 1,
    options: Mapping[str, Any] | None = None,
    screen_size: int = 84,
    wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (),
    frame_skip: int = 1,
    frame_stack: int = 1,
    **kwargs: Any,
) -> VectorEnv:
    """Build copies of a task of Memory Gym; an observation is a picture, uint8 ``[84, 84, 3]`` unless made smaller.

    Version 1.0.2 of the package demands Gymnasium 0.29.0 and pygame 2.4.0 exactly, so pip does not install it beside
    this project. It works with what is here: ``pip install --no-deps memory-gym``. All copies in one process draw on
    one surface of pygame, each from scratch.

    Args:
        id: of the task, "MortarMayhem-Grid" for MortarMayhem-Grid-v0.
        num_envs: the number of copies.
        options: what the task calls its reset parameters, given to it in every reset.
        screen_size: the sides of the picture; below 84 it needs the opencv of the extra ``atari``. Tasks that show
            numbers beside their picture (MortarMayhemB) keep it as it is.
        wrappers: further ones, see ``make_gymnasium``.
        frame_skip: steps that each action lasts, see ``make_gymnasium``.
        frame_stack: observations that are shown at once, see ``make_gymnasium``.
        **kwargs: those of ``make_gymnasium``.

    Raises:
        ValueError: an unknown task.
        ModuleNotFoundError: the package, or opencv for a smaller picture, is not installed.

    Source: Pleines et al. 2023, "Memory Gym: Partially Observable Challenges to Memory-Based Agents",
    https://github.com/MarcoMeter/drl-memory-gym.
    """
    positive(screen_size=screen_size)
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # else pygame looks for loudspeakers, and complains of none
    own: list[Wrapper] = [StayOpen]
    if options:
        own.append(partial(ResetOptions, options=options))
    if screen_size != 84:
        require("cv2", f"screen_size={screen_size}", '"recurrent-ppo[atari]"')
        own.append(partial(ResizeObservation, shape=(screen_size, screen_size)))
    return make_gymnasium(
        complete_id(id, "", "-v0"),
        num_envs,
        [*own, *wrappers],
        frame_skip=frame_skip,
        frame_stack=frame_stack,
        **kwargs,
    )


class StayOpen(gymnasium.Wrapper, RecordConstructorArgs):
    """A wrapper that does not close its environment: that would end pygame for all copies in the process.

    Args:
        env: a single environment that holds nothing else.
    """

    def __init__(self, env: gymnasium.Env):
        RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def close(self) -> None:
        """Leave pygame as it is; it ends with the process."""


class ResetOptions(gymnasium.Wrapper, RecordConstructorArgs):
    """A wrapper that gives the same options to every reset, those of the caller on top of them.

    Args:
        env: a single environment.
        options: of a reset.
    """

    def __init__(self, env: gymnasium.Env, options: Mapping[str, Any]):
        RecordConstructorArgs.__init__(self, options=dict(options))
        super().__init__(env)
        self.options = dict(options)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with these options."""
        return self.env.reset(seed=seed, options=self.options | (options or {}))
