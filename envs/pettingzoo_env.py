"""Any parallel environment of PettingZoo, as a SAME_STEP vector environment with a row for every agent."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

from envs.agent_rows import AgentRows, World
from envs.gymnasium_env import Wrapper, resolve_wrapper

EXTRA = ("pettingzoo", "mpe2", "supersuit", "pygame", "pymunk")  # the packages that the extra ``multiagent`` brings


def make_pettingzoo(
    id: str, num_envs: int, wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (), **kwargs: Any
) -> AgentRows:
    """Build as many worlds of a parallel environment as have ``num_envs`` agents in all.

    Args:
        id: the dotted path of a module with a ``parallel_env``, "mpe2.simple_spread_v3" say, or, with a slash, an id of
            PettingZoo's own registry, "butterfly/pistonball-v6" say.
        num_envs: the number of agents in all worlds, a multiple of those of one world.
        wrappers: applied to every world, in order; each is a callable, the dotted path of one, or a mapping with the
            dotted path under ``path`` (or ``_target_``) and the wrapper's keyword arguments beside it.
        **kwargs: the environment's own arguments.

    Raises:
        ValueError: an unknown id or wrapper, or agents that do not fit into rows.
        ModuleNotFoundError: a package is not installed; the sentence names it.
    """
    make = _constructor(id)
    resolved = [resolve_wrapper(wrapper) for wrapper in wrappers]

    def make_world() -> World:
        world = make(**kwargs)
        for wrapper in resolved:
            world = wrapper(world)
        return world

    return AgentRows(make_world, num_envs, id)


def _constructor(id: str) -> Callable[..., World]:
    """Return the function that makes a world of ``id``."""
    if "/" in id:
        pettingzoo = _imported("pettingzoo", id)
        known = getattr(pettingzoo, "parallel_registry", {})
        if id not in known:
            raise ValueError(f"PettingZoo has no parallel environment {id!r}{_nearest(id, known)}.")
        entry_point = known[id].entry_point
        if isinstance(entry_point, str):
            _imported(entry_point.partition(":")[0], id)
        return partial(pettingzoo.make, "parallel", id)
    module = _imported(id, id)
    if not hasattr(module, "parallel_env"):
        raise ValueError(f"{id} has no parallel_env: only environments in which all agents act at once can be rows.")
    return module.parallel_env


def _imported(path: str, id: str) -> ModuleType:
    """Return the module at ``path``, which the environment ``id`` needs.

    Raises:
        ValueError: its package is there, but has no such module.
        ModuleNotFoundError: a package is not installed.
    """
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        package, _, name = missing.rpartition(".")
        if package and f"{path}.".startswith(f"{missing}."):
            siblings = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
            raise ValueError(f"There is no module {missing}{_nearest(name, siblings)}.") from error
        root = missing.partition(".")[0]
        hint = ': pip install "recurrent-ppo[multiagent]"' if root in EXTRA else ""
        raise ModuleNotFoundError(
            f"{id} needs the package {root}, which is not installed{hint}.", name=missing
        ) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names what is ``known`` and nearest to ``name``; empty if nothing is near."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; the nearest known are {', '.join(close)}" if close else ""
