"""Environments that draw themselves, where they can: one world of those that a run was trained in, or of others."""

import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.faults import describe_fault
from envs.late_reset import reset_late
from experiments.launch.build import build_envs
from experiments.launch.check import ConfigError, import_path

MODE = "rgb_array"
OTHER_PROCESSES = ("async", "auto")
"""Values of ``env.vectorization_mode`` that may step an environment in another process, to no use for one world."""

DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
"""Variables of the environment that name a display on Linux, where there is one."""


def can_draw(envs: VectorEnv) -> bool:
    """Tell whether environments say that they can be drawn, or do so as they are."""
    return envs.render_mode == MODE or MODE in (envs.metadata.get("render_modes") or ())


def stay_here(config: DictConfig) -> DictConfig:
    """Return the configuration of a run whose environments are stepped in this process: nothing is timed, none started.

    Args:
        config: of a run; it stays as it is.
    """
    if config.env is None or config.env.get("vectorization_mode") not in OTHER_PROCESSES:
        return config
    config = config.copy()
    config.env.vectorization_mode = "sync"
    return config


def open_drawn_envs(config: DictConfig, drawn: bool) -> VectorEnv:
    """Construct one world that draws itself and, if it can, stands still where an episode ends; the caller closes it.

    Without a display MuJoCo is told to draw by EGL, unless ``MUJOCO_GL`` says otherwise: its own choice needs one.

    Args:
        config: of a run, with the environment to play in.
        drawn: it can draw itself, see ``can_draw``.

    Raises:
        ConfigError, ValueError: a key or value cannot be.
    """
    config = stay_here(config).copy()
    OmegaConf.set_struct(config, False)
    if sys.platform == "linux" and not any(map(os.environ.get, DISPLAYS)):
        os.environ.setdefault("MUJOCO_GL", "egl")
    if drawn and _takes_mode(config.env._target_):
        config.env.render_mode = MODE
    return reset_late(build_envs(config, at_most=1))


def _takes_mode(target: str) -> bool:
    parameters = inspect.signature(import_path(target)).parameters
    return "render_mode" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def make_camera(envs: VectorEnv, keep: Callable[[np.ndarray], Any]) -> Callable[[], Any] | None:
    """Return what draws the first world and keeps the picture as ``keep`` has it; None if the world cannot be drawn.

    What is drawn is uint8 ``[H, W, 3]``.
    """
    if envs.render_mode != MODE:
        return None

    def draw() -> Any:
        try:
            pictures: Any = envs.render()
        except Exception as error:  # of any kind: it is the environment's own code
            raise ConfigError(f"the environment could not be drawn: {describe_fault(error)}") from error
        picture = np.asarray(pictures[0] if isinstance(pictures, (tuple, list)) and pictures else pictures)
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            found = f"{picture.dtype} of shape {picture.shape}"
            raise ConfigError(f"the environment drew {found}, where a picture is uint8 [height, width, 3]")
        return keep(picture)

    return draw
