"""Train every row of the learning table on several seeds, then write table, plot and raw numbers."""

import json
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig

from experiments.launch.arguments import rewrite_overrides
from experiments.launch.check import convert, prepare_output
from experiments.launch.elsewhere import check_spaces, list_overrides, override_env, read_spaces
from experiments.launch.evaluations import FINAL_SEED
from experiments.launch.run_folder import load_flat_config, read_result
from experiments.tables.curves import label_run, make_panels, read_curve
from experiments.tables.entries import compose_run, list_settings
from experiments.tables.figures import SMALL, draw_curves, load_pyplot
from experiments.tables.gallery import draw_memory
from experiments.tables.learning_text import format_table, summarise_row
from experiments.tables.plan import read_env_keys, read_plan
from experiments.tables.runs import CHILD, Children, check_same, list_remaining_arguments, locate_run
from rl.checks import positive

MARKERS = "<!-- learning table: written by python -m experiments.learning_table -->", "<!-- end of learning table -->"

KEYS, NEEDED = ("experiment", "overrides", "suffix", "evaluate", "control"), ("experiment",)
"""Of a row, see ``conf/learning_table.yaml``."""


def run(config: DictConfig) -> float:
    """Train what is missing, then report.

    Returns:
        The share of runs that end at or above the bar of their row, controls left out.
    """
    plan = read_plan(config, MARKERS, KEYS, NEEDED)
    rows, seeds, folder = plan.rows, plan.seeds, plan.folder
    load_pyplot()
    picture = prepare_output(config.plot, "plot")
    gallery = convert(config.gallery, str | None, "gallery")
    drawn = {name: row for name, row in rows.items() if "evaluate" not in row}
    pictures = {name: prepare_output(f"{gallery}/{name}.png", "gallery") for name in drawn} if gallery else {}
    check_begun(folder, rows, seeds)
    overrides = {name: check_elsewhere(name, row) for name, row in rows.items() if "evaluate" in row}
    jobs = [(name, row, seed) for name, row in rows.items() for seed in seeds]
    with Children() as children:
        children.map(lambda job: train_row(children, folder, *job, overrides.get(job[0])), jobs, plan.jobs)
    content = {name: read_row(folder, name, row, seeds, overrides.get(name)) for name, row in rows.items()}
    summaries = {name: part["summary"] for name, part in content.items()}
    text = format_table(summaries)
    plan.write(text, content)
    plot_rows(folder, drawn, seeds, picture)
    for name, file in pictures.items():
        draw_row([locate_run(folder, name, seed) for seed in seeds], drawn[name], file)
    plan.publish(text, (), len(jobs))
    judged = [each for each in summaries.values() if each["reached"] is not None and not each["control"]]
    return sum(each["reached"] for each in judged) / max(sum(each["seeds"] for each in judged), 1)


def read_row(
    folder: Path, name: str, row: dict[str, Any], seeds: list[int], overrides: list[str] | None
) -> dict[str, Any]:
    """Return what ``table.json`` holds of a row: its numbers over seeds, and those of each run."""
    targets = {seed: locate_run(folder, name, seed) for seed in seeds}
    results = [read_result(target) for target in targets.values()]
    content: dict[str, Any] = {"runs": results}
    if overrides is not None:
        content["elsewhere"] = [read_elsewhere(target, seed, overrides) for seed, target in targets.items()]
    return {"summary": summarise_row(row, results, content.get("elsewhere", []))} | content


def check_begun(folder: Path, rows: dict[str, Any], seeds: list[int]) -> None:
    """Check that runs which lie there already, finished or not, are those of the table.

    Raises:
        ConfigError: one of them is not.
    """
    for name, row in rows.items():
        targets = [target for seed in seeds if (target := locate_run(folder, name, seed)).is_dir()]
        if targets:
            wanted = list_settings(compose_run(list_arguments(row)))
            for target in targets:
                check_same(target, wanted, f"the row {name}")


