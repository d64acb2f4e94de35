"""What a table compares: a core, or another program, on a task; how the runs of each are made."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from experiments.launch.arguments import rewrite_overrides
from experiments.launch.build import read_settings
from experiments.launch.check import ConfigError, choose_names, construct, read_list, to_dict
from experiments.launch.elsewhere import Spaces
from experiments.launch.help import fill_defaults
from experiments.launch.run_folder import flatten
from experiments.tables.runs import list_remaining_arguments
from rl import cores
from rl.checks import positive


@dataclass(frozen=True)
class Entry:
    """A core, or another program, on a task.

    Attributes:
        row: name of the task.
        column: name of the core or of the program.
        settings: of its runs as one level, beside seed and folder.
        list_remaining: from the folder and the seed of a run to the module that trains it, with its arguments; nothing
            for a run that is finished.
    """

    row: str
    column: str
    settings: dict[str, Any]
    list_remaining: Callable[[Path, int], list[str]]


@dataclass(frozen=True)
class Peer:
    """Another program that can be trained on some of the tasks.

    Attributes:
        package: what it needs.
        install: what pip is told to install.
        module: trains it: see ``experiments.peers.sb3_tasks`` for its arguments and for what it leaves.
    """

    package: str
    install: str
    module: str


SETTINGS_OF_PEERS = ("num_envs", "total_steps", "evaluate_every", "evaluate_episodes", "final_episodes")
"""What another program has in common with the runs beside it, beside the environment."""

PEERS = {"sb3-contrib": Peer("sb3_contrib", '"recurrent-ppo[bench]"', "experiments.peers.sb3_tasks")}


def choose_peers(asked: Any, rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the other programs that are to be trained.

    Args:
        asked: as the configuration holds them.
        rows: those that are run.

    Raises:
        ConfigError: there is no such program, it is not installed, or no row names it.
    """
    for row, content in rows.items():
        if content.get("peers"):
            choose_names(content["peers"], PEERS, f"table.{row}.peers", "program")
    names = choose_names(asked, PEERS, "peers", "program") if asked else []
    for name in names:
        if not any(name in row.get("peers", ()) for row in rows.values()):
            raise ConfigError(f"peers=[{name}]: none of the rows {', '.join(rows)} names it among its peers")
        if find_spec(PEERS[name].package) is None:
            hint = f"pip install {PEERS[name].install}, or peers=[] leaves it out"
            raise ConfigError(f"peers=[{name}] needs the package {PEERS[name].package}, which is not installed: {hint}")
    return names


def compose_run(arguments: list[str]) -> DictConfig:
    """Return the configuration that ``experiments.train`` has with these arguments."""
    return compose("train", list(rewrite_overrides(arguments)))


def list_settings(config: DictConfig) -> dict[str, Any]:
    """Return the settings of a run as one level, with the defaults that its folder holds, too.

    What an override sets that is given no more would else be compared with nothing.
    """
    return flatten(fill_defaults(config.copy()))


def read_core_overrides(given: Any) -> dict[str, list[str]]:
    """Return what the runs of a core set of their agent, by its name; cores that set nothing need not be there.

    Args:
        given: as the configuration holds it.

    Raises:
        ConfigError: there is no such core, or something else is set than keys of the agent.
    """
    overrides: dict[str, list[str]] = {}
    names = choose_names(to_dict(given), cores.__all__, "core_overrides", "core") if given else []
    for name in names:
        overrides[name] = [str(each) for each in read_list(given[name], f"core_overrides.{name}")]
        if not all(each.startswith("agent.") for each in overrides[name]):
            raise ConfigError(
                f"core_overrides.{name}={overrides[name]}: it must be a list of keys of the agent, agent.KEY=VALUE"
            )
    return overrides


def check_agent(config: DictConfig, spaces: Spaces) -> None:
    """Check that the agent of a run can be made, and that a last evaluation is played.

    Args:
        config: of the run.
        spaces: of its environment.

    Raises:
        ConfigError, ValueError: it cannot, or it is not.
    """
    settings = read_settings(config)
    positive(final_episodes=settings.final_episodes)
    given = settings.get_agent_arguments() | {"observation_space": spaces[0], "action_space": spaces[1]}
    construct(config.agent, "agent", **given)


def list_remaining(arguments: list[str], target: Path, seed: int) -> list[str]:
    """Return what trains what is left of a run of this project.

    Args:
        arguments: of a run, beside seed and folder.
        target: its folder.
        seed: of the run.
    """
    left = list_remaining_arguments(target, [*arguments, f"seed={seed}", f"run_dir={target}"])
    return ["experiments.train", *left] if left else []


def make_entry_of_peer(row: str, name: str, config: DictConfig, **limits: float) -> Entry:
    """Return another program on a task: with the environments, the steps and the evaluations of a run of this project.

    Args:
        row: name of the task.
        name: of the program.
        config: of the run whose task it is.
        limits: further settings of its runs, which end earlier by them; see ``experiments.peers.sb3_tasks``.
    """
    shared = {key: config[key] for key in SETTINGS_OF_PEERS} | limits | {"env": to_dict(config.env)}
    remaining = partial(list_remaining_of_peer, PEERS[name].module, shared)
    return Entry(row, name, flatten(OmegaConf.create(shared)), remaining)


def list_remaining_of_peer(module: str, settings: dict[str, Any], target: Path, seed: int) -> list[str]:
    """Return what trains another program; one that was stopped begins again.

    Args:
        module: trains it.
        settings: of a run, beside seed and folder.
        target: its folder.
        seed: of the run.
    """
    if (target / "result.json").is_file():  # which is written last
        return []
    words = [f"--{key.replace('_', '-')}={json.dumps(value)}" for key, value in settings.items()]
    return [module, f"--folder={target}", f"--seed={seed}", *words]
