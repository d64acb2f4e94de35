"""One trial of a search: ordinary runs of ``experiments.train``, one for each seed, watched by their evaluations."""

import logging
import math
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.launch.lock import is_locked
from experiments.launch.run_folder import read_result
from experiments.sweeps.space import write_override
from experiments.sweeps.study import STEPS
from experiments.tables.runs import CHILD, Children, list_remaining_arguments

if TYPE_CHECKING:
    from optuna import Trial

TRIAL = ("evaluation_share=null", "final_episodes=0", "evaluate_memory_zeroed=false")
"""What runs of a trial have unless the command line says otherwise: each evaluation, and none that is not read."""
EVALUATION = "eval/episodic_return"
LOOK_EVERY = 0.5  # seconds
LONGEST_END = 120.0  # seconds that a run may take to save itself and end
BY_SIGNAL = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}


class TrialFailed(RuntimeError):  # noqa: N818  # of a trial, not of this program
    """A run of a trial has ended with a fault."""


class TrialStopped(RuntimeError):  # noqa: N818
    """A signal has ended a run of a trial; what was learned is saved."""


class TrialPruned(RuntimeError):  # noqa: N818
    """A trial has fallen behind, and its run was ended."""


@dataclass(frozen=True)
class Plan:
    """What the trials of a study have in common.

    Attributes:
        options: of the command line of a run, ``--config-dir``.
        base: its arguments.
        seeds: of the runs of a trial.
        every: steps between two evaluations.
        per_run: evaluations of a run.
        last: so many evaluations at the end of a run are its value.
    """

    options: list[str]
    base: list[str]
    seeds: list[int]
    every: int
    per_run: int
    last: int


def play_trial(
    plan: Plan, children: Children, trial: "Trial", values: dict[str, Any], place: Path, stopping: Callable[[], bool]
) -> float:
    """Train on every seed; return the mean of their values.

    Args:
        plan: of the study.
        children: the processes of runs.
        trial: gets the evaluations.
        values: of the settings that are varied.
        place: the folder of the trial.
        stopping: whether this process is about to end.

    Raises:
        TrialPruned, TrialStopped, TrialFailed: it has no value.
    """
    reached = list[float]()
    for seed in plan.seeds:
        target = place / f"seed{seed}"
        wait_for_end(target)
        varied = [write_override(key, value) for key, value in values.items()]
        fresh = [*TRIAL, *plan.base, *varied, f"seed={seed}", f"run_dir={target}"]
        arguments = list_remaining_arguments(target, fresh)
        if arguments:
            if stopping():
                raise TrialStopped(f"before seed {seed}")
            watch_run(plan, children, [*plan.options, *arguments], trial, target, reached)
        result = read_result(target)
        trial.set_user_attr(STEPS, trial.user_attrs.get(STEPS, 0) + result["env_steps"])
        reached.append(measure_value(result, plan.last))
    return float(np.mean(reached))


def measure_value(result: dict[str, Any], last: int) -> float:
    """Return the value of a finished run: the mean return of its last evaluations between updates.

    Raises:
        TrialFailed: it has none.
    """
    returns = [point["return"] for point in result.get("evaluations", ())][-last:]
    if not returns or not math.isfinite(np.mean(returns)):
        raise TrialFailed("the run has played no evaluation: lower evaluate_every, or raise total_steps")
    return float(np.mean(returns))


def wait_for_end(target: Path) -> None:
    """Wait for a run that still saves itself, because the process that had started it was killed.

    Raises:
        TrialFailed: it does not end.
    """
    end = time.monotonic() + LONGEST_END
    while is_locked(target):
        if time.monotonic() > end:
            raise TrialFailed(f"{target} is in use by another process")
        time.sleep(LOOK_EVERY)


def watch_run(
    plan: Plan, children: Children, arguments: list[str], trial: "Trial", target: Path, before: list[float]
) -> None:
    """Train in a process of its own, and report each evaluation until it ends or has fallen behind.

    Args:
        plan: of the study.
        children: the processes of runs.
        arguments: of the run.
        trial: gets the evaluations.
        target: the folder of the run.
        before: values of the runs of the trial on other seeds.

    Raises:
        TrialPruned, TrialStopped, TrialFailed: it has no value.
    """
    said = target.parent / f"{target.name}.txt"
    with said.open("ab") as file:
        process = children.start(CHILD, "experiments.train", *arguments, output=file)
    told, curve = 0, Evaluations(target)
    while (code := process.poll()) is None:
        time.sleep(LOOK_EVERY)
        points = curve.read()
        for steps, value in points[told:]:
            at = len(before) * plan.per_run + min(steps // plan.every, plan.per_run)
            trial.report(float(np.mean([*before, value])), at)
        if len(points) > told and trial.should_prune() and process.poll() is None:
            end(process)
            raise TrialPruned(f"after {points[-1][0]} steps")
        told = len(points)
    if code in BY_SIGNAL:
        raise TrialStopped(f"by {signal.Signals(code - 128).name}")
    if code:
        lines = said.read_text(errors="replace").strip().splitlines()
        raise TrialFailed(f"killed by {signal.Signals(-code).name}" if code < 0 else lines[-1] if lines else str(code))


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a run to save itself and end."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(LONGEST_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Evaluations:
    """The evaluations of a run that is under way, read from its curves.

    Args:
        folder: of the run, which need not exist yet.
    """

    def __init__(self, folder: Path):
        logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of every file that it opens
        self._folder = folder
        self._events: EventAccumulator | None = None

    def read(self) -> list[tuple[int, float]]:
        """Return steps and return of each evaluation so far."""
        if self._events is None:
            if not any(self._folder.glob("events.out.tfevents.*")):
                return []
            self._events = EventAccumulator(str(self._folder), size_guidance={"scalars": 0})
        self._events.Reload()
        known = EVALUATION in self._events.Tags()["scalars"]
        return [(point.step, point.value) for point in self._events.Scalars(EVALUATION)] if known else []
