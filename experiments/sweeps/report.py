"""What a search has found: a table of its trials, the importance of settings, and the best ones as a preset."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from experiments.launch.arguments import rewrite_overrides
from experiments.launch.run_folder import flatten
from experiments.sweeps.space import write_override
from experiments.sweeps.study import AGAIN, FAULT, STEPS, Trials, locate_trial
from experiments.sweeps.trial import Plan
from rl.checkpoint import write_text

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

PRESET = "experiment/best.yaml"
OWN = ("seed", "run_dir", "resume", "overwrite", "trust")
"""Keys that a preset leaves to the command line."""
SHOWN = 10  # trials of the table that is printed


def write_report(folder: Path, trials: Trials, plan: Plan, choices: dict[str, str]) -> None:
    """Write ``trials.md``, ``trials.json`` and, once a trial is complete, the preset of the best one.

    Args:
        folder: of the study.
        trials: of it.
        plan: of its runs.
        choices: the file that was chosen of each group.
    """
    study = trials.study
    every = study.get_trials(deepcopy=False)
    write_text(folder / "trials.json", json.dumps([describe_trial(trial, folder) for trial in every], indent=1))
    importance = measure_importance(study)
    text = format_table(every) + "\n" + format_importance(importance)
    write_text(folder / "trials.md", text)
    best = find_best(study)
    if best is not None:
        (folder / PRESET).parent.mkdir(exist_ok=True)
        write_text(folder / PRESET, format_preset(folder, best, plan, choices))


def find_best(study: "Study") -> "FrozenTrial | None":
    """Return the complete trial with the highest value, None before there is one.

    Of equal ones, which a task with a highest return has many of, the one whose evaluations were best from first to
    last: it learned the fastest.
    """
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    return max(complete, key=lambda trial: (trial.value or 0.0, _average(trial)), default=None)


def describe_trial(trial: "FrozenTrial", folder: Path) -> dict[str, Any]:
    """Return what ``trials.json`` holds of a trial."""
    return {
        "number": trial.number,
        "state": name_state(trial),
        "value": trial.value,
        "seconds": None if trial.duration is None else trial.duration.total_seconds(),
        "env_steps": trial.user_attrs.get(STEPS),
        "settings": trial.params,
        "evaluations": list(trial.intermediate_values.values()),
        "fault": trial.user_attrs.get(FAULT),
        "folder": str(locate_trial(folder, trial).relative_to(folder)),
    }


def name_state(trial: "FrozenTrial") -> str:
    """Return what became of a trial, in one word."""
    if AGAIN in trial.user_attrs:
        return "repeated"
    words = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
    return words[trial.state.name]


def format_table(trials: "list[FrozenTrial]", most: int | None = None) -> str:
    """Return the trials that have begun as a table, the best first; the settings are those of the first trial."""
    begun = [trial for trial in trials if trial.params and name_state(trial) not in ("repeated", "waiting")]
    order = {"done": 0, "pruned": 1, "running": 2, "failed": 3}
    begun.sort(key=lambda trial: (order[name_state(trial)], -_value(trial)))
    keys = list(begun[0].params) if begun else []
    lines = [f"| trial | state | value | seconds | {' | '.join(keys)} |", "|---" * (4 + len(keys)) + "|"]
    for trial in begun[:most]:
        seconds = "-" if trial.duration is None else f"{trial.duration.total_seconds():.0f}"
        value = "-" if trial.value is None else f"{trial.value:.4g}"
        cells = [str(trial.number), name_state(trial), value, seconds, *(_show(trial.params.get(key)) for key in keys)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measure_importance(study: "Study") -> dict[str, float]:
    """Return the share of each setting in what tells good trials from others; nothing while there are too few."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    try:
        return get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}


def format_importance(importance: dict[str, float]) -> str:
    """Return the importance of settings as a table; nothing if it is not known."""
    if not importance:
        return ""
    rows = [f"| {key} | {share:.2f} |" for key, share in importance.items()]
    return "\n".join(["| setting | importance |", "|---|---|", *rows]) + "\n"


def tell_command(folder: Path) -> str:
    """Return the command that trains with the preset of a study."""
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f"python -m experiments.train --config-dir={shlex.quote(str(folder))} experiment=best"


def format_preset(folder: Path, best: "FrozenTrial", plan: Plan, choices: dict[str, str]) -> str:
    """Return a file for ``conf/experiment``: all that a run with the best settings has beside the usual.

    Args:
        folder: of the study.
        best: its best trial.
        plan: of its runs.
        choices: the file that was chosen of each group.
    """
    varied = [write_override(key, value) for key, value in best.params.items()]
    groups = {key: value for key, value in choices.items() if key.partition("@")[0] not in ("experiment", "search")}
    groups |= {key: str(value) for key, value in best.params.items() if "/" in key}
    # what a preset can choose: a group that the command line adds to the usual ones stands in it as plain keys
    usual_groups = HydraConfig.get().runtime.choices
    groups = {key: value for key, value in groups.items() if key in usual_groups and not key.startswith("hydra")}
    wanted = flatten_run([*plan.base, *varied])
    usual = flatten_run([f"{key}={value}" for key, value in groups.items()])
    changed = {key: value for key, value in wanted.items() if usual.get(key, ...) != value and key not in OWN}
    content = OmegaConf.create({"defaults": [{f"override /{key}": value} for key, value in groups.items()]})
    for key, value in changed.items():
        OmegaConf.update(content, key, value, force_add=True)
    return (
        "# @package _global_\n"
        "# python -m experiments.train experiment=best\n"
        f"# Expected: evaluation return {best.value:.4g}, the mean over seeds {', '.join(map(str, plan.seeds))} of the "
        f"last {plan.last} evaluations.\n" + OmegaConf.to_yaml(content)
    )


def flatten_run(arguments: list[str]) -> dict[str, Any]:
    """Return the configuration of a training run as one level."""
    config = compose("train", list(rewrite_overrides(arguments)))
    assert isinstance(config, DictConfig)
    return flatten(config)


def _average(trial: "FrozenTrial") -> float:
    """Return the mean of all evaluations of a trial."""
    values = list(trial.intermediate_values.values())
    return sum(values) / max(len(values), 1)


def _value(trial: "FrozenTrial") -> float:
    """Return the value of a trial, or its last evaluation."""
    values = list(trial.intermediate_values.values())
    return trial.value if trial.value is not None else values[-1] if values else float("-inf")


def _show(value: Any) -> str:
    """Write a setting into a cell."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
