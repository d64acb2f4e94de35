"""Turn a vector environment that resets one step late, or not at all, into a SAME_STEP one."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper


class SameStepAutoreset(VectorWrapper):
    """A vector environment in which every row of every step is a transition: ended rows are reset in the same step.

    With NEXT_STEP autoreset, the step after an end ignores that row's action and pays nothing; a learner would have to
    mask it out. Here ``env`` is asked to reset only the ended rows, at once, with
    ``reset(options={"reset_mask": ...})``. ``SyncVectorEnv`` and ``AsyncVectorEnv`` honour this in any autoreset mode.
    Gymnasium's ``CartPoleVectorEnv`` does not (it ignores the mask and resets all rows), so its rows are reset in place
    instead. An environment that knows
    neither way cannot be adapted: its step moves all rows, so no row can be reset while the others wait. This is
    detected at the first reset, in which the other rows must keep their observations.

    ``info["final_obs"]`` is dense, ``[B, ...]``, valid where ``info["_final_obs"]`` is True; ``info["final_info"]``
    likewise.

    Args:
        env: resets one step late (NEXT_STEP), or not at all (DISABLED).
    """

    def __init__(self, env: VectorEnv):
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row, and reset those that end: observations, rewards, terminated, truncated, info.

        Raises:
            TypeError: ``env`` cannot reset single rows.
        """
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        ended = terminated | truncated
        if not ended.any():
            return observations, rewards, terminated, truncated, info
        final_obs = deepcopy(observations)  # the environment may reuse its arrays in the reset
        rewards, terminated, truncated = (np.array(given) for given in (rewards, terminated, truncated))
        observations, reset_info = self._reset_rows(ended)
        if not _equal_rows(final_obs, observations, ~ended):
            raise TypeError(
                f"{self.env} ignores reset(options={{'reset_mask': ...}}): it reset rows that had not ended, "
                f"so it cannot be used in SAME_STEP mode."
            )
        info = {
            **_merge_info(info, reset_info, ended),
            "final_obs": final_obs,
            "_final_obs": ended,
            "final_info": info,
            "_final_info": ended.copy(),
        }
        return observations, rewards, terminated, truncated, info

    def _reset_rows(self, ended: np.ndarray) -> tuple[Any, dict[str, Any]]:
        if type(self.env) is not CartPoleVectorEnv:
            return self.env.reset(options={"reset_mask": ended.copy()})
        env = self.env
        state: Any = env.state  # an array ``[4, B]`` from the first reset on, though Gymnasium declares it as None
        state[:, ended] = env.np_random.uniform(env.low, env.high, size=(4, ended.sum()))
        env.steps[ended] = 0
        env.prev_done[ended] = False
        return state.T.astype(np.float32), {}


def _leaves(observations: Any) -> Iterator[Any]:
    if isinstance(observations, dict):
        observations = tuple(observations.values())
    if isinstance(observations, tuple):
        for part in observations:
            yield from _leaves(part)
    else:
        yield observations


def _equal_rows(left: Any, right: Any, rows: np.ndarray) -> bool:
    pairs = zip(_leaves(left), _leaves(right), strict=True)
    return all(np.array_equal(np.asarray(a)[rows], np.asarray(b)[rows]) for a, b in pairs)


def _merge_info(info: dict[str, Any], reset_info: dict[str, Any], ended: np.ndarray) -> dict[str, Any]:
    """Return the step's info in the rows that go on and the reset's info in those that ended; ``_key`` masks too."""
    merged = {}
    for key, value in {**info, **reset_info}.items():
        if isinstance(value, dict):
            merged[key] = _merge_info(info.get(key, {}), reset_info.get(key, {}), ended)
        elif isinstance(value, np.ndarray):
            blank = np.zeros_like(value)
            before, after = info.get(key, blank), reset_info.get(key, blank)
            merged[key] = np.where(ended.reshape(-1, *[1] * (value.ndim - 1)), after, before)
    return merged
