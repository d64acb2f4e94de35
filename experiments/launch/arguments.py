"""What a command line may say: its arguments as Hydra reads them, the keys that there are, and their defaults."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from omegaconf import DictConfig

import conf
from experiments.launch.check import ConfigError, load_yaml, suggest
from experiments.launch.help import list_files
from experiments.launch.paths import find_resumed, quote_path


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
    known = list_keys(config_name)
    for key in map(str, config):
        if key not in known:
            raise ConfigError(f"there is no key {key!r}{suggest(key, known)}")
    missing = [key for key in known if key not in config and key not in _list_optional_groups(config_name)]
    if missing:
        raise ConfigError(f"{missing[0]} is missing")


def load_defaults(config_name: str) -> DictConfig:
    """Read ``conf/<config_name>.yaml`` as it stands, without the groups that it takes in."""
    return load_yaml(Path(conf.__file__).parent / f"{config_name}.yaml")


@cache
def list_keys(config_name: str) -> tuple[str, ...]:
    """Return the keys of a YAML file of ``conf`` and the groups that it takes in."""
    contents = [load_defaults(name) for name in list_files(config_name)]
    parts = [part for content in contents for part in content.get("defaults", ())]
    groups = [str(key) for part in parts if isinstance(part, DictConfig) for key in part]
    keys = [str(key) for content in contents for key in content if key not in ("defaults", "hydra")]
    return (*keys, *(key for key in groups if " " not in key))


@cache
def _list_optional_groups(config_name: str) -> frozenset[str]:
    """Return the groups from which nothing need be chosen."""
    parts = [part for name in list_files(config_name) for part in load_defaults(name).get("defaults", ())]
    return frozenset(
        str(key) for part in parts if isinstance(part, DictConfig) for key, choice in part.items() if choice is None
    )
