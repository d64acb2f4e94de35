"""Learning curves of many runs: read them, name them, average them over seeds and draw them."""

import logging
from collections import defaultdict
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.launch.check import ConfigError, check_node
from experiments.launch.run_folder import load_run_config, name_core, name_env
from rl.checkpoint import atomic_write

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values ``[points]``."""

Panels = dict[str, dict[str, list[Curve]]]
"""``panel -> line -> the curves of its seeds``."""


def make_panels() -> Panels:
    """Return panels to which curves can be appended at once."""
    return defaultdict(lambda: defaultdict(list))


def label_run(folder: Path, trust: Any = ()) -> tuple[str, str]:
    """Name the environment of a run, with its parameters, and its agent, with its core and its teacher."""
    config = load_run_config(folder, trust)
    environment = name_task(config.env) if config.env is not None else "no environment"
    line = [config.agent._target_.rpartition(".")[2], name_core(config.agent)]
    line += ["from another run"] if config.get("init_from") else []
    line += [f"teacher_kl={config.agent.teacher_kl:g}"] if config.agent.get("teacher_kl") else []
    return environment, ", ".join(line)


def name_task(env: DictConfig) -> str:
    """Name an environment and those of its parameters that are not the usual ones."""
    usual = check_node({"_target_": env._target_}, "env", given=("num_envs",)) | {"id": env.get("id")}
    parameters = ", ".join(f"{key!s}={value}" for key, value in env.items() if usual.get(str(key), ...) != value)
    return name_env(env) + (f" ({parameters})" if parameters else "")


def read_curve(folder: Path, tag: str) -> Curve:
    """Read the points of one TensorBoard tag.

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


def average(curves: list[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average the curves of several seeds over the range of steps that all of them cover.

    Returns:
        Steps, mean, and half the width of the 95 % confidence interval (normal) of the mean, 0 for one seed.
    """
    end = min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.concatenate([steps[steps <= end] for steps, _ in curves]))
    values = np.stack([np.interp(grid, *curve) for curve in curves])
    half = 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.zeros(len(grid))
    return grid, values.mean(axis=0), half


def draw(panels: Panels, tag: str, output: Path, levels: dict[str, dict[str, float]] | None = None) -> None:
    """Write the figure.

    Args:
        panels: what to draw.
        tag: what the y axes show.
        output: the PNG file.
        levels: panel -> {label: value} of horizontal lines.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
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
            steps, mean, half = average(curves)
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
    with atomic_write(output) as file:
        figure.savefig(file, dpi=110, format=output.suffix[1:] or None)
    pyplot.close(figure)
