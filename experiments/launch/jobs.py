"""The jobs of a sweep, one after the other or side by side in other processes, on this machine or of a cluster.

Jobs on this machine end with the command that started them, in whatever way
it ends: a thread of theirs looks for it, and for the signals that it got. A job that a cluster ends saves itself first,
and goes on in its own run folder once the cluster runs it again.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from tqdm import tqdm

from experiments.launch.claim import read_job
from experiments.launch.lock import measure_start
from rl.training.run import checkpoint_path
from rl.training.signals import Stopped, StopSignals

JOBLIB, LOCAL, SLURM = "joblib", "submitit_local", "submitit_slurm"
LOOK_EVERY = 0.2  # seconds
AGAIN = "run.txt"
"""Beside what submitit writes of a job: its run has begun before."""

Task = Callable[[DictConfig], Any]
log = logging.getLogger(__name__)


class Jobs:
    """Jobs that run in this process, one after the other: a signal ends the running one, and with it the sweep."""

    apart = False

    def going_on(self, signals: StopSignals) -> Any:
        """Make the context of all jobs."""
        return signals.raising()

    def wrap(self, task: Task) -> Task:
        """Return what the launcher is to call for each job."""
        return task

    def prepare(self, config: DictConfig) -> list[list[str]]:
        """Change the configuration of a job before it runs; return further arguments of the command's entry."""
        return []


