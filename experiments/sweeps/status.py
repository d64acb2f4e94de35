"""Show what the runs and searches below some folders do: done, running, stopped or dead, and how far they have come.

python -m experiments.status
python -m experiments.status runs=STUDY_DIR states=[running,dead]

done: it has trained to its end; running: a process of this host has its lock; stopped: it ended by a signal or a fault
and let its lock go; dead: its process was killed; elsewhere: a process of another host has its lock, or had it when it
was killed. All but the first two go on with resume=RUN_DIR, if there is a checkpoint.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util.tensor_util import make_ndarray

from experiments.launch.check import ConfigError, choose_names, read_list
from experiments.launch.claim import holds_run
from experiments.launch.lock import find_holder
from experiments.launch.run_folder import load_flat_config, read_result
from experiments.sweeps.report import find_best, name_state
from experiments.sweeps.study import holds_study, import_optuna, load_study
from experiments.sweeps.trial import EVALUATION
from rl.training.run import checkpoint_path
from rl.training.stopping import EARLY

STATES = ("done", "running", "stopped", "dead", "elsewhere")
SKIPPED = ("checkpoints", ".submitit", ".git")
TRAINING_RETURN = "charts/episodic_return"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        state: one of ``STATES``.
        steps: learned from.
        total: to learn from; None if the run does not say.
        value: the newest return: of an evaluation, or of training if there was none; None before the first.
        seconds: from the first point of its curves to the last one, or what its result says.
        note: what else is to be known.
    """

    state: str
    steps: int
    total: int | None
    value: float | None
    seconds: float
    note: str = ""


def run(config: DictConfig) -> int:
    """Print a line for each run and study.

    Returns:
        The number of runs that are under way.

    Raises:
        ConfigError: there is no such folder or state.
    """
    states = choose_names(config.states, STATES, "states", "state") if config.states else list(STATES)
    folders = [Path(str(each)).expanduser() for each in read_list(config.runs, "runs")]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"runs={folder}: there is no such folder")
    rows, found = list[list[str]](), list[Progress]()
    for path in sorted({path for folder in folders for path in find_folders(folder)}):
        if holds_study(path):
            rows.append([str(path), *describe_study(path)])
            continue
        progress = read_progress(path)
        found.append(progress)
        if progress.state in states:
            rows.append([str(path), *describe_run(progress)])
    head = ["folder", "state", "steps", "return", "seconds", ""]
    print(tabulate([head, *rows]) if rows else "no runs")
    if found:
        print(summarise(found))
    return len([progress for progress in found if progress.state == "running"])


def summarise(found: list[Progress]) -> str:
    """Return how many runs are in which state, and which share of the steps of all is done."""
    states = [progress.state for progress in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    known = [(min(progress.steps, progress.total), progress.total) for progress in found if progress.total]
    done, total = sum(steps for steps, _ in known), sum(steps for _, steps in known)
    return f"{counts}; {done:_} of {total:_} steps ({done / total:.0%})" if total else counts


def find_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs and studies below a folder, itself included."""
    for place, below, _ in os.walk(folder):
        path = Path(place)
        if holds_study(path) or ((path / "config.yaml").is_file() and holds_run(path)):
            yield path
        below[:] = [name for name in below if name not in SKIPPED]


def read_progress(folder: Path) -> Progress:
    """Read how far a run has come; what is damaged in its folder is said in its line."""
    holder = find_holder(folder)
    try:
        config = load_flat_config(folder)
        result = read_result(folder) if (folder / "result.json").is_file() else {}
    except (ConfigError, OSError) as error:
        return Progress("stopped", 0, None, None, 0.0, str(error))
    total = config.get("total_steps")
    if not isinstance(total, int) or any(key.startswith("imitation.") for key in config):
        total = None  # an imitation has epochs; the key at the top is for training that goes on from it
    ended_early = result.get("stop_reason") in EARLY
    complete = ended_early or result.get("env_steps", 0) >= result.get("total_steps", 0)
    state = name_run_state(holder, bool(result), complete)
    if state == "done":
        played = [point["return"] for point in result.get("evaluations", ())][-1:]
        values = [result.get("eval_return_mean"), *played, result.get("train_return_mean")]
        value = next((value for value in values if value is not None), None)
        steps = result.get("env_steps", 0)
        if "epochs" in result:
            steps, *_ = read_newest(folder)
        return Progress(state, steps, total, value, result.get("wall_seconds", result.get("training_seconds", 0.0)))
    if holder is None and checkpoint_path(folder).is_file() and not list_curves(folder):
        return Progress("stopped", 0, None, None, 0.0, "without curves: one that was taken over goes on with init_from")
    steps, value, seconds = read_newest(folder)
    note = "" if checkpoint_path(folder).is_file() or state == "running" else "nothing was saved"
    if holder is not None and state in ("running", "elsewhere"):
        note = f"process {holder['pid']} of {holder['host']}"
    return Progress(state, steps, total, value, seconds, note)


def name_run_state(holder: dict[str, Any] | None, has_result: bool, complete: bool) -> str:
    """Return the state of a run: what its lock says comes first, for a finished run may go on to more steps."""
    if holder is not None and holder["alive"] is not False:
        return "running" if holder["alive"] else "elsewhere"
    if has_result and complete:
        return "done"
    return "stopped" if holder is None else "dead"


def list_curves(folder: Path) -> list[Path]:
    """Return the files of the curves of a run."""
    return sorted(folder.glob("events.out.tfevents.*"))


def read_newest(folder: Path) -> tuple[int, float | None, float]:
    """Return the newest step and return of the curves of a run, and the seconds that they span."""
    steps, values, times = 0, dict[str, float](), list[float]()
    for file in list_curves(folder):
        span = list[float]()
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                steps = max(steps, event.step)
                span.append(event.wall_time)
                if value.tag in (EVALUATION, TRAINING_RETURN):
                    values[value.tag] = float(make_ndarray(value.tensor))
        times.append(span[-1] - span[0] if span else 0.0)
    return steps, values.get(EVALUATION, values.get(TRAINING_RETURN)), sum(times)


def describe_run(progress: Progress) -> list[str]:
    """Return the cells of a run."""
    share = f" ({min(progress.steps / progress.total, 1):.0%})" if progress.total else ""
    steps = f"{progress.steps:_} of {progress.total:_}{share}" if progress.total else f"{progress.steps:_}"
    value = "-" if progress.value is None else f"{progress.value:.4g}"
    return [progress.state, steps, value, f"{progress.seconds:.0f}", progress.note]


def describe_study(folder: Path) -> list[str]:
    """Return the cells of a study: its trials by what became of them, and its best value."""
    try:
        import_optuna()
        study = load_study(folder)
    except (ImportError, ConfigError) as error:
        return ["study", "-", "-", "-", str(error)]
    words = [name_state(trial) for trial in study.get_trials(deepcopy=False)]
    best = find_best(study)
    counts = [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
    value = "-" if best is None or best.value is None else f"{best.value:.4g}"
    note = "" if best is None else f"best: trial {best.number}"
    return ["study", ", ".join(counts) or "no trials", value, "-", note]


def tabulate(rows: list[list[str]]) -> str:
    """Return rows in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
