"""The working folder as a place from which modules are imported: the user's own, but not a stranger's."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig, ListConfig

import conf


def add_working_folder(config: DictConfig) -> None:
    """Let modules of the user's own be imported from the working folder, where no installed package has their name.

    Not where a run folder says what is imported, unless the command line trusts something in it: the working folder may
    be the stranger's too. If it lies in a run folder that is read, nothing at all is imported from there.
    """
    cwd = os.getcwd()
    if any(_lies_in(cwd, folder) for folder in _list_read(config)):
        if not Path(conf.__file__).is_relative_to(cwd):  # ``python -m`` has put it in front
            sys.path[:] = [entry for entry in sys.path if entry not in ("", cwd)]
        return
    from_run = any(config.get(key) for key in ("run", "runs", "resume"))
    if (not from_run or config.get("trust")) and cwd not in sys.path and "" not in sys.path:
        sys.path.append(cwd)


def _list_read(config: DictConfig) -> Iterator[str]:
    """Yield the run folders that a configuration reads."""
    for key in ("run", "runs", "resume", "init_from", "weights"):
        value = config.get(key)
        yield from map(str, value if isinstance(value, ListConfig) else [value] if value else [])


def _lies_in(cwd: str, folder: str) -> bool:
    """Tell whether a working folder is a run folder or lies in it."""
    return Path(cwd).resolve().is_relative_to(os.path.realpath(os.path.expanduser(folder)))
