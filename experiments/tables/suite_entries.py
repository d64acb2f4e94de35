"""What the memory suite trains: every core on every task with the same settings, and other programs beside them."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.launch.check import ConfigError, convert, read_list, to_dict
from experiments.launch.elsewhere import Spaces, read_spaces
from experiments.tables.entries import (
    Entry,
    check_agent,
    compose_run,
    list_remaining,
    list_settings,
    make_entry_of_peer,
    read_core_overrides,
)
from experiments.tables.latency import use_one_thread
from experiments.tables.plan import read_env_keys
from rl.checks import positive

KEYS, NEEDED = ("env", "budget", "peers"), ("env", "budget")
"""Of a row, see ``conf/memory_suite.yaml``."""

EXPERIMENT = "memory_suite"
"""The settings of all runs."""
EVALUATIONS = 10  # of a run, while it trains


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
            if not convert(own.evaluate_memory_zeroed, bool, "evaluate_memory_zeroed"):
                raise ConfigError(
                    "evaluate_memory_zeroed=false: the suite reports the returns with the memory zeroed, too"
                )
            check_agent(own, spaces[first])
    entries = []
    for name, row in rows.items():
        for core in cores:
            settings = list_settings(OmegaConf.create(to_dict(tasks[name]) | {"agent": to_dict(agents[core].agent)}))
            entries.append(Entry(name, core, settings, partial(list_remaining, arguments[name, core])))
        for peer in peers:
            if peer in row.get("peers", ()):
                entries.append(make_entry_of_peer(name, peer, tasks[name]))
    return entries


def list_arguments(config: DictConfig, name: str, row: dict[str, Any], core: str) -> list[str]:
    """Return the arguments of the runs of a core on a task, without those that differ between them.

    Raises:
        ConfigError, ValueError: the row sets anything but its environment, or its budget is no number of steps.
    """
    budget = convert(row["budget"], int, f"table.{name}.budget")
    positive(**{f"table.{name}.budget": budget})
    steps = [f"total_steps={budget}", f"evaluate_every={max(budget // EVALUATIONS, 1)}"]
    own = read_core_overrides(config.core_overrides).get(core, ())
    shared = read_list(config.overrides, "overrides") if config.overrides else []
    task = [*read_env_keys(row, "env", name), *steps]
    for override in map(str, shared):
        if override.lstrip("+").partition("=")[0] in {each.partition("=")[0] for each in task}:
            raise ConfigError(f"overrides=['{override}']: the row {name} has its own, see table.{name}")
    return [f"experiment={EXPERIMENT}", f"agent/core={core}", *own, *shared, *task]


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
