"""The base class of this package's environments: one object steps all copies of a task at once in numpy."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


def check_integer(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int, or raise a ValueError that names the parameter, its value and what is allowed."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")
    return int(value)


class BatchedEnv(VectorEnv):
    """`num_envs` (B) independent copies of one task, stepped together, with SAME_STEP autoreset.

    Whatever `reset` and `step` return is freshly allocated, so it may be kept without a copy.

    When a row ends, its observation is already the first one of the next episode. The observation that closed the
    episode is in `info["final_obs"]`, which has the full batched shape and is valid in the rows where
    `info["_final_obs"]` (bool, `[B]`) is True. Both keys exist only in steps in which some row ended.

    A task implements three methods and lists its per-copy arrays in `state_names`:

    - `_start(rows)`: begin new episodes in `rows` (int `[n]`); `elapsed_steps` is already 0 there.
    - `_advance(actions) -> rewards, terminated`: act in all rows; `elapsed_steps` is still the number of steps before
      this action. Rewards are float64 `[B]`, terminated is bool `[B]`.
    - `_observe() -> observations`: a new batch that depends on the current state only. It is called twice in steps in
      which a row ends, so it must not draw random numbers.

    Truncation belongs to the base class: a row is truncated when `max_episode_steps` (an int, or one per row) is
    reached, also when it terminates in that very step, as in Gymnasium's `TimeLimit`.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
    state_names: tuple[str, ...] = ()
    optimal_return: float | None = None
    memoryless_return: float | None = None

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int | np.ndarray | None = None,
    ):
        self.num_envs = check_integer("num_envs", num_envs, 1)
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self.max_episode_steps = max_episode_steps
        self.elapsed_steps = np.zeros(self.num_envs, dtype=np.int64)
        self.rows = np.arange(self.num_envs)
        self._running = False
        self._action_shape = self.action_space.shape
        self._continuous = isinstance(action_space, spaces.Box)
        # The number of choices of Discrete, of each branch of MultiDiscrete, of a MultiBinary entry.
        choices = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec"}.get(type(action_space))
        self._num_choices = np.asarray(getattr(action_space, choices) if choices else 2, dtype=np.uint64)

    def _start(self, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _observe(self) -> Any:
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a new episode in every row. `seed` (one int for all rows) restarts the generator; no options exist."""
        super().reset(seed=seed)
        self._running = True
        self._restart(self.rows)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row: observations, rewards `[B]`, terminated `[B]`, truncated `[B]`, info."""
        observations, rewards, terminated, truncated = self.transition(actions)
        ended = terminated | truncated
        if not ended.any():
            return observations, rewards, terminated, truncated, {}
        info = {"final_obs": observations, "_final_obs": ended}
        self._restart(np.flatnonzero(ended))
        return self._observe(), rewards, terminated, truncated, info

    def transition(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """Act in every row without the restart of ended rows: the observations are those that close the episodes."""
        if not self._running:
            raise ResetNeeded("Call reset() before step().")
        rewards, terminated = self._advance(self._checked(actions))
        self.elapsed_steps += 1
        if self.max_episode_steps is None:
            truncated = np.zeros(self.num_envs, dtype=np.bool_)
        else:
            truncated = self.elapsed_steps >= self.max_episode_steps
        return self._observe(), rewards, terminated, truncated

    def _restart(self, rows: np.ndarray) -> None:
        self.elapsed_steps[rows] = 0
        self._start(rows)

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        """The actions as int64 or float32 `[B, ...]`, or a ValueError if they lie outside the action space."""
        actions = np.asarray(actions)
        if actions.shape != self._action_shape:
            raise ValueError(f"actions must have shape {self._action_shape}, got {actions.shape}.")
        if actions.dtype.kind not in ("fiu" if self._continuous else "iub"):
            kind = "numbers" if self._continuous else "integers"
            raise ValueError(f"actions must be {kind} in {self.single_action_space}, got dtype {actions.dtype}.")
        if self._continuous:
            checked = actions.astype(np.float32, copy=False)
            inside = (checked >= self.action_space.low) & (checked <= self.action_space.high)  # False for NaN
        else:
            checked = actions.astype(np.int64, copy=False)
            inside = checked.view(np.uint64) < self._num_choices  # a negative action becomes a huge one
        if not inside.all():
            value = actions[~inside][0]
            raise ValueError(f"actions must lie in {self.single_action_space}, got {value}.")
        return checked

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly: copies of the per-row arrays and the generator's state."""
        arrays = {name: getattr(self, name).copy() for name in ("elapsed_steps", *self.state_names)}
        return {**arrays, "running": self._running, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict()` of an environment built with the same arguments."""
        own = self.state_dict()
        arrays = ("elapsed_steps", *self.state_names)
        if state.keys() != own.keys() or any(np.shape(state[name]) != own[name].shape for name in arrays):
            expected = {name: own[name].shape for name in arrays}
            raise ValueError(f"The state does not belong to this environment: expected arrays {expected}.")
        for name in arrays:
            setattr(self, name, np.array(state[name], dtype=own[name].dtype))
        self._running = bool(state["running"])
        self.np_random.bit_generator.state = state["rng"]
