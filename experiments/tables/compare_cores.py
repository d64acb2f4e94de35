"""Compare all cores on the same tasks, with equally many parameters and equal batches: what they learn and cost."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.launch.check import ConfigError, choose_names, convert
from experiments.launch.run_folder import load_flat_config, read_result
from experiments.tables.equal_cores import COMMANDS, Entry, make_entries
from experiments.tables.latency import BLOCK, EARLY_STEP, time_steps, use_one_thread
from experiments.tables.markdown import format_number, format_seeds, write_table
from experiments.tables.plan import read_plan
from experiments.tables.runs import CHILD, OWN, Children, check_same, locate_run
from rl import cores
from rl.checks import positive, within

MARKERS = "<!-- core comparison: written by python -m experiments.compare_cores -->", "<!-- end of core comparison -->"
KEYS = ("command", "experiment", "overrides")
"""Of a row, see ``conf/compare_cores.yaml``."""
PEAK = "peak_memory"  # file in a run folder: bytes


def run(config: DictConfig) -> float:
    """Train what is missing, then report.

    Returns:
        The number of runs.
    """
    plan = read_plan(config, MARKERS, KEYS)
    folder, seeds = plan.folder, plan.seeds
    contestants = choose_names(config.cores or cores.__all__, cores.__all__, "cores", "core")
    choose_names(config.reference, cores.__all__, "reference", "core")
    steps = convert(config.latency_steps, int, "latency_steps")
    positive(latency_steps=steps)
    within(0.0, 1.0, tolerance=config.tolerance)
    with use_one_thread():
        bar = tqdm(plan.rows.items(), desc="hidden sizes", unit=" tasks", disable=None)
        entries = [each for name, row in bar for each in make_entries(config, name, row, contestants)]
    check_comparable(entries, folder, seeds)
    jobs = [(each, seed) for seed in seeds for each in entries]
    with Children() as children:
        told = children.map(lambda job: train_entry(children, folder, *job), jobs, plan.jobs)
    failures = [each for each in told if each]
    check_comparable(entries, folder, seeds)
    with use_one_thread():
        times = time_actions(entries, steps)
    rows = [summarise(each, folder, seeds, time) for each, time in zip(entries, times, strict=True)]
    text = format_tables(rows, {name: row.get("label", name) for name, row in plan.rows.items()})
    content = {"seeds": seeds, "reference": config.reference, "torch": torch.__version__, "failures": failures}
    plan.write(text, content | {"rows": rows}, failures)
    plan.publish(text, failures, len(jobs))
    return float(len(jobs))


def train_entry(children: Children, folder: Path, entry: Entry, seed: int) -> str | None:
    """Train one entry on one seed, in a process of its own; a run that is already there is kept.

    Returns:
        None, or why it failed: its arguments and the last line of the process.
    """
    target = locate_run(folder / entry.task, entry.core, seed)
    fresh = [*entry.arguments, f"seed={seed}", f"run_dir={target}"]
    arguments = COMMANDS[entry.command].list_remaining(target, fresh)
    if not arguments:
        return None
    measured = CHILD, f"experiments.{entry.command}", *arguments
    name = f"{entry.task}, {entry.core}, seed {seed}"
    return children.try_module(name, "experiments.tables.peak_memory", str(target / PEAK), *measured)


def find_finished(entry: Entry, folder: Path, seeds: Iterable[int]) -> list[Path]:
    """Return the folders of the runs of an entry that have a result."""
    targets = (locate_run(folder / entry.task, entry.core, seed) for seed in seeds)
    return [target for target in targets if (target / "result.json").is_file()]


def check_comparable(entries: list[Entry], folder: Path, seeds: list[int]) -> None:
    """Check that all cores of a task have equal batches, and that runs which lie there are those to be made now.

    Raises:
        ConfigError: one of them is not.
    """
    for entry in entries:
        first = next(each for each in entries if each.task == entry.task)
        node = COMMANDS[entry.command].node
        of_core = {key for key in entry.settings.keys() | first.settings.keys() if key.startswith(f"{node}.")}
        ignored = OWN | {"parameters"} | of_core | entry.free | first.free
        for key in list_differences(entry.settings, first.settings, ignored):
            values = f"{key}={entry.settings.get(key)}, {first.core} has {first.settings.get(key)}"
            raise ConfigError(f"{entry.task}: {entry.core} has {values}; only equal batches are compared")
        for seed in seeds:
            check_same(locate_run(folder / entry.task, entry.core, seed), entry.settings, f"the others of {entry.task}")


def list_differences(left: dict[str, Any], right: dict[str, Any], ignored: set[str]) -> list[str]:
    """Return the settings in which the two differ, without those that are ignored."""
    return [key for key in sorted((left.keys() | right.keys()) - ignored) if left.get(key) != right.get(key)]


def time_actions(entries: list[Entry], steps: int) -> list[float]:
    """Return the median seconds of one action of every entry; all cores of a task take turns."""
    seconds: list[list[float]] = [[] for _ in entries]
    for task in dict.fromkeys(each.task for each in entries):
        turns = [(each, kept) for each, kept in zip(entries, seconds, strict=True) if each.task == task]
        for each, _ in turns:
            time_steps(each.player, each.frames, EARLY_STEP)
        for first in range(0, steps, BLOCK):
            for each, kept in turns:
                kept += time_steps(each.player, each.frames, min(BLOCK, steps - first))
    return [float(np.median(kept)) for kept in seconds]


def summarise(entry: Entry, folder: Path, seeds: list[int], latency: float) -> dict[str, Any]:
    """Return what is reported of a core on a task; lists hold one number for each finished run.

    Args:
        entry: the core on the task.
        folder: of all runs.
        seeds: of its runs.
        latency: median seconds of one action.
    """
    targets = find_finished(entry, folder, seeds)
    read_outcome = COMMANDS[entry.command].read_outcome
    outcomes = [read_outcome(read_result(target), load_flat_config(target)) for target in targets]
    return {
        "task": entry.task,
        "core": entry.core,
        "hidden_size": entry.hidden_size,
        "parameters": entry.settings["parameters"],
        "wanted": len(seeds),
        "return": [score for score, _ in outcomes],
        "speed": [speed for _, speed in outcomes],
        "peak_mb": [read_peak(target) for target in targets],
        "latency_ms": latency * 1e3,
        "state_bytes": entry.count_state_bytes(),
    }


def read_peak(target: Path) -> float:
    """Return the peak memory of a run in MB; not a number if the process that measures it was killed."""
    return int((target / PEAK).read_text()) / 1e6 if (target / PEAK).is_file() else np.nan


QUANTITIES: dict[str, Callable[[dict[str, Any]], str]] = {
    "return": lambda row: format_seeds(row["return"], row["wanted"]),
    "parameters (hidden size)": lambda row: f"{row['parameters']:,} ({row['hidden_size']})",
    "training, steps/s": lambda row: format_seeds(row["speed"], row["wanted"]),
    "one action, median ms": lambda row: format_number(row["latency_ms"]),
    "peak memory of a run, MB": lambda row: format_seeds(row["peak_mb"], row["wanted"]),
    "state of one environment, bytes": lambda row: f"{row['state_bytes']:,}",
}


def format_tables(rows: list[dict[str, Any]], labels: dict[str, str]) -> str:
    """Write one Markdown table for each quantity: a line for each core, a column for each task."""
    tasks, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "core"))
    found = {(row["core"], row["task"]): row for row in rows}
    tables = []
    for quantity, cell in QUANTITIES.items():
        lines = [[name, *(cell(found[name, task]) for task in tasks)] for name in names]
        tables.append(write_table([quantity, *(labels[task] for task in tasks)], lines))
    return "\n".join(tables)
