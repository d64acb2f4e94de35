"""Adapt a vector environment that a user wrote, or make one of the single environment that stands in its place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from envs.action_mask import MASK
from envs.agent_rows import AgentRows
from envs.batched_env import BatchedEnv
from envs.faults import MisfitError, UserCodeError
from envs.fitting import fit_flags, fit_rewards, make_fit
from envs.guest import Guest, log, tell_call
from envs.guests import vectorise
from envs.same_step_autoreset import SameStepAutoreset
from envs.workers import WorkerEnvs, close

MODES = "metadata['autoreset_mode'] must be AutoresetMode.SAME_STEP, NEXT_STEP or DISABLED"


def adapt(made: Any, num_envs: int, name: str, make_one: Callable[[], Any] | None = None) -> VectorEnv:
    """Return what a user's class or function made as a vector environment that can be trained on.

    Args:
        made: a vector environment, or one environment.
        num_envs: the rows that it must have.
        name: of the environment, for messages.
        make_one: makes further copies where ``made`` is one environment.

    Raises:
        TypeError: ``made`` is something else.
        ValueError: it has another number of rows, or does not say how it resets.
    """
    if isinstance(made, gymnasium.Env) and make_one is not None:
        given = [made]
        return vectorise(lambda: given.pop() if given else make_one(), num_envs, name)
    if not isinstance(made, VectorEnv):
        several = hasattr(made, "possible_agents")
        hint = "several agents go with env=pettingzoo" if several else f"it is a {type(made).__name__}"
        raise TypeError(f"{name} must be a gymnasium.Env or a gymnasium.vector.VectorEnv: {hint}")
    if made.num_envs != num_envs:
        close(made)
        raise ValueError(f"{name} made {made.num_envs} environments, where {num_envs} are needed: let it take num_envs")
    if isinstance(made.unwrapped, (BatchedEnv, AgentRows, WorkerEnvs)):
        return made
    mode = made.metadata.get("autoreset_mode")
    if isinstance(made, (SyncVectorEnv, AsyncVectorEnv)):
        mode = made.autoreset_mode  # before Gymnasium 1.4 vectors of one class of environments shared their metadata
    try:
        mode = AutoresetMode(mode)
    except ValueError:
        raise ValueError(f"{name} says autoreset_mode={mode!r}: its {MODES}") from None
    envs = made
    if isinstance(made.unwrapped, SyncVectorEnv):  # each of its copies may use its observation again in the reset
        rows = made.unwrapped.envs
        made.unwrapped.envs = [row if isinstance(row, Guest) else Guest(row, name, n) for n, row in enumerate(rows)]
    else:
        envs = GuestVector(made, name, mode)
    return SameStepAutoreset(envs) if mode == AutoresetMode.DISABLED else envs


class GuestVector(VectorWrapper):
    """A vector environment as its user wrote it, brought into form: arrays of numpy, new ones in every step.

    Args:
        env: the environment.
        name: its name, for messages.
        mode: in which it resets.
    """

    only_checks = True  # what reads tensors may read them from the environment itself

    def __init__(self, env: VectorEnv, name: str, mode: AutoresetMode):
        super().__init__(env)
        self.metadata = {**env.metadata, "autoreset_mode": mode}
        self.name, self.same_step, self.resets, self.steps = name, mode == AutoresetMode.SAME_STEP, 0, 0
        self.fit_one = make_fit(env.single_observation_space)
        self.fit = make_fit(batch_space(env.single_observation_space, env.num_envs))

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin B episodes.

        Raises:
            UserCodeError: the environment raised something, or returned what cannot be used.
        """
        self.resets += 1
        try:
            result = self.env.reset(seed=seed, options=options)
            if not isinstance(result, tuple) or len(result) != 2:
                raise MisfitError("reset must return (observations, info)")
            observations = self.fit(result[0])
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise UserCodeError(tell_call(error, self.name, f"reset {self.resets}")) from error
        if self.resets == 1 and MASK in result[1]:
            log.warning("%s: info[%r] is not used: make it a leaf of the observation", self.name, MASK)
        return observations, {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row.

        Raises:
            UserCodeError: the environment raised something, or returned what cannot be used.
        """
        self.steps += 1
        try:
            result = self.env.step(actions)
            if not isinstance(result, tuple) or len(result) != 5:
                raise MisfitError("step must return (observations, rewards, terminated, truncated, info)")
            observed, rewards, terminated, truncated, info = result
            flags = partial(fit_flags, num_envs=self.num_envs)
            outcome = (
                fit_rewards(rewards, self.num_envs),
                flags(terminated, name="terminated"),
                flags(truncated, name="truncated"),
            )
            kept = self._keep(observed, info, outcome[1] | outcome[2], outcome[2])
            return self.fit(observed), *outcome, kept
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise UserCodeError(tell_call(error, self.name, f"step {self.steps}")) from error

    def _keep(self, observed: Any, info: dict[str, Any], ended: np.ndarray, truncated: np.ndarray) -> dict[str, Any]:
        """Return of an info what has a meaning here: final observations, and ignored steps if it declares them."""
        ignores = self.metadata.get("ignores_steps", False) and "ignored" in info
        kept = {"ignored": fit_flags(info["ignored"], self.num_envs, "info['ignored']")} if ignores else {}
        final = info.get("final_obs")
        if not self.same_step or not ended.any() or (final is None and not truncated.any()):
            return kept
        if final is None:
            raise MisfitError("an episode was truncated, but info has no 'final_obs', the observation that closed it")
        if isinstance(final, np.ndarray) and isinstance(observed, np.ndarray) and np.may_share_memory(final, observed):
            raise MisfitError("info['final_obs'] shares its memory with the observations: copy it before the reset")
        if isinstance(final, (list, np.ndarray)) and len(final) == self.num_envs and _has_rows(final):
            rows = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended):
                if final[row] is None and truncated[row]:
                    raise MisfitError(f"the episode of row {row} was truncated, but info['final_obs'] has none for it")
                rows[row] = None if final[row] is None else self.fit_one(final[row])
            final = rows
        else:
            final = self.fit(_of_ended(ended, final, observed))
        return kept | {"final_obs": final, "_final_obs": ended}


def _of_ended(ended: np.ndarray, final: Any, observed: Any) -> Any:
    """Put what is ``observed`` in the rows of final observations where nothing has ended: they may hold anything."""
    if isinstance(final, dict) and isinstance(observed, dict) and final.keys() == observed.keys():
        return {key: _of_ended(ended, part, observed[key]) for key, part in final.items()}
    if isinstance(final, tuple) and isinstance(observed, tuple) and len(final) == len(observed):
        return tuple(_of_ended(ended, *parts) for parts in zip(final, observed, strict=True))
    if isinstance(final, np.ndarray) and isinstance(observed, np.ndarray) and final.shape == observed.shape:
        return np.where(ended.reshape(-1, *[1] * (final.ndim - 1)), final, observed)
    return final


def _has_rows(final: Any) -> bool:
    """Tell whether final observations are given row by row, as Gymnasium does, and not as one batch."""
    return isinstance(final, list) or final.dtype == object
