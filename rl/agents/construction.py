"""What constructs an agent, as plain data that a checkpoint holds: its class, its spaces, its core, all its arguments.

Classes and functions are stored by the path from which they are imported. What has no such path (a lambda, a class
inside a function, anything of ``__main__``) is noted by its name; that it cannot be made again is said at loading.
"""

import inspect
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from rl.agents.space_data import space_from_data, space_to_data
from rl.encoders import auto
from rl.trust import OWN, UntrustedError, import_trusted

AGENTS, PARTS = ("rl.agents.",), ("rl.cores.", "rl.encoders.")
"""Where the classes of agents are, and the functions that an argument may name."""
PLAIN: tuple[type[bool] | type[int] | type[float] | type[str], ...] = (bool, int, float, str)
DAMAGED = (AssertionError, AttributeError, LookupError, OverflowError, TypeError)


class UnnamedError(ValueError):
    """Something that a checkpoint could not store, because it has no name to import it by."""


# ------------------------------------------------------------------------------------------------------------- to data


def describe(
    kind: type, args: Sequence[Any], kwargs: Mapping[str, Any], left_out: Collection[str] = ()
) -> dict[str, Any]:
    """Describe a call of the constructor of ``kind``, its defaults included, as plain data; this never fails.

    Args:
        kind: class of the agent.
        args: positional arguments.
        kwargs: the others.
        left_out: names of arguments that are stored elsewhere.

    Returns:
        ``agent``, the path of the class, and ``arguments`` by name.
    """
    constructors = [vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)]
    names = _positional_names(constructors)
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    arguments = {name: to_data(value) for name, value in given.items() if name not in left_out}
    if len(args) > len(names):
        arguments["*args"] = {"unnamed": "arguments by position alone"}
    if "input_size" not in given and any(isinstance(value, spaces.Space) for value in given.values()):
        # those of agents that are made from sizes follow from the sizes
        ours = constructors[0].__module__.startswith(AGENTS)  # it takes what it passes on, too
        arguments = _defaults(kind if ours else constructors[0], {*arguments, *left_out}) | arguments
    return {"agent": path_of(kind), "arguments": arguments}


def takes(kind: type, name: str) -> bool:
    """Say whether the constructor of ``kind`` takes a keyword argument, or passes it on to one that does."""
    for constructor in (vars(base)["__init__"] for base in kind.__mro__ if "__init__" in vars(base)):
        parameters = inspect.signature(constructor).parameters
        if name in parameters:
            return True
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            return False
    return False


def _positional_names(constructors: Sequence[Callable[..., Any]]) -> list[str]:
    """Name the positional parameters; those of the next constructor follow where one ends in ``*args``."""
    names: list[str] = []
    for constructor in constructors:
        parameters = list(inspect.signature(constructor).parameters.values())[1:]  # without self
        names += [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        if all(p.kind is not p.VAR_POSITIONAL for p in parameters):
            break
    return names


def _defaults(function: Callable[..., Any], known: Collection[str]) -> dict[str, Any]:
    """Describe the defaults of the parameters that are not ``known``: another version may have other ones."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some that are written in C have none
        return {}
    keywords = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    found = {p.name: to_data(p.default) for p in keywords if p.default is not p.empty and p.name not in known}
    return {name: value for name, value in found.items() if not isinstance(value, dict) or "call" in value}


def to_data(value: Any) -> Any:
    """Turn an argument into plain data: numbers, strings, lists, and dicts whose first key says what they are."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return None
    for plain in PLAIN:
        if isinstance(value, plain):
            return plain(value)  # without a class of its own, such as an enumeration
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, spaces.Space):
        return {"space": space_to_data(value)}
    if isinstance(value, Mapping):
        return {"mapping": [[to_data(key), to_data(part)] for key, part in value.items()]}
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, Sequence):  # a list, a tuple, and what a configuration has in their place
        parts = [to_data(part) for part in value]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, partial):
        return _call_to_data(value.func, value.args, value.keywords)
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        return _call_to_data(value, (), {})
    return {"unnamed": f"a {type(value).__name__}"}