class JobsApart(Jobs):
    """Jobs on this machine, each in a process of its own.

    Args:
        launcher: its name.
        number: of jobs; None if it is not known.
    """

    apart = True

    def __init__(self, launcher: str, number: int | None):
        self.launcher, self.number = launcher, number
        self.parent = os.getpid(), measure_start(os.getpid())
        self.notes: Path = Path()

    @contextmanager
    def going_on(self, signals: StopSignals) -> Iterator[None]:
        """While open, tell the jobs of the first signal, which lets them save and end, and show how many are done.

        Raises:
            Stopped: a signal has come.
        """
        with tempfile.TemporaryDirectory(prefix="recurrent-ppo-jobs-") as folder:
            self.notes = Path(folder)
            over = threading.Event()
            bar = tqdm(total=self.number, unit=" jobs", disable=None)
            watcher = threading.Thread(target=self._watch, args=(signals, over, bar), daemon=True)
            watcher.start()
            try:
                yield
            except Exception as error:
                if signals.number is None:
                    raise self._count_failed(error) from error.__cause__
            finally:
                over.set()
                watcher.join()
                bar.close()
            if signals.number is not None:
                raise Stopped(signals.number, self._tell())

    def _watch(self, signals: StopSignals, over: threading.Event, bar: Any) -> None:
        """Hand the signal on, and move the bar."""
        while not over.wait(LOOK_EVERY):
            if signals.number is not None:
                (self.notes / "stop").touch()
            bar.update(len(list(self.notes.glob("*.*"))) - bar.n)

    def _count_failed(self, error: Exception) -> Exception:
        """Say beside the first fault how many jobs failed."""
        failed, done = self._list("failed"), self._list("done")
        if len(failed) > 1:
            error.add_note(f"jobs that failed: {', '.join(failed)}")
        if failed:
            error.add_note(f"jobs done: {', '.join(done) or 'none'}")
        return error

    def _list(self, word: str) -> list[str]:
        """Return the numbers of the jobs of which a word is noted."""
        return sorted((file.stem for file in self.notes.glob(f"*.{word}")), key=int)

    def _tell(self) -> str:
        """Say what became of the jobs that a signal has ended."""
        parts = {"done": "jobs done", "stopped": "stopped and told above", "failed": "failed"}
        lists = [f"{words}: {', '.join(self._list(word)) or 'none'}" for word, words in parts.items()]
        return f"in a sweep; {'; '.join(lists)}; the others did not start"

    def wrap(self, task: Task) -> Task:
        """Return what runs in the process of a job: the task, which ends with this command."""

        def run(config: DictConfig) -> Any:
            number = HydraConfig.get().job.num
            if self._is_over():
                self._end_orphan()
                return None
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # between jobs: of Ctrl-C this process hears by the notes
            label_lines(number)
            requeueing = nullcontext() if self.launcher == JOBLIB else self.requeueing()
            try:
                with requeueing, StopSignals() as signals, signals.raising(), self._ending():
                    value = task(config)
            except Stopped as stop:  # joblib would end the other jobs at once
                print(f"job {number}: {stop}", file=sys.stderr)
                self._note(number, "stopped")
                self._end_orphan()
                return None
            except Exception as error:
                print(f"{error}; the other jobs go on", file=sys.stderr)
                self._note(number, "failed")
                raise
            self._note(number, "done")
            return value

        return run

    def _end_orphan(self) -> None:
        """End this process if the command has ended, for joblib would let it wait for further jobs."""
        pid, start = self.parent
        if self.launcher == JOBLIB and measure_start(pid) != start:
            shutil.rmtree(self.notes, ignore_errors=True)  # which the command could not remove
            sys.stderr.flush()
            os._exit(128 + signal.SIGTERM)

    def _note(self, number: int, word: str) -> None:
        """Write down, in the process of a job, what became of it."""
        with suppress(OSError):  # it went with the command
            (self.notes / f"{number}.{word}").touch()

    def _is_over(self) -> bool:
        """Tell, in the process of a job, whether the command has ended or got a signal."""
        pid, start = self.parent
        return (self.notes / "stop").exists() or measure_start(pid) != start

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """While open, send this process a SIGTERM once the command has ended or got a signal."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK_EVERY):
                if self._is_over():
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    @contextmanager
    def requeueing(self) -> Iterator[None]:
        """While open, a signal of the cluster lets the run save and end, and then has the job queued again.

        Raises:
            Stopped: a signal has ended it, and it is not to go on.
        """
        usual = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
        requeue = next((handler for handler in usual.values() if callable(handler)), None)  # that of submitit
        for number in usual:
            signal.signal(number, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        try:
            yield
        except Stopped as stop:
            if (
                requeue is not None
                and stop.number == signal.SIGTERM
                and not (self.launcher == LOCAL and self._is_over())
            ):
                print(f"{stop}; the job is queued again", file=sys.stderr, flush=True)
                requeue(stop.number, None)
            raise
        finally:
            for number, handler in usual.items():
                signal.signal(number, handler)

    def prepare(self, config: DictConfig) -> list[list[str]]:
        """Let a run that the cluster has begun before go on in its own folder; return its overrides, none then."""
        if self.launcher == JOBLIB or "resume" not in config or "run_dir" not in config:
            return []
        from submitit import JobEnvironment

        job = JobEnvironment()
        note = Path(job.paths.folder) / f"{job.job_id}_{AGAIN}"
        if not note.exists():
            note.touch()
            return []
        folder = find_run(config)
        if config.resume is None and folder is not None and checkpoint_path(folder).is_file():
            config.resume, config.run_dir, config.overwrite = str(folder), None, False
            log.info(f"goes on with {folder}")
            return [[]]
        if folder is not None and config.resume is None:
            config.run_dir, config.overwrite = str(folder), True
        return []


class JobsInQueue(JobsApart):
    """Jobs of a cluster, which go on without the command that queued them."""

    def going_on(self, signals: StopSignals) -> Any:
        """Make the context of all jobs: a signal ends this command alone."""
        return self._waiting(signals)

    @contextmanager
    def _waiting(self, signals: StopSignals) -> Iterator[None]:
        try:
            with signals.raising():
                yield
        except Stopped as stop:
            raise Stopped(stop.number, "while it waited; the jobs stay in the queue, scancel ends them") from stop

    def _is_over(self) -> bool:
        """Tell that the jobs do not end with the command."""
        return False


def find_run(config: DictConfig) -> Path | None:
    """Return the folder in which the run of this job has begun; None if it has not."""
    job = read_job("train")
    if config.run_dir is not None:
        return Path(str(config.run_dir)).expanduser().absolute()
    if job is not None and job.folder is not None:
        return job.folder
    begun = [file for file in (job.sweep.glob(f"{job.number}-*/config.yaml") if job and job.sweep else ())]
    return max(begun, key=lambda file: file.stat().st_mtime).parent if begun else None


def label_lines(number: int) -> None:
    """Put the number of a job in front of what this process prints, without progress bars, which would overlap."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setFormatter(logging.Formatter(f"job {number}: %(message)s"))
    if sys.stderr.isatty():
        setattr(sys.stderr, "isatty", lambda: False)  # noqa: B010  # for a type checker
