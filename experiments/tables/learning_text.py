"""What the learning table says: numbers of each row over its seeds, and the Markdown of all rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.tables.markdown import format_known, write_table
from experiments.tables.statistics import estimate_iqm

HEAD = (
    "task",
    "agent, core",
    "best / memoryless",
    "bar",
    "seeds that end at the bar",
    "final return [95 %]",
    "worst to best seed",
    "memory zeroed",
    "steps to the bar",
    "seconds to the bar",
    "budget",
)
HEAD_ELSEWHERE = (
    "trained on",
    "agent, core",
    "best / memoryless there",
    "bar",
    "seeds at the bar as trained",
    "return as trained [95 %]",
    "played with",
    "seeds at the bar there",
    "return there [95 %]",
    "worst to best seed there",
    "memory zeroed there",
)
CONTROLS = "Controls, which are not expected to reach the bar:"
ELSEWHERE = "Trained in one environment, played in another:"

TIMES = ("steps", "seconds")

Result = dict[str, Any]
Summary = dict[str, Any]


def summarise_row(row: dict[str, Any], results: list[Result], elsewhere: list[Result]) -> Summary:
    """Return the numbers of a row over its seeds.

    Args:
        row: its configuration.
        results: ``result.json`` of each seed.
        elsewhere: what each seed got in the other environment, see ``read_elsewhere``; empty for a row that has none.
    """
    first = results[0]
    keys = ("agent", "core", "optimal_return", "memoryless_return")
    shared = {key: first[key] for key in keys} | {"bar": first["threshold"], "seeds": len(results)}
    times = {f"{name}_to_bar": take_median([run[f"{name}_to_threshold"] for run in results]) for name in TIMES}
    summary = (
        {"label": row.get("label"), "control": bool(row.get("control"))} | shared | {"budget": first["total_steps"]}
    )
    finals, zeroed = ([run[key] for run in results] for key in ("eval_return_mean", "memory_zeroed_return_mean"))
    summary |= summarise_returns(finals, zeroed, first["threshold"]) | times
    if elsewhere:
        there = {key: elsewhere[0][key] for key in ("overrides", "optimal_return", "memoryless_return")}
        finals, zeroed = ([run[key] for run in elsewhere] for key in ("mean", "memory_zeroed"))
        summary["elsewhere"] = there | summarise_returns(finals, zeroed, first["threshold"])
    return summary


def summarise_returns(finals: list[float | None], zeroed: list[float | None], bar: float | None) -> Summary:
    """Return what the final returns of the seeds come to; null for what cannot be said.

    Args:
        finals: of the seeds.
        zeroed: with the memory zeroed in every step.
        bar: what counts as solved.
    """
    known = [each for each in finals if each is not None]
    complete = len(known) == len(finals)
    return {
        "reached": count_reached(finals, bar),
        "final_return": estimate_numbers(finals),
        "worst": min(known) if complete else None,
        "best": max(known) if complete else None,
        "memory_zeroed_return": estimate_numbers(zeroed),
    }


def count_reached(finals: Sequence[float | None], bar: float | None) -> int | None:
    """Return how many final returns are at or above the bar; None if there is no bar or a seed has no final return."""
    known = [each for each in finals if each is not None]
    return None if bar is None or len(known) < len(finals) else sum(each >= bar for each in known)


def estimate_numbers(values: Sequence[float | None]) -> dict[str, float | None] | None:
    """Return the interquartile mean of seeds and its interval; None if a seed has no value."""
    known = [each for each in values if each is not None]
    return estimate_iqm([np.array(known)]).to_numbers() if len(known) == len(values) else None


def take_median(values: Sequence[float | None]) -> float | None:
    """Return the median over seeds, of which those that never got there (None) count as later than all others.

    None if the median is one of those.
    """
    median = float(np.median([np.inf if value is None else value for value in values]))
    return median if np.isfinite(median) else None


def format_table(summaries: dict[str, Summary]) -> str:
    """Write the tables in Markdown: the rows, then the controls, then the rows that are played elsewhere.

    Args:
        summaries: of each row, from ``summarise_row``.
    """
    plain = {name: each for name, each in summaries.items() if "elsewhere" not in each}
    parts = {
        "": (HEAD, [format_row(name, each) for name, each in plain.items() if not each["control"]]),
        CONTROLS: (HEAD, [format_row(name, each) for name, each in plain.items() if each["control"]]),
        ELSEWHERE: (
            HEAD_ELSEWHERE,
            [format_elsewhere(name, each) for name, each in summaries.items() if name not in plain],
        ),
    }
    texts = []
    for title, (head, rows) in parts.items():
        if rows:
            texts.append((f"{title}\n\n" if title else "") + write_table(head, rows))
    return "\n".join(texts)


def format_row(name: str, summary: Summary) -> list[str]:
    """Return the cells of a row."""
    steps, seconds = summary["steps_to_bar"], summary["seconds_to_bar"]
    return [
        *format_task(name, summary, summary),
        *format_returns(summary, summary["seeds"]),
        "-" if steps is None else f"{steps / 1000:.0f} k",
        "-" if seconds is None else f"{seconds:.0f}",
        f"{summary['budget'] / 1000:.0f} k",
    ]


def format_elsewhere(name: str, summary: Summary) -> list[str]:
    """Return the cells of a row that is played elsewhere."""
    there, seeds = summary["elsewhere"], summary["seeds"]
    played = ", ".join(override.removeprefix("env.") for override in there["overrides"])
    return [
        *format_task(name, summary, there),
        *format_returns(summary, seeds)[:2],
        played,
        *format_returns(there, seeds),
    ]


def format_task(name: str, summary: Summary, place: Summary) -> list[str]:
    """Return the cells that say what is learned: task, agent, the known returns of a place, bar."""
    return [
        summary["label"] or name,
        f"{summary['agent']}, {summary['core']}",
        format_known(place["optimal_return"], place["memoryless_return"]),
        "-" if summary["bar"] is None else f"{summary['bar']:g}",
    ]


def format_returns(summary: Summary, seeds: int) -> list[str]:
    """Return the cells of returns: seeds at the bar, interquartile mean with its interval, range, memory zeroed."""
    final, zeroed, reached = summary["final_return"], summary["memory_zeroed_return"], summary["reached"]
    return [
        "-" if reached is None else f"{reached} of {seeds}",
        "-" if final is None else format_estimate(final),
        "-" if final is None else f"{summary['worst']:.3g} to {summary['best']:.3g}",
        "-" if zeroed is None else f"{zeroed['value']:.3g}",
    ]


def format_estimate(numbers: dict[str, float | None]) -> str:
    """Write a number and its interval, if it has one."""
    value, low, high = (numbers[key] for key in ("value", "low", "high"))
    return f"{value:.3g}" if low is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"
