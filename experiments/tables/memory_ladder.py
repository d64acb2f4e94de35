"""Train a configuration on tasks with ever longer delays, then write tables, a plot and raw numbers."""

import json
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.launch.check import ConfigError, choose_names, convert, prepare_output, read_list
from experiments.launch.elsewhere import read_spaces
from experiments.launch.run_folder import read_result
from experiments.tables.entries import (
    PEERS,
    Entry,
    check_agent,
    choose_peers,
    compose_run,
    list_remaining,
    list_settings,
    make_entry_of_peer,
    read_core_overrides,
)
from experiments.tables.figures import load_pyplot, open_figure, put_caption, set_title
from experiments.tables.latency import use_one_thread
from experiments.tables.learning_text import Result, Summary, summarise_row
from experiments.tables.markdown import write_table
from experiments.tables.plan import read_plan
from experiments.tables.runs import CHILD, Children, check_same, locate_run
from rl import cores

MARKERS = "<!-- memory ladder: written by python -m experiments.memory_ladder -->", "<!-- end of memory ladder -->"
KEYS, NEEDED = ("experiment", "key", "rungs", "peers"), ("experiment", "key", "rungs")
"""Of a row, see ``conf/memory_ladder.yaml``."""

SHORTEST_SEQUENCE = 32

LARGEST_ROLLOUT = 2**16
"""Steps of all environments together, of which there are 64 where they fit, else fewer."""

SPAN = 50
"""Steps that a fresh memory lasts, in lengths of a sequence."""

RECALL = 0.1
"""Weight of telling what was seen before."""

EVALUATIONS = 30
"""Of a run that never reaches the bar."""

FIRST_SEEDS = 3
"""Of a rung: where none of them ends at the bar, the others are not tried. Other programs and ``few_seeds`` climb with
these alone.
"""

Climb = list[tuple[int, Summary]]
"""Of one core, or another program, on one task: delays, ascending, with their numbers over seeds, up to the one that no
seed learns.
"""


def run(config: DictConfig) -> float:
    """Train what is missing, then report.

    Returns:
        The share of runs that reach the bar, of those that were made.

    Raises:
        ConfigError, ValueError, ModuleNotFoundError: something cannot be, or is not installed; nothing was trained.
        RuntimeError: a run failed, and with it its climb; the others are reported, but not on the page.
    """
    plan = read_plan(config, MARKERS, KEYS, NEEDED)
    chosen = choose_names(config.cores, cores.__all__, "cores", "core")
    plot = convert(config.plot, str | None, "plot")
    picture = prepare_output(plot, "plot") if plot else None
    if picture:
        load_pyplot()
    peers = choose_peers(config.peers, plan.rows)
    few = [*peers, *(choose_names(config.few_seeds, chosen, "few_seeds", "climb of") if config.few_seeds else ())]
    columns = {
        name: [*chosen, *(peer for peer in peers if peer in row.get("peers", ()))] for name, row in plan.rows.items()
    }
    budgets = {name: read_rungs(name, row["rungs"]) for name, row in plan.rows.items()}
    rungs = {
        (name, column): {
            delay: make_entry(config, name, column, delay, steps) for delay, steps in budgets[name].items()
        }
        for name in plan.rows
        for column in columns[name]
    }
    for entry in (entry for by_delay in rungs.values() for entry in by_delay.values()):
        for seed in plan.seeds:
            check_same(locate_run(plan.folder, entry.row, seed), entry.settings, f"the rung {entry.row}")

    def climb_one(place: tuple[str, str]) -> tuple[Climb, str | None]:
        seeds = plan.seeds[:FIRST_SEEDS] if place[1] in few else plan.seeds
        return climb(children, plan.folder, rungs[place], seeds)

    with Children() as children:
        told = dict(zip(rungs, children.map(climb_one, list(rungs), plan.jobs, "climbs"), strict=True))
    found = {place: reached for place, (reached, _) in told.items()}
    failures = [failure for _, failure in told.values() if failure]
    content = {name: {column: found[name, column] for column in columns[name]} for name in plan.rows}
    text = "\n".join(
        format_task({"label": name} | row, list(budgets[name]), content[name]) for name, row in plan.rows.items()
    )
    plan.write(text, content, failures)
    if picture:
        draw_climbs({row.get("label", name): content[name] for name, row in plan.rows.items()}, picture)
    plan.publish(text, failures, len(rungs), "climbs")
    summaries = [summary for reached in found.values() for _, summary in reached]
    return sum(each["reached"] for each in summaries) / max(sum(each["seeds"] for each in summaries), 1)


