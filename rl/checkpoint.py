"""Files that are whole or not there: written beside the target, flushed to disk, then renamed over it.

A checkpoint is an ordinary file of ``torch.save``, a zip, with its format number inside and a checksum of every byte
as the comment of the zip.
"""

import hashlib
import logging
import operator
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, cast

import numpy as np
import torch

FORMAT = 1
"""Of the checkpoints that are written; those of version 0.1 and earlier have no number."""

SEAL = b"recurrent-ppo checkpoint, sha256 "  # in front of the checksum, 64 hexadecimal digits
LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
CHUNK = 1 << 20  # bytes
log = logging.getLogger(__name__)


class DamagedError(ValueError):
    """A file that is no checkpoint: it broke off, has changed since it was written, or was never one."""


def save_checkpoint(content: dict[str, Any], path: str | Path) -> None:
    """Write tensors and plain Python values to ``path``; the folder is made if it is missing.

    Scalars of numpy, a learning rate of ``np.logspace`` say, become plain numbers: no checkpoint with others is loaded.

    Raises:
        OSError: the folder cannot be written or the disk is full; an older file of that name is untouched.
    """
    with atomic_write(path) as file:
        sealed = _SealedFile(file)
        # all that torch asks of a file are write and flush
        torch.save({**with_plain_numbers(content), "format": FORMAT}, cast(BinaryIO, sealed))
        sealed.close()


