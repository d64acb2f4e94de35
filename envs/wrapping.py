"""The named wrappers of any environment: frames that are skipped or stacked, rewards that are scaled or clipped.

A single environment gets Gymnasium's own ``RepeatAction`` and ``FrameStackObservation`` before it is vectorised. The
tasks of this package, which step all copies at once, get what Gymnasium does not have: the same for a vector that
resets ended rows within a step. Rewards are changed outermost, and what they were is told beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import FrameStackObservation, RepeatAction, TransformObservation

from envs.action_mask import MASK, has_mask_leaf
from envs.batched_env import BatchedEnv
from envs.checks import positive, within
from envs.fitting import make_fit

UNCHANGED = "unchanged_rewards"
"""Key in the info of ``ChangedRewards``, which rewards stand under as the environment paid them."""


def wrap_one(env: gymnasium.Env, frame_skip: int = 1, frame_stack: int = 1) -> gymnasium.Env:
    """Wrap a single environment.

    Args:
        env: the environment.
        frame_skip: steps that each action lasts; their rewards are added, and an end ends them.
        frame_stack: observations that are shown at once, the oldest first; at the start of an episode the first one
            stands in for those before it.

    Raises:
        ValueError: a number is below 1, or the observations cannot be stacked.
    """
    positive(frame_skip=frame_skip, frame_stack=frame_stack)
    if frame_skip > 1:
        env = RepeatAction(env, frame_skip)
    if frame_stack > 1:
        _check_no_mask(env.observation_space, frame_stack)
        # new arrays of the declared types: an environment may use its own again
        env = TransformObservation(env, make_fit(env.observation_space), env.observation_space)
        env = FrameStackObservation(env, frame_stack)
    return env


def wrap_many(
    envs: VectorEnv,
    name: str = "the environment",
    frame_skip: int = 1,
    frame_stack: int = 1,
    scale_rewards: float = 1.0,
    clip_rewards: float | None = None,
) -> VectorEnv:
    """Wrap a vector environment; one that nothing is asked of is returned as it is.

    Args:
        envs: the environment.
        name: of it, for messages.
        frame_skip: see ``wrap_one``.
        frame_stack: see ``wrap_one``.
        scale_rewards: the agent learns from rewards times this.
        clip_rewards: the agent learns from rewards within plus and minus this; None leaves them. They are scaled first.

    Raises:
        ValueError: a value is out of range, or cannot be had of this environment.
    """
    positive(frame_skip=frame_skip, frame_stack=frame_stack)
    within(1e-12, math.inf, scale_rewards=scale_rewards, clip_rewards=1.0 if clip_rewards is None else clip_rewards)
    asked = {"frame_skip": frame_skip > 1, "frame_stack": frame_stack > 1}
    asked |= {"scale_rewards": scale_rewards != 1, "clip_rewards": clip_rewards is not None}
    wanted = [key for key, is_asked in asked.items() if is_asked]
    task = envs.unwrapped
    if wanted and getattr(task, "gives_tensors", False):
        raise ValueError(
            f"{wanted[0]}: {name} gives tensors, only environments of numpy can be wrapped: leave out device"
        )
    if (asked["frame_skip"] or asked["frame_stack"]) and not isinstance(task, BatchedEnv):
        raise ValueError(f"{wanted[0]}: {name} steps all its rows itself, so it has to do this itself, too")
    if asked["frame_skip"]:
        envs = BatchedFrameSkip(envs, frame_skip)
    if asked["frame_stack"]:
        envs = BatchedFrameStack(envs, frame_stack)
    if asked["scale_rewards"] or asked["clip_rewards"]:
        envs = ChangedRewards(envs, scale_rewards, clip_rewards)
    return envs


def _check_no_mask(space: gymnasium.Space, frame_stack: int) -> None:
    """Check that no action mask would be stacked: only the last one holds."""
    if has_mask_leaf(space):
        raise ValueError(f"frame_stack={frame_stack}: the observation has a leaf {MASK!r}, which cannot be stacked")


class BatchedFrameSkip(VectorWrapper):
    """A task of this package whose actions last several steps; the rewards of a row are added up to its end.

    A row whose episode ends waits at the first observation of the next one until the others have made their steps.

    Args:
        env: the task, in numpy.
        frame_skip: steps of an action.

    Raises:
        ValueError: the rows of the task do not have their states one by one, as where several agents share a world.
    """

    def __init__(self, env: VectorEnv, frame_skip: int):
        super().__init__(env)
        task: Any = env.unwrapped
        self.task, self.frame_skip, self.names = task, frame_skip, ("elapsed_steps", *task.state_names)
        if any(np.shape(getattr(self.task, name))[:1] != (self.num_envs,) for name in self.names):
            raise ValueError(f"frame_skip={frame_skip}: rows of {type(self.task).__name__} cannot wait for each other")

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row, ``frame_skip`` times or up to its end."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        final = info.get("final_obs")
        for _ in range(self.frame_skip - 1):
            ended = terminated | truncated
            if ended.all():
                break
            with self._waiting(ended):
                shown, paid, *ends, info = self.env.step(actions)
            rewards, observations = rewards + np.where(ended, 0.0, paid), _choose(ended, observations, shown)
            terminated, truncated = terminated | (ends[0] & ~ended), truncated | (ends[1] & ~ended)
            if "final_obs" in info:
                final = info["final_obs"] if final is None else _choose(ended, final, info["final_obs"])
        ended = terminated | truncated
        told = {"final_obs": final, "_final_obs": ended} if ended.any() else {}
        return observations, rewards, terminated, truncated, told

    @contextmanager
    def _waiting(self, rows: np.ndarray) -> Iterator[None]:
        """Put ``rows`` (bool ``[B]``) back where they were before the block."""
        before = {name: getattr(self.task, name).copy() for name in self.names} if rows.any() else {}
        yield
        for name, array in before.items():
            setattr(self.task, name, _choose(rows, array, getattr(self.task, name)))


class BatchedFrameStack(VectorWrapper):
    """A task of this package whose last observations are shown at once, ``[B, frames, ...]``, the oldest first.

    What closed an episode stands behind its own frames; the next episode begins with its first observation alone.

    Args:
        env: the task, in numpy.
        frame_stack: the number of observations.

    Raises:
        ValueError: the observation holds an action mask.
    """

    def __init__(self, env: VectorEnv, frame_stack: int):
        super().__init__(env)
        _check_no_mask(env.single_observation_space, frame_stack)
        self.frame_stack = frame_stack
        self.single_observation_space = batch_space(env.single_observation_space, frame_stack)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.frames: Any = None  # from the first reset on

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin B episodes."""
        observations, info = self.env.reset(seed=seed, options=options)
        self.frames = self._repeat(observations)
        return self.frames, info

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        ended, frames = terminated | truncated, self._append(observations)
        if "final_obs" in info:
            info = info | {"final_obs": self._append(info["final_obs"])}
            frames = _choose(ended, self._repeat(observations), frames)
        self.frames = frames
        return frames, rewards, terminated, truncated, info

    def _repeat(self, observations: Any) -> Any:
        return _map(lambda leaf: np.stack([leaf] * self.frame_stack, axis=1), observations)

    def _append(self, observations: Any) -> Any:
        return _map(lambda frames, leaf: np.concatenate([frames[:, 1:], leaf[:, None]], 1), self.frames, observations)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on exactly: the state of the task, and the frames."""
        task: Any = self.env.unwrapped
        return {"task": task.state_dict(), "frames": self.frames}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the ``state_dict()`` of an environment built with the same arguments.

        Raises:
            ValueError: ``state`` is that of another one.
        """
        task: Any = self.env.unwrapped
        shapes, expected = _map(np.shape, state["frames"]), _map(np.shape, self.frames)
        if shapes != expected:
            raise ValueError(f"the frames have the shapes {shapes}: they must be {expected}")
        task.load_state_dict(state["task"])
        self.frames = state["frames"]


