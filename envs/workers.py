"""Step copies in worker processes, choose between that and stepping in this process, and shut the workers down."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Empty
from statistics import median
from types import FrameType
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv
from gymnasium.vector.async_vector_env import _async_worker
from gymnasium.vector.utils import CloudpickleWrapper

from envs.faults import CloseTimeoutError, UserCodeError, describe_fault

log = logging.getLogger(__name__)

# Seconds that the pipes add to a step of all copies, at least and for each copy: a quicker step gains nothing by them.
PIPES, PIPE = 1e-3, 60e-6
MOST_STEPS, MOST_SECONDS = 100, 0.25  # of one measurement
GRACE = 20  # seconds that a worker lives after a SIGTERM, so that its run can finish an update
ANSWER_SECONDS = 5.0  # until a worker that has failed must have told why
CLOSE_SECONDS = 10  # until what does not close is left alone


class WorkerError(Exception):
    """The traceback that a worker process wrote: the cause of the fault that is raised here."""

    def __str__(self) -> str:
        """Return the traceback as it was."""
        return f"\n{self.args[0]}"


class WorkerEnvs(AsyncVectorEnv):
    """A vector environment of copies in worker processes, in SAME_STEP mode, whose faults are told and never hang.

    Args:
        env_fns: make the copies.
        name: of the environment, for messages.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env]], name: str):
        self.name = name
        with self._told("making"), ignoring_interrupts():
            given = [env_fns[0]()]  # Gymnasium makes the first copy here, too, and asks it for its spaces
            makers = [lambda: given.pop() if given else env_fns[0](), *env_fns[1:]]
            shared = can_be_shared(given[0].observation_space)
            super().__init__(makers, shared, worker=work, autoreset_mode=AutoresetMode.SAME_STEP)

    def reset_async(self, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        """Ask all copies for a reset; see ``AsyncVectorEnv``."""
        with self._told("a reset"):
            super().reset_async(seed, options)

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Wait for the resets; see ``AsyncVectorEnv``."""
        with self._told("a reset"):
            return super().reset_wait(timeout)

    def step_async(self, actions: Any) -> None:
        """Send the actions; see ``AsyncVectorEnv``."""
        with self._told("a step"):
            super().step_async(actions)

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Wait for the steps; see ``AsyncVectorEnv``."""
        with self._told("a step"):
            return super().step_wait(timeout)

    def _check_spaces(self) -> None:
        """Check that all copies have the same spaces, also where a space holds a function that has no name."""
        given = self.observation_mode, self.single_observation_space, self.single_action_space
        question: Any = "_check_spaces", given
        pickled = CloudpickleWrapper(question).__getstate__()  # pickle itself cannot write such a function
        for pipe in self.parent_pipes:
            pipe.send_bytes(pickled)
        results, successes = zip(*[pipe.recv() for pipe in self.parent_pipes], strict=True)
        self._raise_if_errors(successes)
        for copy, (same_observations, same_actions) in enumerate(results):
            if not same_observations or not same_actions:
                which = "action" if same_observations else "observation"
                raise UserCodeError(f"{self.name}: the {which} space of copy {copy} must be that of copy 0")

    @contextmanager
    def _told(self, call: str) -> Iterator[None]:
        """Say of which copies a worker process has died, or that one had not answered when the wait was interrupted."""
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self._state = type(self._state).DEFAULT
            time.sleep(0.1)  # a process that has just closed its pipe may not have an exit code yet
            died = [f"{copy} ({name_end(p.exitcode)})" for copy, p in enumerate(self.processes) if not p.is_alive()]
            raise UserCodeError(f"{self.name}, {call}: the worker process of copy {', '.join(died)} died") from error
        except Exception:
            raise
        except BaseException as error:
            error.add_note(f"a worker process of {self.name} has not answered")
            raise

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raise the fault of the first worker that has failed, without Gymnasium's own lines.

        Raises:
            UserCodeError: one has failed.
        """
        failed = list(successes).count(False)
        if not failed:
            return
        faults = []
        try:
            for _ in range(failed):
                pipes: list[Any] = self.parent_pipes
                copy, _, message, trace = self.error_queue.get(timeout=ANSWER_SECONDS)
                faults.append((copy, str(message), trace))
                pipes[copy].close()
                pipes[copy] = None
        except Empty:
            if not faults:
                raise UserCodeError(f"{self.name}: a worker process failed and could not tell why") from None
        finally:
            self._state = type(self._state).DEFAULT
        _, message, trace = min(faults)
        raise UserCodeError(message) from WorkerError(trace)


def work(index: int, env_fn: Callable[[], gymnasium.Env], pipe: Any, *rest: Any) -> None:
    """Be the worker process of one copy; unlike Gymnasium's it tells what happened where it could not make the copy."""
    parent_pipe, _, error_queue = rest[:3]
    try:
        env = env_fn()
    except BaseException as error:
        parent_pipe.close()
        message = str(error) if isinstance(error, UserCodeError) else describe_fault(error)
        error_queue.put((index, UserCodeError, message, traceback.format_exc()))
        pipe.recv()  # the first command gets the answer
        pipe.send((None, False))
        return
    with suppress(EOFError, ConnectionError):  # of the pipe: the process that stepped it has ended, and said why
        _async_worker(index, lambda: env, pipe, *rest)


def can_be_shared(space: gymnasium.Space) -> bool:
    """Tell whether observations are arrays, which processes can share: not texts, graphs and spaces of others.

    Args:
        space: of one observation.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts: Any = space.spaces.values() if isinstance(space, spaces.Dict) else space.spaces
        return all(map(can_be_shared, parts))
    return isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary))


def name_end(exit_code: int | None) -> str:
    """Name what ended a process."""
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    return f"signal {signal.Signals(-exit_code).name}"


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def faster_mode(make: Callable[[str], VectorEnv]) -> str:
    """Return the mode, "sync" or "async", in which all copies are stepped sooner: in this process or in workers.

    Workers are only started, and one line is only logged, where a step in this process takes longer than the pipes to
    them. What was measured is closed and not used again: an environment may carry over more than a seeded reset clears,
    and a run must not depend on how many steps fitted into a measurement.

    Args:
        make: makes all copies, given a mode.
    """
    if available_cores() == 1:
        return "sync"
    try:
        envs = make("sync")
        here = step_seconds(envs)
        if here < max(PIPES, PIPE * envs.num_envs):
            return "sync"
        there = step_seconds(make("async"))
    except Exception as error:  # of any kind: it may only be that random actions or processes do not suit them
        log.debug("not measured, so stepped in this process: %r", error)
        return "sync"
    mode = "async" if there < here else "sync"
    used = "worker processes are used" if mode == "async" else "no worker processes are used"
    log.info("environments: %.2f ms a step in this process, %.2f ms in workers: %s", 1e3 * here, 1e3 * there, used)
    return mode


def step_seconds(envs: VectorEnv) -> float:
    """Measure the median seconds of a step of all copies with random actions, and close ``envs``."""
    try:
        envs.reset(seed=0)
        envs.action_space.seed(0)
        seconds: list[float] = []
        end = time.perf_counter() + MOST_SECONDS
        while not seconds or (len(seconds) < MOST_STEPS and time.perf_counter() < end):
            actions = envs.action_space.sample()
            began = time.perf_counter()
            envs.step(actions)
            seconds.append(time.perf_counter() - began)
    finally:
        close(envs)
    return median(seconds)


@contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let processes that are started in this context ignore the signals that are meant for the one that steps them.

    A terminal sends Ctrl-C to all of them, ``timeout`` and schedulers send SIGTERM. The process that steps them decides
    what it means; without this they would die in the middle of a rollout. A SIGTERM, which may have been meant for
    them, ends them after ``GRACE`` seconds.
    """
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    own = os.getpid()

    def end_later(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:
            signal.alarm(GRACE)
        elif callable(usual := before[signal.SIGTERM]):  # it came while they are started
            usual(number, frame)
        else:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(own, signal.SIGTERM)

    answers: dict[int, Any] = {signal.SIGINT: signal.SIG_IGN, signal.SIGHUP: signal.SIG_IGN, signal.SIGTERM: end_later}
    before = {number: signal.signal(number, answer) for number, answer in answers.items()}
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)


def close(envs: VectorEnv) -> None:
    """Close ``envs`` and end its worker processes, even those that have failed or do not answer.

    What is raised in closing is logged, and what takes too long is left alone: what a run has found is not lost for it.
    """
    workers = envs.unwrapped
    if not isinstance(workers, AsyncVectorEnv):
        try:
            with time_limit(CLOSE_SECONDS):
                envs.close()
        except Exception as error:
            log.warning("the environments could not be closed: %s", describe_fault(error))
        return
    try:
        with time_limit(CLOSE_SECONDS), warnings.catch_warnings(action="ignore"):
            envs.close(timeout=1)  # of seconds for a step that was interrupted
    except Exception as error:  # one of them had failed, which has been told where it was stepped
        log.debug("worker processes are ended: %r", error)
        for process in workers.processes:
            process.kill()
        for process in workers.processes:
            process.join()
        workers.closed = True


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block when it has taken too long; in another thread than the main one it may take any time.

    Raises:
        CloseTimeoutError: the time is over.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise CloseTimeoutError(f"it took longer than {seconds:g} s")

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    handler = signal.signal(signal.SIGALRM, interrupt)
    began, before = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        left = before[0] and max(before[0] - (time.monotonic() - began), 1e-3)
        signal.setitimer(signal.ITIMER_REAL, left, before[1])
        signal.signal(signal.SIGALRM, handler)
