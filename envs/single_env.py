"""The single-environment form of every ``BatchedEnv``, for ``gymnasium.make``."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import ResetNeeded
from gymnasium.vector.utils import iterate

from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import one_of

METADATA: dict[str, Any] = {key: DRAWN[key] for key in ("render_modes", "render_fps")}


def make_batched(task: str, num_envs: int = 1, **kwargs: Any) -> BatchedEnv:
    """Build ``num_envs`` copies of a task: the vector entry point of all registered environments.

    Args:
        task: the task's class, as "module:Class".
        num_envs: the number of copies.
        **kwargs: the task's own arguments.

    Raises:
        TypeError: the class is no ``BatchedEnv``.
    """
    env = load_env_creator(task)(num_envs=num_envs, **kwargs)
    if not isinstance(env, BatchedEnv):
        raise TypeError(f"task={task!r}: it must name a BatchedEnv")
    return env


class SingleEnv(gymnasium.Env):
    """One copy of a batched task as a plain ``gymnasium.Env``, without autoreset.

    The last step of an episode returns its last observation. With the same seed and actions it returns exactly what
    the batched form with one copy returns.

    Args:
        task: the task's class, as "module:Class".
        render_mode: "rgb_array" lets ``render`` draw; None does not.
        **kwargs: the task's own arguments, but no ``device``: one copy is played in numpy.

    Raises:
        ValueError: a device is named, or the task has no such ``render_mode``.
    """

    metadata = METADATA

    def __init__(self, task: str, render_mode: str | None = None, **kwargs: Any):
        if kwargs.get("device") is not None:
            raise ValueError(f"device={kwargs['device']!r}: it must be None, one copy is played in numpy")
        can: dict[str, Any] = getattr(load_env_creator(task), "metadata", METADATA)  # not every task can be drawn
        self.metadata = {"render_modes": can["render_modes"], "render_fps": can.get("render_fps")}
        one_of((None, *can["render_modes"]), render_mode=render_mode)
        if render_mode is not None:
            kwargs["render_mode"] = render_mode
        self.batched = make_batched(task, **kwargs)
        self.observation_space = self.batched.single_observation_space
        self.action_space = self.batched.single_action_space
        self.render_mode = render_mode
        self._ended = True

    @property
    def optimal_return(self) -> float | None:
        """Return the task's best expected return of an episode, or None if it is not known."""
        return self.batched.optimal_return

    @property
    def memoryless_return(self) -> float | None:
        """Return the task's best expected return without a memory, or None if it is not known."""
        return self.batched.memoryless_return

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode: its first observation and an empty info. ``seed`` restarts the generator."""
        observations, info = self.batched.reset(seed=seed, options=options)
        self._np_random, self._np_random_seed = self.batched.np_random, self.batched.np_random_seed
        self._ended = False
        return self._first(observations), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act once: observation, reward, terminated, truncated and an empty info.

        Raises:
            ResetNeeded: there was no ``reset`` yet, or none since the episode ended.
        """
        if self._ended:
            raise ResetNeeded("Call reset() before step(), also after an episode has ended.")
        observations, rewards, terminated, truncated = self.batched.transition(np.asarray(action)[None])
        self._ended = bool(terminated[0] | truncated[0])
        return self._first(observations), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> Any:
        """Draw the copy as it is now, uint8 ``[H, W, 3]``; None without a ``render_mode``."""
        pictures = self.batched.render()
        return None if pictures is None else pictures[0]

    def _first(self, observations: Any) -> Any:
        return next(iter(iterate(self.batched.observation_space, observations)))
