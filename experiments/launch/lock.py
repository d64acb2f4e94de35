"""The lock of a run folder: a file ``.lock`` that names the process which uses it, and which no other may take."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.launch.check import ConfigError

NAME = ".lock"
HELD: dict[tuple[int, int], dict[str, Any]] = {}
"""What this process wrote of itself, by device and inode of its locks.

The system's locks do not tell the threads of a process apart, and are lost as soon as any copy of the file is closed.
"""
GUARD = threading.Lock()


class FolderLock:
    """A lock on a folder that ends with its process, however that ends; forked processes do not inherit it.

    Where the file system has no locks, the process that the file names is looked for instead.

    Args:
        folder: exists.
        argument: names the folder on the command line, for messages: ``resume=runs/a``.

    Raises:
        ConfigError: the folder is in use, or a process of another host left its lock there.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, argument: str):
        self.path, self.argument = folder / NAME, argument
        with GUARD:
            while not self._acquire():
                pass

    def _acquire(self) -> bool:
        """Open and lock the file; say whether it still lies under its name, for its owner may just have removed it."""
        with suppress(FileNotFoundError):
            status = os.stat(self.path)
            if (status.st_dev, status.st_ino) in HELD:
                raise ConfigError(self._tell(HELD[status.st_dev, status.st_ino]))
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            self._take()
            status = os.fstat(self.file)
            there = self.path.exists() and os.path.samestat(status, os.stat(self.path))
            content = self._write() if there else {}
        except BaseException:
            os.close(self.file)
            raise
        if not there:
            os.close(self.file)
            return False
        self.key = status.st_dev, status.st_ino
        HELD[self.key] = content
        return True

    def _take(self) -> None:
        """Lock the file, or see from what it holds that nothing alive does.

        Raises:
            ConfigError: something alive has it, or may have it.
        """
        supported = True
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ConfigError(self._tell(self._read())) from error
            supported = False  # some network file systems
        holder = self._read()
        if holder is None:
            return
        if holder["host"] != socket.gethostname():
            raise ConfigError(
                f"{self._tell(holder)}: whether it still runs cannot be known from here; if it has ended, "
                f"delete {self.path}"
            )
        if not supported and measure_start(holder["pid"]) == holder["start"] is not None:
            raise ConfigError(self._tell(holder))

    def _read(self) -> dict[str, Any] | None:
        """Return what a process wrote of itself; None of nothing, or of what broke off."""
        try:
            return parse_holder(os.pread(self.file, 4096, 0))
        except OSError:
            return None

    def _tell(self, holder: dict[str, Any] | None) -> str:
        """Say who uses the folder."""
        if holder is None:
            return f"{self.argument} is in use by another process"
        since = datetime.fromtimestamp(holder["since"])
        day = "" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d} "
        return (
            f"{self.argument} is in use by process {holder['pid']} since {day}{since:%H:%M:%S} (host {holder['host']})"
        )

    def _write(self) -> dict[str, Any]:
        """Say in the file who has it, and return that."""
        pid = os.getpid()
        content = {"pid": pid, "start": measure_start(pid), "since": time.time(), "host": socket.gethostname()}
        os.ftruncate(self.file, 0)
        os.pwrite(self.file, json.dumps(content).encode(), 0)
        return content

    def release(self) -> None:
        """Remove the file and end the lock."""
        with GUARD:
            del HELD[self.key]
            with suppress(FileNotFoundError):
                self.path.unlink()
            os.close(self.file)


def parse_holder(content: bytes) -> dict[str, Any] | None:
    """Return what a process wrote of itself into a lock; None of nothing, or of what broke off."""
    try:
        holder = json.loads(content)
        datetime.fromtimestamp(holder["since"])
        return {"pid": int(holder["pid"]), **{name: holder[name] for name in ("start", "since", "host")}}
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return None


def find_holder(folder: Path) -> dict[str, Any] | None:
    """Return what the lock of a folder says of the process that has it, without touching the lock; None without one.

    Beside what the process wrote there is ``alive``: None if it runs on another host, where it cannot be looked for.
    """
    try:
        holder = parse_holder((folder / NAME).read_bytes())
    except OSError:
        return None
    if holder is None:
        return None
    if holder["host"] != socket.gethostname():
        return holder | {"alive": None}
    return holder | {"alive": measure_start(holder["pid"]) == holder["start"] is not None}


def is_locked(folder: Path) -> bool:
    """Tell whether a process has, or may have, the lock of a folder."""
    holder = find_holder(folder)
    return holder is not None and holder["alive"] is not False


def measure_start(pid: int) -> str | None:
    """Return when a process of this host began, in whatever form the system tells; None of a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]  # in ticks since boot
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def is_running(pid: int) -> bool:
    """Tell whether there is a process of a number on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
