"""Rows of numbers, each taken once a round, so that a slow moment of the machine hits all alike; and their tables."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any

Numbers = dict[str, float]


def do_nothing() -> None:
    """End what belongs to a row that has nothing to be ended."""


@dataclass
class Row:
    """One line of a table.

    Attributes:
        label: what is measured; no two rows of a section share it.
        measure: takes the numbers of one round, counted from 0.
        close: ends what belongs to the row.
        rounds: the numbers so far.
    """

    label: str
    measure: Callable[[int], Numbers]
    close: Callable[[], None] = do_nothing
    rounds: list[Numbers] = field(default_factory=list)

    def compute_medians(self) -> Numbers:
        """Return the median of every number over the rounds."""
        return {name: median(numbers[name] for numbers in self.rounds) for name in self.rounds[0]}


class Process:
    """A training run in a process of its own, which speaks the protocol of ``experiments.peers.serve``.

    Args:
        module: of ``experiments.peers``.
        arguments: of its command line.
        python: the interpreter.

    Attributes:
        hello: the first line of the process, see ``experiments.peers``.

    Raises:
        RuntimeError: the process ended before it was ready.
    """

    def __init__(self, module: str, arguments: list[str], python: str = sys.executable):
        self.command = [python, "-m", f"experiments.peers.{module}", *arguments]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process; a pipe could fill up)
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.hello = self._read()

    def measure(self, seconds: float) -> Numbers:
        """Train for so long; return steps per second of CPU time and by the clock, and the mean episode length.

        Raises:
            RuntimeError: the process has ended; its last line says why.
        """
        with suppress(BrokenPipeError):  # it has died: reading says why
            print(seconds, file=self.input, flush=True)
        seen = self._read()
        return {
            "steps_per_cpu_second": seen["env_steps"] / seen["cpu_seconds"],
            "steps_per_second": seen["env_steps"] / seen["wall_seconds"],
            "episode_length": seen["env_steps"] / max(seen["episodes"], 1),
        }

    def _read(self) -> dict[str, Any]:
        line = self.output.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()
            self.close()
            raise RuntimeError(f"{' '.join(self.command[1:])} ended: {last[-1] if last else 'it said nothing'}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self.input.close()  # which it takes for the end
        self.process.wait()
        self.output.close()
        self.errors.close()


@contextmanager
def close_rows(rows: list[Row]) -> Iterator[None]:
    """Close all rows at the end, also after a fault."""
    try:
        yield
    finally:
        for row in rows:
            row.close()


def format_table(title: str, medians: dict[str, Numbers]) -> str:
    """Write rows, given by label, as text; columns are the numbers that occur."""
    columns = list(dict.fromkeys(name for numbers in medians.values() for name in numbers))
    width = max(len(title), *(len(label) for label in medians))
    heads = [column.replace("_", " ") for column in columns]
    lines = ["  ".join([f"{title:<{width}}", *(f"{head:>9}" for head in heads)])]
    for label, numbers in medians.items():
        cells = (format_number(numbers[name]) if name in numbers else "" for name in columns)
        lines.append(
            "  ".join([f"{label:<{width}}", *(f"{c:>{max(9, len(h))}}" for c, h in zip(cells, heads, strict=True))])
        )
    return "\n".join(lines)


def format_number(number: float) -> str:
    """Write a number with four digits, or with as many as a whole number has."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
