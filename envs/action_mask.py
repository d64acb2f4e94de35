"""Turn ``info["action_mask"]``, as action-masking libraries have it, into the observation leaf that agents know."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.faults import MisfitError
from envs.fitting import to_array

MASK = "action_mask"
"""The key in info, and the leaf of the observation: an agent never takes an action that is 0 there."""


def count_choices(space: spaces.Space) -> int | None:
    """Return the length of a mask: all choices of all branches side by side; None if such actions have no mask."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        return int(space.nvec.sum())
    return None


def has_mask_leaf(space: spaces.Space) -> bool:
    """Tell whether an observation of ``space`` holds a mask already."""
    return isinstance(space, spaces.Dict) and MASK in space.spaces


def can_be_masked(env: gymnasium.Env) -> bool:
    """Tell whether a mask in info could be used: its actions are discrete, and its observation has no mask yet."""
    return count_choices(env.action_space) is not None and not has_mask_leaf(env.observation_space)


class ActionMask(gymnasium.Wrapper):
    """A wrapper that puts ``info["action_mask"]`` into the observation, of ``reset`` and of every step.

    The observation becomes a dict with the leaf ``action_mask`` (int8, one entry for each action; those of several
    branches side by side); one that is a dict keeps its leaves, any other becomes the leaf ``obs``. After the last step
    of an episode no action is taken, so a mask that is missing or forbids everything does no harm there.

    Args:
        env: a single environment of Discrete or MultiDiscrete actions.

    Raises:
        MisfitError: a mask is missing, has another length, has other entries than 0 and 1, or allows no action.
    """

    def __init__(self, env: gymnasium.Env):
        super().__init__(env)
        space, actions = env.observation_space, env.action_space
        choices = count_choices(actions)
        assert choices is not None  # see can_be_masked
        self.choices = choices
        self.sizes = actions.nvec.tolist() if isinstance(actions, spaces.MultiDiscrete) else [choices]
        self.inner = space.spaces if isinstance(space, spaces.Dict) else None
        leaves = {"obs": space} if self.inner is None else dict(self.inner)
        self.observation_space = spaces.Dict(leaves | {MASK: spaces.MultiBinary(self.choices)})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: its first observation, mask included, and the info."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._join(observation, self.read(info, ended=False)), info

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act once: observation, mask included, reward, terminated, truncated and the info."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        mask = self.read(info, ended=bool(terminated) or bool(truncated))
        return self._join(observation, mask), reward, terminated, truncated, info

    def _join(self, observation: Any, mask: np.ndarray) -> dict[str, Any]:
        return {"obs": observation, MASK: mask} if self.inner is None else {**observation, MASK: mask}

    def read(self, info: dict[str, Any], ended: bool) -> np.ndarray:
        """Return the mask of an info, int8 ``[choices]``.

        Args:
            info: of a reset or step.
            ended: no action will be taken.
        """
        given = info.get(MASK)
        if given is None:
            if ended:
                return np.ones(self.choices, dtype=np.int8)
            raise MisfitError(f"info has no {MASK!r}, which its first one had: it must have one in every step")
        if isinstance(given, (tuple, list)) and len(given) == len(self.sizes) > 1:  # one for each branch
            given = np.concatenate([to_array(part, f"info[{MASK!r}]").reshape(-1) for part in given])
        mask = to_array(given, f"info[{MASK!r}]")
        if mask.shape != (self.choices,):
            raise MisfitError(
                f"info[{MASK!r}] has shape {mask.shape}: it must be ({self.choices},), one for each action"
            )
        if not np.isin(mask, (0, 1)).all():
            raise MisfitError(f"info[{MASK!r}]={mask}: it must hold 0 or 1, or False or True, for each action")
        branches = np.split(mask, np.cumsum(self.sizes)[:-1])
        if not ended and not all(branch.any() for branch in branches):
            raise MisfitError(f"info[{MASK!r}]={mask}: it must allow at least one action")
        return mask.astype(np.int8)
