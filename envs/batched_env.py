"""The base class of this package's environments: one object steps all copies of a task at once, in numpy or torch."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.array_module import Array, array_module
from envs.checks import one_of, positive
from envs.drawing import Picture, RenderMode

SAME_STEP: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
"""The metadata of every vector environment of this package."""

DRAWN: dict[str, Any] = {**SAME_STEP, "render_modes": ["rgb_array"], "render_fps": 5}
"""The metadata of a task that can be drawn."""

DRAWN_FAST: dict[str, Any] = {**DRAWN, "render_fps": 50}
"""That of a task whose steps are short."""

log = logging.getLogger(__name__)


class BatchedEnv(VectorEnv):
    """A vector environment: ``num_envs`` (B) independent copies of one task, with SAME_STEP autoreset.

    Whatever ``reset`` and ``step`` return is freshly allocated, so it may be kept without a copy.

    When a row ends, its observation is already the first one of the next episode. The observation that closed the
    episode is in ``info["final_obs"]``, which has the full batched shape and is valid in the rows where
    ``info["_final_obs"]`` (bool, ``[B]``) is True. Both keys exist only in steps in which some row ended.

    With a ``device`` everything is a tensor of torch there: actions (int64 or float32), observations, rewards (float32)
    and flags (bool). ``final_obs`` and ``_final_obs`` are then in the info of every step, and ``final_obs`` is valid in
    all rows: what they showed after the action, before any restart. A step never makes the host wait for the device,
    its shapes never change and the state stays where it lies, as a CUDA graph of it needs (``generator`` has to be
    registered with the graph). So actions outside of the action space are not refused there: what comes of them is
    undefined.

    A task implements three methods and lists its per-copy arrays in ``state_names``:

    - ``_start(rows)``: begin new episodes in ``rows`` (int ``[n]``); ``elapsed_steps`` is already 0 there.
    - ``_advance(actions) -> rewards, terminated``: act in all rows; ``elapsed_steps`` is still the number of steps
      before this action. Rewards are float64 ``[B]``, terminated is a new array, bool ``[B]``.
    - ``_observe() -> observations``: a new batch that depends on the current state only. It is called twice in steps in
      which a row ends, so it must not draw random numbers.

    One that is to run on a device as well, and hands ``device`` on, gets its functions of arrays from ``self.xp`` (see
    ``envs.array_module``) and its random numbers from ``self.draws``, and keeps its state in the same tensors:
    ``self.cue = self.xp.renew(self.cue, values)``. ``rows`` is bool ``[B]`` there, and new episodes are drawn for all
    rows: ``self.xp.put(self.cue, rows, self.draws.integers(2, size=len(rows)))`` serves both.

    One that can be drawn has ``DRAWN`` as its metadata, hands ``render_mode`` on, and implements ``_draw(row)``.

    Truncation belongs to the base class: a row is truncated when ``max_episode_steps`` (an int, or one per row) is
    reached, also when it terminates in that very step, as in Gymnasium's ``TimeLimit``.

    Args:
        num_envs: B.
        observation_space: of one copy.
        action_space: of one copy.
        max_episode_steps: steps after which an episode is truncated: one number, one per row ``[B]``, or None.
        device: None for numpy, or the name of a device of torch.
        render_mode: "rgb_array" lets ``render`` draw; None does not.

    Attributes:
        xp: the functions of arrays, see ``envs.array_module``.
        device: None, or the ``torch.device``.
        generator: None, or the ``torch.Generator`` on the device that draws all random numbers.
        last_actions: those of the last step, int64 or float32 ``[B, ...]``, for drawings; None without a
            ``render_mode``, and before the first step.

    Raises:
        ValueError: torch cannot use the device here, or the task has no such ``render_mode``.
    """

    metadata = SAME_STEP
    can_be_recorded = True  # steps on a device as a CUDA graph: all that changes lies in tensors that stay in place
    state_names: tuple[str, ...] = ()
    optimal_return: float | None = None
    memoryless_return: float | None = None

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        max_episode_steps: int | np.ndarray | None = None,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        positive(num_envs=num_envs)
        one_of((None, *self.metadata["render_modes"]), render_mode=render_mode)
        self.render_mode, self.last_actions = render_mode, None
        self.xp: Any = array_module(device)
        self.device, self.generator = self.xp.device, self.xp.generator
        self.num_envs = int(num_envs)
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, self.num_envs)
        self.action_space = batch_space(action_space, self.num_envs)
        self.max_episode_steps: Any = max_episode_steps
        if isinstance(max_episode_steps, np.ndarray):
            self.max_episode_steps = self.xp.asarray(max_episode_steps)
        self.elapsed_steps: Array = self.xp.zeros(self.num_envs, self.xp.int64)
        self.rows: Array = self.xp.arange(self.num_envs)
        self._all_rows: Array = self.rows if device is None else self.xp.ones(self.num_envs, self.xp.bool)
        self._running = False
        self._action_shape = self.action_space.shape
        # Of a continuous space the least and the greatest actions, [B, ...] each.
        continuous, batched = isinstance(action_space, spaces.Box), self.action_space
        self._limits = (batched.low, batched.high) if continuous and isinstance(batched, spaces.Box) else None
        if np.any(getattr(action_space, "start", 0)):
            raise ValueError(f"single_action_space={action_space}: the actions of these environments begin with 0")
        # Else the number of choices of Discrete, of each branch of MultiDiscrete, of a MultiBinary entry.
        choices = {spaces.Discrete: "n", spaces.MultiDiscrete: "nvec"}.get(type(action_space))
        self._num_choices = np.asarray(getattr(action_space, choices) if choices else 2, dtype=np.uint64)

    @property
    def gives_tensors(self) -> bool:
        """Whether actions and all that is returned are tensors of torch on ``device``."""
        return self.device is not None

    @property
    def draws(self) -> Any:
        """What draws random numbers: ``np_random``, or on a device the same methods with ``generator``."""
        return self.np_random if self.device is None else self.xp

    def _start(self, rows: Array) -> None:
        raise NotImplementedError

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        raise NotImplementedError

    def _observe(self) -> Any:
        raise NotImplementedError

    def _draw(self, row: int) -> Picture:
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
        if self.generator is not None and seed is not None:
            self.generator.manual_seed(seed)
        self._running, self.last_actions = True, None
        self._restart(self._all_rows)
        return self._observe(), {}

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Act in every row, and restart the rows that end.

        Args:
            actions: of the batched action space, ``[B, ...]``.

        Returns:
            Observations ``[B, ...]``, rewards ``[B]``, terminated ``[B]``, truncated ``[B]`` and the info.
        """
        observations, rewards, terminated, truncated = self.transition(actions)
        ended = terminated | truncated
        if self.device is None and not np.count_nonzero(ended):  # faster than any()
            return observations, rewards, terminated, truncated, {}
        info = {"final_obs": observations, "_final_obs": ended}
        self._restart(np.flatnonzero(ended) if self.device is None else ended)
        return self._observe(), rewards, terminated, truncated, info

    def transition(self, actions: Array) -> tuple[Any, Array, Array, Array]:
        """Act in every row as ``step`` does, but leave rows that end at their last observations.

        Raises:
            ResetNeeded: ``reset`` was never called.
            ValueError: the actions do not lie in the action space; on a device: have another shape, kind or device.
        """
        if not self._running:
            raise ResetNeeded("Call reset() before step().")
        checked = self._checked(actions)
        if self.render_mode is not None:
            self.last_actions = self.xp.export(checked)
        rewards, terminated = self._advance(checked)
        self.elapsed_steps += 1
        if self.max_episode_steps is None:
            truncated = self.xp.zeros(self.num_envs, self.xp.bool)
        else:
            truncated = self.elapsed_steps >= self.max_episode_steps
        if self.device is not None:
            rewards = self.xp.astype(rewards, self.xp.float32)
        return self._observe(), rewards, terminated, truncated

    def render(self) -> tuple[Picture, ...] | None:
        """Draw every row as it is now, uint8 ``[H, W, 3]`` each; None without a ``render_mode``.

        Raises:
            ResetNeeded: ``reset`` was never called.
        """
        if self.render_mode is None:
            return None
        if not self._running:
            raise ResetNeeded("Call reset() before render().")
        return tuple(self._draw(row) for row in range(self.num_envs))

    def _restart(self, rows: Array) -> None:
        self.xp.put(self.elapsed_steps, rows, 0)
        self._start(rows)

    def _checked(self, actions: Array) -> Array:
        """Return the actions as int64 or float32 ``[B, ...]``.

        Raises:
            ValueError: they have another shape or dtype than the action space, or lie outside of it.
        """
        if self.device is not None:
            return self.xp.check_actions(actions, self._action_shape, continuous=self._limits is not None)
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
        """Return all that is needed to go on exactly: copies of the per-row arrays, and the generator's state.

        With a device all of these are tensors on the CPU.
        """
        arrays = {name: self.xp.export(getattr(self, name)) for name in ("elapsed_steps", *self.state_names)}
        rng = self.np_random.bit_generator.state if self.generator is None else self.generator.get_state()
        return {**arrays, "running": self._running, "rng": rng}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the ``state_dict()`` of an environment built with the same arguments, but for the device.

        A generator of another kind of device (numpy, CPU, GPU) draws other numbers: then the environment keeps its own
        as it is, the log says so, and only what is drawn from here on differs.

        Raises:
            ValueError: ``state`` has other arrays, or arrays of other shapes.
        """
        own = self.state_dict()
        arrays = ("elapsed_steps", *self.state_names)
        if state.keys() != own.keys() or any(np.shape(state[name]) != own[name].shape for name in arrays):
            expected = {name: tuple(own[name].shape) for name in arrays}
            raise ValueError(f"The state does not belong to this environment: expected arrays {expected}.")
        if not isinstance(state["running"], bool):
            raise ValueError(f"running={state['running']!r}: it must be True or False.")
        if not self._load_generator(state["rng"]):  # first, for it may be refused
            log.info("the state is of another kind of device: from here on other random numbers are drawn than there")
        for name in arrays:
            setattr(self, name, self.xp.load(getattr(self, name), state[name]))
        self._running = state["running"]

    def _load_generator(self, state: Any) -> bool:
        """Put the generator where it was; return False if the state is that of another kind of generator."""
        of_numpy = isinstance(state, dict)
        if of_numpy != (self.generator is None):
            return False
        if not of_numpy:
            return self.xp.load_generator(state)
        self.np_random.bit_generator.state = state
        return True
