"""Agents compared over tasks: sample-efficiency curves, performance profiles, probabilities of improvement."""

from collections import defaultdict
from collections.abc import Iterable, Sized
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from experiments.launch.check import ConfigError, suggest
from experiments.launch.run_folder import read_result
from experiments.tables.curves import Panels, align
from experiments.tables.figures import Band, draw_line, label_steps, open_figure, put_caption, set_title
from experiments.tables.statistics import FEWEST, estimate_improvement, estimate_profile, normalise

Lines = dict[str, dict[str, list[float]]]
"""``agent -> task -> the final returns of its runs``."""

Scales = dict[str, tuple[float, float]]
"""``task -> the returns that count as 0 and as 1``."""

INTERVAL = "95 % bootstrap interval, seeds drawn within each task."
NO_INTERVAL = f"No interval where a task has fewer than {FEWEST} seeds."

V = TypeVar("V", bound=Sized)


def read_final_returns(labels: dict[Path, tuple[str, str]]) -> tuple[Lines, list[Path]]:
    """Read the final returns of runs.

    Args:
        labels: task and agent of each run folder.

    Returns:
        The returns, and the folders of those that have none.

    Raises:
        ConfigError: none has one.
    """
    lines: Lines = defaultdict(lambda: defaultdict(list))
    lacking = []
    for folder, (task, agent) in labels.items():
        score = read_result(folder).get("eval_return_mean") if (folder / "result.json").is_file() else None
        if score is None or not np.isfinite(score):
            lacking.append(folder)
        else:
            lines[agent][task].append(float(score))
    if not lines:
        raise ConfigError("none of the runs has a final return: they have not ended, or had final_episodes=0")
    return lines, lacking


def keep_shared(lines: dict[str, dict[str, V]]) -> tuple[dict[str, dict[str, V]], list[str]]:
    """Keep the tasks that every agent has played, in one order.

    Returns:
        The agents, sorted, with those tasks, and the names of the other tasks.

    Raises:
        ConfigError: there is none.
    """
    every = sorted({task for tasks in lines.values() for task in tasks})
    shared = [task for task in every if all(task in tasks for tasks in lines.values())]
    if not shared:
        raise ConfigError(f"there is no task that all of {'; '.join(sorted(lines))} have played")
    kept = {agent: {task: lines[agent][task] for task in shared} for agent in sorted(lines)}
    return kept, [task for task in every if task not in shared]


def find_scales(tasks: Iterable[str], labels: dict[Path, tuple[str, str]], given: dict[str, Any]) -> Scales:
    """Find the returns of each task that count as 0 and 1: the memoryless and the best return, unless others are given.

    Args:
        tasks: their names.
        labels: task and agent of each run folder, whose result may know them.
        given: by name of an environment.

    Returns:
        The scales; the returns as they are where there is a single task that knows none.

    Raises:
        ConfigError: a task of several has none, or what is given is none.
    """
    names = {task: task.partition(" (")[0] for task in tasks}
    for key, pair in given.items():
        if key not in names.values():
            raise ConfigError(f"bounds.{key}: no run is on {key}{suggest(key, set(names.values()))}")
        numbers = isinstance(pair, list) and len(pair) == 2 and all(type(end) in (int, float) for end in pair)
        if not numbers or not pair[0] < pair[1]:
            raise ConfigError(f"bounds.{key}={pair}: it must be [LOW,HIGH], the returns that count as 0 and 1")
    scales, unknown = Scales(), []
    for task, name in names.items():
        known = given.get(name) or _find_known(folder for folder, label in labels.items() if label[0] == task)
        if known is None:
            unknown.append(name)
        else:
            scales[task] = (float(known[0]), float(known[1]))
    if unknown and len(names) > 1:
        raise ConfigError(
            f"the best and the memoryless return of {', '.join(unknown)} are not known: give the returns that count as "
            f"0 and 1, bounds.{unknown[0]}=[LOW,HIGH]"
        )
    return {task: scales.get(task, (0.0, 1.0)) for task in names}


def _find_known(folders: Iterable[Path]) -> tuple[float, float] | None:
    """Return the memoryless and the best return that the result of a run knows."""
    for folder in folders:
        result = read_result(folder) if (folder / "result.json").is_file() else {}
        low, high = result.get("memoryless_return"), result.get("optimal_return")
        if low is not None and high is not None and low < high:
            return low, high
    return None


def name_scale(scales: Scales, what: str) -> str:
    """Name the axis of returns that were brought on scales."""
    plain = all(scale == (0.0, 1.0) for scale in scales.values())
    ends = {" to ".join(f"{end:g}" for end in scale) for scale in scales.values()}
    return what if plain else f"{what}, {ends.pop()} as 0 to 1" if len(ends) == 1 else f"{what}, normalised by task"


def name_tasks(lines: dict[str, dict[str, V]]) -> tuple[str, dict[str, str]]:
    """Return the title of a figure over tasks, and the label of each agent with the number of its runs."""
    tasks = list(next(iter(lines.values())))
    title = tasks[0] if len(tasks) == 1 else f"{len(tasks)} tasks"
    return title, {agent: f"{agent} ({sum(map(len, own.values()))} runs)" for agent, own in lines.items()}


