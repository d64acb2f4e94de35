"""Make a vector environment of single environments that a user wrote."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from envs.action_mask import MASK, ActionMask, can_be_masked
from envs.checks import one_of
from envs.faults import MisfitError, UserCodeError, blaming
from envs.guest import Guest, tell_call
from envs.workers import WorkerEnvs

MaskUse = Literal["auto", "ignore"]


def vectorise(
    make_one: Callable[[], gymnasium.Env],
    num_envs: int,
    name: str,
    action_mask: MaskUse = "auto",
    workers: bool = False,
) -> VectorEnv:
    """Make copies of an environment, each in a ``Guest``, with SAME_STEP autoreset.

    Args:
        make_one: makes one copy.
        num_envs: the number of copies.
        name: of the environment, for messages.
        action_mask: "auto" puts ``info["action_mask"]`` into the observations where the first info has one, see
            ``ActionMask``; "ignore" leaves it alone.
        workers: one process for each copy, instead of all in this one.

    Raises:
        ValueError: ``action_mask`` is something else, or the same object is made twice.
        UserCodeError: the user's code has a fault, or its mask cannot be used.
    """
    one_of(("auto", "ignore"), action_mask=action_mask)
    first: list[gymnasium.Env] = []
    try:
        with blaming(f"{name} could not be made"):
            first.append(make_one())
        masked = action_mask == "auto" and shows_mask(first[0], name)
        if workers:
            first.pop().close()

        def make_guest(copy: int) -> gymnasium.Env:
            with blaming(f"{name} could not be made (copy {copy})"):
                env = first[0] if copy == 0 and first else make_one()
                if copy and first and env is first[0]:
                    raise ValueError(f"{name} made the same environment twice: it must make a new one each time")
                if copy and first:
                    first.append(env)
                return Guest(ActionMask(env) if masked else env, name, copy, tells_mask=action_mask == "auto")

        makers = [partial(make_guest, copy) for copy in range(num_envs)]
        if workers:
            return WorkerEnvs(makers, name)
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    except BaseException:
        for env in first:  # a port or a device must not stay taken
            Guest(env, name).close()
        raise


def shows_mask(env: gymnasium.Env, name: str) -> bool:
    """Tell whether the first info of an environment has an action mask that can be used.

    The environment is reset for it where its actions are discrete; it will be reset again before it is played.

    Raises:
        UserCodeError: the mask cannot be used, or the reset failed.
    """
    if not can_be_masked(env):
        return False
    try:
        result = env.reset(seed=0)
        info = result[1] if isinstance(result, tuple) and len(result) == 2 else {}
        if not isinstance(info, dict) or MASK not in info:
            return False
        ActionMask(env).read(info, ended=False)
    except MisfitError as error:
        raise UserCodeError(f"{name}: {error}; env.action_mask=ignore leaves it alone") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserCodeError(tell_call(error, name, "its first reset")) from error
    return True
