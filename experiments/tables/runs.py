"""Runs of a table: where they lie, what is left of them to do, processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

from tqdm import tqdm

from experiments.launch.check import ConfigError
from experiments.launch.claim import holds_run
from experiments.launch.run_folder import load_flat_config, read_result
from rl.training.run import checkpoint_path
from rl.training.signals import Stopped

CHILD = "experiments.tables.child"
OWN = {"seed", "run_dir", "resume", "overwrite"}  # settings in which runs always differ

T = TypeVar("T")
R = TypeVar("R")


def locate_run(folder: Path, row: str, seed: int) -> Path:
    """Return the folder of the run of a row and seed."""
    return folder / row / f"seed{seed}"


def list_remaining_arguments(target: Path, arguments: list[str]) -> list[str]:
    """Return what a training run has to be called with.

    Args:
        target: its folder.
        arguments: of a fresh run.

    Returns:
        The arguments of a fresh run; for one that ended on its way those that let it go on from its checkpoint; none
        for a finished one, which is kept.
    """
    if (target / "result.json").is_file():
        result, config = read_result(target), load_flat_config(target)
        solved = config.get("stop_at_threshold") and result.get("steps_to_threshold") is not None
        ended = solved or result.get("stop_reason") in ("plateau", "max_seconds")
        if ended or result["env_steps"] >= result["total_steps"]:
            return []
    if checkpoint_path(target).is_file():
        return [f"resume={target}"]
    return list_fresh_arguments(target, arguments)


def list_fresh_arguments(target: Path, arguments: list[str]) -> list[str]:
    """Return the arguments of a fresh run, which replaces what an earlier one may have begun in its folder."""
    return [*arguments, "overwrite=true"] if holds_run(target) else arguments


def check_same(target: Path, wanted: dict[str, Any], name: str) -> None:
    """Check that what lies in a run folder, finished or not, is the run that would be made there now.

    Args:
        target: the folder, which need not exist.
        wanted: settings of the run as one level.
        name: of what would be made, for the message.

    Raises:
        ConfigError: it was run with other settings.
    """
    if not (target / "config.yaml").is_file():
        return
    found = load_flat_config(target)
    if "parameters" in wanted and (target / "result.json").is_file():
        found["parameters"] = read_result(target)["parameters"]
    for key in sorted((found.keys() & wanted.keys()) - OWN):  # a run of an older version lacks the newest keys
        if found[key] != wanted[key]:
            raise ConfigError(
                f"{target} was run with {key}={found[key]}, {name} with {wanted[key]}: delete it or give another output"
            )


class Children:
    """The processes of runs, which save and end when this one does, or leaves the block, in whatever way.

    What tells them is the end of a pipe, see ``experiments.tables.child``.
    """

    def __enter__(self) -> "Children":
        """Open the pipe."""
        self._theirs, ours = os.pipe()
        self._ours: int | None = ours
        return self

    def run_module(self, *arguments: str) -> None:
        """Run ``python -m`` with a module and its arguments, to the end.

        Raises:
            RuntimeError: the process failed; its last line says why.
        """
        line = [sys.executable, "-m", *arguments]
        done = subprocess.run(line, stdin=self._theirs, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise RuntimeError(f"{' '.join(arguments[1:])} failed: {last}")

    def try_module(self, name: str, *arguments: str) -> str | None:
        """Run a module as ``run_module`` does.

        Returns:
            None, or why it failed: ``name`` and the last line of the process.
        """
        try:
            self.run_module(*arguments)
        except RuntimeError as error:
            return f"{name}: {error}"
        return None

    def start(self, *arguments: str, output: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start ``python -m`` with a module and its arguments; what it prints goes into a file."""
        line = [sys.executable, "-m", *arguments]
        # not of our group: Ctrl-C in a terminal reaches it through the pipe alone, once
        return subprocess.Popen(line, stdin=self._theirs, stdout=output, stderr=subprocess.STDOUT, process_group=0)

    def map(self, work: Callable[[T], R], jobs: list[T], workers: int, unit: str = "runs") -> list[R]:
        """Return ``[work(job) for job in jobs]``, so many at a time, with a progress bar.

        Args:
            work: what is to be done; threads do it.
            jobs: one after the other.
            workers: jobs at a time.
            unit: what a job is, for whoever looks on.

        Raises:
            Stopped: a signal has come; the runs that had begun are saved.
        """
        pool, done = ThreadPoolExecutor(workers), list[R]()
        try:
            for result in tqdm(pool.map(work, jobs), total=len(jobs), unit=f" {unit}", disable=None):
                done.append(result)
        except Stopped as stop:
            self.end()
            sentence = f"after {len(done)} of {len(jobs)} {unit}; the same command goes on with the others"
            raise Stopped(stop.number, sentence) from stop
        finally:
            pool.shutdown(cancel_futures=True)
        return done

    def end(self) -> None:
        """Let all of them save and end: close our end of the pipe."""
        if self._ours is not None:
            os.close(self._ours)
            self._ours = None

    def __exit__(self, *_: object) -> None:
        """Close the pipe."""
        self.end()
        os.close(self._theirs)
