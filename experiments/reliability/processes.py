"""Run a command of this project in a forked process: what is imported already need not be imported again.

A try costs tenths of a second this way, where ``python -m`` takes three seconds for its imports.
"""

import fcntl
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

ROOT = Path(__file__).parents[2]
LIMIT = 120.0
"""Seconds after which a command is taken to hang."""
GRACE = 5.0
"""Seconds in which processes that a command has started must end after it."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
IMPORTS = (
    *("train", "evaluate", "export", "imitate", "record", "realtime", "plot", "learning_table", "compare_cores"),
    *("char_lm.__main__", "benchmark.__main__"),
)
LATE_IMPORTS = (  # when an optimiser is made, a curve written, a model exported; some belong to extras
    *("torch._dynamo", "torch.export", "torch.onnx._internal.exporter", "torch.utils.tensorboard", "h5py"),
    *("matplotlib.pyplot", "minari", "PIL.Image", "onnxruntime", "onnxscript"),
)

Hook = Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: of its exit, negative if a signal ended it; None if it hung.
        out: what it wrote to stdout.
        err: what it wrote to stderr.
        seconds: that it took.
        left: how many processes that it had started were alive after it.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    left: int

    @property
    def text(self) -> str:
        """All that it wrote."""
        return self.out + self.err


class Running:
    """A forked process that is on its way, leader of a session of its own.

    Args:
        target: what it does.
        folder: its working folder.
        before: called in the process in front of ``target``, to limit its file sizes for instance.
    """

    def __init__(self, target: Hook, folder: Path, before: Hook | None = None):
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.out, out = open_pipe()  # not files: some tries limit the size of those
        self.err, err = open_pipe()
        ready, begun = os.pipe()
        self.process: ForkProcess = multiprocessing.get_context("fork").Process(
            target=_become, args=(target, folder, out, err, begun, before)
        )
        self.process.start()
        for end in (out, err, begun):
            os.close(end)
        os.read(ready, 1)  # from here on signals reach the command itself
        os.close(ready)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return not self.process.is_alive()

    def send(self, number: int, group: bool = False) -> None:
        """Send it a signal, with ``group`` to all of its session as a terminal does."""
        pid = self.process.pid
        with suppress(ProcessLookupError):
            if pid is not None and not self.ended:
                (os.killpg if group else os.kill)(pid, number)

    def wait(self, limit: float = LIMIT) -> Ended:
        """Return how it ended; after ``limit`` seconds it is killed."""
        self.process.join(limit)
        hung = not self.ended
        if hung:
            self.process.kill()
            self.process.join()
        seconds = time.monotonic() - self.began
        left = end_session(self.process.pid or 0, 0 if hung else GRACE)
        out, err = (read_pipe(end) for end in (self.out, self.err))
        return Ended(None if hung else self.process.exitcode, out, err, seconds, left)


def open_pipe() -> tuple[int, int]:
    """Open a pipe that holds a megabyte, so that nobody need read it on the way; return its ends to read and write."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.set_blocking(reading, False)
    return reading, writing


def read_pipe(reading: int) -> str:
    """Read all that is in a pipe, and close it."""
    parts = []
    with suppress(BlockingIOError):  # a process that outlives the command may hold the other end
        while part := os.read(reading, 1 << 16):
            parts.append(part)
    os.close(reading)
    return b"".join(parts).decode(errors="replace")


def start(words: Sequence[str], folder: Path, before: Hook | None = None) -> Running:
    """Start a command: its name and its arguments, as after ``python -m experiments.``."""
    return Running(lambda: run_main(words), folder, before)


def run(words: Sequence[str], folder: Path, before: Hook | None = None, limit: float = LIMIT) -> Ended:
    """Run a command to its end."""
    return start(words, folder, before).wait(limit)


def call(function: Hook, folder: Path, limit: float = LIMIT) -> Ended:
    """Run a function in a process of its own, which ends with code 1 and a sentence if it raises an error of input."""

    def guarded() -> None:
        logging.basicConfig(format="%(message)s")
        try:
            function()
        except (ValueError, OSError, ImportError) as error:
            print(error, file=sys.stderr)
            sys.exit(1)

    return Running(guarded, folder).wait(limit)


def run_main(words: Sequence[str]) -> None:
    """Do in this process what ``python -m experiments.NAME ARGUMENTS`` does."""
    module = importlib.import_module(f"experiments.{words[0]}")
    if hasattr(module, "__path__"):  # a package: python -m runs its __main__
        module = importlib.import_module(f"experiments.{words[0]}.__main__")
    sys.argv = [str(module.__file__), *words[1:]]
    module.main()


def import_commands() -> None:
    """Import what the commands need, once for all processes that are forked from this one."""
    torch.set_num_threads(1)
    for name in IMPORTS:
        importlib.import_module(f"experiments.{name}")
    for name in LATE_IMPORTS:
        with suppress(ImportError):
            importlib.import_module(name)


def end_session(session: int, grace: float) -> int:
    """Wait until no process of a session is left, kill those that are, return how many they were."""
    end = time.monotonic() + grace
    while left := list_session(session):
        if time.monotonic() > end:
            break
        time.sleep(0.02)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)


def list_session(session: int) -> list[int]:
    """List the living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if int(number) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _become(target: Hook, folder: Path, out: int, err: int, begun: int, before: Hook | None) -> None:
    """Turn a forked process into one as ``python -m`` would have begun it in ``folder``, and do what it is for."""
    os.setsid()
    _reset_state(folder)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 (it stays open)
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.dup2(out, 1)
    os.dup2(err, 2)
    for number in STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if before is not None:
        before()
    os.write(begun, b".")
    try:
        target()
    finally:
        for number in STOPS:  # it has ended: what comes now does not reach it any more
            signal.signal(number, signal.SIG_IGN)


def _reset_state(folder: Path) -> None:
    """Forget what the process was before, and go to its folder, which ``python -m`` puts on the path."""
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
    os.environ.pop("HYDRA_FULL_ERROR", None)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.stdin = open(os.devnull)  # noqa: SIM115 (it stays open as long as the process lives)
