"""Speak the protocol of the workers: a line of JSON when ready, then one for each number of seconds that is read.

This module needs the standard library only.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Worker:
    """A training run that is ready to be measured.

    Attributes:
        name: of the program.
        versions: of the packages that decide its speed.
        parameters: trainable numbers of its network.
        measure: trains for at least so many seconds in whole iterations (rollout and update); returns the environment
            steps and the finished episodes of this call.
    """

    name: str
    versions: Mapping[str, str]
    parameters: int
    measure: Callable[[float], tuple[int, int]]


def serve(build: Callable[[], Worker]) -> None:
    """Run a worker until its input ends.

    Args:
        build: makes the worker and warms it up. It is called only once standard output is out of reach of the
            libraries, which like to print there, some already when they are imported.

    Raises:
        ValueError: a line is not a positive number.
    """
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)  # for what is printed by other languages
        sys.stdout = sys.stderr
        worker = build()
        hello = {"name": worker.name, "versions": dict(worker.versions), "parameters": worker.parameters}
        print(json.dumps(hello), file=output, flush=True)
        for line in sys.stdin:
            print(json.dumps(measure(worker, read_seconds(line))), file=output, flush=True)


def read_seconds(line: str) -> float:
    """Return the number in a line of input.

    Raises:
        ValueError: it is not a positive number.
    """
    try:
        number = float(line)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise ValueError(f"a line of input must be a positive number of seconds, got {line.strip()!r}")
    return number


def measure(worker: Worker, at_least: float) -> dict[str, float]:
    """Take one measurement of at least so many seconds.

    CPU seconds are those of this process with all its threads; no worker here starts other processes.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    env_steps, episodes = worker.measure(at_least)
    return {
        "env_steps": int(env_steps),
        "episodes": int(episodes),
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }


def repeat(iteration: Callable[[], tuple[int, int]], at_least: float) -> tuple[int, int]:
    """Call ``iteration() -> (env_steps, episodes)`` until so many seconds are over; return the sums."""
    end, env_steps, episodes = time.perf_counter() + at_least, 0, 0
    while True:
        steps, ended = iteration()
        env_steps, episodes = env_steps + steps, episodes + ended
        if time.perf_counter() >= end:
            return env_steps, episodes
