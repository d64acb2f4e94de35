"""Measure speed in one sitting: rounds over all chosen rows, medians, one table for each section, one JSON.

python -m experiments.benchmark                                            # the default sections, under five minutes
python -m experiments.benchmark sections=[training] workloads=[w1]
python -m experiments.benchmark sections=[peers,threshold,steps]           # needs the extra `bench`
"""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.benchmark import diagnostics, peers, ranks, seeds, steps, training
from experiments.benchmark.rows import Row, close_rows, format_table
from experiments.launch.check import choose_names, convert, prepare_output
from experiments.launch.command import launch
from experiments.peers.workloads import WORKLOADS
from rl import cores
from rl.checkpoint import write_text
from rl.checks import positive, within


@dataclass(frozen=True)
class Settings:
    """The keys of ``benchmark.yaml``, which says what they mean."""

    sections: list[str]
    workloads: list[str]
    cores: list[str]
    rounds: int
    seconds: float
    threads: int
    purejaxrl: str | None
    jax_python: str
    output: Path


SECTIONS: dict[str, Callable[[Settings], list[Row]]] = {
    "environments": lambda s: training.make_environment_rows(s.seconds / 5),
    "training": lambda s: training.make_training_rows(s.seconds, s.workloads, s.cores),
    "acting": lambda s: training.make_acting_rows(s.cores),
    "growth": lambda s: training.make_growth_rows(s.seconds / 2, s.threads),
    "diagnostics": lambda s: diagnostics.make_rows(s.workloads, s.cores),
    "seeds": lambda s: seeds.make_rows(s.seconds / 2, s.cores),
    "ranks": lambda s: ranks.make_rows(3 * s.seconds, s.cores),
    "peers": lambda s: peers.make_rows(s.seconds, s.workloads, s.cores, s.purejaxrl, s.jax_python),
    "threshold": lambda s: peers.make_threshold_rows(),
    "steps": lambda s: steps.make_rows(),
}


def run(config: DictConfig) -> None:
    """Measure, print, write."""
    settings = read_settings(config)
    torch.set_num_threads(settings.threads)
    sections = {name: SECTIONS[name](settings) for name in settings.sections}
    rows = [row for part in sections.values() for row in part]
    bar = tqdm(total=settings.rounds * len(rows), unit=" measurements", disable=None)
    with close_rows(rows), bar:
        for round in range(settings.rounds):
            for row in rows:
                bar.set_postfix_str(row.label, refresh=False)
                row.rounds.append(row.measure(round))
                bar.update()
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "numpy", "gymnasium")},
        "threads": settings.threads,
        "rounds": settings.rounds,
        "medians": {name: {row.label: row.compute_medians() for row in part} for name, part in sections.items()},
    }
    if "peers" in sections:
        report["ratios"] = peers.compute_ratios(report["medians"]["peers"])
    print(format_report(report))
    raw = {name: {row.label: row.rounds for row in part} for name, part in sections.items()}
    write_text(settings.output, json.dumps(report | {"all_rounds": raw}, indent=1))


def read_settings(config: DictConfig) -> Settings:
    """Read the keys of a configuration in the types they must have.

    Raises:
        ConfigError, ValueError: a value is of another type, or not known.
    """
    rounds, threads = (convert(config[name], int, name) for name in ("rounds", "threads"))
    positive(rounds=rounds, threads=threads)
    seconds = convert(config.seconds, float, "seconds")
    within(0.01, float("inf"), seconds=seconds)
    return Settings(
        sections=choose_names(config.sections, SECTIONS, "sections", "section"),
        workloads=choose_names(config.workloads, WORKLOADS, "workloads", "workload"),
        cores=choose_names(config.cores, cores.__all__, "cores", "core"),
        rounds=rounds,
        seconds=seconds,
        threads=threads,
        purejaxrl=convert(config.purejaxrl, str | None, "purejaxrl"),
        jax_python=convert(config.jax_python, str, "jax_python"),
        output=prepare_output(config.output, "output"),
    )


def format_report(report: dict[str, Any]) -> str:
    """Write a report as tables."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    head = f"{report['date']}, {report['machine']}, {versions}, medians of {report['rounds']} rounds"
    tables = [format_table(name, medians) for name, medians in report["medians"].items()]
    if "ratios" in report:
        tables.append(format_table("ratio", report["ratios"]))
    return "\n\n".join([head, *tables])


def main() -> None:
    """Run the command."""
    launch(run, "benchmark")


if __name__ == "__main__":
    main()
