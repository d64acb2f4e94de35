"""Files that are whole or not there: written beside the target, flushed to disk, then renamed over it."""

import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch


def save_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Writes tensors and plain Python values; the folder is made if it is missing.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file of that name is untouched.
    """
    path = Path(path)
    with atomic_write(path) as file:
        torch.save(content, file)


class atomic_write:  # noqa: N801 (used as a function)
    """``with atomic_write(path) as file``: a binary file that appears under ``path`` only if the block succeeds."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, self.temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        self.file = os.fdopen(handle, "wb")
        return self.file

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
        except OSError:
            kind = OSError
            raise
        finally:
            self.file.close()
            if kind is None:
                os.replace(self.temporary, self.path)
            else:
                os.unlink(self.temporary)


def load_checkpoint(path: str | Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` wrote; never executes what is inside.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by this project.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no checkpoint of recurrent-ppo ({type(error).__name__})") from error
    if not isinstance(content, dict) or "agent" not in content:
        raise ValueError(f"{path} is no checkpoint of recurrent-ppo: it has no entry 'agent'")
    return content
