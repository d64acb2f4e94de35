"""Play an environment for the checks of it: by random actions or anyone's, and read what a step really returned."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rl.spaces import LEAF_SPACES, leaf_arrays, list_leaves

Act = Callable[[Any, np.ndarray], Any]
"""A policy: observations ``[B, ...]`` and whether they open an episode, bool ``[B]``, to actions ``[B, ...]``."""

Leaves = dict[str, np.ndarray]
"""The arrays of an observation by leaf name."""

MASK = "action_mask"
"""The leaf of an observation that forbids actions where it is 0."""


class Step(NamedTuple):
    """One step of B environments as a check sees it.

    Attributes:
        before: what was acted upon, leaves ``[B, ...]``.
        opens: where ``before`` opens an episode, bool ``[B]``.
        actions: ``[B, ...]``.
        rewards: ``[B]``, as the environment gave them.
        terminated: bool ``[B]``.
        truncated: bool ``[B]``.
        ignored: bool ``[B]``: no transition.
        final_rows: ``[n]``, the rows that ended and whose last observation was told.
        final: that observation, leaves ``[n, ...]``.
    """

    before: Leaves
    opens: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    ignored: np.ndarray
    final_rows: np.ndarray
    final: Leaves

    @property
    def ended(self) -> np.ndarray:
        """Where an episode ended, bool ``[B]``."""
        return self.terminated | self.truncated


class RandomPlay:
    """A policy of uniformly random actions, of those that a leaf ``action_mask`` allows if there is one.

    Args:
        envs: the environment.
        seed: of the actions.
    """

    def __init__(self, envs: VectorEnv, seed: int):
        self.space = deepcopy(envs.action_space)  # the environment's own generator stays as it is
        self.space.seed(seed)
        self.single, self.rng = envs.single_action_space, np.random.default_rng(seed)
        observed = envs.single_observation_space
        self.masked = isinstance(observed, spaces.Dict) and MASK in observed.spaces

    def __call__(self, obs: Any, opens: np.ndarray) -> Any:
        """Draw actions ``[B, ...]``."""
        if not self.masked or not isinstance(self.single, (spaces.Discrete, spaces.MultiDiscrete)):
            return self.space.sample()
        sizes = self.single.nvec if isinstance(self.single, spaces.MultiDiscrete) else [self.single.n]
        allowed = np.asarray(obs[MASK]).astype(float)
        chances = self.rng.random(allowed.shape) * (allowed > 0)
        parts = np.split(chances, np.cumsum(sizes)[:-1].astype(int), axis=-1)
        chosen = np.stack([part.argmax(-1) for part in parts], axis=-1) + np.asarray(self.single.start)
        return chosen if isinstance(self.single, spaces.MultiDiscrete) else chosen[..., 0]


def read_leaves(space: spaces.Space, obs: Any) -> Leaves:
    """Return the leaves of a batched observation that are arrays; texts and graphs are left out."""
    names = [name for name, leaf in list_leaves(space).items() if isinstance(leaf, LEAF_SPACES)]
    return leaf_arrays(space, obs, names)


def read_final(
    space: spaces.Space, obs: Any, ended: np.ndarray, info: dict[str, Any], resets_on_next_step: bool
) -> tuple[np.ndarray, Leaves]:
    """Return the rows whose last observation a step told, ``[n]``, and its leaves ``[n, ...]``.

    Args:
        space: of one observation.
        obs: that the step returned, ``[B, ...]``.
        ended: bool ``[B]``.
        info: that the step returned.
        resets_on_next_step: ``obs`` itself is the last observation (NEXT_STEP).
    """
    rows = np.flatnonzero(ended)
    final = obs if resets_on_next_step else info.get("final_obs")
    if final is None or not len(rows):
        return rows[:0], {}
    if isinstance(final, (list, np.ndarray)) and not (isinstance(final, np.ndarray) and final.dtype != object):
        rows = np.array([row for row in rows if final[row] is not None], dtype=np.int64)
        single = [read_leaves(space, final[row]) for row in rows]
        return rows, {name: np.stack([one[name] for one in single]) for name in single[0]} if single else {}
    return rows, {name: leaf[rows] for name, leaf in read_leaves(space, final).items()}


def fingerprint(leaves: Leaves) -> np.ndarray:
    """Return a number for each row of leaves ``[n, ...]``, int64 ``[n]``: rows that are equal have the same."""
    count = len(next(iter(leaves.values()))) if leaves else 0
    marks = np.zeros(count, dtype=np.int64)
    for leaf in leaves.values():
        rows = np.ascontiguousarray(leaf).reshape(count, -1)
        marks = np.array([zlib.crc32(row.tobytes(), int(mark)) for row, mark in zip(rows, marks, strict=True)])
    return marks.astype(np.int64)
