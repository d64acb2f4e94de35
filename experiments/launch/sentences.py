"""Faults as a user reads them: one sentence that says what is wrong and what to do."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

import conf
from envs.faults import UserCodeError, describe_fault, find_users_frame, read_message
from experiments.launch.arguments import list_keys
from experiments.launch.check import ConfigError, suggest

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
"""What a sentence can tell; any other error is one of this program."""


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
        return f"there is no key {unknown[2]!r}{suggest(unknown[1], list_keys(config_name))}"
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


def cut_traceback(whole: TracebackType | None, run: Callable[..., Any]) -> TracebackType | None:
    """Return the part of a traceback below the frame of ``run``: what the command called."""
    link = whole
    while link is not None and link.tb_frame.f_code is not getattr(run, "__code__", None):
        link = link.tb_next
    return whole if link is None else link.tb_next
