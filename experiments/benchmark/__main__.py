"""Measures speed in one sitting: rounds over all chosen rows, medians, one table for each section, one JSON.

python -m experiments.benchmark                                            # the default sections, under five minutes
python -m experiments.benchmark sections=[training] workloads=[w1]
python -m experiments.benchmark sections=[peers,threshold]                 # needs the extra `bench`
"""

import json
import platform
from datetime import date
from importlib.metadata import version
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.benchmark import peers, training
from experiments.benchmark.rows import Row, closing, table
from experiments.launch.check import ConfigError, converted, listed, nearest, writable
from experiments.launch.command import launch
from experiments.peers.workloads import WORKLOADS
from rl import cores
from rl.checks import positive, within

SECTIONS = ("environments", "training", "acting", "growth", "peers", "threshold")


def run(config: DictConfig) -> None:
    """Measures, prints, writes."""
    settings = read(config)
    torch.set_num_threads(settings["threads"])
    sections = {name: rows_of(name, settings) for name in settings["sections"]}
    everything = [row for rows in sections.values() for row in rows]
    bar = tqdm(total=settings["rounds"] * len(everything), unit=" measurements", disable=None)
    with closing(everything), bar:
        for round in range(settings["rounds"]):
            for row in everything:
                bar.set_postfix_str(row.label, refresh=False)
                row.rounds.append(row.measure(round))
                bar.update()
    report = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "numpy", "gymnasium")},
        "threads": settings["threads"],
        "rounds": settings["rounds"],
        "medians": {name: {row.label: row.medians() for row in rows} for name, rows in sections.items()},
    }
    if "peers" in sections:
        report["ratios"] = peers.ratios(report["medians"]["peers"])
    print(text(report))
    settings["output"].write_text(json.dumps(report | {"all_rounds": raw(sections)}, indent=1))


def read(config: DictConfig) -> dict[str, Any]:
    """The keys of ``benchmark.yaml`` in the types they must have.

    Raises:
        ConfigError, ValueError: a value of another type, or not known.
    """
    settings = {name: converted(config[name], int, name) for name in ("rounds", "threads")}
    positive(**settings)
    settings["seconds"] = converted(config.seconds, float, "seconds")
    within(0.01, float("inf"), seconds=settings["seconds"])
    for name, known in (("sections", SECTIONS), ("workloads", WORKLOADS), ("cores", cores.__all__)):
        settings[name] = listed(config[name], name)
        for value in settings[name]:
            if value not in known:
                raise ConfigError(f"{name}: there is no {value!r}{nearest(str(value), known)}")
    settings["purejaxrl"] = converted(config.purejaxrl, str | None, "purejaxrl")
    settings["jax_python"] = converted(config.jax_python, str, "jax_python")
    settings["output"] = writable(config.output, "output")
    return settings


def rows_of(section: str, settings: dict[str, Any]) -> list[Row]:
    """What a section measures."""
    seconds, workloads, names = settings["seconds"], settings["workloads"], settings["cores"]
    match section:
        case "environments":
            return training.environments(seconds / 5)
        case "training":
            return training.training(seconds, workloads, names)
        case "acting":
            return training.acting(names)
        case "growth":
            return training.growth(seconds / 2, settings["threads"])
        case "peers":
            return peers.rows(seconds, workloads, names, settings["purejaxrl"], settings["jax_python"])
        case "threshold":
            return peers.threshold()


def raw(sections: dict[str, list[Row]]) -> dict[str, Any]:
    """Every number of every round."""
    return {name: {row.label: row.rounds for row in rows} for name, rows in sections.items()}


def text(report: dict[str, Any]) -> str:
    """The report as tables."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    head = f"{report['date']}, {report['machine']}, {versions}, medians of {report['rounds']} rounds"
    tables = [table(name, medians) for name, medians in report["medians"].items()]
    if "ratios" in report:
        tables.append(table("ratio", report["ratios"]))
    return "\n\n".join([head, *tables])


def main() -> None:
    """The command."""
    launch(run, "benchmark")


if __name__ == "__main__":
    main()
