"""Tiny environments with known answers, each of which can go wrong in one way only: tests of a learning algorithm.

They are steps of a ladder: if an agent fails on one, everything above it is pointless to look at. Actions are
``Discrete(2)`` and the optimal return is 1 where nothing else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from envs.batched_env import BatchedEnv
from envs.checks import one_of, positive


class ConstantReward(BatchedEnv):
    """One step, one observation, reward 1: the value must become 1."""

    optimal_return = memoryless_return = 1.0

    def __init__(self, num_envs: int):
        super().__init__(num_envs, spaces.Box(0.0, 1.0, (1,), np.float32), spaces.Discrete(2))

    def _start(self, rows: np.ndarray) -> None:
        pass

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(self.num_envs), np.ones(self.num_envs, dtype=np.bool_)

    def _observe(self) -> np.ndarray:
        return np.zeros((self.num_envs, 1), dtype=np.float32)


class SignReward(BatchedEnv):
    """One step, the observation is -1 or +1 and so is the reward: the value must depend on the observation.

    The optimal return is 0: no action matters.
    """

    state_names = ("sign",)
    optimal_return = memoryless_return = 0.0

    def __init__(self, num_envs: int):
        super().__init__(num_envs, spaces.Box(-1.0, 1.0, (1,), np.float32), spaces.Discrete(2))
        self.sign = np.ones(self.num_envs, dtype=np.float32)

    def _start(self, rows: np.ndarray) -> None:
        self.sign[rows] = 2 * self.np_random.integers(2, size=len(rows)) - 1

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.sign.astype(np.float64), np.ones(self.num_envs, dtype=np.bool_)

    def _observe(self) -> np.ndarray:
        return self.sign[:, None].copy()


class ActionReward(ConstantReward):
    """One step, one observation, reward 1 for action 1 and 0 for action 0: the policy must change."""

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return actions.astype(np.float64), np.ones(self.num_envs, dtype=np.bool_)


class DelayedReward(BatchedEnv):
    """Two steps, observations 0 and 1, reward 1 at the second: the first value must become the discount factor."""

    optimal_return = memoryless_return = 1.0

    def __init__(self, num_envs: int):
        super().__init__(num_envs, spaces.Box(0.0, 2.0, (1,), np.float32), spaces.Discrete(2))

    def _start(self, rows: np.ndarray) -> None:
        pass

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        second = self.elapsed_steps == 1
        return second.astype(np.float64), second

    def _observe(self) -> np.ndarray:
        return self.elapsed_steps[:, None].astype(np.float32)


class EchoCue(BatchedEnv):
    """Two steps: a cue (one-hot of 2), then a blank; reward 1 for naming the cue at the blank. Memoryless: 0.5."""

    state_names = ("cue",)
    optimal_return, memoryless_return = 1.0, 0.5

    def __init__(self, num_envs: int):
        super().__init__(num_envs, spaces.Box(0.0, 1.0, (2,), np.float32), spaces.Discrete(2))
        self.cue = np.zeros(self.num_envs, dtype=np.int64)

    def _start(self, rows: np.ndarray) -> None:
        self.cue[rows] = self.np_random.integers(2, size=len(rows))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        second = self.elapsed_steps == 1
        return (second & (actions == self.cue)).astype(np.float64), second

    def _observe(self) -> np.ndarray:
        observations = np.eye(2, dtype=np.float32)[self.cue]
        observations[self.elapsed_steps > 0] = 0.0
        return observations


class Counter(BatchedEnv):
    """A counter of its own steps, for tests of alignment: no randomness, and actions do nothing.

    The observation is [steps taken in this episode, row]; the reward is the first number of the observation acted
    upon. ``episode_length`` is one number, or one per row to let rows end at different times. ``end`` says how an
    episode ends: "terminated", "truncated", or "both" at once.
    """

    def __init__(self, num_envs: int, episode_length: int | Sequence[int] = 5, end: str = "terminated"):
        one_of(("terminated", "truncated", "both"), end=end)
        positive(num_envs=num_envs)
        if isinstance(episode_length, (Sequence, np.ndarray)):
            each = list(episode_length)
        else:
            each = [episode_length] * num_envs
        if len(each) != num_envs:
            raise ValueError(
                f"episode_length={episode_length}: it must be one whole number, or one for each of {num_envs} rows"
            )
        for length in each:
            positive(episode_length=length)
        self.episode_length = np.array(each, dtype=np.int64)
        self.terminates = end != "truncated"
        super().__init__(
            num_envs,
            spaces.Box(0.0, np.inf, (2,), np.float32),
            spaces.Discrete(2),
            max_episode_steps=None if end == "terminated" else self.episode_length,
        )

    def _start(self, rows: np.ndarray) -> None:
        pass

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        terminated = self.terminates & (self.elapsed_steps + 1 >= self.episode_length)
        return self.elapsed_steps.astype(np.float64), terminated

    def _observe(self) -> np.ndarray:
        return np.stack([self.elapsed_steps, self.rows], axis=1).astype(np.float32)


class SpaceProbe(BatchedEnv):
    """A task in any spaces: it shows a random bit as an observation and wants it back as an action, at every step.

    ``observation``: "box" (the sign of both numbers), "image" (uint8, channels first), "image_last" (channels last),
    "discrete", "dict" (image and numbers) or "tuple" (numbers and discrete). Images are bright in the left half for 0,
    in the right half for 1. ``action``: "discrete", "multi_discrete" (``MultiDiscrete([2, 3])``: the bit and twice the
    bit), "multi_binary" (the bit twice) or "box" (-1 or +1 twice).
    The reward is ``1 / episode_length`` for a right action, in proportion for a half right one.
    """

    state_names = ("bit",)
    optimal_return = memoryless_return = 1.0

    image_shape = (3, 12, 12)
    observation_spaces: ClassVar[dict[str, spaces.Space]] = {
        "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
        "image": spaces.Box(0, 255, image_shape, np.uint8),
        "image_last": spaces.Box(0, 255, (12, 12, 3), np.uint8),
        "discrete": spaces.Discrete(2),
    }
    action_spaces: ClassVar[dict[str, spaces.Space]] = {
        "discrete": spaces.Discrete(2),
        "multi_discrete": spaces.MultiDiscrete([2, 3]),
        "multi_binary": spaces.MultiBinary(2),
        "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
    }
    composites: ClassVar[dict[str, dict[str, str] | tuple[str, ...]]] = {
        "dict": {"image": "image", "numbers": "box"},
        "tuple": ("box", "discrete"),
    }

    def __init__(self, num_envs: int, observation: str = "box", action: str = "discrete", episode_length: int = 4):
        one_of((*self.observation_spaces, *self.composites), observation=observation)
        one_of(tuple(self.action_spaces), action=action)
        positive(episode_length=episode_length)
        self.episode_length = int(episode_length)
        self.form: dict[str, str] | tuple[str, ...] | str = self.composites.get(observation, observation)
        space: spaces.Space
        if isinstance(self.form, dict):
            space = spaces.Dict({key: self.observation_spaces[form] for key, form in self.form.items()})
        elif isinstance(self.form, tuple):
            space = spaces.Tuple([self.observation_spaces[form] for form in self.form])
        else:
            space = self.observation_spaces[self.form]
        super().__init__(num_envs, space, self.action_spaces[action])
        self.bit = np.zeros(self.num_envs, dtype=np.int64)
        self._images = np.zeros((2, *self.image_shape), dtype=np.uint8)
        self._images[0, :, :, :6] = self._images[1, :, :, 6:] = 255

    def _start(self, rows: np.ndarray) -> None:
        self.bit[rows] = self.np_random.integers(2, size=len(rows))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.single_action_space, spaces.Box):
            right = 1.0 - np.abs(actions - (2 * self.bit - 1)[:, None]).mean(axis=1) / 2
        elif isinstance(self.single_action_space, spaces.MultiDiscrete):
            right = (actions == self.bit[:, None] * [1, 2]).mean(axis=1)
        else:
            right = (actions.reshape(self.num_envs, -1) == self.bit[:, None]).mean(axis=1)
        self.bit = self.np_random.integers(2, size=self.num_envs)
        return right / self.episode_length, self.elapsed_steps == self.episode_length - 1

    def _observe(self) -> Any:
        if isinstance(self.form, dict):
            return {key: self._show(form) for key, form in self.form.items()}
        if isinstance(self.form, tuple):
            return tuple(self._show(form) for form in self.form)
        return self._show(self.form)

    def _show(self, form: str) -> np.ndarray:
        if form == "discrete":
            return self.bit.copy()
        if form == "box":
            return np.repeat((2 * self.bit - 1)[:, None], 2, axis=1).astype(np.float32)
        images = self._images[self.bit]  # [B, 3, 12, 12]
        return images if form == "image" else np.ascontiguousarray(images.transpose(0, 2, 3, 1))