def _call_to_data(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Describe ``functools.partial(function, *args, **kwargs)``, with the defaults that ``function`` has today."""
    path = path_of(function)
    if find(path) is not function:
        return {"unnamed": path}
    parts = [to_data(part) for part in args]
    given = {name: to_data(part) for name, part in kwargs.items()}
    if not parts:  # else it is not known which ones they are
        given |= _defaults(function, given)
    return {"call": path, "args": parts, "kwargs": given}


def path_of(thing: Any) -> str:
    """Return the path from which a class or function is imported, or its name if it has none."""
    module = getattr(thing, "__module__", None)
    return f"{module}.{getattr(thing, '__qualname__', type(thing).__name__)}"


def find(path: str) -> Any:
    """Return what a path names among the modules that are loaded; None if nothing, or if it lies in ``__main__``."""
    module, _, name = path.rpartition(".")
    return None if module == "__main__" else getattr(sys.modules.get(module), name, None)


# ----------------------------------------------------------------------------------------------------------- from data


def arguments_from_data(
    construction: Mapping[str, Any], trust: Collection[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the arguments of a constructor again.

    Args:
        construction: what ``describe`` gave.
        trust: packages of the user from which may be imported.
        given: arguments that take the place of stored ones.

    Raises:
        ValueError: one of them cannot be made again; the sentence says how to go on.
    """
    made = {}
    for name, value in construction["arguments"].items():
        if name in given:
            continue
        try:
            made[name] = from_data(value, trust)
        except UnnamedError as error:
            agent = construction["agent"].rpartition(".")[2]
            raise ValueError(
                f"{name}={error}: it cannot be imported by name, so the checkpoint could not store it; give it, as in "
                f"load_agent(path, {name}=...), or construct {agent}(...) by hand and call its load(path)"
            ) from None
        except DAMAGED as error:
            raise ValueError(f"{name}: what the checkpoint says of it is damaged ({type(error).__name__})") from error
    return made | dict(given)


def from_data(value: Any, trust: Collection[str] = ()) -> Any:
    """Make an argument again from what ``to_data`` gave.

    Raises:
        UnnamedError: it had no name to import it by.
        UntrustedError: it is code of a package that is not trusted.
        ValueError: it is damaged, or there is no such code.
    """
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, list):
        return [from_data(part, trust) for part in value]
    if isinstance(value, dict):
        if "space" in value:
            return space_from_data(value["space"])
        if "mapping" in value:
            return {from_data(key, trust): from_data(part, trust) for key, part in value["mapping"]}
        if "tuple" in value:
            return tuple(from_data(part, trust) for part in value["tuple"])
        if "array" in value:
            return np.array(value["array"], dtype=value["dtype"])
        if "call" in value:
            function = import_code(value["call"], PARTS, trust)
            kwargs = {name: from_data(part, trust) for name, part in value["kwargs"].items()}
            return partial(function, *(from_data(part, trust) for part in value["args"]), **kwargs)
        if "unnamed" in value:
            raise UnnamedError(value["unnamed"])
    raise ValueError(f"the checkpoint holds {value!r} where an argument of the agent should be")


def import_code(path: str, homes: tuple[str, ...], trust: Collection[str]) -> Callable[..., Any]:
    """Import a class or function that a checkpoint names.

    Args:
        path: of it.
        homes: packages of ours that may be named; what else this project and Gymnasium hold is not for checkpoints.
        trust: packages of the user that may be named.

    Raises:
        UntrustedError: it lies elsewhere; nothing was imported.
        ValueError: there is no such thing, or it cannot be called.
    """
    module, _, name = path.rpartition(".")
    trusted = any(path == named or path.startswith(f"{named}.") for named in trust)
    ours = path.partition(".")[0] in OWN and not trusted
    if ours and not path.startswith(homes):
        allowed = " or ".join(home.rstrip(".") for home in homes)
        raise UntrustedError(f"the checkpoint names {path} where something of {allowed} should be")
    try:
        found = import_trusted(path, trust)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"the checkpoint names {path}, which cannot be imported here ({error})") from error
    if not callable(found) or (ours and path_of(found) != path):
        raise ValueError(f"the checkpoint names {path} in {module}, but {name} is no class or function of it")
    return found


# ------------------------------------------------------------------------------------------------------------ in words


def in_words(construction: Any) -> str:
    """Say in a few words what a checkpoint's agent is made of: its class, its parts with their sizes, its spaces.

    Args:
        construction: what ``describe`` gave; anything else has no words.
    """
    try:
        arguments = construction["arguments"]
        names = ["core", "layer_size", "hidden_size", "input_size"]
        if not _is_auto(arguments.get("encoder")):
            names.insert(0, "encoder")
        sizes = {name: arguments[name] for name in names if name in arguments}
        told = ", ".join(f"{name}={_value_in_words(value)}" for name, value in sizes.items())
        seen = [
            f"{label} {space_from_data(arguments[name]['space'])}"
            for name, label in (("observation_space", "observations"), ("action_space", "actions"))
            if isinstance(arguments.get(name), dict)
        ]
        return ", ".join([f"{construction['agent'].rpartition('.')[2]}({told})", *seen])
    except (ValueError, *DAMAGED):  # of another version, or damaged
        return ""


def _is_auto(value: Any) -> bool:
    """Say whether an encoder is the one that fits itself to every observation, of which there is nothing to tell."""
    return isinstance(value, dict) and value.get("call") == path_of(auto)


def _value_in_words(value: Any) -> str:
    if isinstance(value, dict) and "call" in value:
        sizes = {name: part for name, part in value["kwargs"].items() if isinstance(part, int) and part}
        return f"{value['call'].rpartition('.')[2]}({', '.join(f'{name}={part}' for name, part in sizes.items())})"
    return str(value.get("unnamed", value)) if isinstance(value, dict) else str(value)


# ------------------------------------------------------------------------------------------------------- initialisation

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def drawing_from(seed: int | None) -> Iterator[None]:
    """Let what initialises networks draw from a seed; None for one of the system.

    It draws from the global generator of torch, in which no trace is left. Threads take turns, for there is but one.
    """
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.seed() if seed is None else torch.manual_seed(seed)
        yield