def make_entry(config: DictConfig, name: str, column: str, delay: int, steps: int) -> Entry:
    """Return one rung of a row, for a core or another program.

    Args:
        config: of the ladder. Its ``overrides`` are not for other programs, which have their own defaults.
        name: of the row.
        column: name of the core or of the program.
        delay: of the rung.
        steps: its budget.

    Raises:
        ConfigError, HydraException: a setting cannot be.
    """
    place = f"{name}/{column}/{delay}"
    limit = json.dumps(convert(config.max_seconds, float | None, "max_seconds"))
    shared = [*list_rung(config.table[name], delay, steps), f"max_seconds={limit}"]
    if column in PEERS:
        task = compose_run(shared)
        return make_entry_of_peer(place, column, task, threshold=task.threshold, max_seconds=task.max_seconds)
    own = read_core_overrides(config.core_overrides).get(column, ())
    asked = read_list(config.overrides, "overrides") if config.overrides else []
    arguments = [*shared, f"agent/core={column}", *own, *map(str, asked)]
    composed = compose_run(arguments)
    with use_one_thread():
        check_agent(composed, read_spaces(composed))
    return Entry(place, column, list_settings(composed), partial(list_remaining, arguments))


def read_rungs(name: str, rungs: Any) -> dict[int, int]:
    """Return the budget of steps of each delay of a row, in ascending order.

    Raises:
        ConfigError: the rungs are not delays with their steps.
    """
    if not isinstance(rungs, dict) or not rungs:
        raise ConfigError(f"table.{name}.rungs={rungs}: it must be delays with their steps, such as {{10: 300_000}}")
    steps = {
        convert(delay, int, f"table.{name}.rungs"): convert(budget, int, f"table.{name}.rungs.{delay}")
        for delay, budget in rungs.items()
    }
    return dict(sorted(steps.items()))