def save_and_keep(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint and keep the one that stood there as ``previous.pt``; at any moment one of them is whole.

    Raises:
        OSError: as ``save_checkpoint``; both files are as they were.
    """
    kept = path.with_name(f".{PREVIOUS}.{os.getpid()}")
    try:
        with suppress(FileNotFoundError), _named_faults(path.with_name(PREVIOUS)):
            kept.unlink(missing_ok=True)
            try:
                os.link(path, kept)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copyfile(path, kept)
        save_checkpoint(content, path)
        with suppress(FileNotFoundError), _named_faults(path.with_name(PREVIOUS)):
            os.replace(kept, path.with_name(PREVIOUS))
    finally:
        with suppress(OSError):
            kept.unlink(missing_ok=True)


def load_checkpoint(path: str | Path, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote; never execute what is inside.

    Args:
        path: the file.
        map_location: the device of the tensors.

    Returns:
        The content, and its format number as ``format``: 0 if it has none.

    Raises:
        FileNotFoundError: there is no such file.
        DamagedError: the file is damaged or was not written by this project.
        ValueError: it was written by a newer version.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        inside = path / "checkpoints" / LAST
        hint = f": it is a folder, give {inside}" if inside.is_file() else ""
        raise FileNotFoundError(f"there is no checkpoint at {path}{hint}")
    with path.open("rb") as file:
        if not _is_whole(file):
            raise DamagedError(f"{path} is damaged or no checkpoint of recurrent-ppo (its checksum is another)")
        file.seek(0)
        try:
            content = torch.load(file, map_location=map_location, weights_only=True)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # what a damaged archive makes the unpickler raise has no common base
            kind = type(error).__name__
            raise DamagedError(f"{path} is damaged or no checkpoint of recurrent-ppo ({kind})") from error
    if not isinstance(content, dict) or "agent" not in content:
        raise DamagedError(f"{path} is no checkpoint of recurrent-ppo: it has no entry 'agent'")
    number = content.setdefault("format", 0)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"{path}: the entry format of the checkpoint is {number!r}: it must be a whole number")
    if number > FORMAT:
        raise ValueError(f"{path} was written by a newer version: its format is {number}, known is up to {FORMAT}")
    return content


@contextmanager
def naming_file(path: str | Path, content: dict[str, Any]) -> Iterator[None]:
    """Put the file, and its age if it is an old one, in front of what is wrong with its content.

    Raises:
        ValueError: the block raised one.
    """
    try:
        yield
    except ValueError as error:
        age = "" if content["format"] else " (of version 0.1 or earlier)"
        raise ValueError(f"{path}{age}: {error}") from error


def find_newest(run_dir: str | Path) -> Path:
    """Find the newest whole checkpoint of a run: if ``last.pt`` is damaged, the one before, and the log says so.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: there is no whole one.
        ValueError: it was written by a newer version.
        OSError: it cannot be read, and there is none before it.
    """
    folder = Path(run_dir) / "checkpoints"
    try:
        load_checkpoint(folder / LAST, "meta")
        return folder / LAST
    except (DamagedError, OSError) as error:
        newest = error
    try:
        load_checkpoint(folder / PREVIOUS, "meta")
    except FileNotFoundError:
        raise newest from None
    except (DamagedError, OSError) as error:
        raise DamagedError(f"{newest}; so is the one before: {error}") from error
    log.warning("%s; the one before is used: %s", newest, folder / PREVIOUS)
    return folder / PREVIOUS


def _is_whole(file: BinaryIO) -> bool:
    """Say whether a file has the checksum that it was sealed with, or looks like a zip of before there were any."""
    size, digits = file.seek(0, os.SEEK_END), 64
    file.seek(max(0, size - len(SEAL) - digits))
    end = file.read()
    if not end.startswith(SEAL):  # the end of a zip without a comment: where a seal was, there is one
        return end[-22:-18] == b"PK\x05\x06" and end[-2:] == b"\x00\x00"
    file.seek(0)
    checksum, left = hashlib.sha256(), size - digits
    while left > 0 and (chunk := file.read(min(CHUNK, left))):
        checksum.update(chunk)
        left -= len(chunk)
    return end[-digits:] == checksum.hexdigest().encode()


class _SealedFile:
    """A file for ``torch.save``, whose zip gets the checksum of all bytes in front of it as its comment.

    Args:
        file: gets the bytes.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.checksum = file, hashlib.sha256()
        self.held = b""  # the last two bytes: in a zip the length of the comment, which is to follow
        self.fault: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write all but the last two bytes; torch would hide a fault behind an error of its own, so it waits."""
        view = memoryview(data).cast("B")
        if len(view) < 2:
            view = memoryview(self.held + view.tobytes())
        else:
            self._put(self.held)
        self._put(view[:-2])
        self.held = view[-2:].tobytes()
        return len(data)

    def flush(self) -> None:
        """Do nothing: the file is flushed once it is whole."""

    def close(self) -> None:
        """Write the checksum.

        Raises:
            OSError: something could not be written.
        """
        self._put(struct.pack("<H", len(SEAL) + 64) + SEAL)
        self._put(self.checksum.hexdigest().encode())
        if self.fault is not None:
            raise self.fault

    def _put(self, data: bytes | memoryview) -> None:
        self.checksum.update(data)
        try:
            if self.fault is None:
                self.file.write(data)
        except OSError as error:
            self.fault = error


def with_plain_numbers(value: Any) -> Any:
    """Turn scalars of numpy inside dicts, lists and tuples into plain numbers; what holds none is returned itself."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        parts: Any = {key: with_plain_numbers(part) for key, part in value.items()}
        return value if all(parts[key] is part for key, part in value.items()) else parts
    if type(value) in (list, tuple):
        parts = [with_plain_numbers(part) for part in value]
        return value if all(map(operator.is_, parts, value)) else type(value)(parts)
    return value


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


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OSError: it cannot be written; an older file of that name is untouched.
    """
    with atomic_write(path) as file:
        file.write(text.encode())


class atomic_write:  # noqa: N801 (used as a function)
    """A binary file that appears under ``path`` only if the block of ``with atomic_write(path) as file`` succeeds.

    What is no file but a device or a pipe is written as it comes. A link to a file stays one.

    Raises:
        OSError: the file cannot be written; the message names it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __enter__(self) -> BinaryIO:
        """Open a temporary file beside the target; its folder is made if it is missing."""
        with _named_faults(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.target = Path(os.path.realpath(self.path)) if self.path.is_symlink() else self.path
            if self.target.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            is_special = self.target.exists() and not self.target.is_file()
            self.temporary = None if is_special else self.target.with_name(f".{self.target.name}.{os.getpid()}")
            if self.temporary is not None:
                self.temporary.unlink(missing_ok=True)  # what stands there may be a link to somewhere else
            self.file: BinaryIO = (self.temporary or self.target).open("wb" if self.temporary is None else "xb")
        return self.file

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush the file to disk and rename it over the target, or delete it after an error."""
        try:
            with _named_faults(self.path):
                if isinstance(error, OSError) and error.filename is None:
                    raise error
                if kind is None:
                    self.file.flush()
                    if self.temporary is not None:
                        os.fsync(self.file.fileno())
                        self.file.close()
                        os.replace(self.temporary, self.target)
        finally:
            with suppress(OSError):
                self.file.close()  # on a full disk it tries once more to write
            if self.temporary is not None:
                with suppress(FileNotFoundError):
                    self.temporary.unlink()  # it is gone if all went well


@contextmanager
def _named_faults(path: Path) -> Iterator[None]:
    """Let every fault of the system name the file that was to be written."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path)) from error
