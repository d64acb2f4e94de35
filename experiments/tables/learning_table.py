"""Train every row of the learning table on several seeds, then write table, plot and raw numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose
from omegaconf import DictConfig

from experiments.launch.check import choose_names, convert, prepare_output, read_list, to_dict
from experiments.launch.command import rewrite_overrides
from experiments.launch.run_folder import flatten, read_result
from experiments.tables.curves import label_run, make_panels, read_curve
from experiments.tables.figures import draw_curves
from experiments.tables.runs import (
    CHILD,
    Children,
    check_same,
    insert_table,
    list_remaining_arguments,
    locate_run,
    split_at_markers,
)
from rl.checkpoint import write_text
from rl.checks import positive

MARKERS = "<!-- learning table: written by python -m experiments.learning_table -->", "<!-- end of learning table -->"
HEAD = (
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


def run(config: DictConfig) -> float:
    """Train what is missing, then report.

    Returns:
        The share of runs that reached the threshold of their row.
    """
    table = to_dict(config.table)
    names = choose_names(config.rows or table, table, "rows", "row")
    rows = {name: row for name, row in table.items() if name in names}
    seeds = [convert(seed, int, "seeds") for seed in read_list(config.seeds, "seeds")]
    workers = convert(config.jobs, int, "jobs")
    positive(jobs=workers)
    folder = prepare_output(f"{config.output}/table.md", "output").parent
    picture = prepare_output(config.plot, "plot")
    if config.page:
        split_at_markers(Path(config.page), MARKERS)
    check_begun(folder, rows, seeds)
    jobs = [(name, row, seed) for name, row in rows.items() for seed in seeds]
    with Children() as children:
        children.map(lambda job: train_row(children, folder, *job), jobs, workers)
    results = {name: [read_result(locate_run(folder, name, seed)) for seed in seeds] for name in rows}
    text = format_table(rows, results)
    write_text(folder / "table.md", text)
    write_text(folder / "table.json", json.dumps(results, indent=1))
    plot_rows(folder, rows, seeds, picture)
    print(text)
    if config.page:
        insert_table(Path(config.page), text, MARKERS)
    reached = [result["steps_to_threshold"] is not None for row in results.values() for result in row]
    return float(np.mean(reached))


def check_begun(folder: Path, rows: dict[str, Any], seeds: list[int]) -> None:
    """Check that runs which lie there already, finished or not, are those of the table.

    Raises:
        ConfigError: one of them is not.
    """
    for name, row in rows.items():
        targets = [target for seed in seeds if (target := locate_run(folder, name, seed)).is_dir()]
        if targets:
            wanted = flatten(compose("train", list(rewrite_overrides(list_arguments(row)))))
            for target in targets:
                check_same(target, wanted, f"the row {name}")


def list_arguments(row: dict[str, Any]) -> list[str]:
    """Return the arguments of the runs of a row, without those that differ between them."""
    return [f"experiment={row['experiment']}", *row.get("overrides", ())]


def train_row(children: Children, folder: Path, name: str, row: dict[str, Any], seed: int) -> None:
    """Train one row on one seed, in a process of its own.

    Raises:
        RuntimeError: the process failed; its last line says why.
    """
    target = locate_run(folder, name, seed)
    fresh = [*list_arguments(row), f"seed={seed}", f"run_dir={target}"]
    if arguments := list_remaining_arguments(target, fresh):
        children.run_module(CHILD, "experiments.train", *arguments)


def format_table(rows: dict[str, Any], results: dict[str, list[dict[str, Any]]]) -> str:
    """Write the table in Markdown: one line for each row, medians over its seeds.

    Args:
        rows: the configuration of each row.
        results: ``result.json`` of each of its seeds.
    """
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    for name, seeds in results.items():
        first = seeds[0]
        known = [
            ("?" if first[key] is None else f"{first[key]:.4g}") for key in ("optimal_return", "memoryless_return")
        ]
        hits, zeroed = ([s[key] for s in seeds] for key in ("steps_to_threshold", "memory_zeroed_return_mean"))
        cells = (
            rows[name].get("label", name),
            f"{first['agent']}, {first['core']}",
            " / ".join(known),
            "-" if first["threshold"] is None else f"{first['threshold']:g}",
            ", ".join("-" if s["eval_return_mean"] is None else f"{s['eval_return_mean']:.3g}" for s in seeds),
            "-" if None in zeroed else f"{np.mean(zeroed):.3g}",
            f"{np.median(hits) / 1000:.0f} k"
            if None not in hits
            else f"{len(seeds) - hits.count(None)} of {len(seeds)} seeds",
            f"{np.median([s['seconds_to_threshold'] for s in seeds]):.0f}" if None not in hits else "-",
            f"{first['total_steps'] / 1000:.0f} k",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot_rows(folder: Path, rows: dict[str, Any], seeds: list[int], output: Path) -> None:
    """Draw evaluation return over steps, one panel for each environment."""
    panels, levels = make_panels(), {}
    for name, row in rows.items():
        for seed in seeds:
            panel, line = label_run(locate_run(folder, name, seed))
            line += row.get("suffix", "")
            panels[panel][line].append(read_curve(locate_run(folder, name, seed), "eval/episodic_return"))
        result = read_result(locate_run(folder, name, seeds[0]))
        known = {"threshold": result["threshold"], "memoryless": result["memoryless_return"]}
        levels[panel] = {label: value for label, value in known.items() if value is not None}
    draw_curves(panels, "eval/episodic_return", output, levels)