def list_rung(row: dict[str, Any], delay: int, steps: int) -> list[str]:
    """Return the arguments of the runs of one rung: its delay, its budget, and what follows from the delay.

    Sequences are at least twice as long: they are cut anywhere, so of shorter ones few would hold a cue and its reward.
    """
    sequence = max(SHORTEST_SEQUENCE, 1 << (2 * delay - 1).bit_length())  # a power of two
    settings = {
        "experiment": row["experiment"],
        row["key"]: delay,
        "total_steps": steps,
        "evaluate_every": steps // EVALUATIONS,
        "evaluate_episodes": 100,
        "stop_at_threshold": "true",
        "num_envs": min(64, LARGEST_ROLLOUT // sequence),
        "num_steps": sequence,
        "agent.bptt": sequence,
        "agent.memory_span": SPAN * sequence,
        "agent.recall_coef": RECALL,
    }
    return [f"{key}={value}" for key, value in settings.items()]


def climb(children: Children, folder: Path, rungs: dict[int, Entry], seeds: list[int]) -> tuple[Climb, str | None]:
    """Train one rung after the other, up to the first one that no seed learns.

    Returns:
        What was reached; and why a run failed, after which no further rung is tried, or None.
    """
    reached: Climb = []
    for delay, entry in rungs.items():
        results, failure = train_rung(children, folder, entry, seeds)
        if failure:
            return reached, failure
        reached.append((delay, summarise_rung(results)))
        if not reached[-1][1]["reached"]:
            break
    return reached, None


def train_rung(children: Children, folder: Path, entry: Entry, seeds: list[int]) -> tuple[list[Result], str | None]:
    """Train what is missing of one rung.

    Returns:
        The results, those of the first seeds alone if none of them learns it; and why a run failed, after which no
        further one is made, or None.
    """
    results: list[Result] = []
    for seed in seeds:
        if len(results) == FIRST_SEEDS and not any(map(has_learned, results)):
            break
        target = locate_run(folder, entry.row, seed)
        if remaining := entry.list_remaining(target, seed):
            failure = children.try_module(f"{entry.row}, seed {seed}", CHILD, *remaining)
            if failure:
                return results, failure
        results.append(read_result(target))
    return results, None


def has_learned(result: Result) -> bool:
    """Say whether an evaluation of a run reached its bar, which is where it ends.

    Its final return is not asked: it is of the same agent, which may be just above the bar in the one evaluation and
    just below it in the other.
    """
    return result["steps_to_threshold"] is not None


def summarise_rung(results: list[Result]) -> Summary:
    """Return the numbers of a rung: how many runs learned it, the lowest final return of those, and all of a row."""
    learned = [result["eval_return_mean"] for result in results if has_learned(result)]
    return summarise_row({}, results, []) | {"reached": len(learned), "lowest": min(learned, default=None)}


# ------------------------------------------------------------------------------------------------------------- the text


def format_task(row: dict[str, Any], delays: list[int], climbs: dict[str, Climb]) -> str:
    """Write the table of a task in Markdown, a line for each core, a column for each delay; the lowest final return."""
    key = row["key"].rpartition(".")[2]
    lines = []
    for core, reached in climbs.items():
        found = dict(reached)
        lines.append([core, *(format_rung(found[delay]) if delay in found else "" for delay in delays)])
    table = write_table([row["label"], *(f"{key}={delay}" for delay in delays)], lines)
    finals = [each["lowest"] for reached in climbs.values() for _, each in reached if each["lowest"] is not None]
    return (
        f"{table}\nThe lowest final return of a run that reached the bar is {min(finals):.3g}.\n" if finals else table
    )


def format_rung(summary: Summary) -> str:
    """Write how many seeds reach the bar, and the medians of steps and seconds until an evaluation reached it."""
    cell = f"{summary['reached']} of {summary['seeds']}"
    if summary["steps_to_bar"] is None:
        return cell
    return f"{cell}; {summary['steps_to_bar'] / 1000:,.0f} k, {summary['seconds_to_bar']:,.0f} s"


def draw_climbs(tasks: dict[str, dict[str, Climb]], output: Path) -> None:
    """Draw the median of the steps to the bar over the delay, a line for each core; hollow where seeds are missing.

    What most seeds have not learned is a cross at the top.
    """
    with open_figure(len(tasks), output) as (figure, axes):
        for axis, (label, climbs) in zip(axes, tasks.items(), strict=True):
            for index, (core, reached) in enumerate(climbs.items()):
                known = [(delay, each) for delay, each in reached if each["steps_to_bar"] is not None]
                delays, steps = [delay for delay, _ in known], [each["steps_to_bar"] for _, each in known]
                axis.plot(delays, steps, color=f"C{index}", label=core, linewidth=1.2)
                for delay, each in known:
                    full = each["reached"] == each["seeds"]
                    fill = f"C{index}" if full else "white"
                    axis.plot(delay, each["steps_to_bar"], "o", color=f"C{index}", markerfacecolor=fill, markersize=4)
                missed = [delay for delay, each in reached if each["steps_to_bar"] is None]
                height = [0.98 - 0.03 * index] * len(missed)  # in heights of the panel, a row for each core
                axis.plot(missed, height, "x", color=f"C{index}", markersize=4, transform=axis.get_xaxis_transform())
            if any(each["steps_to_bar"] is not None for of_core in climbs.values() for _, each in of_core):
                axis.set_xscale("log", base=2)
                axis.set_yscale("log")  # which has no place for a panel without a point
                low, high = axis.get_ylim()
                axis.set_ylim(low, high * (high / low) ** 0.2)  # so that no point lies among the crosses
            axis.set_xlabel("delay in steps", fontsize=8)
            axis.set_ylabel("environment steps to the bar", fontsize=8)
            axis.legend(fontsize=7)
            set_title(axis, label)
        put_caption(
            figure,
            [
                "Median over seeds.",
                "Hollow: not all seeds reach the bar.",
                "Cross, at any height: most seeds do not reach it.",
            ],
        )
