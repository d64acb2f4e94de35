"""Checks of a configuration against the signatures of what it constructs: every key, every type, before any work."""

import difflib
import importlib
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, Union

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

SPECIAL = ("_target_", "_partial_")
PLAIN = (int, float, str, bool, type(None))


class ConfigError(ValueError):
    """A configuration that cannot be run, in one sentence."""


def nearest(key: str, allowed: Iterable[str]) -> str:
    """A hint for a mistyped key: the nearest allowed ones, or all of them if none is near."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(key, allowed, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(allowed)}" if allowed else ""


def construct(node: DictConfig, where: str, **runtime: Any) -> tuple[Any, dict[str, Any]]:
    """Calls ``_target_`` with the keys of ``node`` and what is only known at run time; ``where`` names it in messages.

    Returns:
        What it made, and ``node`` with all defaults filled in.

    Raises:
        ConfigError: a key that the target does not take, or a value of another type than its annotation.
    """
    plain = OmegaConf.to_container(node, resolve=True)
    checked = check_node(plain, where, given=runtime)
    return instantiate(checked, **runtime), checked


def check_node(node: dict[str, Any], where: str, given: Iterable[str] = ()) -> dict[str, Any]:
    """``node`` with every value in the type that the signature of its target asks for, and with the defaults of what it
    leaves out; inner nodes likewise.
    """
    if "_target_" not in node:
        raise ConfigError(f"{where} has no _target_")
    module, _, name = str(node["_target_"]).rpartition(".")
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{where}._target_={node['_target_']} cannot be imported: {error}") from error
    if not callable(target):
        raise ConfigError(f"{where}._target_={node['_target_']} cannot be called")
    parameters = inspect.signature(target, eval_str=not hasattr(target, "__signature__")).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    allowed = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} - set(given)
    result = {key: node[key] for key in SPECIAL if key in node}
    for key, value in node.items():
        if key in SPECIAL:
            continue
        if key in given:
            raise ConfigError(f"{where}.{key} is set by the command itself; leave it out")
        if key not in parameters and not open_ended:
            raise ConfigError(f"there is no key '{where}.{key}'{nearest(key, allowed)}")
        if _is_node(value):
            result[key] = check_node(value, f"{where}.{key}", given=("input_size",))
        elif isinstance(value, dict) and value and all(map(_is_node, value.values())):
            # several of a kind by name, to be called with what is only known at run time
            made = {name: check_node(part, f"{where}.{key}.{name}", given) for name, part in value.items()}
            result[key] = {name: part | {"_partial_": True} for name, part in made.items()}
        else:
            annotation = parameters[key].annotation if key in parameters else inspect.Parameter.empty
            result[key] = converted(value, annotation, f"{where}.{key}")
    defaults = {name: p.default for name, p in parameters.items() if name not in node and name not in given}
    return result | {name: value for name, value in defaults.items() if isinstance(value, PLAIN)}


def _is_node(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def converted(value: Any, annotation: Any, name: str) -> Any:
    """``value`` if it is of the annotated type; a whole float such as 1e6 serves as an int, an int as a float.

    Raises:
        ConfigError: it is of another type.
    """
    options = _options(annotation)
    if options is None or any(value is option or _is(value, option) for option in options):
        return value
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if int in options and isinstance(value, float) and value.is_integer():
        return int(value)
    if Callable in (typing.get_origin(option) or option for option in options):
        raise ConfigError(f"{name}={_shown(value)} has no _target_: choose by name, {name.replace('.', '/')}=NAME")
    names = " or ".join(_name(option) for option in options)
    raise ConfigError(f"{name}={_shown(value)} is not {names}")


def listed(value: Any, name: str) -> list[Any]:
    """A list of the configuration, or a single value as a list of one.

    Raises:
        ConfigError: it is empty.
    """
    values = [value] if isinstance(value, (str, int)) else list(value or ())
    if not values:
        raise ConfigError(f"{name} is empty")
    return values


def chosen(values: Any, allowed: Iterable[str], name: str, kind: str) -> list[str]:
    """The names listed under ``name`` of the configuration, or all of ``allowed`` if there are none.

    Raises:
        ConfigError: one of them is not allowed; ``kind`` says what it is no name of.
    """
    names = [str(value) for value in listed(values or list(allowed), name)]
    for each in names:
        if each not in allowed:
            raise ConfigError(f"{name}: there is no {kind} {each!r}{nearest(each, allowed)}")
    return names


def writable(path: str, name: str) -> Path:
    """``path`` with its folder made.

    Raises:
        ConfigError: nothing can be written there.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{name}={path} cannot be written: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK) or target.is_dir():
        raise ConfigError(f"{name}={path} cannot be written")
    return target


def _options(annotation: Any) -> list[Any] | None:
    """The alternatives of an annotation; None if anything goes."""
    if annotation in (inspect.Parameter.empty, Any):
        return None
    origin = typing.get_origin(annotation)
    if origin in (Union, types.UnionType):
        parts = [_options(part) for part in typing.get_args(annotation)]
        return None if any(part is None for part in parts) else [option for part in parts for option in part]
    if origin is Literal:
        return list(typing.get_args(annotation))
    return [annotation]


def _is(value: Any, option: Any) -> bool:
    if option is None or option is type(None):
        return value is None
    if isinstance(option, str):
        return value == option
    kind = typing.get_origin(option) or option
    if not isinstance(kind, type):
        return True
    if kind in (int, float):
        return isinstance(value, kind) and not isinstance(value, bool)
    if isinstance(value, str) and kind is not str:  # a string is a sequence, but nobody means that
        return False
    return isinstance(value, kind)


def _shown(value: Any) -> str:
    """As it is written on a command line."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else repr(value)


def _name(option: Any) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
    if isinstance(option, str):
        return repr(option)
    return words.get(option, getattr(option, "__name__", str(option)))
