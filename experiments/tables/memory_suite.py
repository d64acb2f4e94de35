"""Train the memory tasks of the field with several cores and one set of settings, then write tables and a plot."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from experiments.launch.check import choose_names, convert, prepare_output
from experiments.launch.run_folder import read_result
from experiments.tables.curves import make_panels, read_curve
from experiments.tables.entries import Entry, choose_peers
from experiments.tables.figures import SMALL, draw_curves, load_pyplot
from experiments.tables.markdown import format_known, format_seeds, write_table
from experiments.tables.plan import Plan, read_plan
from experiments.tables.runs import CHILD, Children, check_same, locate_run
from experiments.tables.suite_entries import KEYS, NEEDED, make_entries
from rl import cores

MARKERS = "<!-- memory suite: written by python -m experiments.memory_suite -->", "<!-- end of memory suite -->"
TAG = "eval/episodic_return"
QUANTITIES = {
    "return": "Greedy return at the end",
    "memory_zeroed": "The same with the memory zeroed before every step",
    "seconds": "Seconds of training",
}
"""What each table is of: key in ``table.json``, its title."""


def run(config: DictConfig) -> float:
    """Train what is missing, then report.

    Returns:
        The number of runs.

    Raises:
        ConfigError, ValueError, ModuleNotFoundError: something cannot be, or is not installed; nothing was trained.
        RuntimeError: runs failed; the others are reported, but not on the page.
    """
    plan = read_plan(config, MARKERS, KEYS, NEEDED)
    chosen = choose_names(config.cores or cores.__all__, cores.__all__, "cores", "core")
    plot = convert(config.plot, str | None, "plot")
    picture = prepare_output(plot, "plot") if plot else None
    if picture:
        load_pyplot()
    peers = choose_peers(config.peers, plan.rows)
    entries = make_entries(config, plan.rows, chosen, peers)
    for entry in entries:
        for seed in plan.seeds:
            check_same(locate(plan.folder, entry, seed), entry.settings, f"the row {entry.row}")
    jobs = [(entry, seed) for seed in plan.seeds for entry in entries]  # one that is stopped has whole seeds
    with Children() as children:
        told = children.map(lambda job: train_entry(children, plan.folder, *job), jobs, plan.jobs)
    failures = [each for each in told if each]
    rows = [summarise(each, plan) for each in entries]
    text = format_tables(rows, [*chosen, *peers])
    plan.write(text, {"seeds": plan.seeds, "torch": torch.__version__, "failures": failures, "rows": rows}, failures)
    if picture:
        plot_entries(entries, plan, picture)
    plan.publish(text, failures, len(jobs))
    return float(len(jobs))


def locate(folder: Path, entry: Entry, seed: int) -> Path:
    """Return the folder of a run."""
    return locate_run(folder / entry.row, entry.column, seed)


def train_entry(children: Children, folder: Path, entry: Entry, seed: int) -> str | None:
    """Train one entry on one seed, in a process of its own; a run that is already there is kept.

    Returns:
        None, or why it failed: its name and the last line of the process.
    """
    remaining = entry.list_remaining(locate(folder, entry, seed), seed)
    name = f"{entry.row}, {entry.column}, seed {seed}"
    return children.try_module(name, CHILD, *remaining) if remaining else None


def find_finished(entry: Entry, plan: Plan) -> list[Path]:
    """Return the folders of the runs of an entry that have a result."""
    targets = (locate(plan.folder, entry, seed) for seed in plan.seeds)
    return [target for target in targets if (target / "result.json").is_file()]


def summarise(entry: Entry, plan: Plan) -> dict[str, Any]:
    """Return what is reported of an entry; lists hold one number for each finished run."""
    results = [read_result(target) for target in find_finished(entry, plan)]
    known = ("optimal_return", "memoryless_return")
    return {
        "task": entry.row,
        "column": entry.column,
        "label": plan.rows[entry.row].get("label", entry.row),
        "budget": entry.settings["total_steps"],
        **{key: next((result[key] for result in results), None) for key in known},
        "wanted": len(plan.seeds),
        "return": [result["eval_return_mean"] for result in results],
        "memory_zeroed": [result["memory_zeroed_return_mean"] for result in results],
        "seconds": [result["training_seconds"] for result in results],
    }


def format_tables(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Write one Markdown table for each quantity: a line for each task, a column for each core.

    Args:
        rows: of ``summarise``.
        columns: their order; what was not to be trained on a task has a dash there.
    """
    tasks: dict[str, dict[str, dict[str, Any]]] = {}  # of each task what each column has
    for row in rows:
        tasks.setdefault(row["task"], {})[row["column"]] = row
    tables = []
    for quantity, title in QUANTITIES.items():
        lines = []
        for own in tasks.values():
            cells = [format_seeds(own[name][quantity], own[name]["wanted"]) if name in own else "-" for name in columns]
            lines.append([*format_task(list(own.values())), *cells])
        tables.append(f"{title}:\n\n{write_table(['task', 'budget', 'best / memoryless', *columns], lines)}")
    return "\n".join(tables)


def format_task(rows: list[dict[str, Any]]) -> list[str]:
    """Return the cells that say what a task is: its label, its budget and the known returns."""
    first = next((row for row in rows if row["return"]), rows[0])  # a run that failed tells no known returns
    known = format_known(first["optimal_return"], first["memoryless_return"])
    return [first["label"], f"{first['budget'] / 1000:.0f} k", known]


def plot_entries(entries: list[Entry], plan: Plan, output: Path) -> None:
    """Draw evaluation return over steps, one panel for each task, one line for each core."""
    panels, levels = make_panels(), {}
    for entry in entries:
        row = summarise(entry, plan)
        for target in find_finished(entry, plan):
            panels[row["label"]][entry.column].append(read_curve(target, TAG))
            known = {"best": row["optimal_return"], "memoryless": row["memoryless_return"]}
            levels[row["label"]] = {label: value for label, value in known.items() if value is not None}
    if panels:
        draw_curves(panels, TAG, output, levels, panel_size=SMALL)
