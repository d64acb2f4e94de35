"""Choose between stepping in this process and in worker processes, and shut the workers down."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from types import FrameType
from typing import Any

from gymnasium.vector import AsyncVectorEnv, VectorEnv

log = logging.getLogger(__name__)

# Seconds that the pipes add to a step of all copies, at least and for each copy: a quicker step gains nothing by them.
PIPES, PIPE = 1e-3, 60e-6
MOST_STEPS, MOST_SECONDS = 100, 0.25  # of one measurement
GRACE = 20  # seconds that a worker lives after a SIGTERM, so that its run can finish an update


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
    """Close ``envs`` and end its worker processes, even those that have failed or do not answer."""
    workers = envs.unwrapped
    if not isinstance(workers, AsyncVectorEnv):
        envs.close()
        return
    try:
        envs.close(timeout=1)  # of seconds for a step that was interrupted
    except Exception as error:  # one of them had failed, which has been told where it was stepped
        log.debug("worker processes are ended: %r", error)
        for process in workers.processes:
            process.kill()
        for process in workers.processes:
            process.join()
        workers.closed = True
