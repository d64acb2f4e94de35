"""Trains every row of the learning table on several seeds, then writes table, plot and raw numbers."""

import json
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from experiments.launch.check import ConfigError, chosen, converted, listed, writable
from experiments.plot import draw, labels, read_curve
from rl.checks import positive

MARKERS = "<!-- learning table: written by python -m experiments.learning_table -->", "<!-- end of learning table -->"


def run(config: DictConfig) -> float:
    """Trains what is missing, then reports.

    Returns:
        The share of runs that reached the threshold of their row.
    """
    rows = OmegaConf.to_container(config.table, resolve=True)
    names = chosen(config.rows, rows, "rows", "row")
    rows = {name: row for name, row in rows.items() if name in names}
    seeds = [converted(seed, int, "seeds") for seed in listed(config.seeds, "seeds")]
    workers = converted(config.jobs, int, "jobs")
    positive(jobs=workers)
    folder, picture = writable(f"{config.output}/table.md", "output").parent, writable(config.plot, "plot")
    if config.readme:
        places(Path(config.readme))
    jobs = [(name, row, seed) for name, row in rows.items() for seed in seeds]
    with ThreadPoolExecutor(workers) as pool:
        list(tqdm(pool.map(lambda job: train(folder, *job), jobs), total=len(jobs), unit=" runs", disable=None))
    results = {name: [read(folder, name, seed) for seed in seeds] for name in rows}
    table = markdown(rows, results)
    (folder / "table.md").write_text(table)
    (folder / "table.json").write_text(json.dumps(results, indent=1))
    plot(folder, rows, seeds, picture)
    print(table)
    if config.readme:
        insert(Path(config.readme), table)
    reached = [result["steps_to_threshold"] is not None for row in results.values() for result in row]
    return float(np.mean(reached))


def run_folder(folder: Path, name: str, seed: int) -> Path:
    """Where the run of a row and seed lies."""
    return folder / name / f"seed{seed}"


def train(folder: Path, name: str, row: dict[str, Any], seed: int) -> None:
    """One run in a process of its own.

    Raises:
        RuntimeError: the process failed; its last line says why.
    """
    target = run_folder(folder, name, seed)
    arguments = [f"experiment={row['experiment']}", *row.get("overrides", ()), f"seed={seed}", f"run_dir={target}"]
    if arguments := remaining(target, arguments):
        process("experiments.train", *arguments)


def remaining(target: Path, arguments: list[str]) -> list[str]:
    """What a run has to be called with: a fresh one with ``arguments``, one that was stopped on its way so that it goes
    on; a finished one is kept, its list is empty.
    """
    if not (target / "result.json").is_file():
        return arguments
    result = json.loads((target / "result.json").read_text())
    return [] if result["env_steps"] >= result["total_steps"] else [f"resume={target}"]


def process(*arguments: str) -> None:
    """``python -m`` a module with its arguments, to the end.

    Raises:
        RuntimeError: it failed; its last line says why.
    """
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"{' '.join(arguments[1:])} failed: {last}")


def read(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """``result.json`` of a run."""
    return json.loads((run_folder(folder, name, seed) / "result.json").read_text())


def markdown(rows: dict[str, Any], results: dict[str, list[dict[str, Any]]]) -> str:
    """The table; one line for each row, medians over its seeds."""
    head = (
        "task",
        "agent, core",
        "best / memoryless",
        "threshold",
        "return by seed",
        "memory zeroed",
        "steps to threshold",
        "seconds to threshold",
        "budget",
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, seeds in results.items():
        first = seeds[0]
        known = [
            ("?" if first[key] is None else f"{first[key]:.4g}") for key in ("optimal_return", "memoryless_return")
        ]
        hits = [s["steps_to_threshold"] for s in seeds]
        cells = (
            rows[name].get("label", name),
            f"{first['agent']}, {first['core']}",
            " / ".join(known),
            f"{first['threshold']:g}",
            ", ".join(f"{s['eval_return_mean']:.3g}" for s in seeds),
            f"{np.mean([s['memory_zeroed_return_mean'] for s in seeds]):.3g}",
            f"{np.median(hits) / 1000:.0f} k"
            if None not in hits
            else f"{len(seeds) - hits.count(None)} of {len(seeds)} seeds",
            f"{np.median([s['seconds_to_threshold'] for s in seeds]):.0f}" if None not in hits else "-",
            f"{first['total_steps'] / 1000:.0f} k",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(folder: Path, rows: dict[str, Any], seeds: list[int], output: Path) -> None:
    """Evaluation return over steps, one panel for each environment."""
    panels: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    levels = {}
    for name, row in rows.items():
        for seed in seeds:
            panel, line = labels(run_folder(folder, name, seed))
            line += row.get("suffix", "")
            panels[panel][line].append(read_curve(run_folder(folder, name, seed), "eval/episodic_return"))
        result = read(folder, name, seeds[0])
        known = {"threshold": result["threshold"], "memoryless": result["memoryless_return"]}
        levels[panel] = {label: value for label, value in known.items() if value is not None}
    draw(panels, "eval/episodic_return", output, levels)


def places(readme: Path, markers: tuple[str, str] = MARKERS) -> tuple[str, str]:
    """What stands before and after the table in the README.

    Raises:
        ConfigError: the markers are not there.
    """
    text = readme.read_text()
    begin, end = markers
    if begin not in text or end not in text:
        raise ConfigError(f"{readme} has no place for the table: the lines {begin!r} and {end!r}")
    return text.split(begin)[0], text.split(end)[1]


def insert(readme: Path, table: str, markers: tuple[str, str] = MARKERS) -> None:
    """Puts the table between its markers in the README."""
    before, after = places(readme, markers)
    readme.write_text(f"{before}{markers[0]}\n{table}{markers[1]}{after}")
