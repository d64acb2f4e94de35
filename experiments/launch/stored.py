"""Read a configuration that others may have written, as data: nothing that it names runs unless the user trusts it."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from envs.gymnasium_env import SIDE_PACKAGES
from envs.pettingzoo_env import EXTRA, make_pettingzoo
from experiments.launch.check import ConfigError
from rl.trust import OWN, UntrustedError, check_path, check_place, import_trusted, is_trusted

INTERPOLATION = re.compile(r"(?<!\\)(?:\\\\)*\$\{")
OF_HYDRA = ("_args_", "_recursive_", "_convert_")
SIDE = tuple({*(module for _, module, _ in SIDE_PACKAGES), *EXTRA})
"""Packages of the extras, whose environments an id may name: the user has installed them."""

NAMING = ("task", "env_id", "entry_point", "vector_entry_point")
"""Arguments of environments that may name code as ``module:name``."""


def read_stored(path: Path) -> DictConfig:
    """Read a YAML file of keys with values; what was written by this project needs no more than plain values.

    Raises:
        ConfigError: it holds something else: a tag, an alias, an interpolation, or no keys at all.
    """
    try:
        text = path.read_text(encoding="utf-8")
        aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader))
        config = None if aliases else OmegaConf.create(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text: it is damaged or no configuration") from error
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError, ValueError) as error:
        reason = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ConfigError(f"{path} cannot be read as a configuration: {reason}") from error
    if aliases:
        raise ConfigError(f"{path} repeats a part by an alias (*): a stored configuration is written out in full")
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} is not the configuration of a run: it holds no keys with values")
    for where, value in _walk(OmegaConf.to_container(config, resolve=False)):
        if isinstance(value, str) and INTERPOLATION.search(value):
            raise ConfigError(f"{path}: {where}={value!r} is to be computed: a stored configuration holds plain values")
    return config


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Check that none of the files that are written into a run folder is a link to somewhere else.

    Args:
        folder: of a run; it may be a link itself.
        names: of the files and folders in it.

    Raises:
        ConfigError: one is.
    """
    home = os.path.realpath(folder)
    for file in (folder / name for name in names):
        place = os.path.realpath(file)
        if file.is_symlink() and not Path(place).is_relative_to(home):
            raise ConfigError(
                f"{file} is a link to {place}, outside the run folder: nothing is written there; put the file itself "
                "in its place, or make the whole run folder a link"
            )


def read_trust(trust: Any) -> list[str]:
    """Return what ``trust=`` of a command line names: none, one or a list of packages.

    Raises:
        ConfigError: it is something else.
    """
    names = [] if trust is None else [trust] if isinstance(trust, str) else trust
    if isinstance(names, (int, float, dict, DictConfig)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"trust={trust}: it must be a list of packages, trust=[my_package]")
    return [name for name in names if name]


def check_stored(config: DictConfig, run_dir: Path, trust: Iterable[str] = ()) -> None:
    """Check that all a stored configuration names may run.

    Args:
        config: from ``read_stored``.
        run_dir: its folder, from which nothing is imported.
        trust: packages, modules and files that the command line trusts.

    Raises:
        ConfigError: it names something else; nothing foreign was imported.
    """
    trusted = tuple(trust)
    for where, value in _walk(OmegaConf.to_container(config, resolve=True)):
        if where.rpartition(".")[2] in OF_HYDRA:
            raise ConfigError(f"{run_dir}: {where} may not stand in a stored configuration")
        if isinstance(value, dict) and "_target_" in value:
            target = str(value["_target_"])
            with _telling(f"{run_dir}: {where}._target_={target}"):
                check_path(target, trusted, run_dir)
            if not is_trusted(target, trusted) and not target.startswith("rl."):
                _check_environment(value, where, run_dir, trusted)


def _walk(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value inside dicts and lists with its place, those that are dicts and lists themselves included."""
    if where:
        yield where, value
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _walk(part, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _walk(part, f"{where}[{index}]")


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Put the place in front of what a check finds.

    Raises:
        ConfigError: the check in the block fails.
    """
    try:
        yield
    except UntrustedError as error:
        raise ConfigError(f"{where}: {error}") from error
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where} cannot be imported: {error}") from error


def _check_environment(node: dict[str, Any], where: str, run_dir: Path, trust: tuple[str, ...]) -> None:
    """Check what the arguments of an environment of ours name: its id, wrappers, tasks, files."""
    given = {key: value for key, value in node.items() if key not in ("_target_", "wrappers", "id")}
    with _telling(f"{run_dir}: {where}.id={node.get('id')}"):
        trusted_id = "id" in node and _check_id(node, trust, run_dir)
    if not trusted_id:
        _check_arguments(given, where, run_dir, trust)
    wrappers = node.get("wrappers")
    for index, wrapper in enumerate(wrappers if isinstance(wrappers, list) else [wrappers] if wrappers else []):
        place = f"{where}.wrappers[{index}]"
        arguments = dict(wrapper) if isinstance(wrapper, dict) else {"path": wrapper}
        paths = [str(arguments.pop(key)) for key in ("path", "_target_") if key in arguments]
        for path in paths:
            with _telling(f"{run_dir}: {place}={path}"):
                check_path(path, trust, run_dir)
        if not any(is_trusted(path, trust) for path in paths):
            _check_arguments(arguments, place, run_dir, trust)


def _check_id(node: dict[str, Any], trust: tuple[str, ...], run_dir: Path) -> bool:
    """Check the packages that an id would import: its module, its registered entry points, the package of an extra.

    Returns:
        Whether it is the id of a trusted module, whose own matter its arguments are.
    """
    module, _, name = str(node["id"]).rpartition(":")
    modules = [module] if module else []
    if import_trusted(str(node["_target_"])) is make_pettingzoo:
        modules = ["pettingzoo"] if "/" in name else [str(node["id"])]
    else:
        modules += [package for prefixes, package, _ in SIDE_PACKAGES if name.startswith(prefixes)]
        spec = gymnasium.registry.get(name)
        points = (spec.entry_point, spec.vector_entry_point) if spec else ()
        modules += [point.partition(":")[0] for point in points if isinstance(point, str)]
    for each in modules:
        check_place(each, run_dir)
        _check_module(each, trust)
    return any(is_trusted(each, trust) for each in modules)


def _check_module(module: str, trust: tuple[str, ...]) -> None:
    """Check that a module is one of ours, of Gymnasium, of the packages of an extra, or trusted.

    Raises:
        UntrustedError: it is none.
    """
    top = module.partition(".")[0]
    if top not in (*OWN, *SIDE) and not is_trusted(module, trust):
        raise UntrustedError(f"{module} is code from outside this project: it runs only if you trust it, trust=[{top}]")


def _check_arguments(arguments: dict[str, Any], where: str, run_dir: Path, trust: tuple[str, ...]) -> None:
    """Check that arguments of an environment or wrapper name neither code nor a file.

    Raises:
        ConfigError: one does.
    """
    for place, value in _walk(arguments, where):
        key = place.rpartition(".")[2].partition("[")[0]
        if not isinstance(value, str) or value in trust:
            continue
        with _telling(f"{run_dir}: {place}={value}"):
            if key in NAMING and ":" in value:
                _check_module(value.partition(":")[0], trust)
            elif "/" in value or "\\" in value or value.startswith("~"):
                raise UntrustedError(f"it names a file: that is used only if you trust it, trust=['{value}']")
