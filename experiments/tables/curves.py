"""Learning curves of many runs: read them, name them, and bring those of several seeds on one grid of steps."""

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.launch.check import ConfigError, check_node
from experiments.launch.run_folder import flatten, load_run_config, name_agent, name_core, name_env

Curve = tuple[np.ndarray, np.ndarray]
"""Steps and values ``[points]``."""

Panels = dict[str, dict[str, list[Curve]]]
"""``panel -> line -> the curves of its seeds``."""

MOST_POINTS = 500
"""Of a grid."""

COMPARED = ("agent.", "num_envs", "num_steps")
"""Settings, or beginnings of their names, in which runs of one line are alike."""


class NoTagError(ConfigError):
    """A run has no such tag."""


def make_panels() -> Panels:
    """Return panels to which curves can be appended at once."""
    return defaultdict(lambda: defaultdict(list))


def label_run(folder: Path, trust: Any = ()) -> tuple[str, str]:
    """Name the environment of a run, with its parameters, and its agent, with its encoder, its core and its teacher."""
    return _label(load_run_config(folder, trust))


def _label(config: DictConfig) -> tuple[str, str]:
    environment = name_task(config.env) if config.env is not None else "no environment"
    line = [name_agent(config.agent), name_core(config.agent)]
    line += ["from another run"] if config.get("init_from") else []
    line += [f"teacher_kl={config.agent.teacher_kl:g}"] if config.agent.get("teacher_kl") else []
    return environment, ", ".join(line)


def label_runs(folders: Iterable[Path], trust: Any = ()) -> dict[Path, tuple[str, str]]:
    """Name the task and the agent of each run; settings in which runs of one name differ are named as well."""
    configs = {folder: load_run_config(folder, trust) for folder in folders}
    labels = {folder: _label(config) for folder, config in configs.items()}
    groups = defaultdict[tuple[str, str], list[Path]](list)
    for folder, label in labels.items():
        groups[label].append(folder)
    for (environment, line), alike in groups.items():
        settings = [flatten(configs[folder]) for folder in alike]
        names = tell_apart(settings)
        for folder, own in zip(alike, settings, strict=True):
            told = [f"{name.removeprefix('agent.')}={own[name]}" for name in names]
            labels[folder] = environment, ", ".join([line, *told])
    return labels


def tell_apart(settings: list[dict[str, Any]]) -> list[str]:
    """Choose as few settings as tell runs apart as well as all ``COMPARED`` do, those of most values first.

    What a run of an earlier version lacks is not compared.
    """
    names = [name for name in settings[0] if name.startswith(COMPARED) and all(name in own for own in settings)]

    def count(chosen: list[str]) -> int:
        return len({tuple(repr(own[name]) for name in chosen) for own in settings})

    chosen: list[str] = []
    while count(chosen) < count(names):
        chosen.append(max(names, key=lambda name: count([*chosen, name])))
    return chosen


def name_task(env: DictConfig) -> str:
    """Name an environment and those of its parameters that are not the usual ones; how copies are stepped is none."""
    usual = check_node({"_target_": env._target_}, "env", given=("num_envs",)) | {"id": env.get("id")}
    usual["vectorization_mode"] = env.get("vectorization_mode")
    parameters = ", ".join(f"{key!s}={value}" for key, value in env.items() if usual.get(str(key), ...) != value)
    return name_env(env) + (f" ({parameters})" if parameters else "")


def read_curve(folder: Path, tag: str) -> Curve:
    """Read the points of one TensorBoard tag.

    Raises:
        NoTagError: the run has no such tag.
    """
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells of every file that it opens
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    if tag not in events.Tags()["scalars"]:
        raise NoTagError(f"{folder} has no tag {tag!r}; there are {', '.join(events.Tags()['scalars'])}")
    points = events.Scalars(tag)
    return np.array([p.step for p in points]), np.array([p.value for p in points])


def read_curves(folders: Iterable[Path], tag: str) -> tuple[dict[Path, Curve], list[Path]]:
    """Read one TensorBoard tag of several runs.

    Returns:
        The curves of those that have it, and the folders of the others.

    Raises:
        NoTagError: none has it.
    """
    found, lacking, fault = dict[Path, Curve](), list[Path](), None
    for folder in folders:
        try:
            found[folder] = read_curve(folder, tag)
        except NoTagError as error:
            lacking.append(folder)
            fault = error
    if fault is not None and not found:
        raise fault if len(lacking) == 1 else NoTagError(f"none of {len(lacking)} runs has it: {fault}")
    return found, lacking


@dataclass(frozen=True)
class Aligned:
    """Curves of several seeds on one grid of steps, as far as all of them reach.

    Attributes:
        steps: ``[points]``, those of all curves between the latest beginning and the earliest end; none if no step is
            covered by all.
        values: float64 ``[runs, points]``, interpolated between the points of each run.
        rest: the pieces of curves that lie before or after the grid.
    """

    steps: np.ndarray
    values: np.ndarray
    rest: list[Curve]


def align(curves: list[Curve]) -> Aligned:
    """Bring curves of several seeds, which may be of unequal lengths, on one grid."""
    begin, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    grid = np.unique(np.concatenate([steps[(steps >= begin) & (steps <= end)] for steps, _ in curves]))
    if len(grid) > MOST_POINTS:  # more than a figure has pixels
        grid = grid[np.unique(np.linspace(0, len(grid) - 1, MOST_POINTS).round().astype(int))]
    values = np.stack([np.interp(grid, *curve) for curve in curves])
    rest = []
    for steps, own in curves if len(grid) else ():
        rest += [(steps[steps <= begin], own[steps <= begin])] if steps[0] < begin else []
        rest += [(steps[steps >= end], own[steps >= end])] if steps[-1] > end else []
    return Aligned(grid, values, rest)
