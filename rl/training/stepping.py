"""Stepping any Gymnasium vector environment with one meaning of what comes back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv


@dataclass
class Outcome:
    """What one step of B environments brought.

    Attributes:
        obs: the observation to act on next, ``[B, ...]``; a new episode's first one where one ended (SAME_STEP).
        rewards: float32 ``[B]``.
        terminated, truncated: bool ``[B]``.
        final_obs: the observation after the last action, ``[B, ...]``, read where ``truncated``; None if nowhere.
        ignored: bool ``[B]``: no transition, the environment only used the step to reset itself (NEXT_STEP), or
            nobody is in the row (``info["ignored"]``).
    """

    obs: Any
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: Any
    ignored: np.ndarray

    @property
    def ended(self) -> np.ndarray:
        """Where the next observation opens an episode, bool ``[B]``."""
        return self.terminated | self.truncated | self.ignored


class Stepper:
    """A vector environment in SAME_STEP or NEXT_STEP autoreset mode.

    In NEXT_STEP mode the step after an end ignores the action, pays nothing and returns the first observation of the
    next episode. It is marked as ``ignored``; agents leave it out of their rollouts. In either mode an environment may
    mark steps itself, by a bool array ``[B]`` under ``ignored`` in its info: a row whose agent is dead while others of
    its world still play, say. What follows an ignored step opens an episode or is ignored too.

    Args:
        envs: the environment.
        all_finals: ``final_obs`` is read where ``terminated``, too.

    Raises:
        ValueError: the environment has another autoreset mode.
    """

    def __init__(self, envs: VectorEnv, all_finals: bool = False):
        mode = envs.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
            raise ValueError(f"autoreset mode {mode} of {envs} is not supported: use SAME_STEP or NEXT_STEP")
        self.envs = envs
        self.late = mode == AutoresetMode.NEXT_STEP
        self.all_finals = all_finals
        self.resetting = np.zeros(envs.num_envs, dtype=bool)

    def reset(self, seed: int | None) -> Any:
        """The first observations of B episodes."""
        self.resetting[:] = False
        return self.envs.reset(seed=seed)[0]

    def step(self, actions: np.ndarray) -> Outcome:
        """``actions [B, ...]`` -> what came of them."""
        obs, rewards, terminated, truncated, info = self.envs.step(actions)
        final = None
        ignored = self.resetting | info["ignored"] if "ignored" in info else self.resetting
        if truncated.any() or (self.all_finals and terminated.any()):
            final = obs if self.late else dense(info["final_obs"], obs)
        if self.late:
            self.resetting = terminated | truncated
        return Outcome(obs, np.asarray(rewards, dtype=np.float32), terminated, truncated, final, ignored)

    def statistics(self) -> dict[str, float]:
        """What an environment with ``drain_statistics`` has counted since the last call: values by TensorBoard tag."""
        drain = getattr(self.envs.unwrapped, "drain_statistics", None)
        return drain() if drain is not None else {}


def dense(final: Any, obs: Any) -> Any:
    """Final observations as one batch of the kind of ``obs``.

    Gymnasium's own vector environments hand them over as an object array with None where nothing ended.
    """
    if not (isinstance(final, np.ndarray) and final.dtype == object):
        return final
    return _stack(list(final), obs)


def _stack(rows: list[Any], obs: Any) -> Any:
    if isinstance(obs, dict):
        return {key: _stack([None if row is None else row[key] for row in rows], part) for key, part in obs.items()}
    if isinstance(obs, tuple):
        return tuple(_stack([None if row is None else row[i] for row in rows], part) for i, part in enumerate(obs))
    batch = np.zeros_like(obs)
    for index, row in enumerate(rows):
        if row is not None:
            batch[index] = row
    return batch
