"""All cores on the same tasks, with equally many parameters and equal batches: what they learn and what they cost."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from experiments.launch.check import ConfigError, chosen, converted, listed, writable
from experiments.realtime import BLOCK, EARLY_STEP, one_thread, play
from experiments.tables.equal_cores import COMMANDS, Entry, entries, result_of, settings_of
from experiments.tables.learning_table import insert, places, process, run_folder
from rl import cores
from rl.checks import positive, within

MARKERS = "<!-- core comparison: written by python -m experiments.compare_cores -->", "<!-- end of core comparison -->"
OWN = {"seed", "run_dir", "resume"}  # settings in which runs always differ
PEAK = "peak_memory"  # file in a run folder: bytes


def run(config: DictConfig) -> float:
    """Trains what is missing, then reports.

    Returns:
        The number of runs.
    """
    table = OmegaConf.to_container(config.table, resolve=True)
    names, contestants = chosen(config.rows, table, "rows", "row"), chosen(config.cores, cores.__all__, "cores", "core")
    chosen(config.reference, cores.__all__, "reference", "core")
    seeds = [converted(seed, int, "seeds") for seed in listed(config.seeds, "seeds")]
    workers, steps = (converted(config[name], int, name) for name in ("jobs", "latency_steps"))
    positive(jobs=workers, latency_steps=steps)
    within(0.0, 1.0, tolerance=config.tolerance)
    if config.readme:
        places(Path(config.readme), MARKERS)
    folder = writable(f"{config.output}/table.md", "output").parent
    with one_thread():
        bar = tqdm([name for name in table if name in names], desc="hidden sizes", unit=" tasks", disable=None)
        every = [each for name in bar for each in entries(config, name, table[name], contestants)]
    check(every, folder, seeds)
    jobs = [(each, seed) for seed in seeds for each in every]
    with ThreadPoolExecutor(workers) as pool:
        ended = pool.map(lambda job: train(folder, *job), jobs)
        failures = [failure for failure in tqdm(ended, total=len(jobs), unit=" runs", disable=None) if failure]
    check(every, folder, seeds)
    with one_thread():
        times = latencies(every, steps)
    rows = [measured(each, folder, seeds, time) for each, time in zip(every, times, strict=True)]
    text = markdown(rows, {name: row.get("label", name) for name, row in table.items()})
    text += "".join(f"\nfailed: {failure}\n" for failure in failures)
    (folder / "table.md").write_text(text)
    content = {"seeds": seeds, "reference": config.reference, "torch": torch.__version__, "failures": failures}
    (folder / "table.json").write_text(json.dumps(content | {"rows": rows}, indent=1))
    print(text)
    if failures:
        raise RuntimeError(f"{len(failures)} of {len(jobs)} runs failed: {'; '.join(failures)}")
    if config.readme:
        insert(Path(config.readme), text, MARKERS)
    return float(len(jobs))


def train(folder: Path, entry: Entry, seed: int) -> str | None:
    """One run in a process of its own; one that is already there is kept.

    Returns:
        None, or why it failed: its arguments and the last line of the process.
    """
    target = run_folder(folder / entry.task, entry.core, seed)
    arguments = COMMANDS[entry.command].remaining(target, [*entry.arguments, f"seed={seed}", f"run_dir={target}"])
    if not arguments:
        return None
    try:
        process("experiments.tables.peak_memory", str(target / PEAK), f"experiments.{entry.command}", *arguments)
    except RuntimeError as error:
        return f"{entry.task}, {entry.core}, seed {seed}: {error}"
    return None


def finished(entry: Entry, folder: Path, seeds: Iterable[int]) -> list[Path]:
    """The folders of its runs that have a result."""
    targets = (run_folder(folder / entry.task, entry.core, seed) for seed in seeds)
    return [target for target in targets if (target / "result.json").is_file()]


def check(every: list[Entry], folder: Path, seeds: list[int]) -> None:
    """All cores of a task have equal batches, and the runs that are there are those that would be made now.

    Raises:
        ConfigError: one of them is not.
    """
    for entry in every:
        first = next(each for each in every if each.task == entry.task)
        node = COMMANDS[entry.command].node
        of_core = {key for key in entry.settings.keys() | first.settings.keys() if key.startswith(f"{node}.")}
        for key in different(entry.settings, first.settings, OWN | {"parameters"} | of_core | entry.free | first.free):
            values = f"{key}={entry.settings.get(key)}, {first.core} has {first.settings.get(key)}"
            raise ConfigError(f"{entry.task}: {entry.core} has {values}; only equal batches are compared")
        for target in finished(entry, folder, seeds):
            found = settings_of(target) | {"parameters": result_of(target)["parameters"]}
            for key in different(found, entry.settings, OWN):
                values = f"{key}={found.get(key)}, the others of {entry.task} with {entry.settings.get(key)}"
                raise ConfigError(f"{target} was run with {values}: delete it or give another output")


def different(left: dict[str, Any], right: dict[str, Any], ignored: set[str]) -> list[str]:
    """The settings in which the two differ."""
    return [key for key in sorted((left.keys() | right.keys()) - ignored) if left.get(key) != right.get(key)]


def latencies(every: list[Entry], steps: int) -> list[float]:
    """Median seconds of one action of every entry, all cores of a task in turns."""
    seconds = [[] for _ in every]
    for task in dict.fromkeys(each.task for each in every):
        turns = [(each, kept) for each, kept in zip(every, seconds, strict=True) if each.task == task]
        for each, _ in turns:
            play(each.player, each.frames, EARLY_STEP)
        for first in range(0, steps, BLOCK):
            for each, kept in turns:
                kept += play(each.player, each.frames, min(BLOCK, steps - first))
    return [float(np.median(kept)) for kept in seconds]


def measured(entry: Entry, folder: Path, seeds: list[int], latency: float) -> dict[str, Any]:
    """What is reported of a core on a task; ``latency`` in seconds. Lists hold one number for each finished run."""
    targets = finished(entry, folder, seeds)
    outcomes = [COMMANDS[entry.command].outcome(result_of(target), settings_of(target)) for target in targets]
    return {
        "task": entry.task,
        "core": entry.core,
        "hidden_size": entry.hidden_size,
        "parameters": entry.settings["parameters"],
        "wanted": len(seeds),
        "return": [score for score, _ in outcomes],
        "speed": [speed for _, speed in outcomes],
        "peak_mb": [peak_mb(target) for target in targets],
        "latency_ms": latency * 1e3,
        "state_bytes": entry.state_bytes(),
    }


def peak_mb(target: Path) -> float:
    """Of a run; not a number if who measured it was killed."""
    return int((target / PEAK).read_text()) / 1e6 if (target / PEAK).is_file() else np.nan


QUANTITIES = {
    "return": lambda row: over_seeds(row["return"], row["wanted"]),
    "parameters (hidden size)": lambda row: f"{row['parameters']:,} ({row['hidden_size']})",
    "training, steps/s": lambda row: over_seeds(row["speed"], row["wanted"]),
    "one action, median ms": lambda row: number(row["latency_ms"]),
    "peak memory of a run, MB": lambda row: over_seeds(row["peak_mb"], row["wanted"]),
    "state of one environment, bytes": lambda row: f"{row['state_bytes']:,}",
}


def markdown(rows: list[dict[str, Any]], labels: dict[str, str]) -> str:
    """One table for each quantity: a line for each core, a column for each task."""
    tasks, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("task", "core"))
    found = {(row["core"], row["task"]): row for row in rows}
    tables = []
    for quantity, cell in QUANTITIES.items():
        lines = [[quantity, *(labels[task] for task in tasks)], ["---"] * (1 + len(tasks))]
        lines += [[name, *(cell(found[name, task]) for task in tasks)] for name in names]
        tables.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(tables)


def over_seeds(values: list[float], wanted: int) -> str:
    """Mean and standard error; if runs are missing, how many there are."""
    if not values:
        return "failed"
    text = number(np.mean(values))
    if len(values) > 1:
        text += f" +- {number(np.std(values, ddof=1) / np.sqrt(len(values)), 2)}"
    return text if len(values) == wanted else f"{text} ({len(values)} of {wanted} seeds)"


def number(value: float, digits: int = 3) -> str:
    """With so many significant digits, or as many as a whole number has; never an exponent."""
    if abs(value) >= 10**digits:
        return f"{value:,.0f}"
    return np.format_float_positional(value, digits, unique=False, fractional=False, trim="-")
