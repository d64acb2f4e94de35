"""Check a configuration against the signatures of what it constructs: every key, every type, before any work."""

import difflib
import importlib
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union

import gymnasium
from gymnasium.vector import VectorEnv
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from envs.guest_vector import adapt

SPECIAL = ("_target_", "_partial_")
BY_AGENT = ("input_size", "input_shapes")
"""Arguments that an agent gives its core and its encoder."""

PLAIN = (int, float, str, bool, type(None))


OUTPUTS: list[Path] = []
"""Folders that ``prepare_output`` has made, the outermost first."""


class ConfigError(ValueError):
    """A configuration that cannot be run, told in one sentence."""


def suggest(key: str, allowed: Iterable[str]) -> str:
    """Return a hint for a mistyped key: the nearest allowed ones, or all of them if none is near."""
    names = sorted(allowed)
    close = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(names)}" if names else ""


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain dicts and lists, with its interpolations resolved."""
    plain = OmegaConf.to_container(config, resolve=True)
    if not isinstance(plain, dict):
        raise ConfigError(f"{plain!r} is given where keys with values should be")
    return {str(key): value for key, value in plain.items()}


def read_yaml(path: Path) -> DictConfig | ListConfig:
    """Read a YAML file as it stands.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return OmegaConf.load(path)
    except Exception as error:  # what damaged YAML raises has no common base
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path} is damaged or no YAML: {reason or type(error).__name__}") from error


def load_yaml(path: Path) -> DictConfig:
    """Read a YAML file of keys with values, as it stands.

    Raises:
        ConfigError: it is damaged or holds something else.
    """
    config = read_yaml(path)
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} holds no keys with values")
    return config


def construct(node: DictConfig, where: str, **runtime: Any) -> tuple[Any, dict[str, Any]]:
    """Call the ``_target_`` of a node with its keys and with what is only known at run time.

    Args:
        node: ``_target_`` and the target's keyword arguments.
        where: the path of the node in the configuration, for messages.
        **runtime: further keyword arguments of the target; the node must not hold them.

    Returns:
        What the target made, and ``node`` with all defaults filled in.

    Raises:
        ConfigError: the target does not take a key, or a value is of another type than its annotation.
    """
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{where}={_show(node)} has no _target_: set its keys, {where}.KEY=VALUE")
    checked = check_node(to_dict(node), where, given=runtime)
    if where == "env":
        return construct_environments(checked, runtime["num_envs"]), checked
    return instantiate(checked, **runtime), checked


def construct_environments(checked: dict[str, Any], num_envs: int) -> VectorEnv:
    """Call the target of the node of the environments, which may make all of them or one at a time.

    Args:
        checked: the node, as ``check_node`` returns it.
        num_envs: how many are needed; a target that takes no such argument is called without.

    Raises:
        TypeError, ValueError: what it makes cannot be used.
    """
    target = import_path(checked["_target_"])
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    one = isinstance(target, type) and issubclass(target, gymnasium.Env)
    many = "num_envs" in parameters or (takes_any and not one)
    make = partial(instantiate, checked, **({"num_envs": num_envs} if many else {}))
    return adapt(make(), num_envs, f"env._target_={checked['_target_']}", make)


def check_node(node: dict[str, Any], where: str, given: Iterable[str] = ()) -> dict[str, Any]:
    """Check a node and the nodes inside it against the signatures of their targets.

    Args:
        node: ``_target_`` and the target's keyword arguments.
        where: the path of the node in the configuration, for messages.
        given: arguments that the command itself sets.

    Returns:
        The node with every value in the type of its annotation, and with the defaults of what it leaves out.

    Raises:
        ConfigError: there is no such target, the target does not take a key, or a value is of another type.
    """
    target = _import_target(node, where)
    parameters = inspect.signature(target, eval_str=not hasattr(target, "__signature__")).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    allowed = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} - set(given)
    result = {key: node[key] for key in SPECIAL if key in node}
    if any(name in given and name in parameters for name in BY_AGENT):
        result["_partial_"] = True  # a core or an encoder, which its agent calls with its inputs
    for key, value in node.items():
        if key in SPECIAL:
            continue
        if key in given:
            raise ConfigError(f"{where}.{key} is set by the command itself; leave it out")
        if key not in parameters and not open_ended:
            raise ConfigError(f"there is no key '{where}.{key}'{suggest(key, allowed)}")
        if _is_node(value):
            result[key] = check_node(value, f"{where}.{key}", given=BY_AGENT)
        elif isinstance(value, dict) and value and all(map(_is_node, value.values())):
            # several of a kind by name, to be called with what is only known at run time
            parts = {name: check_node(part, f"{where}.{key}.{name}", given) for name, part in value.items()}
            result[key] = {name: part | {"_partial_": True} for name, part in parts.items()}
        else:
            annotation = parameters[key].annotation if key in parameters else inspect.Parameter.empty
            result[key] = convert(value, annotation, f"{where}.{key}")
    defaults = {name: p.default for name, p in parameters.items() if name not in node and name not in given}
    return result | {name: value for name, value in defaults.items() if isinstance(value, PLAIN)}


