"""The base class of this package's environments: one object steps all copies of a task at once in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.checks import positive

SAME_STEP: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
"""The metadata of every vector environment of this package."""


class BatchedEnv(VectorEnv):
    """A vector environment: ``num_envs`` (B) independent copies of one task, with SAME_STEP autoreset.

    Whatever ``reset`` and ``step`` return is freshly allocated, so it may be kept without a copy.

    When a row ends, its observation is already the first one of the next episode. The observation that closed the
    episode is in ``info["final_obs"]``, which has the full batched shape and is valid in the rows where
    ``info["_final_obs"]`` (bool, ``[B]``) is True. Both keys exist only in steps in which some row ended.

    A task implements three methods and lists its per-copy arrays in ``state_names``:

    - ``_start(rows)``: begin new episodes in ``rows`` (int ``[n]``); ``elapsed_steps`` is already 0 there.
    - ``_advance(actions) -> rewards, terminated``: act in all rows; ``elapsed_steps`` is still the number of steps
      before this action. Rewards are float64 ``[B]``, terminated is bool ``[B]``.
    - ``_observe() -> observations``: a new batch that depends on the current state only. It is called twice in steps in
      which a row ends, so it must not draw random numbers.

    Truncation belongs to the base class: a row is truncated when ``max_episode_steps`` (an int, or one per row) is
    reached, also when it terminates in that very step, as in Gymnasium's ``TimeLimit``.

    Args:
        num_envs: B.
        observation_space: of one copy.
        action_space: of one copy.
        max_episode_steps: steps after which an episode is truncated: one number, one per row ``[B]``, or None.
    """

    metadata = SAME_STEP
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
        positive(num_envs=num_envs)
        self.num_envs = int(num_envs)
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self.max_episode_steps = max_episode_steps
        self.elapsed_steps = np.zeros(self.num_envs, dtype=np.int64)
        self.rows = np.arange(self.num_envs)
        self._running = False
        self._action_shape = self.action_space.shape
        # Of a continuous space the least and the greatest actions, [B, ...] each.
        continuous, batched = isinstance(action_space, spaces.Box), self.action_space
        self._limits = (batched.low, batched.high) if continuous and isinstance(batched, spaces.Box) else None
        # Else the number of choices of Discrete, of each branch of MultiDiscrete, of a MultiBinary entry.
        choices = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec"}.get(type(action_space))
        self._num_choices = np.asarray(getattr(action_space, choices) if choices else 2, dtype=np.uint64)

    def _start(self, rows: np.ndarray) -> None:
        raise NotImplementedError

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _observe(self) -> Any:
        raise NotImplementedError

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a new episode in every row.

        Args:
            seed: one number for all rows; it restarts the generator. None lets the generator go on.
            options: none exist; whatever is given is not used.

        Returns:
            The first observations ``[B, ...]`` and an empty info.
        """
        super().reset(seed=seed)
        self._running = True
        self._restart(self.rows)
        return self._observe(), {}

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row, and restart the rows that end.

        Args:
            actions: of the batched action space, ``[B, ...]``.

        Returns:
            Observations ``[B, ...]``, rewards ``[B]``, terminated ``[B]``, truncated ``[B]`` and the info.
        """
        observations, rewards, terminated, truncated = self.transition(actions)
        ended = terminated | truncated
        if not ended.any():
            return observations, rewards, terminated, truncated, {}
        info = {"final_obs": observations, "_final_obs": ended}
        self._restart(np.flatnonzero(ended))
        return self._observe(), rewards, terminated, truncated, info

    def transition(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
        """Act in every row as ``step`` does, but leave rows that end at their last observations.

        Raises:
            ResetNeeded: ``reset`` was never called.
            ValueError: the actions do not lie in the action space.
        """
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
        """Return the actions as int64 or float32 ``[B, ...]``.

        Raises:
            ValueError: they have another shape or dtype than the action space, or lie outside of it.
        """
        actions = np.asarray(actions)
        if actions.shape != self._action_shape:
            raise ValueError(f"actions.shape={actions.shape}: it must be {self._action_shape}")
        if actions.dtype.kind not in ("fiu" if self._limits else "iub"):
            kind = "numbers" if self._limits else "integers"
            raise ValueError(
                f"actions.dtype={actions.dtype}: it must be a dtype of {kind}, for {self.single_action_space}"
            )
        if self._limits:
            low, high = self._limits
            checked = actions.astype(np.float32, copy=False)
            inside = (checked >= low) & (checked <= high)  # False for NaN
        else:
            checked = actions.astype(np.int64, copy=False)
            inside = checked.view(np.uint64) < self._num_choices  # a negative action becomes a huge one
        if not inside.all():
            raise ValueError(f"actions={actions[~inside][0]}: it must lie in {self.single_action_space}")
        return checked

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly: copies of the per-row arrays, and the generator's state."""
        arrays = {name: getattr(self, name).copy() for name in ("elapsed_steps", *self.state_names)}
        return {**arrays, "running": self._running, "rng": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the ``state_dict()`` of an environment built with the same arguments.

        Raises:
            ValueError: ``state`` has other arrays, or arrays of other shapes.
        """
        own = self.state_dict()
        arrays = ("elapsed_steps", *self.state_names)
        if state.keys() != own.keys() or any(np.shape(state[name]) != own[name].shape for name in arrays):
            expected = {name: own[name].shape for name in arrays}
            raise ValueError(f"The state does not belong to this environment: expected arrays {expected}.")
        if not isinstance(state["running"], bool):
            raise ValueError(f"running={state['running']!r}: it must be True or False.")
        self.np_random.bit_generator.state = state["rng"]  # first, for it may be refused
        for name in arrays:
            setattr(self, name, np.array(state[name], dtype=own[name].dtype))
        self._running = state["running"]
