"""The card of a run: one page that tells a stranger what the agent in the folder is and how to load it."""

import platform
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from experiments.launch.check import to_dict
from experiments.launch.escape import to_config
from rl.checkpoint import write_text
from rl.trust import OWN

CARD, PICTURE = "card.md", "card.png"
HERE = "THIS_FOLDER"
"""Stands for the path of the run folder, which a stranger has elsewhere."""

PRIVATE = ("run_dir", "resume", "init_from", "overwrite", "trust", "observers")
"""Keys of a run that say where and for whom it ran, not what it is."""

PATH = re.compile(r"(?:^|[\s:=,'\"\[(])(?:/|~|\.\.?/|[A-Za-z]:\\)")
LICENCE = re.compile(r"^\| licence \| (.*) \|$", re.MULTILINE)
MOST_ROWS = 20
"""Of the table that stands in for the picture."""

REASONS = {
    "total_steps": "all that were asked for",
    "threshold": "ended at its threshold",
    "plateau": "ended when it no longer improved",
    "max_seconds": "ended when its time was over",
}


def list_versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "gymnasium", "recurrent-ppo"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # this project, from a folder on the path
            versions[package] = "not installed"
    return versions


def write_card(
    folder: Path, config: DictConfig, result: dict[str, Any], no_picture: str | None, licence: str | None = None
) -> None:
    """Write ``card.md`` into a run folder; it names no path and nobody.

    Args:
        folder: of the run.
        config: of the run.
        result: what ``result.json`` holds.
        no_picture: why there is no ``card.png``, which is removed then; None if there is one.
        licence: of the agent; None for that of the card that stands there.
    """
    path = folder / CARD
    if licence is None and path.is_file():
        found = LICENCE.search(path.read_text(encoding="utf-8", errors="replace"))
        licence = found[1].replace("\\|", "|") if found else None
    if no_picture is not None:
        (folder / PICTURE).unlink(missing_ok=True)
    write_text(path, "\n".join(compose_card(config, result, no_picture, licence)) + "\n")


def compose_card(
    config: DictConfig, result: dict[str, Any], no_picture: str | None, licence: str | None
) -> Iterator[str]:
    """Yield the lines of a card; see ``write_card`` for the arguments."""
    points = result.get("evaluations") or []
    yield f"# {_cell(result.get('agent'))} in {_cell(result.get('env'))}"
    yield from (
        "",
        "What a run of recurrent-ppo has learned. Its returns are those of greedy play; *memory zeroed* is the",
    )
    yield from ("same with the memory cleared before every step, which says what the memory is worth.", "")
    if points and no_picture is None:
        yield from (f"![Evaluation return over environment steps]({PICTURE})", "")
    yield from ("| what | |", "|---|---|", *_describe_run(config, result))
    yield from (f"| licence | {_cell(licence or 'not chosen yet')} |", "", "## Returns", "")
    yield from ("| evaluation | environment steps | return | memory zeroed |", "|---|---|---|---|")
    yield from _list_returns(result, points)
    if points and no_picture is not None:
        yield from (
            "",
            "## Curve",
            "",
            no_picture,
            "",
            "| environment steps | return | memory zeroed |",
            "|---|---|---|",
        )
        chosen = np.unique(np.linspace(0, len(points) - 1, MOST_ROWS).round().astype(int))
        yield from (_row([_count(p["env_steps"]), *_read_returns(p)]) for p in (points[index] for index in chosen))
    yield from ("", "## Load it", "", "```python", *_tell_how_to_load(config), "```", "")
    yield f"`{HERE}` is the folder that this card lies in. The newest agent is loaded from there; the best one is"
    yield f"`{HERE}/checkpoints/best.pt`, if the run was evaluated while it was trained."
    if foreign := _list_foreign_environments(config):
        yield from ("", f"Its environment is code of {' and '.join(foreign)}, not of recurrent-ppo. With it at hand")
        yield f"`recurrent-ppo-evaluate run={HERE} trust=[{','.join(foreign)}]` plays the agent there."
    yield from ("", "## Configuration", "", "```yaml", OmegaConf.to_yaml(share(config)).rstrip(), "```")


