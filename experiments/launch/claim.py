"""Claim the folder of a run: a new one for each run, refused where there is one already, locked while it goes on."""

import logging
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from logging.handlers import MemoryHandler
from pathlib import Path
from threading import get_ident

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from experiments.launch.check import OUTPUTS, ConfigError, convert
from experiments.launch.lock import NAME as LOCK
from experiments.launch.lock import FolderLock, is_running
from experiments.launch.stored import check_links
from rl.training.run import checkpoint_path
from rl.training.signals import Stopped

CHECKPOINTS = tuple(f"checkpoints/{name}.pt" for name in ("last", "previous", "best"))
EVIDENCE = ("config.yaml", "result.json", *CHECKPOINTS, "events.out.tfevents.*")
"""What a run has written: one of them makes a folder that of a run."""
OUTSIDE = ("progress.csv", "observers.json", "card.md", "card.png")
"""What a run leaves for others."""
FILES = (*EVIDENCE, *OUTSIDE, "evaluation.json", "train.log", "char_lm.log")
"""What ``overwrite=true`` removes."""
WRITTEN = (LOCK, "checkpoints", *(name for name in FILES if "*" not in name))
"""What is written under a name that is known beforehand."""
TEMPORARY = re.compile(r"\.(?:.+\.(?:pt|json|yaml))\.(\d+)")
"""The name of a file that was being written, with the number of the process: see ``rl.checkpoint.atomic_write``."""


@dataclass(frozen=True)
class Job:
    """What Hydra's launcher knows of a run, beside its configuration.

    Attributes:
        overrides: the arguments of the command line.
        folder: given as ``hydra.run.dir`` or ``hydra.sweep.subdir``; None for one of our own making.
        sweep: the folder of the sweep that it is part of, or None.
        number: its place in the sweep.
    """

    overrides: list[str]
    folder: Path | None
    sweep: Path | None
    number: int


