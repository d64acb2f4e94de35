"""What the memory suite trains: every core on every task with the same settings, and other programs beside them."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import read_settings
from experiments.launch.check import ConfigError, choose_names, construct, convert, read_list, to_dict
from experiments.launch.command import rewrite_overrides
from experiments.launch.elsewhere import Spaces, read_spaces
from experiments.launch.run_folder import flatten, read_result
from experiments.tables.latency import use_one_thread
from experiments.tables.plan import read_env_keys
from experiments.tables.runs import list_remaining_arguments
from rl.checks import positive

KEYS, NEEDED = ("env", "budget", "peers"), ("env", "budget")
"""Of a row, see ``conf/memory_suite.yaml``."""

EXPERIMENT = "memory_suite"
"""The settings of all runs."""
EVALUATIONS = 10  # of a run, while it trains
SETTINGS_OF_PEERS = ("num_envs", "total_steps", "evaluate_every", "evaluate_episodes", "final_episodes")


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


def make_entries(
    config: DictConfig, rows: dict[str, dict[str, Any]], cores: list[str], peers: list[str]
) -> list[Entry]:
    """Return all that is to be trained, once the environments of every row and the agent of every core have been made.

    Args:
        config: of the suite, of which ``overrides`` are settings of all runs.
        rows: of its table.
        cores: names of the cores.
        peers: names of other programs.

    Raises:
        ConfigError, ValueError: a row or a setting cannot be, or a package is missing.
    """
    arguments = {(name, core): list_arguments(config, name, row, core) for name, row in rows.items() for core in cores}
    first = next(iter(rows))
    tasks = {name: compose_run(arguments[name, cores[0]]) for name in rows}
    agents = {core: compose_run(arguments[first, core]) for core in cores}  # the same on every task
    spaces = read_all_spaces(tasks)
    with use_one_thread():
        for own in agents.values():
            check_agent(own, spaces[first])
    entries = []
    for name, row in rows.items():
        for core in cores:
            settings = flatten(OmegaConf.create(to_dict(tasks[name]) | {"agent": to_dict(agents[core].agent)}))
            entries.append(Entry(name, core, settings, partial(list_remaining, arguments[name, core])))
        for peer in peers:
            if peer in row.get("peers", ()):
                shared = {key: tasks[name][key] for key in SETTINGS_OF_PEERS} | {"env": to_dict(tasks[name].env)}
                remaining = partial(list_remaining_of_peer, PEERS[peer].module, shared)
                entries.append(Entry(name, peer, flatten(OmegaConf.create(shared)), remaining))
    return entries


def compose_run(arguments: list[str]) -> DictConfig:
    """Return the configuration that ``experiments.train`` has with these arguments."""
    return compose("train", list(rewrite_overrides(arguments)))


def list_arguments(config: DictConfig, name: str, row: dict[str, Any], core: str) -> list[str]:
    """Return the arguments of the runs of a core on a task, without those that differ between them.

    Raises:
        ConfigError, ValueError: the row sets anything but its environment, or its budget is no number of steps.
    """
    budget = convert(row["budget"], int, f"table.{name}.budget")
    positive(**{f"table.{name}.budget": budget})
    steps = [f"total_steps={budget}", f"evaluate_every={max(budget // EVALUATIONS, 1)}"]
    own = to_dict(config.core_overrides).get(core, ())
    shared = read_list(config.overrides, "overrides") if config.overrides else []
    return [f"experiment={EXPERIMENT}", f"agent/core={core}", *own, *shared, *read_env_keys(row, "env", name), *steps]


def read_all_spaces(configs: dict[str, DictConfig]) -> dict[str, Spaces]:
    """Construct the environments of every row once; return their spaces.

    Args:
        configs: of a run of each row.

    Raises:
        ConfigError: packages are missing; the sentence names them all, and the rows that can do without.
        HydraException, ValueError: a key or value cannot be.
    """
    found, lacking = dict[str, Spaces](), defaultdict[str | None, dict[str, str]](dict)  # of each package its rows
    for name, config in configs.items():
        single = config.copy()
        single.num_envs = 1
        try:
            found[name] = read_spaces(single)
        except Exception as error:
            missing = next((each for each in iterate_causes(error) if isinstance(each, ModuleNotFoundError)), None)
            if missing is None:
                raise
            lacking[missing.name][name] = str(missing).rstrip(".")
    if lacking:
        reasons = [f"{', '.join(rows)}: {next(iter(rows.values()))}" for rows in lacking.values()]
        hint = [f"all others: rows=[{','.join(found)}]"] if found else []
        raise ConfigError("; ".join(reasons + hint))
    return found


def iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what caused it, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def check_agent(config: DictConfig, spaces: Spaces) -> None:
    """Check that the agent of a run can be made, and that its last evaluation is played with and without memory.

    Raises:
        ConfigError, ValueError: it cannot, or it is not.
    """
    settings = read_settings(config)
    positive(final_episodes=settings.final_episodes)
    if not settings.evaluate_memory_zeroed:
        raise ConfigError("evaluate_memory_zeroed=false: the suite reports the returns with the memory zeroed, too")
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


def list_remaining_of_peer(module: str, settings: dict[str, Any], target: Path, seed: int) -> list[str]:
    """Return what trains another program; one that was stopped begins again.

    Args:
        module: trains it.
        settings: of a run, beside seed and folder.
        target: its folder.
        seed: of the run.
    """
    if (target / "result.json").is_file() and read_result(target)["env_steps"] >= settings["total_steps"]:
        return []
    words = [f"--{key.replace('_', '-')}={json.dumps(value)}" for key, value in settings.items()]
    return [module, f"--folder={target}", f"--seed={seed}", *words]