def list_arguments(row: dict[str, Any]) -> list[str]:
    """Return the arguments of the runs of a row, without those that differ between them."""
    return [f"experiment={row['experiment']}", *row.get("overrides", ())]


def check_elsewhere(name: str, row: dict[str, Any]) -> list[str]:
    """Check that a row can be played where its ``evaluate`` says; return what that sets of the environment.

    Raises:
        ConfigError, ValueError: it cannot.
    """
    asked = read_env_keys(row, "evaluate", name)
    given = compose("evaluate", list(rewrite_overrides(asked))).env
    config = compose_run(list_arguments(row))
    positive(final_episodes=config.final_episodes)
    overrides = list_overrides(given)
    check_spaces(read_spaces(override_env(config, given)), read_spaces(config), overrides)
    return overrides


def train_row(
    children: Children, folder: Path, name: str, row: dict[str, Any], seed: int, overrides: list[str] | None = None
) -> None:
    """Train one row on one seed, in a process of its own; then play it elsewhere, unless ``overrides`` is None.

    Raises:
        RuntimeError: a process failed; its last line says why.
    """
    target = locate_run(folder, name, seed)
    fresh = [*list_arguments(row), f"seed={seed}", f"run_dir={target}"]
    if arguments := list_remaining_arguments(target, fresh):
        children.run_module(CHILD, "experiments.train", *arguments)
    if overrides is not None and read_elsewhere(target, seed, overrides) is None:
        request = [f"{key}={value}" for key, value in choose_episodes(target, seed).items()]
        children.run_module(CHILD, "experiments.evaluate", f"run={target}", *row["evaluate"], *request)


def choose_episodes(target: Path, seed: int) -> dict[str, int]:
    """Return what ``evaluate`` is to play of a run: as many episodes as its final evaluation."""
    return {"episodes": load_flat_config(target)["final_episodes"], "seed": seed + FINAL_SEED}


def read_elsewhere(target: Path, seed: int, overrides: list[str]) -> dict[str, Any] | None:
    """Return what a finished run got elsewhere with greedy play; None if that was not played yet.

    Args:
        target: the folder of the run.
        seed: of the run.
        overrides: what makes the other environment.
    """
    file = target / "evaluation.json"
    try:
        rows = json.loads(file.read_text()) if file.is_file() else []
    except ValueError:  # damaged: it is played again
        rows = []
    wanted = choose_episodes(target, seed) | {"env_steps": read_result(target)["env_steps"], "overrides": overrides}
    found = {row["memory"]: row for row in rows if row["policy"] == "greedy" and wanted.items() <= row.items()}
    if found.keys() != {"kept", "zeroed"}:
        return None
    return found["kept"] | {"memory_zeroed": found["zeroed"]["mean"]}


def draw_row(folders: list[Path], row: dict[str, Any], output: Path) -> None:
    """Draw what the memory is worth in the runs of a row."""
    environment, line = label_run(folders[0])
    title = f"{row.get('label', environment)}\n{line}{row.get('suffix', '')}"
    draw_memory({title: folders}, output, panel_size=SMALL)


def plot_rows(folder: Path, rows: dict[str, Any], seeds: list[int], output: Path) -> None:
    """Draw evaluation return over steps, one panel for each environment, titled as its first row."""
    panels, levels, titles = make_panels(), {}, dict[str, str]()
    for name, row in rows.items():
        for seed in seeds:
            environment, line = label_run(locate_run(folder, name, seed))
            label = row.get("label", environment)
            panel = titles.setdefault(environment, environment if label in titles.values() else label)
            line += row.get("suffix", "")
            panels[panel][line].append(read_curve(locate_run(folder, name, seed), "eval/episodic_return"))
        result = read_result(locate_run(folder, name, seeds[0]))
        known = {"threshold": result["threshold"], "memoryless": result["memoryless_return"]}
        levels[panel] = {label: value for label, value in known.items() if value is not None}
    if panels:
        draw_curves(panels, "eval/episodic_return", output, levels)