def read_job(command: str) -> Job | None:
    """Return what the launcher says of the running job of a command; None of a configuration composed in Python."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name != command:
        return None
    hydra = HydraConfig.get()
    if OmegaConf.is_missing(hydra.runtime, "output_dir"):  # no job is running
        return None
    overrides, output = list(hydra.overrides.task), Path(hydra.runtime.output_dir)
    if hydra.mode == RunMode.MULTIRUN:
        own = hydra.sweep.subdir != "."
        return Job(overrides, output if own else None, None if own else output, hydra.job.num)
    return Job(overrides, output if hydra.run.dir != "." else None, None, 0)


class RunFolder:
    """The folder of one run, locked; until ``begin`` nothing of the run is written, so that a fault leaves no trace.

    Attributes:
        path: of the folder.
        resuming: whether a run in it goes on.
        begun: whether ``begin`` was called.
        hint: how to go on with what was saved.
    """

    def __init__(self, path: Path, lock: FolderLock, made: list[Path], resuming: bool, key: str):
        self.path, self.resuming, self.begun = path, resuming, False
        self._lock, self._made = lock, made
        self.hint = tell_how_to_go_on(key, path)
        self._handler: logging.Handler = MemoryHandler(10**6, flushLevel=sys.maxsize)  # keeps what is said meanwhile
        self._thread = get_ident()
        self._handler.addFilter(self._is_ours)
        logging.getLogger().addHandler(self._handler)

    def _is_ours(self, record: logging.LogRecord) -> bool:
        """Tell whether a line was logged by this run, for others may train in other threads."""
        return record.thread == self._thread

    def begin(self, log_name: str) -> None:
        """Remove what earlier runs left, unless one goes on, and write what was logged so far into ``log_name``."""
        if not self.resuming:
            remove_run(self.path)
        remove_temporary_files(self.path)
        file = logging.FileHandler(self.path / log_name, encoding="utf-8")
        kept, self._handler = self._handler, file
        file.addFilter(self._is_ours)
        logging.getLogger().addHandler(file)
        logging.getLogger().removeHandler(kept)
        assert isinstance(kept, MemoryHandler)
        for record in kept.buffer:
            file.handle(record)
        self.begun = True

    def close(self, error: BaseException | None) -> None:
        """End the lock; a run that never began leaves the folder as it was, or none."""
        if isinstance(error, Stopped):
            self._tell(error)
        logging.getLogger().removeHandler(self._handler)
        self._handler.close()
        self._lock.release()
        if not self.begun:
            remove_empty(self._made)

    def _tell(self, stop: Stopped) -> None:
        """Complete the sentence of a signal, and write it into the log."""
        if not stop.sentence and self.begun:
            saved = checkpoint_path(self.path).is_file()
            stop.sentence = f"before it was done; {self.hint}" if saved else "before anything was saved"
        elif not stop.sentence:
            stop.sentence = "before it began; " + ("the run is as it was" if self.resuming else "nothing was written")
        if self.begun:
            line = f"S{str(stop)[1:]}"
            self._handler.handle(logging.LogRecord(__name__, logging.INFO, __file__, 0, line, None, None))


def tell_how_to_go_on(key: str, path: Path) -> str:
    """Name the argument that goes on with a run, as a shell takes it; ``key`` is ``resume`` or ``weights``."""
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shlex.quote(f'{key}={path}')} {'goes on with it' if key == 'resume' else 'begins with what was learned'}"


def read_overrides(command: str, reason: str) -> list[str]:
    """Return the arguments of the command line; ``reason`` is the argument because of which they matter.

    Raises:
        ConfigError: there is none, because the configuration was composed in Python.
    """
    job = read_job(command)
    if job is None:
        raise ConfigError(
            f"{reason}: a configuration composed in Python does not tell what was set in it: "
            "give overrides=[...] beside it"
        )
    return job.overrides


def name_target(node: DictConfig | None) -> str:
    """Return the last part of the ``_target_`` of a node; ``none`` if there is no such thing."""
    return "none" if node is None else str(node.get("_target_", "none")).rpartition(".")[2]


@contextmanager
def claim_folder(command: str, config: DictConfig, name: str) -> Iterator[RunFolder]:
    """Lock the folder of a run while it goes on.

    It is that of ``resume``, or ``run_dir``, or one of our own making below ``runs/`` or in that of a sweep.

    Args:
        command: its name.
        config: of the command line.
        name: of the run, for a folder of our own making.

    Raises:
        ConfigError: the folder holds a run, or is in use, or the arguments contradict each other.
        OSError: it cannot be made.
    """
    overwrite = convert(config.overwrite, bool, "overwrite")
    path, argument, made = choose_folder(command, config, name, overwrite)
    try:
        check_links(path, WRITTEN)
        lock = FolderLock(path, argument)
    except BaseException:
        remove_empty(made)
        raise
    key = "resume" if "resume" in config else "weights"
    folder = RunFolder(path, lock, made, config.get("resume") is not None, key)
    try:
        if not folder.resuming and not overwrite and holds_run(path):
            goes_on = f"{folder.hint}, " if key == "resume" else ""
            raise ConfigError(f"{argument} holds a run already: {goes_on}overwrite=true replaces it, or choose another")
        yield folder
    except BaseException as error:
        folder.close(error)
        raise
    folder.close(None)


def choose_folder(command: str, config: DictConfig, name: str, overwrite: bool) -> tuple[Path, str, list[Path]]:
    """Return the folder of a run, the argument that names it, and what had to be made, the outermost first.

    Args:
        command: as for ``claim_folder``.
        config: as for ``claim_folder``.
        name: as for ``claim_folder``.
        overwrite: whether a run in it is to be replaced.

    Raises:
        ConfigError: arguments contradict each other, or one is no folder.
    """
    resume, given, job = config.get("resume"), config.get("run_dir"), read_job(command)
    if resume is not None:
        for key, value in (("run_dir", given), ("overwrite", overwrite or None)):
            if value is not None:
                raise ConfigError(f"resume={resume} goes on in its own folder: leave {key} out")
        path = Path(str(resume)).expanduser().absolute()
        if not (path / "config.yaml").is_file():
            raise ConfigError(f"resume={resume}: there is no run in that folder (no config.yaml)")
        return path, f"resume={resume}", []
    if given is None and job is not None:
        given = job.folder
    if given is None:
        safe = re.sub(r"[^\w.+-]+", "-", name)
        path, made = claim_new(job.sweep / f"{job.number}-{safe}" if job and job.sweep else locate_new(safe))
        return path, f"run_dir={path}", made
    if not isinstance(given, (str, int, float, Path)) or given == "":
        raise ConfigError(f"run_dir={given!r}: it must be the path of a folder, or null for a new one")
    path = Path(str(given)).expanduser().absolute()
    return path, f"run_dir={given}", make_folder(path, f"run_dir={given}")


def locate_new(name: str) -> Path:
    """Return where a run or sweep of our own naming goes: ``runs/DATE/TIME-NAME``."""
    now = datetime.now()
    return Path("runs", f"{now:%Y-%m-%d}", f"{now:%H-%M-%S}-{name}")


def claim_new(wanted: Path) -> tuple[Path, list[Path]]:
    """Make a folder that nobody else has: the wanted one, or one with a number behind its name.

    Returns:
        The folder, and all that was made, the outermost first.
    """
    wanted, above, number = wanted.absolute(), list[Path](), 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            above += make_folder(wanted.parent, "run_dir")
            path.mkdir()  # of several processes it succeeds in one
            return path, [*above, path]
        except FileExistsError:
            number += 1
        except FileNotFoundError:
            pass  # another process, which had made the folder above, has failed and removed it


def make_folder(path: Path, argument: str) -> list[Path]:
    """Make a folder and those above it that are missing.

    Returns:
        What was made, the outermost first.

    Raises:
        ConfigError: there is a file of that name.
    """
    made = [folder for folder in (path, *path.parents) if not folder.exists()][::-1]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(f"{argument} is no folder: {error.filename} is a file") from error
    return made


def remove_empty(folders: list[Path]) -> None:
    """Remove those of some folders that are empty, the innermost, which stands last, first."""
    for folder in reversed(folders):
        with suppress(OSError):  # something else lies in it
            folder.rmdir()


def holds_run(path: Path) -> bool:
    """Tell whether a run has written something into a folder."""
    return any(True for pattern in EVIDENCE for _ in path.glob(pattern))


def remove_run(path: Path) -> None:
    """Remove what a run wrote into a folder, and nothing else of it."""
    for pattern in FILES:
        for file in path.glob(pattern):
            file.unlink()
    with suppress(OSError):
        (path / "checkpoints").rmdir()


def remove_temporary_files(path: Path) -> None:
    """Remove what processes that are gone had begun to write."""
    for folder in (path, path / "checkpoints"):
        for file in folder.glob(".*"):
            found = TEMPORARY.fullmatch(file.name)
            if found and not is_running(int(found[1])):
                file.unlink()


def make_sweep_folder(name: str) -> str:
    """Make the folder of a sweep, for ``hydra.sweep.dir`` in YAML: ``${new_folder:sweep}``."""
    path, made = claim_new(locate_new(name))
    SWEEPS.append((path, made))
    return str(path)


SWEEPS: list[tuple[Path, list[Path]]] = []
"""The folders of the sweeps of this process, each with all that was made for it."""


def remove_unused() -> None:
    """Remove the folders of sweeps of which no job began, and of outputs that were not written."""
    remove_empty(OUTPUTS)
    OUTPUTS.clear()
    while SWEEPS:
        path, made = SWEEPS.pop()
        if [file.name for file in path.glob("*")] == ["multirun.yaml"]:  # Hydra's own
            (path / "multirun.yaml").unlink()
        remove_empty(made)


OmegaConf.register_new_resolver("new_folder", make_sweep_folder, use_cache=True, replace=True)
