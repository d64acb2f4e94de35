"""Runs of a table: where they lie, what is left of them to do, processes of their own, tables between markers."""

import subprocess
import sys
from pathlib import Path

from experiments.launch.check import ConfigError
from experiments.launch.run_folder import read_result
from rl.checkpoint import write_text


def locate_run(folder: Path, row: str, seed: int) -> Path:
    """Return the folder of the run of a row and seed."""
    return folder / row / f"seed{seed}"


def list_remaining_arguments(target: Path, arguments: list[str]) -> list[str]:
    """Return what a training run has to be called with.

    Args:
        target: its folder.
        arguments: of a fresh run.

    Returns:
        The arguments of a fresh run; for one that was stopped on its way those that let it go on; none for a finished
        one, which is kept.
    """
    if not (target / "result.json").is_file():
        return arguments
    result = read_result(target)
    return [] if result["env_steps"] >= result["total_steps"] else [f"resume={target}"]


def run_module(*arguments: str) -> None:
    """Run ``python -m`` with a module and its arguments, to the end.

    Raises:
        RuntimeError: the process failed; its last line says why.
    """
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"{' '.join(arguments[1:])} failed: {last}")


def split_at_markers(page: Path, markers: tuple[str, str]) -> tuple[str, str]:
    """Return what stands before and after the place of a table on a page.

    Raises:
        ConfigError: the markers are not there.
    """
    text = page.read_text()
    begin, end = markers
    if begin not in text or end not in text:
        raise ConfigError(f"{page} has no place for the table: the lines {begin!r} and {end!r}")
    return text.split(begin)[0], text.split(end)[1]


def insert_table(page: Path, table: str, markers: tuple[str, str]) -> None:
    """Put a table between its markers on a page."""
    before, after = split_at_markers(page, markers)
    write_text(page, f"{before}{markers[0]}\n{table}{markers[1]}{after}")
