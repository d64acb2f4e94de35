"""Files that are whole or not there: written beside the target, flushed to disk, then renamed over it."""

import io
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import torch


def save_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Write tensors and plain Python values to ``path``; the folder is made if it is missing.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file of that name is untouched.
    """
    path = Path(path)
    with atomic_write(path) as file:
        memory = io.BytesIO()  # torch.save hides a full disk behind errors of its own
        torch.save(content, memory)
        file.write(memory.getbuffer())


def load_checkpoint(path: str | Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote; never execute what is inside.

    Args:
        path: the file.
        map_location: the device of the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by this project.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        inside = path / "checkpoints" / "last.pt"
        hint = f": it is a folder, give {inside}" if inside.is_file() else ""
        raise FileNotFoundError(f"there is no checkpoint at {path}{hint}")
    data = io.BytesIO(path.read_bytes())  # from a file that broke off torch.load would raise an OSError of its own
    try:
        content = torch.load(data, map_location=map_location, weights_only=True)
    except Exception as error:  # what a damaged archive makes the unpickler raise has no common base
        raise ValueError(f"{path} is damaged or no checkpoint of recurrent-ppo ({type(error).__name__})") from error
    if not isinstance(content, dict) or "agent" not in content:
        raise ValueError(f"{path} is no checkpoint of recurrent-ppo: it has no entry 'agent'")
    return content


def as_tensors(value: Any) -> Any:
    """Turn arrays inside dicts, lists and tuples into tensors, which checkpoints may hold.

    Scalars of numpy become plain numbers; anything else stays as it is.
    """
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: as_tensors(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(as_tensors(part) for part in value)
    return value.item() if isinstance(value, np.generic) else value


def as_arrays(value: Any) -> Any:
    """Turn tensors inside dicts, lists and tuples into arrays: the way back from ``as_tensors``."""
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy()
    if isinstance(value, dict):
        return {key: as_arrays(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(as_arrays(part) for part in value)
    return value


class atomic_write:  # noqa: N801 (used as a function)
    """A binary file that appears under ``path`` only if the block of ``with atomic_write(path) as file`` succeeds."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> BinaryIO:
        """Open a temporary file beside the target; its folder is made if it is missing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        self.file = self.temporary.open("wb")
        return self.file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush the file to disk and rename it over the target, or delete it after an error."""
        try:
            if kind is None:
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                os.replace(self.temporary, self.path)
        finally:
            with suppress(OSError):
                self.file.close()  # on a full disk it tries once more to write
            with suppress(FileNotFoundError):
                self.temporary.unlink()  # it is gone if all went well
