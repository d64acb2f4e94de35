"""A wrapper around one environment of a user: what it returns is brought into form, what it raises is told."""

from __future__ import annotations

import logging
import re
from typing import Any

import gymnasium
import numpy as np

from envs.action_mask import MASK, has_mask_leaf
from envs.faults import CloseTimeoutError, MisfitError, UserCodeError, describe_fault, find_users_frame, read_message
from envs.fitting import fit_flag, fit_reward, make_fit

log = logging.getLogger(__name__)

OLD_API = re.compile(r"values to unpack|cannot unpack non-iterable|unexpected keyword argument '(seed|options)'")
API = (
    "reset(*, seed=None, options=None) must return (observation, info), and step(action) must return (observation, "
    "reward, terminated, truncated, info); an environment of the older gym is brought to this by "
    "shimmy.GymV21CompatibilityV0"
)
RESERVED = ("final_obs", "final_info")
"""Keys by which vector environments hand on the end of an episode."""
LARGEST = 2**63  # of an int in an info: those of Python may be too large for a float


class Guest(gymnasium.Wrapper):
    """A single environment as its user wrote it, made fit for a vector of them; the outermost wrapper.

    Observations are new arrays of the shapes and types of the space, so the environment may use its own again in the
    next step or reset. Rewards are floats and flags bools, also if they were arrays of one number or tensors. Of the
    info only numbers are handed on, as float64: arrays of changing shapes cannot be batched, and a key of the user's
    must not be taken for one of a vector environment.

    Args:
        env: the environment, in all other wrappers.
        name: of the environment, for messages.
        copy: its row in the vector.
        tells_mask: log a line if the info holds an action mask that is not used.
    """

    copies_observations = True

    def __init__(self, env: gymnasium.Env, name: str, copy: int = 0, tells_mask: bool = True):
        super().__init__(env)
        self.name, self.copy = name, copy
        self.tells_mask = tells_mask and copy == 0 and not has_mask_leaf(env.observation_space)
        self.fit = make_fit(env.observation_space)
        self.resets = self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode.

        Raises:
            UserCodeError: the environment raised something, or returned what cannot be used.
        """
        self.resets += 1
        try:
            result = self.env.reset(seed=seed, options=options)
            if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
                raise MisfitError(f"reset returned {_count(result, 2)}: {API}")
            observation, info = self.fit(result[0]), result[1]
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._tell(error, f"reset {self.resets}") from error
        if self.tells_mask and MASK in info:
            self._tell_mask("it is for Discrete and MultiDiscrete actions")
        return observation, _keep_numbers(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act once.

        Raises:
            UserCodeError: the environment raised something, or returned what cannot be used.
        """
        self.steps += 1
        try:
            result = self.env.step(action)
            if not isinstance(result, tuple) or len(result) != 5:
                raise MisfitError(f"step returned {_count(result, 5)}: {API}")
            observation, reward, terminated, truncated, info = result
            observation, reward = self.fit(observation), fit_reward(reward)
            terminated, truncated = fit_flag(terminated, "terminated"), fit_flag(truncated, "truncated")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._tell(error, f"step {self.steps}") from error
        if self.tells_mask and info and MASK in info:
            self._tell_mask("the info of reset must have one, too")
        return observation, reward, terminated, truncated, _keep_numbers(info) if info else {}

    def close(self) -> None:
        """Close the environment; what it raises then is told, and does no harm."""
        try:
            super().close()
        except (KeyboardInterrupt, CloseTimeoutError):
            raise
        except BaseException as error:
            log.warning("%s could not be closed: %s", self.name, describe_fault(error))

    def _tell_mask(self, why: str) -> None:
        """Say once that there is a mask that keeps the agent from nothing."""
        self.tells_mask = False
        log.warning("%s: info[%r] is not used: %s", self.name, MASK, why)

    def _tell(self, error: BaseException, call: str) -> UserCodeError:
        return UserCodeError(tell_call(error, self.name, f"{call} of copy {self.copy}"))


def tell_call(error: BaseException, name: str, call: str) -> str:
    """Return the sentence for what a call of an environment raised.

    Args:
        error: what it raised.
        name: of the environment.
        call: which call it was.
    """
    if isinstance(error, MisfitError):
        return f"{name}, {call}: {read_message(error)}"
    if isinstance(error, (TypeError, ValueError)) and OLD_API.search(read_message(error)):
        frame = find_users_frame(error)
        if frame is None:
            return f"{name}, {call}: {read_message(error)}: {API}"
    return f"{name} failed in {call}: {describe_fault(error)}"


def _count(result: Any, expected: int) -> str:
    """Describe what was returned in place of a tuple."""
    if isinstance(result, tuple) and len(result) != expected:
        return f"{len(result)} values"
    return f"a {type(result).__name__}" if not isinstance(result, tuple) else "an info that is no dict"


def _keep_numbers(info: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of an info as float64, but none under a key that a vector environment uses itself."""
    return {
        key: np.float64(value)
        for key, value in info.items()
        if isinstance(value, (bool, int, float, np.integer, np.floating, np.bool_))
        and isinstance(key, str)
        and key not in RESERVED
        and not key.startswith("_")
        and not (isinstance(value, int) and abs(value) > LARGEST)
    }