class ChangedRewards(VectorWrapper):
    """A vector environment whose rewards are scaled, then clipped, for the agent; ``info`` has them as they were paid.

    Gymnasium's ``TransformReward`` and ``ClipReward`` keep nothing of what was paid, which returns have to be counted
    in: otherwise an evaluation would not tell what the agent is worth. So this says in its metadata that
    ``info["unchanged_rewards"]``, float ``[B]``, is that.

    Args:
        env: the environment.
        scale: a factor.
        clip: the largest size; None for any.
    """

    def __init__(self, env: VectorEnv, scale: float, clip: float | None):
        super().__init__(env)
        self.scale, self.clip = scale, math.inf if clip is None else clip
        self.metadata = {**env.metadata, "changes_rewards": True}
        base = env.unwrapped
        if isinstance(base, (SyncVectorEnv, AsyncVectorEnv)):  # before Gymnasium 1.4 these shared their metadata
            self.metadata["autoreset_mode"] = base.autoreset_mode

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        return observations, self.change(rewards), terminated, truncated, {**info, UNCHANGED: rewards}

    def change(self, rewards: np.ndarray) -> np.ndarray:
        """Return rewards of any shape as the agent is told them."""
        return np.clip(self.scale * rewards, -self.clip, self.clip)


def change_rewards(envs: VectorEnv, rewards: np.ndarray) -> np.ndarray:
    """Return rewards that were paid as ``envs`` tells them its agent: as they are, unless it changes them."""
    while isinstance(envs, VectorWrapper):
        if isinstance(envs, ChangedRewards):
            return envs.change(rewards)
        envs = envs.env
    return rewards


def _choose(rows: np.ndarray, here: Any, elsewhere: Any) -> Any:
    """Return new arrays ``[B, ...]``: ``here`` in ``rows`` (bool ``[B]``), ``elsewhere`` in the others."""

    def pick(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(rows.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    return _map(pick, here, elsewhere)


def _map(function: Callable[..., Any], value: Any, *others: Any) -> Any:
    """Apply a function to the arrays inside dicts and tuples of one structure."""
    if isinstance(value, dict):
        return {key: _map(function, part, *(other[key] for other in others)) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_map(function, *parts) for parts in zip(value, *others, strict=True))
    return function(value, *others)
