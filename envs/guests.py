"""Make a vector environment of single environments that a user wrote."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from traceback import format_exc
from typing import Literal

import gymnasium
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper

from envs.action_mask import MASK, ActionMask, can_be_masked
from envs.checks import one_of
from envs.faults import MisfitError, UserCodeError, blaming, describe_fault
from envs.guest import Guest, tell_call
from envs.workers import CLOSE_SECONDS, WorkerEnvs, WorkerError, ignoring_interrupts, name_end

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
        if workers:
            masked = action_mask == "auto" and probe_in_worker(make_one, name)
        else:
            with blaming(f"{name} could not be made"):
                first.append(make_one())
            check_spaces(first[0], name)
            masked = action_mask == "auto" and shows_mask(first[0], name)

        def make_guest(copy: int) -> gymnasium.Env:
            with blaming(f"{name} could not be made (copy {copy})"):
                env = first[0] if copy == 0 and first else make_one()
                if copy and first and env is first[0]:
                    raise ValueError(f"{name} made the same environment twice: it must make a new one each time")
                if copy and first:
                    first.append(env)
                check_spaces(env, name)
                return Guest(ActionMask(env) if masked else env, name, copy, tells_mask=action_mask == "auto")

        makers = [partial(make_guest, copy) for copy in range(num_envs)]
        if workers:
            return WorkerEnvs(makers, name)
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    except BaseException:
        for env in first:  # a port or a device must not stay taken
            Guest(env, name).close()
        raise


def check_spaces(env: gymnasium.Env, name: str) -> None:
    """Check that an environment says what it shows and takes.

    Raises:
        UserCodeError: it does not, or in spaces of another library.
    """
    for key in ("observation_space", "action_space"):
        space = getattr(env, key, None)
        if not isinstance(space, spaces.Space):
            raise UserCodeError(f"{name}, {key}={space}: it must be a gymnasium.spaces.Space")


def probe_in_worker(make_one: Callable[[], gymnasium.Env], name: str) -> bool:
    """Do what ``shows_mask`` does, in a process of its own: what the environment does to it, it does to no other.

    Raises:
        UserCodeError: the mask cannot be used, the making or the reset failed, or the process died.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    given = CloudpickleWrapper(make_one), name, sender
    process = multiprocessing.Process(target=_probe, name="first reset", args=given, daemon=True)
    with ignoring_interrupts():
        process.start()
    sender.close()
    try:
        answer, trace = receiver.recv()
    except EOFError:
        process.join()
        end = name_end(process.exitcode)
        raise UserCodeError(f"{name}, its first reset: the worker process of copy 0 ({end}) died") from None
    except BaseException as error:  # an interrupt, also for the time that it takes
        process.kill()
        if isinstance(error, (KeyboardInterrupt, Exception)):
            raise
        raise UserCodeError(f"{name}, its first reset: {describe_fault(error)}") from error
    finally:
        receiver.close()
    process.join(CLOSE_SECONDS)
    if process.is_alive():
        process.kill()
    if isinstance(answer, Exception):
        raise answer from WorkerError(trace)
    return bool(answer)


def _probe(make_one: Callable[[], gymnasium.Env], name: str, sender: Connection) -> None:
    """Be the process of ``probe_in_worker``: send whether there is a mask, or the fault, and its traceback."""
    answer: bool | Exception
    trace = ""
    try:
        with blaming(f"{name} could not be made"):
            env = make_one()
        check_spaces(env, name)
        answer = shows_mask(env, name)
    except BaseException as error:
        answer, trace = error if isinstance(error, Exception) else UserCodeError(describe_fault(error)), format_exc()
    try:
        sender.send((answer, trace))
    except Exception:  # it cannot be pickled
        sender.send((UserCodeError(describe_fault(answer)) if isinstance(answer, Exception) else answer, trace))
    if not trace:
        Guest(env, name).close()


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