def share(config: DictConfig) -> DictConfig:
    """Return a configuration as it can be shown to others: without paths, and without what is only of this place."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(part) for key, part in value.items()}
        if isinstance(value, list):
            return [clean(part) for part in value]
        return "(a path)" if isinstance(value, str) and PATH.search(value) else value

    return to_config({key: clean(value) for key, value in to_dict(config).items() if key not in PRIVATE})


def _describe_run(config: DictConfig, result: dict[str, Any]) -> Iterator[str]:
    """Yield rows that say what was run, and on what."""
    told = REASONS.get(str(result.get("stop_reason")), "")
    steps = f"{_count(result.get('env_steps'))} of {_count(result.get('total_steps'))}{told and f', {told}'}"
    yield _row(["agent", result.get("agent")])
    yield _row(["memory", result.get("core")])
    yield _row(["environment", f"{result.get('env')}, {share(config).env._target_}"])
    yield _row(["begins with", "the network of another run" if config.get("init_from") else "random weights"])
    yield _row(["seed", result.get("seed")])
    yield _row(["parameters", _count(result.get("parameters"))])
    yield _row(["environment steps", steps])
    speed = f"{_number(result.get('training_seconds'))} s, {_number(result.get('steps_per_second'))} steps per second"
    yield _row(["training", f"{speed}, on {config.device} with threads={result.get('threads')}"])
    versions = result.get("versions") or {}
    yield _row(["versions", ", ".join(f"{name} {number}" for name, number in versions.items()) or "not known"])


def _list_returns(result: dict[str, Any], points: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a row for each evaluation worth telling, and for what can be reached."""
    steps, zeroed = _count(result.get("env_steps")), _number(result.get("memory_zeroed_return_mean"))
    if result.get("eval_return_mean") is not None:
        mean = f"{_number(result['eval_return_mean'])} +- {_number(result.get('eval_return_stderr'))}"
        yield _row([f"at the end, {_count(result.get('eval_episodes'))} episodes", steps, mean, zeroed])
    if points:
        best = max(points, key=lambda point: point["return"])  # the first of equals, as best.pt
        yield _row(["last in training", _count(points[-1]["env_steps"]), *_read_returns(points[-1])])
        yield _row(["best in training, best.pt", _count(best["env_steps"]), *_read_returns(best)])
    known = [_number(result.get(name)) for name in ("optimal_return", "memoryless_return")]
    yield _row(["best that is possible; without memory", "", *known])


def _tell_how_to_load(config: DictConfig) -> Iterator[str]:
    """Yield three lines of Python."""
    targets = {part["_target_"] for part in _walk(to_dict(config)["agent"]) if "_target_" in part}
    foreign = sorted({str(target).partition(".")[0] for target in targets} - {*OWN})
    trust = f", trust={foreign}" if foreign else ""
    several = "members" in config.agent
    yield "import rl"
    yield f'player = rl.{"load_agent" if several else "Player"}("{HERE}"{trust})'
    yield "action = player.act(observation)  # player.reset() where an episode begins"


def _list_foreign_environments(config: DictConfig) -> list[str]:
    """Return the packages outside this project that the node of the environment names, by its target or its id."""
    node = to_dict(config)["env"]
    module, colon, _ = str(node.get("id", "")).rpartition(":")
    names = [str(part["_target_"]) for part in _walk(node) if "_target_" in part] + ([module] if colon else [])
    return sorted({name.partition(".")[0] for name in names} - {*OWN})


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every dict inside a value."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _walk(part)


def _read_returns(point: dict[str, Any]) -> list[str]:
    return [_number(point["return"]), _number(point.get("memory_zeroed_return"))]


def _row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(value: Any) -> str:
    """Return a value as it can stand in a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _count(value: Any) -> str:
    return f"{value:_}" if isinstance(value, int) else "?"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else "?"
