"""The single-environment form of every `BatchedEnv`, for `gymnasium.make`."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import ResetNeeded
from gymnasium.vector.utils import iterate

from envs.batched_env import BatchedEnv


def make_batched(task: str, num_envs: int = 1, **kwargs: Any) -> BatchedEnv:
    """Build the class that `task` names ("module:Class"): the vector entry point of all registered environments."""
    return load_env_creator(task)(num_envs, **kwargs)


class SingleEnv(gymnasium.Env):
    """One copy of a batched task as a plain `gymnasium.Env`: no autoreset, the last step returns the last observation.

    With the same seed and actions it returns exactly what the batched form with one copy returns.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, task: str, render_mode: str | None = None, **kwargs: Any):
        self.batched = make_batched(task, **kwargs)
        self.observation_space = self.batched.single_observation_space
        self.action_space = self.batched.single_action_space
        self.render_mode = render_mode
        self._ended = True

    @property
    def optimal_return(self) -> float | None:
        return self.batched.optimal_return

    @property
    def memoryless_return(self) -> float | None:
        return self.batched.memoryless_return

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observations, info = self.batched.reset(seed=seed, options=options)
        self._np_random, self._np_random_seed = self.batched.np_random, self.batched.np_random_seed
        self._ended = False
        return self._first(observations), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._ended:
            raise ResetNeeded("Call reset() before step(), also after an episode has ended.")
        observations, rewards, terminated, truncated = self.batched.transition(np.asarray(action)[None])
        self._ended = bool(terminated[0] | truncated[0])
        return self._first(observations), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def _first(self, observations: Any) -> Any:
        return next(iter(iterate(self.batched.observation_space, observations)))
