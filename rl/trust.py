"""What may be imported because data names it: a checkpoint or configuration from elsewhere is no reason to run code.

Data may name the parts that an agent is built of, the environments of this project and such wrappers of Gymnasium as
only change numbers. Everything else runs only if the user has named its package, see ``import_trusted``.
"""

import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import gymnasium

OWN = ("rl", "envs", "gymnasium")
"""Packages whose modules may be imported to see what a path names; that alone does nothing."""

PARTS = ("rl.agents", "rl.cores", "rl.encoders", "rl.networks", "rl.ppo", "rl.iqn", "rl.recordings.imitation")
"""Where the classes and functions are defined that build an agent: they read and write no files."""

OBSERVERS = ("rl.training.observers",)
"""Where those are defined that watch a run: where they write is not said by their arguments."""

FACTORIES = tuple(
    f"envs.{name}_env.make_{name}"
    for name in ("atari", "gymnasium", "memory_gym", "minigrid", "mujoco", "pettingzoo", "popgym")
)
"""Functions that make environments; what their arguments name has to be checked as well."""

WRAPPERS = (
    *("AtariPreprocessing", "AddRenderObservation", "AddWhiteNoise", "ClipAction", "ClipReward", "DelayObservation"),
    *("DiscretizeAction", "DiscretizeObservation", "DtypeObservation", "FilterObservation", "FlattenObservation"),
    *("FrameStackObservation", "GrayscaleObservation", "MaxAndSkipObservation", "NormalizeObservation"),
    *("NormalizeReward", "ObstructView", "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics"),
    *("RepeatAction", "RescaleAction", "RescaleObservation", "ReshapeObservation", "ResizeObservation"),
    *("StickyAction", "TimeAwareObservation", "TimeLimit"),
)
"""Wrappers of Gymnasium that write no files, open no windows, call and import nothing that an argument names."""


class UntrustedError(ValueError):
    """A stored path that names code which the user has not said to trust, or that may not run at all."""


def import_trusted(path: str, trust: Iterable[str] = (), run_dir: str | Path | None = None) -> Any:
    """Import what a dotted path such as ``rl.cores.gru`` names, if it is a part of this project or trusted.

    Args:
        path: of a class or function.
        trust: packages or modules that the user trusts, whatever a path names in them.
        run_dir: the folder that the path was read from; nothing in it is imported, trusted or not.

    Raises:
        UntrustedError: it may not run; nothing foreign was imported.
        ImportError, AttributeError, ValueError: there is no such thing.
    """
    check_path(path, trust, run_dir)
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def check_path(path: str, trust: Iterable[str] = (), run_dir: str | Path | None = None) -> None:
    """Check that ``import_trusted`` would import what a path names, without importing foreign code.

    Raises:
        UntrustedError: it would not.
        ImportError, AttributeError, ValueError: the path names one of our packages, but there is no such thing in it.
    """
    top = path.partition(".")[0]
    trusted = is_trusted(path, trust)
    if trusted or top not in OWN:
        check_place(path.rpartition(".")[0] or path, run_dir)
    if trusted:
        return
    if top not in OWN:
        raise UntrustedError(f"{path} is code from outside this project: it runs only if you trust it, trust=[{top}]")
    module, _, name = path.rpartition(".")
    if not _is_harmless(getattr(importlib.import_module(module), name)):
        what = "no agent, core, encoder, environment or harmless wrapper"
        raise UntrustedError(f"{path} is {what}: it runs only if you trust it, trust=[{top}]")


def is_trusted(path: str, trust: Iterable[str]) -> bool:
    """Tell whether a path is, or lies in, one of the packages and modules that the user trusts."""
    return any(path == name or path.startswith(f"{name}.") for name in trust)


def check_place(module: str, run_dir: str | Path | None) -> None:
    """Check that no part of a module would be imported from a run folder.

    Raises:
        UntrustedError: it would.
    """
    if run_dir is None:
        return
    folder = Path(run_dir).absolute()
    for place in _find_places(module):
        if place.is_relative_to(folder) or place.resolve().is_relative_to(folder.resolve()):
            top = module.partition(".")[0]
            raise UntrustedError(
                f"{module} lies in the run folder {run_dir}: a run folder is data, nothing in it runs; "
                f"code to trust, trust=[{top}], must lie elsewhere"
            )


def _find_places(module: str) -> Iterator[Path]:
    """Yield the files and folders that importing a module would take, those of its packages too; import nothing."""
    search = [Path(entry).absolute() for entry in sys.path]
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        loaded = getattr(sys.modules.get(name), "__file__", None)
        if loaded:
            yield Path(loaded)
        found = []
        for folder in search:
            files = [folder / part / "__init__.py", *folder.glob(f"{part}.py"), *folder.glob(f"{part}.*.so")]
            regular = [file for file in files if file.is_file()]
            yield from regular
            if regular or (folder / part).is_dir():
                found.append(folder / part)
            if regular:  # a folder without __init__.py does not end the search
                break
        yield from found
        search = found


def _is_harmless(value: Any) -> bool:
    """Tell whether data may have a class or function called that one of our packages, or Gymnasium, hands out.

    What counts is where it is defined: a module also hands out what it imports.
    """
    if not isinstance(value, (type, FunctionType)):
        return False
    home = value.__module__
    if _within(home, (*PARTS, *OBSERVERS)):
        return True
    if isinstance(value, FunctionType):
        return f"{home}.{value.__qualname__}" in FACTORIES
    if _within(home, ("envs",)):
        return issubclass(value, (gymnasium.vector.VectorEnv, gymnasium.Wrapper))
    wrapper = _within(home, ("gymnasium.wrappers",)) and issubclass(value, gymnasium.Wrapper)
    return (wrapper and value.__name__ in WRAPPERS) or (
        _within(home, ("gymnasium.spaces",)) and issubclass(value, gymnasium.Space)
    )


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)
