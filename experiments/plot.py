"""Draw runs as PNG: learning curves over seeds, or agents compared over tasks.

python -m experiments.plot runs=[runs/a,runs/b] output=curves.png
python -m experiments.plot runs=[runs/a] tag=[losses/entropy,losses/approx_kl] band=minmax
python -m experiments.plot runs=[SWEEP_DIR] kind=memory
python -m experiments.plot runs=[SWEEP_DIR] kind=efficiency tag=eval/episodic_return
python -m experiments.plot runs=[SWEEP_DIR] kind=profile
python -m experiments.plot runs=[SWEEP_DIR] kind=improvement
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from experiments.launch.check import ConfigError, convert, prepare_output, read_list, to_dict
from experiments.launch.command import launch
from experiments.tables.comparisons import (
    draw_efficiency,
    draw_improvement,
    draw_profile,
    find_scales,
    keep_shared,
    read_final_returns,
)
from experiments.tables.curves import label_runs, make_panels, read_curves
from experiments.tables.figures import Band, draw_curves
from experiments.tables.gallery import ZEROED, draw_memory

Labels = dict[Path, tuple[str, str]]
"""Task and agent of each run folder."""


def run(config: DictConfig) -> None:
    """Draw one figure and say of how many runs it is."""
    if not config.runs:
        raise ConfigError("runs is empty: give the folders of training runs, runs=[RUN_DIR,RUN_DIR]")
    kind = convert(config.kind, Literal["curves", "memory", "efficiency", "profile", "improvement"], "kind")
    band: Band = convert(config.band, Literal["ci", "iqr", "minmax"] | None, "band")
    bounds, tags = to_dict(config.bounds), [str(tag) for tag in read_list(config.tag, "tag")]
    check_options(kind, band, bounds, tags)
    output = prepare_output(convert(config.output, str, "output"), "output")
    found = [folder for path in read_list(config.runs, "runs") for folder in find_run_folders(str(path))]
    folders = list({folder.resolve(): folder for folder in found}.values())  # a run that is named twice is one run
    labels = label_runs(folders, config.get("trust"))
    if kind == "curves":
        drawn = plot_curves(labels, tags, band, output)
    elif kind == "memory":
        drawn = plot_memory(labels, band, output)
    elif kind == "efficiency":
        drawn = plot_efficiency(labels, tags[0], band, bounds, output)
    else:
        drawn = plot_final_returns(labels, kind, band, bounds, output)
    print(f"{drawn} runs -> {config.output}")


def check_options(kind: str, band: Band, bounds: dict[str, Any], tags: list[str]) -> None:
    """Check that a kind of figure has a use for what is given.

    Raises:
        ConfigError: it has none.
    """
    if kind in ("profile", "improvement") and band not in ("ci", None):
        raise ConfigError(f"band={band}: kind={kind} has ci or null")
    if kind in ("curves", "memory", "improvement") and bounds:
        raise ConfigError(f"bounds={bounds}: kind={kind} draws returns as they are; leave it out")
    if kind == "efficiency" and len(tags) > 1:
        raise ConfigError(f"tag={tags}: kind=efficiency draws one tag")


def plot_curves(labels: Labels, tags: list[str], band: Band, output: Path) -> int:
    """Draw learning curves, a panel for each tag and task; return the number of runs."""
    panels, drawn = make_panels(), set[Path]()
    for tag in tags:
        curves, lacking = read_curves(labels, tag)
        tell_of_missing(lacking, len(labels), f"no {tag}")
        for folder, curve in curves.items():
            panel, line = labels[folder]
            panels[panel if len(tags) == 1 else f"{tag}\n{panel}"][line].append(curve)
        drawn |= curves.keys()
    draw_curves(panels, tags[0] if len(tags) == 1 else "", output, band=band)
    return len(drawn)


def plot_memory(labels: Labels, band: Band, output: Path) -> int:
    """Draw what the memory is worth, a panel for each task and agent; return the number of runs."""
    curves, lacking = read_curves(labels, ZEROED)
    tell_of_missing(lacking, len(labels), f"no {ZEROED}")
    groups = defaultdict[str, list[Path]](list)
    for folder in curves:
        groups["\n".join(labels[folder])].append(folder)
    draw_memory(groups, output, band)
    return len(curves)


def plot_efficiency(labels: Labels, tag: str, band: Band, bounds: dict[str, Any], output: Path) -> int:
    """Draw sample-efficiency curves over tasks; return the number of runs."""
    curves, lacking = read_curves(labels, tag)
    tell_of_missing(lacking, len(labels), f"no {tag}")
    lines = make_panels()  # agent -> task -> curves
    for folder, curve in curves.items():
        task, agent = labels[folder]
        lines[agent][task].append(curve)
    shared, left_out = keep_shared(lines)
    tell_of_tasks(left_out)
    tasks = next(iter(shared.values()))
    panels = {task: {agent: own[task] for agent, own in shared.items()} for task in tasks}
    draw_efficiency(panels, find_scales(tasks, labels, bounds), tag, output, band)
    return sum(len(runs) for lines in panels.values() for runs in lines.values())


def plot_final_returns(labels: Labels, kind: str, band: Band, bounds: dict[str, Any], output: Path) -> int:
    """Draw profiles or probabilities of improvement of the final returns; return the number of runs."""
    lines, lacking = read_final_returns(labels)
    tell_of_missing(lacking, len(labels), "no final return")
    shared, left_out = keep_shared(lines)
    tell_of_tasks(left_out)
    if kind == "profile":
        draw_profile(shared, find_scales(next(iter(shared.values())), labels, bounds), output, band)
    else:
        draw_improvement(shared, output, band)
    return sum(len(runs) for tasks in shared.values() for runs in tasks.values())


def tell_of_missing(lacking: list[Path], count: int, what: str) -> None:
    """Print which runs are left out, if any, and why."""
    if lacking:
        print(f"{len(lacking)} of {count} runs have {what} and are left out: {', '.join(map(str, lacking))}")


def tell_of_tasks(left_out: Iterable[str]) -> None:
    """Print which tasks are left out, if any."""
    if left_out:
        print(f"tasks that not every agent has played are left out: {'; '.join(left_out)}")


def find_run_folders(path: str) -> list[Path]:
    """Return the run folder ``path``, or those inside it (a sweep).

    Raises:
        ConfigError: there is none.
    """
    folders = [file.parent for file in sorted(Path(path).rglob("config.yaml"))]
    if not folders:
        raise ConfigError(f"{path} holds no run: no config.yaml in it or below it")
    return folders


def main() -> None:
    """Run the command."""
    launch(run, "plot")


if __name__ == "__main__":
    main()
