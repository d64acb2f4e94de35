"""Compose a configuration from a command line, run a command on it, and turn any fault into one clear sentence."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import conf
from experiments.launch.check import ConfigError, load_yaml, suggest
from experiments.launch.claim import remove_unused
from rl.training.signals import Stopped, StopSignals

FAULTS = (
    HydraException,
    OmegaConfBaseException,
    ValueError,
    TypeError,
    OSError,
    EOFError,
    ImportError,
    RuntimeError,
    ArithmeticError,
)


def launch(run: Callable[[DictConfig], Any], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and run a command on it.

    A fault ends the process with one sentence and exit code 1; with ``HYDRA_FULL_ERROR=1`` it ends with its traceback.

    Args:
        run: the command's entry.
        config_name: the command's name and that of its YAML file.
    """
    full_error = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"
    faults: list[BaseException] = []
    done: list[int] = []  # numbers of jobs of a sweep

    def run_guarded(config: DictConfig) -> Any:
        sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
        try:
            check_keys(config, config_name)
            with set_full_error(full_error):  # as the user wants it, also for processes that the command starts
                value = run(config)
            if sweeping:
                done.append(HydraConfig.get().job.num)
            return value
        except Stopped as stop:  # ends a sweep, too: Hydra catches errors of a job, but no interrupt
            if sweeping:
                stop.sentence = tell_of_sweep(stop, done)
            raise
        except FAULTS as error:
            if full_error or sweeping:  # a sweep goes on with its other jobs
                raise
            faults.append(error)  # returning keeps Hydra from putting a line of its own in front of ours
            return None

    try:
        sys.argv[1:] = rewrite_overrides(sys.argv[1:])
        # Hydra would print an error, but the sentence is ours
        with set_full_error(True), StopSignals() as signals, signals.raising():
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(run_guarded)()
    except FAULTS as error:
        if full_error:
            raise
        faults.append(error)
    except KeyboardInterrupt as interrupt:
        stop = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
        print(f"{config_name}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    finally:
        remove_unused()
    if faults:
        print(f"{config_name}: {describe(faults[0], config_name)}", file=sys.stderr)
        sys.exit(1)


def tell_of_sweep(stop: Stopped, done: list[int]) -> str:
    """Return what became of the jobs of a sweep that a signal ended in one of them."""
    number, finished = HydraConfig.get().job.num, ", ".join(map(str, done)) or "none"
    return f"in job {number} of a sweep, {stop.sentence}; jobs done: {finished}; those after {number} did not start"


@contextmanager
def set_full_error(wanted: bool) -> Iterator[None]:
    """While open, make Hydra let errors through (True), or print them and end the process (False)."""
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = str(int(wanted))
    try:
        yield
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def rewrite_overrides(arguments: list[str]) -> Iterator[str]:
    """Turn arguments ``a.b=c`` into ``++a.b=c``, and check that there is a run to resume.

    Defaults live in the Python signatures and YAML lists only what differs, so a key need not be in the YAML to be set.
    Whether it exists at all is checked against the signature, see ``experiments.launch.check``.

    Raises:
        ConfigError: there is no run to resume.
    """
    folders = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        yield f"++{argument}" if equals and "." in key and re.match(r"(?!hydra\.)[a-z][^@]*$", key) else argument
    if folders and folders[-1] not in ("", "null"):
        folder = str(Path(folders[-1]).expanduser())
        if not Path(folder, "config.yaml").is_file():
            raise ConfigError(f"resume={folders[-1]}: there is no run in that folder (no config.yaml)")


def check_keys(config: DictConfig, config_name: str) -> None:
    """Check that a configuration has the top-level keys of its YAML file: ``agnt.clip=1`` would else add one.

    Raises:
        ConfigError: there is a key too many or too few.
    """
    known = _list_keys(config_name)
    for key in map(str, config):
        if key not in known:
            raise ConfigError(f"there is no key {key!r}{suggest(key, known)}")
    missing = [key for key in known if key not in config and key not in _list_optional_groups(config_name)]
    if missing:
        raise ConfigError(f"{missing[0]} is missing")


def load_defaults(config_name: str) -> DictConfig:
    """Read ``conf/<config_name>.yaml`` as it stands, without the groups that it takes in."""
    return load_yaml(Path(conf.__file__).parent / f"{config_name}.yaml")


def describe(error: BaseException, config_name: str) -> str:
    """Return what a user needs to know of an error, on one line."""
    while error.__cause__ is not None and isinstance(error, (HydraException, OmegaConfBaseException)):
        error = error.__cause__
    text = re.sub(r"\s*\n\s*", " ", str(error).strip()) or type(error).__name__
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"there is no {group}={name}{suggest(name, error.options)}"
    if "Config group override must be" in text:
        return "agent, agent/core, env and experiment are given by name, for example env=t_maze"
    unknown = re.search(r"Key '([^']+)' is not in struct.*full_key: (\S+)", text)
    if unknown:
        return f"there is no key {unknown[2]!r}{suggest(unknown[1], _list_keys(config_name))}"
    if isinstance(error, (EOFError, ConnectionError)):
        return "a worker process of the environments has died"
    if isinstance(error, KeyError):
        return f"missing entry {text}"
    return re.sub(r" full_key: .*", "", text)


def _list_keys(config_name: str) -> list[str]:
    """Return the keys of a YAML file of ``conf`` and the groups that it takes in."""
    content = load_defaults(config_name)
    groups = [str(key) for part in content.get("defaults", ()) if isinstance(part, DictConfig) for key in part]
    keys = [str(key) for key in content if key not in ("defaults", "hydra")]
    return keys + [key for key in groups if " " not in key]


def _list_optional_groups(config_name: str) -> set[str]:
    """Return the groups from which nothing need be chosen."""
    parts = [part for part in load_defaults(config_name).get("defaults", ()) if isinstance(part, DictConfig)]
    return {str(key) for part in parts for key, choice in part.items() if choice is None}
