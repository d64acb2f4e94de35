"""Train a configuration on tasks with ever longer delays, then write tables, a plot and raw numbers."""

import json
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

import rl.cores
from experiments.launch.check import ConfigError, choose_names, convert, prepare_output, read_list, to_dict
from experiments.launch.command import rewrite_overrides
from experiments.launch.run_folder import flatten, read_result
from experiments.tables.figures import open_figure, put_caption, set_title
from experiments.tables.learning_text import Result, Summary, summarise_row
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

MARKERS = "<!-- memory ladder: written by python -m experiments.memory_ladder -->", "<!-- end of memory ladder -->"
SHORTEST_SEQUENCE = 32
KEYS = {"experiment", "key", "label", "rungs"}

Climb = list[tuple[int, Summary]]
"""Of one core on one task: delays, ascending, with their numbers over seeds, up to the one that no seed learns."""


def run(config: DictConfig) -> float:
    """Train what is missing, then report.

    Returns:
        The share of runs that end at or above the bar, of those that were made.
    """
    ladder, names = to_dict(config.ladder), read_list(config.tasks, "tasks")
    tasks = {name: check_task(name, ladder[name]) for name in choose_names(names or ladder, ladder, "tasks", "task")}
    cores = choose_names(config.cores, rl.cores.__all__, "cores", "core")
    seeds = [convert(seed, int, "seeds") for seed in read_list(config.seeds, "seeds")]
    workers = convert(config.jobs, int, "jobs")
    positive(jobs=workers)
    folder = prepare_output(f"{config.output}/table.md", "output").parent
    picture = prepare_output(config.plot, "plot")
    if config.page:
        split_at_markers(Path(config.page), MARKERS)
    extra = {core: [str(each) for each in to_dict(config.core_overrides).get(core, [])] for core in cores}
    asked = [str(each) for each in read_list(config.overrides, "overrides")]

    def list_arguments(name: str, core: str, delay: int) -> list[str]:
        return [*list_rung(tasks[name], delay), f"agent/core={core}", *extra[core], *asked]

    for name, task in tasks.items():
        for core in cores:
            for delay in task["rungs"]:
                check_rung(folder, f"{name}/{core}/{delay}", list_arguments(name, core, delay), seeds)

    climbs: dict[str, dict[str, Climb]] = {name: {} for name in tasks}
    with Children() as children:

        def climb(job: tuple[str, str]) -> None:
            name, core = job
            climbs[name][core] = reached = []
            for delay in tasks[name]["rungs"]:
                results = train_rung(children, folder, f"{name}/{core}/{delay}", list_arguments(*job, delay), seeds)
                reached.append((delay, summarise_row({"label": tasks[name]["label"]}, results, [])))
                if not reached[-1][1]["reached"]:
                    return

        children.map(climb, [(name, core) for name in tasks for core in cores], workers)
    text = "\n".join(format_task(task, climbs[name], cores) for name, task in tasks.items())
    write_text(folder / "table.md", text)
    write_text(folder / "table.json", json.dumps(climbs, indent=1))
    draw_climbs({tasks[name]["label"]: climbs[name] for name in tasks}, cores, picture)
    print(text)
    if config.page:
        insert_table(Path(config.page), text, MARKERS)
    all_rungs = [summary for of_task in climbs.values() for found in of_task.values() for _, summary in found]
    return sum(each["reached"] for each in all_rungs) / max(sum(each["seeds"] for each in all_rungs), 1)


def check_task(name: str, task: dict[str, Any]) -> dict[str, Any]:
    """Return a task with its rungs as ``{delay: steps}`` in ascending order.

    Raises:
        ConfigError: it lacks a key, has another one, or a rung is not a delay with its steps.
    """
    if task.keys() != KEYS:
        wrong = ", ".join(sorted(task.keys() ^ KEYS))
        raise ConfigError(f"ladder.{name}: it must have the keys {', '.join(sorted(KEYS))}; look at {wrong}")
    rungs = task["rungs"]
    if not isinstance(rungs, dict) or not rungs:
        raise ConfigError(f"ladder.{name}.rungs={rungs}: it must be delays with their steps, such as {{10: 300_000}}")
    steps = {
        convert(delay, int, f"ladder.{name}.rungs"): convert(budget, int, f"ladder.{name}.rungs.{delay}")
        for delay, budget in rungs.items()
    }
    return task | {"rungs": dict(sorted(steps.items()))}