def draw_efficiency(panels: Panels, scales: Scales, tag: str, output: Path, band: Band) -> None:
    """Draw sample-efficiency curves: one line for each agent, the interquartile mean over all runs of all tasks.

    Args:
        panels: task -> agent -> the curves of its runs; every agent has played every task.
        scales: of the tasks.
        tag: of the curves.
        output: the PNG file.
        band: what is drawn around a line.

    Raises:
        ConfigError: there is no step that all runs of an agent cover.
    """
    lines = {agent: {task: panels[task][agent] for task in panels} for agent in sorted(next(iter(panels.values())))}
    title, labels = name_tasks(lines)
    told = set[str]()
    with open_figure(1, output) as (figure, (axis,)):
        for agent, tasks in lines.items():
            aligned = align([curve for curves in tasks.values() for curve in curves])
            if not len(aligned.steps):
                raise ConfigError(f"{agent}: its runs have no steps in common")
            ends = np.cumsum([len(curves) for curves in tasks.values()])[:-1]
            values = np.split(aligned.values, ends)
            scaled = [normalise(part, *scales[task]) for task, part in zip(tasks, values, strict=True)]
            told |= draw_line(axis, labels[agent], aligned.steps, scaled, band)
        set_title(axis, title)
        label_steps(axis, name_scale(scales, tag))
        lacking = [] if len(told) > 1 or band is None else [NO_INTERVAL]
        put_caption(
            figure,
            [
                *sorted(told, reverse=True),
                "Seeds are drawn within each task; lines end where the first run of an agent does.",
                *lacking,
            ],
        )


def draw_profile(lines: Lines, scales: Scales, output: Path, band: Band) -> None:
    """Draw performance profiles: the share of runs that ended above each return.

    Args:
        lines: the final returns; every agent has played every task.
        scales: of the tasks.
        output: the PNG file.
        band: ``ci`` or None.
    """
    scores = {
        agent: [normalise(np.array(runs), *scales[task]) for task, runs in tasks.items()]
        for agent, tasks in lines.items()
    }
    pooled = np.concatenate([task for tasks in scores.values() for task in tasks])
    margin = 0.05 * (np.ptp(pooled) or 1.0)
    levels = np.linspace(pooled.min() - margin, pooled.max() + margin, 401)
    title, labels = name_tasks(lines)
    told = ["Line: share of runs, averaged over tasks, whose final return is higher."]
    with open_figure(1, output) as (figure, (axis,)):
        for agent, tasks in scores.items():
            found = estimate_profile(tasks, levels)
            color = axis.plot(levels, found.value, label=labels[agent])[0].get_color()
            if band is not None and found.low is not None and found.high is not None:
                axis.fill_between(levels, found.low, found.high, color=color, alpha=0.25, linewidth=0)
                told = [*told[:1], f"Band: {INTERVAL}"]
        set_title(axis, title)
        axis.set_xlabel(name_scale(scales, "final return"), fontsize=8)
        axis.set_ylabel("share of runs above", fontsize=8)
        axis.legend(fontsize=7)
        put_caption(figure, [*told, *([NO_INTERVAL] if has_few(lines) and band else [])])


def draw_improvement(lines: Lines, output: Path, band: Band) -> None:
    """Draw, of every pair of agents, the probability that one ends better than the other.

    Args:
        lines: the final returns; every agent has played every task.
        output: the PNG file.
        band: ``ci`` or None.

    Raises:
        ConfigError: there is one agent alone.
    """
    if len(lines) < 2:
        raise ConfigError(f"kind=improvement compares agents: all runs are of {next(iter(lines))}")
    title, labels = name_tasks(lines)
    pairs = list(combinations(lines, 2))
    with open_figure(1, output) as (figure, (axis,)):
        for place, (first, second) in enumerate(pairs):
            ours, theirs = ([np.array(runs) for runs in lines[agent].values()] for agent in (first, second))
            found = estimate_improvement(ours, theirs)
            axis.plot(found.value, place, "o", color="C0")
            if band is not None and found.low is not None and found.high is not None:
                axis.hlines(place, found.low, found.high, color="C0")
        axis.axvline(0.5, color="0.5", linestyle="--", linewidth=1)
        axis.set_yticks(range(len(pairs)), [f"{labels[one]}\nover {labels[two]}" for one, two in pairs], fontsize=7)
        axis.set_ylim(len(pairs) - 0.5, -0.5)
        axis.set_xlim(-0.03, 1.03)
        axis.set_xlabel("probability of improvement", fontsize=8)
        set_title(axis, title)
        told = ["Point: how likely a run of the first ends above one of the second on the same task; ties count half."]
        told += [f"Bar: {INTERVAL}"] if band else []
        put_caption(figure, [*told, *([NO_INTERVAL] if has_few(lines) and band else [])])


def has_few(lines: Lines) -> bool:
    """Tell whether an agent has fewer than ``FEWEST`` runs of a task."""
    return any(len(runs) < FEWEST for tasks in lines.values() for runs in tasks.values())
