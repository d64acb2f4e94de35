"""Compose a configuration from a command line, run a command on it, and turn any fault into one clear sentence."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

import conf
from envs.faults import UserCodeError, describe_fault, find_users_frame, read_message
from experiments.launch.check import ConfigError, load_yaml, suggest
from experiments.launch.claim import remove_unused
from experiments.launch.help import answer, list_files, parse_options
from experiments.launch.launchers import choose_jobs
from experiments.launch.output import flush_stdout, has_lost_reader, tell_broken_logs
from experiments.launch.paths import find_resumed, quote_path
from experiments.launch.stored import read_trust
from experiments.launch.working_folder import add_working_folder
from rl.training.distributed import Ranks
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


def launch(run: Callable[..., Any], config_name: str) -> None:
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
            check_command(config, config_name)
            add_working_folder(config)
            # errors as the user wants them, also for processes that the command starts
            with set_full_error(full_error), tell_broken_logs(config_name):
                value = run(config, *jobs.prepare(config))
            if sweeping:
                done.append(HydraConfig.get().job.num)
            return value
        except Stopped as stop:  # ends a sweep, too: Hydra catches errors of a job, but no interrupt
            if sweeping and not jobs.apart:
                stop.sentence = tell_of_sweep(stop, done)
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            note_preset(error)
            whole, below = error.__traceback__, cut_traceback(error.__traceback__, run)
            is_users = find_users_frame(error.with_traceback(below), causes=False) is not None
            error.with_traceback(whole)
            if not isinstance(error, FAULTS) and not is_users:  # a fault of this program
                raise
            if jobs.apart and not full_error:  # what it holds need not pass between processes
                raise ConfigError(f"job {HydraConfig.get().job.num} failed: {describe(error, config_name)}") from None
            if full_error or sweeping:  # a sweep goes on with its other jobs
                if isinstance(error, Exception):
                    raise
                raise UserCodeError(describe_fault(error)) from error
            faults.append(error.with_traceback(below))  # returning keeps Hydra from putting a line in front of ours
            return None

    try:
        given, options = parse_options(sys.argv[1:])
        given.overrides = list(rewrite_overrides(given.overrides, given.multirun))
        jobs, shared = choose_jobs(given.overrides, given.multirun)
        sys.argv[1:] = [*options, *given.overrides, *shared]  # Hydra takes no option between two overrides
        if answer(given, run, config_name, check_keys):
            return
        # Hydra would print an error, but the sentence is ours
        with set_full_error(True), StopSignals() as signals, jobs.going_on(signals):
            task = jobs.wrap(run_guarded)
            hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config_name)(task)()
            flush_stdout()
    except FAULTS as error:
        if full_error:
            raise
        faults.append(error)
    except KeyboardInterrupt as interrupt:
        stop = interrupt if isinstance(interrupt, Stopped) else Stopped(signal.SIGINT)
        print(f"{name_speaker(config_name)}: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    finally:
        remove_unused()
    if faults:
        end_with(faults[0], config_name)


def check_command(config: DictConfig, config_name: str) -> None:
    """Check what can be checked of a command before it does anything.

    Raises:
        ConfigError: a key is unknown or missing, ``trust`` is no list of packages, or torchrun has started a command
            that is not for it.
    """
    if Ranks().world > 1 and config_name != "train":
        raise ConfigError("torchrun is for experiments.train alone: start this command without it")
    check_keys(config, config_name)
    read_trust(config.get("trust"))


def note_preset(error: BaseException) -> None:
    """Note with an unknown key that no argument holds where it may stand: a preset may be made for another agent."""
    unknown = re.match("there is no key '([^']+)'", str(error)) if isinstance(error, ConfigError) else None
    preset = HydraConfig.get().runtime.choices.get("experiment")
    if unknown and preset and not any(sets_key(each, unknown[1]) for each in HydraConfig.get().overrides.task):
        error.add_note(f"no argument sets it: look into experiment={preset}")


def sets_key(argument: str, key: str) -> bool:
    """Say whether an argument sets a key: by its name, by that of one below it, or in a dictionary that holds it."""
    path, _, value = argument.lstrip("+~").partition("=")
    return f"{path}.".startswith(f"{key}.") or (value.startswith("{") and f"{key}.".startswith(f"{path}."))


def end_with(fault: BaseException, config_name: str) -> NoReturn:
    """End the process with one sentence, or with none where nobody reads on."""
    if isinstance(fault, BrokenPipeError) and has_lost_reader():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at its end
        sys.exit(128 + signal.SIGPIPE)
    print(f"{name_speaker(config_name)}: {describe(fault, config_name)}", file=sys.stderr)
    sys.exit(1)


def name_speaker(config_name: str) -> str:
    """Return who ends: the command, with its rank where torchrun has started several."""
    ranks = Ranks()
    return f"{config_name}, rank {ranks.rank}" if ranks.world > 1 else config_name


def cut_traceback(whole: TracebackType | None, run: Callable[..., Any]) -> TracebackType | None:
    """Return the part of a traceback below the frame of ``run``: what the command called."""
    link = whole
    while link is not None and link.tb_frame.f_code is not getattr(run, "__code__", None):
        link = link.tb_next
    return whole if link is None else link.tb_next


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


def rewrite_overrides(arguments: list[str], sweeping: bool = False) -> Iterator[str]:
    """Turn arguments ``a.b=c`` into ``++a.b=c``, quote paths, and check that there is a run to resume.

    Defaults live in the Python signatures and YAML lists only what differs, so a key need not be in the YAML to be set.
    Whether it exists at all is checked against the signature, see ``experiments.launch.check``.

    Args:
        arguments: of the command line, without options.
        sweeping: values that are parted by commas are jobs of a sweep.

    Raises:
        ConfigError: there is no run to resume.
    """
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if equals and "." in key and re.match(r"(?!hydra\.)[a-z][^@]*$", key):
            yield f"++{argument}"
        else:
            yield quote_path(argument, sweeping)
    folder = None if sweeping else find_resumed(arguments)  # each run of a sweep looks for its own
    if folder is not None and not Path(folder, "config.yaml").is_file():
        raise ConfigError(f"resume={folder}: there is no run in that folder (no config.yaml)")


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
    notes = [read_message(Exception(note)) for note in getattr(error, "__notes__", ())]
    composing = isinstance(error, (HydraException, OmegaConfBaseException))  # a fault of the command line
    if isinstance(error, UserCodeError) or (not composing and find_users_frame(error, causes=False) is not None):
        sentence = str(error) if isinstance(error, UserCodeError) else describe_fault(error)
        return "; ".join([sentence, *notes, "HYDRA_FULL_ERROR=1 shows the whole traceback"])
    return "; ".join([_describe_own(error, config_name), *notes])


def _describe_own(error: BaseException, config_name: str) -> str:
    """Return what a user needs to know of an error that is not raised by code of theirs, on one line."""
    text = re.sub(r"\s*\n\s*", " ", str(error).strip()) or type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        ours = (file.stem for file in Path(conf.__file__).parent.joinpath(group).glob("*.yaml"))
        return f"there is no {group}={name}{suggest(name, error.options or ours)}"  # of a list Hydra tells no options
    if "Config group override must be" in text:
        names = "agent, agent/core, agent/encoder, env, experiment and observers"
        return f"{names} are given by name, for example env=t_maze"
    several = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(?:\+\+)?([^=]*)=([^']*)'", text)
    if several:
        key, values = several.groups()
        ways = f"give one, a list {key}=[{values}], or --multirun to run each of them"
        return f"{key}={values} stands for several values: {ways}"
    unknown = re.search(r"Key '([^']+)' is not in struct.*full_key: (\S+)", text)
    if unknown:
        return f"there is no key {unknown[2]!r}{suggest(unknown[1], _list_keys(config_name))}"
    removed = re.match(r"Could not delete from config\. '([^']+)' does not exist", text)
    if removed:
        return f"~{removed[1]}: there is no such key to remove here; give a value, {removed[1]}=VALUE"
    if isinstance(error, OverrideParseException):
        return describe_override(error)
    if isinstance(error, InterpolationKeyError) and "${" in os.getcwd():
        return f"the working folder {os.getcwd()} has ${{ in its name, which Hydra cannot write into: start in another"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (EOFError, ConnectionError)):
        return "a worker process of the environments has died"
    if isinstance(error, KeyError):
        return f"missing entry {text}"
    plain = re.sub(r" full_key: .*", "", text)
    plain = plain.replace("Cannot merge DictConfig with ListConfig", "it has keys with values and cannot be a list")
    key = getattr(error, "full_key", None)
    return f"{key}: {plain}" if key and str(key) not in plain else plain


def describe_override(error: OverrideParseException) -> str:
    """Return what is wrong with an argument that Hydra's grammar refuses, without the words of its parser."""
    argument = error.override.removeprefix("++")
    if "=" not in argument:
        return f"{argument!r} is no argument: give KEY=VALUE"
    return f"{argument!r} cannot be read: quote a value with special characters twice, \"KEY='VALUE'\""


def _list_keys(config_name: str) -> list[str]:
    """Return the keys of a YAML file of ``conf`` and the groups that it takes in."""
    contents = [load_defaults(name) for name in list_files(config_name)]
    parts = [part for content in contents for part in content.get("defaults", ())]
    groups = [str(key) for part in parts if isinstance(part, DictConfig) for key in part]
    keys = [str(key) for content in contents for key in content if key not in ("defaults", "hydra")]
    return keys + [key for key in groups if " " not in key]


def _list_optional_groups(config_name: str) -> set[str]:
    """Return the groups from which nothing need be chosen."""
    parts = [part for name in list_files(config_name) for part in load_defaults(name).get("defaults", ())]
    return {
        str(key) for part in parts if isinstance(part, DictConfig) for key, choice in part.items() if choice is None
    }
