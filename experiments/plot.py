"""Learning curves with confidence bands over seeds, as PNG.

python -m experiments.plot runs=[runs/a,runs/b] output=curves.png
python -m experiments.plot runs=[runs/a] tag=[losses/entropy,losses/approx_kl]
"""

import logging
from collections import defaultdict
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.launch.build import core_of, load_run_config
from experiments.launch.check import ConfigError, check_node, listed, writable
from experiments.launch.command import launch


def run(config: DictConfig) -> None:
    """One panel for each tag and environment, one line for each agent and core: the mean over seeds, 95 % band."""
    if not config.runs:
        raise ConfigError("runs is empty: give the folders of training runs, runs=[RUN_DIR,RUN_DIR]")
    output = writable(config.output, "output")
    folders = [folder for path in listed(config.runs, "runs") for folder in run_folders(str(path))]
    tags = listed(config.tag, "tag")
    panels: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for tag in tags:
        for folder in folders:
            panel, line = labels(folder)
            title = panel if len(tags) == 1 else f"{tag}\n{panel}"
            panels[title][line].append(read_curve(folder, str(tag)))
    draw(panels, str(tags[0]) if len(tags) == 1 else "", output)
    print(f"{len(folders)} runs -> {config.output}")


def run_folders(path: str) -> list[Path]:
    """The run folder ``path``, or those inside it (a sweep).

    Raises:
        ConfigError: there is none.
    """
    folders = [file.parent for file in sorted(Path(path).rglob("config.yaml"))]
    if not folders:
        raise ConfigError(f"{path} holds no run: no config.yaml in it or below it")
    return folders


def labels(folder: Path) -> tuple[str, str]:
    """Names of the environment (with its parameters) and of the agent (with its core and its teacher) of a run."""
    config = load_run_config(str(folder))
    usual = check_node({"_target_": config.env._target_}, "env", given=("num_envs",))  # defaults say nothing in a title
    parameters = ", ".join(f"{key}={value}" for key, value in config.env.items() if usual.get(key, ...) != value)
    environment = config.env._target_.rpartition(".")[2] + (f" ({parameters})" if parameters else "")
    line = [config.agent._target_.rpartition(".")[2], core_of(config.agent)]
    line += ["from another run"] if config.get("init_from") else []
    line += [f"teacher_kl={config.agent.teacher_kl:g}"] if config.agent.get("teacher_kl") else []
    return environment, ", ".join(line)


def read_curve(folder: Path, tag: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values ``[points]`` of one tag.

    Raises:
        ConfigError: the run has no such tag.
    """
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of every file that it opens
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    if tag not in events.Tags()["scalars"]:
        raise ConfigError(f"{folder} has no tag {tag!r}; there are {', '.join(events.Tags()['scalars'])}")
    points = events.Scalars(tag)
    return np.array([p.step for p in points]), np.array([p.value for p in points])


def band(curves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, mean and half width of its 95 % confidence interval (normal), over the range that all seeds share."""
    end = min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.concatenate([steps[steps <= end] for steps, _ in curves]))
    values = np.stack([np.interp(grid, *curve) for curve in curves])
    half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros(len(grid))
    return grid, values.mean(axis=0), half


def draw(panels: dict[str, dict[str, list]], tag: str, output: Path, levels: dict[str, Any] | None = None) -> None:
    """Writes the figure.

    Args:
        panels: panel -> line -> curves of its seeds.
        tag: what the y axes show.
        output: the PNG file.
        levels: panel -> {label: value} of horizontal lines.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('plots need matplotlib: pip install "recurrent-ppo[plot]"') from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    width, height = (4.2, 3.0) if len(panels) > 1 else (6.3, 4.2)  # of a panel
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (panel, lines) in zip(axes.flat, panels.items(), strict=False):
        for name, curves in sorted(lines.items()):
            steps, mean, half = band(curves)
            axis.plot(steps, mean, label=f"{name} ({len(curves)} seeds)")
            axis.fill_between(steps, mean - half, mean + half, alpha=0.25, linewidth=0)
        for index, (label, value) in enumerate((levels or {}).get(panel, {}).items()):
            axis.axhline(value, color="0.5", linestyle=("--", ":")[index % 2], linewidth=1, label=label)
        axis.set_title("\n".join(fill(line, 60) for line in panel.splitlines()), fontsize=10 if len(panel) < 60 else 7)
        axis.set_xlabel("environment steps", fontsize=8)
        axis.set_ylabel(tag, fontsize=8)
        axis.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """The command."""
    launch(run, "plot")


if __name__ == "__main__":
    main()