def _import_target(node: dict[str, Any], where: str) -> Callable[..., Any]:
    """Import what ``_target_`` names.

    Raises:
        ConfigError: there is no such thing, or it cannot be called.
    """
    if "_target_" not in node:
        raise ConfigError(f"{where} has no _target_")
    try:
        target = import_path(str(node["_target_"]))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}._target_={node['_target_']} cannot be imported: {error}") from error
    if not callable(target):
        raise ConfigError(f"{where}._target_={node['_target_']} cannot be called")
    return target


def import_path(path: str) -> Any:
    """Return what a dotted path such as ``rl.cores.gru`` names.

    Raises:
        ImportError, AttributeError, ValueError: there is no such thing.
    """
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def convert(value: Any, annotation: Any, name: str) -> Any:
    """Return a value of the annotated type; a whole float such as 1e6 serves as an int, an int as a float.

    Args:
        value: as the configuration holds it.
        annotation: a type, a union or ``Literal`` of what is allowed; anything goes where it is empty or ``Any``.
        name: the key, for messages.

    Raises:
        ConfigError: the value is of another type.
    """
    options = _split_annotation(annotation)
    if options is None or any(value is option or _matches(value, option) for option in options):
        return value
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if int in options and isinstance(value, float) and value.is_integer():
        return int(value)
    if Callable in (typing.get_origin(option) or option for option in options):
        raise ConfigError(f"{name}={_show(value)} has no _target_: choose by name, {name.replace('.', '/')}=NAME")
    names = " or ".join(_name_option(option) for option in options)
    raise ConfigError(f"{name}={_show(value)} is not {names}")


def read_list(value: Any, name: str) -> list[Any]:
    """Return a list of the configuration, or a single value as a list of one.

    Args:
        value: as the configuration holds it.
        name: the key, for messages.

    Raises:
        ConfigError: the list is empty.
    """
    values = [value] if isinstance(value, (str, int)) else list(value or ())
    if not values:
        raise ConfigError(f"{name} is empty")
    return values


def choose_names(value: Any, allowed: Iterable[str], name: str, kind: str) -> list[str]:
    """Return the names in a list of the configuration, or the single name it holds, once all are known to be allowed.

    Args:
        value: as the configuration holds it.
        allowed: the names to choose from.
        name: the key, for messages.
        kind: what the names are names of, for messages.

    Raises:
        ConfigError: the list is empty, or a name is not allowed.
    """
    known = list(allowed)
    names = [str(each) for each in read_list(value, name)]
    for each in names:
        if each not in known:
            raise ConfigError(f"{name}: there is no {kind} {each!r}{suggest(each, known)}")
    return names


def prepare_output(path: str, name: str) -> Path:
    """Make the folder of a file that is going to be written, and check that it can be.

    The command removes it in the end, if nothing has come into it.

    Args:
        path: of the file.
        name: the key, for messages.

    Raises:
        ConfigError: nothing can be written there.
    """
    target = Path(path)
    OUTPUTS.extend(folder for folder in reversed(target.absolute().parents) if not folder.exists())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{name}={path} cannot be written: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK) or target.is_dir():
        raise ConfigError(f"{name}={path} cannot be written")
    return target


def _split_annotation(annotation: Any) -> list[Any] | None:
    """Return the alternatives of an annotation; None if anything goes."""
    if annotation in (inspect.Parameter.empty, Any):
        return None
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        options: list[Any] = []
        for part in typing.get_args(annotation):
            inner = _split_annotation(part)
            if inner is None:
                return None
            options += inner
        return options
    if origin is Literal:
        return list(typing.get_args(annotation))
    return [annotation]


def _matches(value: Any, option: Any) -> bool:
    """Tell whether a value is of the type, or the literal, that an annotation allows."""
    if option is None or option is type(None):
        return value is None
    if isinstance(option, str):
        return value == option
    kind = typing.get_origin(option) or option
    if not isinstance(kind, type):
        return True
    if kind in (int, float):
        return isinstance(value, kind) and not isinstance(value, bool)
    if isinstance(value, str) and kind is not str:  # a string is a sequence, but it is never meant as one
        return False
    return isinstance(value, kind)


def _show(value: Any) -> str:
    """Write a value as it stands on a command line."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else repr(value)


def _name_option(option: Any) -> str:
    """Describe a type, or quote a literal, for a message."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if isinstance(option, str):
        return repr(option)
    return words.get(option, getattr(option, "__name__", str(option)))