def list_rung(task: dict[str, Any], delay: int) -> list[str]:
    """Return the arguments of the runs of one rung: its delay, its budget, and sequences that are longer than it."""
    sequence = max(SHORTEST_SEQUENCE, 1 << delay.bit_length())
    arguments = [f"experiment={task['experiment']}", f"{task['key']}={delay}", f"total_steps={task['rungs'][delay]}"]
    return [*arguments, f"num_steps={sequence}", f"agent.bptt={sequence}", "stop_at_threshold=true"]


def check_rung(folder: Path, row: str, arguments: list[str], seeds: list[int]) -> None:
    """Check that runs of a rung which lie there already, finished or not, are those that would be made now.

    Raises:
        ConfigError: one of them is not.
    """
    targets = [target for seed in seeds if (target := locate_run(folder, row, seed)).is_dir()]
    if targets:
        wanted = flatten(compose("train", list(rewrite_overrides(arguments))))
        for target in targets:
            check_same(target, wanted, f"the rung {row}")


def train_rung(children: Children, folder: Path, row: str, arguments: list[str], seeds: list[int]) -> list[Result]:
    """Train what is missing of one rung, seed after seed; return the results of all.

    Raises:
        RuntimeError: a process failed; its last line says why.
    """
    targets = {seed: locate_run(folder, row, seed) for seed in seeds}
    for seed, target in targets.items():
        if remaining := list_remaining_arguments(target, [*arguments, f"seed={seed}", f"run_dir={target}"]):
            children.run_module(CHILD, "experiments.train", *remaining)
    return [read_result(target) for target in targets.values()]


# ------------------------------------------------------------------------------------------------------------- the text


def format_task(task: dict[str, Any], climbs: dict[str, Climb], cores: list[str]) -> str:
    """Write the table of a task in Markdown: a line for each core, a column for each delay."""
    delays = list(task["rungs"])
    head = [task["label"], *(f"{task['key'].rpartition('.')[2]}={delay}" for delay in delays)]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for core in cores:
        found = dict(climbs[core])
        cells = [format_rung(found[delay]) if delay in found else "" for delay in delays]
        lines.append(" | ".join([core, *cells]))
    return "".join(f"| {line} |\n" for line in lines)


def format_rung(summary: Summary) -> str:
    """Write how many seeds end at the bar, and the medians of steps and seconds until an evaluation reached it."""
    cell = f"{summary['reached']} of {summary['seeds']}"
    if summary["steps_to_bar"] is None:
        return cell
    return f"{cell}; {summary['steps_to_bar'] / 1000:,.0f} k, {summary['seconds_to_bar']:,.0f} s"


def draw_climbs(tasks: dict[str, dict[str, Climb]], cores: list[str], output: Path) -> None:
    """Draw the median of the steps to the bar over the delay, a line for each core; hollow where seeds are missing."""
    with open_figure(len(tasks), output) as (figure, axes):
        for axis, (label, climbs) in zip(axes, tasks.items(), strict=True):
            for index, core in enumerate(cores):
                known = [(delay, each) for delay, each in climbs[core] if each["steps_to_bar"] is not None]
                delays, steps = [delay for delay, _ in known], [each["steps_to_bar"] for _, each in known]
                axis.plot(delays, steps, color=f"C{index}", label=core, linewidth=1.2)
                for delay, each in known:
                    full = each["reached"] == each["seeds"]
                    fill = f"C{index}" if full else "white"
                    axis.plot(delay, each["steps_to_bar"], "o", color=f"C{index}", markerfacecolor=fill, markersize=4)
            if any(each["steps_to_bar"] is not None for reached in climbs.values() for _, each in reached):
                axis.set_xscale("log", base=2)
                axis.set_yscale("log")  # which has no place for a panel without a point
            axis.set_xlabel("delay in steps", fontsize=8)
            axis.set_ylabel("environment steps to the bar", fontsize=8)
            axis.legend(fontsize=7)
            set_title(axis, label)
        put_caption(
            figure,
            [
                "Median over seeds.",
                "Hollow: not all seeds end at the bar.",
                "A line ends with the last delay that most seeds learn.",
            ],
        )
