"""Train a configuration on tasks with ever longer delays, then write tables, a plot and raw numbers."""

from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from experiments.launch.check import ConfigError, choose_names, convert, prepare_output, read_list, to_dict
from experiments.launch.command import rewrite_overrides
from experiments.launch.run_folder import flatten, read_result
from experiments.tables.figures import load_pyplot, open_figure, put_caption, set_title
from experiments.tables.learning_text import Result, Summary, count_reached, summarise_row
from experiments.tables.markdown import write_table
from experiments.tables.plan import Plan, read_plan
from experiments.tables.runs import CHILD, Children, check_same, list_remaining_arguments, locate_run
from rl import cores

MARKERS = "<!-- memory ladder: written by python -m experiments.memory_ladder -->", "<!-- end of memory ladder -->"
KEYS = ("experiment", "key", "rungs")
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
"""Of a rung: where none of them ends at the bar, the others are not tried."""

Climb = list[tuple[int, Summary]]
"""Of one core on one task: delays, ascending, with their numbers over seeds, up to the one that no seed learns."""


def run(config: DictConfig) -> float:
    """Train what is missing, then report.

    Returns:
        The share of runs that end at or above the bar, of those that were made.

    Raises:
        ConfigError, ValueError, ModuleNotFoundError: something cannot be, or is not installed; nothing was trained.
        RuntimeError: a run failed; the same command goes on with the others.
    """
    plan = read_plan(config, MARKERS, KEYS, KEYS)
    chosen = choose_names(config.cores, cores.__all__, "cores", "core")
    picture = prepare_output(config.plot, "plot")
    load_pyplot()
    rungs = {name: read_rungs(name, row["rungs"]) for name, row in plan.rows.items()}
    own = to_dict(config.core_overrides)
    choose_names(own, cores.__all__, "core_overrides", "core")
    asked = read_list(config.overrides, "overrides") if config.overrides else []

    def list_arguments(name: str, core: str, delay: int) -> list[str]:
        of_rung = list_rung(plan.rows[name], delay, rungs[name][delay])
        return [*of_rung, f"agent/core={core}", *(str(each) for each in (*own.get(core, ()), *asked))]

    climbs = [(name, core) for name in plan.rows for core in chosen]
    for name, core in climbs:
        for delay in rungs[name]:
            check_rung(plan, f"{name}/{core}/{delay}", list_arguments(name, core, delay))

    def climb(children: Children, name: str, core: str) -> Climb:
        reached: Climb = []
        for delay in rungs[name]:
            results = train_rung(children, plan, f"{name}/{core}/{delay}", list_arguments(name, core, delay))
            reached.append((delay, summarise_row(plan.rows[name], results, [])))
            if not reached[-1][1]["reached"]:
                break
        return reached

    with Children() as children:
        found = children.map(lambda job: climb(children, *job), climbs, plan.jobs)
    content = {name: {core: found[climbs.index((name, core))] for core in chosen} for name in plan.rows}
    text = "\n".join(
        format_task({"label": name} | row, list(rungs[name]), content[name]) for name, row in plan.rows.items()
    )
    plan.write(text, content)
    draw_climbs({row.get("label", name): content[name] for name, row in plan.rows.items()}, picture)
    plan.publish(text, [], len(climbs))
    summaries = [summary for reached in found for _, summary in reached]
    return sum(each["reached"] for each in summaries) / max(sum(each["seeds"] for each in summaries), 1)


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


def check_rung(plan: Plan, run: str, arguments: list[str]) -> None:
    """Check that runs of a rung which lie there already, finished or not, are those that would be made now.

    Raises:
        ConfigError: one of them is not.
    """
    targets = [target for seed in plan.seeds if (target := locate_run(plan.folder, run, seed)).is_dir()]
    if targets:
        wanted = flatten(compose("train", list(rewrite_overrides(arguments))))
        for target in targets:
            check_same(target, wanted, f"the rung {run}")


def train_rung(children: Children, plan: Plan, run: str, arguments: list[str]) -> list[Result]:
    """Train what is missing of one rung; return the results, those of the first seeds alone if none of them learns it.

    Raises:
        RuntimeError: a process failed; its last line says why.
    """
    results: list[Result] = []
    for seed in plan.seeds:
        if len(results) == FIRST_SEEDS and not any(map(is_at_bar, results)):
            break
        target = locate_run(plan.folder, run, seed)
        if remaining := list_remaining_arguments(target, [*arguments, f"seed={seed}", f"run_dir={target}"]):
            children.run_module(CHILD, "experiments.train", *remaining)
        results.append(read_result(target))
    return results


def is_at_bar(result: Result) -> bool:
    """Say whether the final return of a run is at or above its bar."""
    return bool(count_reached([result["eval_return_mean"]], result["threshold"]))


# ------------------------------------------------------------------------------------------------------------- the text


def format_task(row: dict[str, Any], delays: list[int], climbs: dict[str, Climb]) -> str:
    """Write the table of a task in Markdown: a line for each core, a column for each delay."""
    key = row["key"].rpartition(".")[2]
    lines = []
    for core, reached in climbs.items():
        found = dict(reached)
        lines.append([core, *(format_rung(found[delay]) if delay in found else "" for delay in delays)])
    return write_table([row["label"], *(f"{key}={delay}" for delay in delays)], lines)


def format_rung(summary: Summary) -> str:
    """Write how many seeds end at the bar, and the medians of steps and seconds until an evaluation reached it."""
    cell = f"{summary['reached']} of {summary['seeds']}"
    if summary["steps_to_bar"] is None:
        return cell
    return f"{cell}; {summary['steps_to_bar'] / 1000:,.0f} k, {summary['seconds_to_bar']:,.0f} s"


def draw_climbs(tasks: dict[str, dict[str, Climb]], output: Path) -> None:
    """Draw the median of the steps to the bar over the delay, a line for each core; hollow where seeds are missing."""
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
            if any(each["steps_to_bar"] is not None for of_core in climbs.values() for _, each in of_core):
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
