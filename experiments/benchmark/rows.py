"""What is measured: rows of numbers, each taken once a round, so that a slow moment of the machine hits all alike."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from statistics import median

Numbers = dict[str, float]


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
    close: Callable[[], None] = lambda: None
    rounds: list[Numbers] = field(default_factory=list)

    def medians(self) -> Numbers:
        """Of every number over the rounds."""
        return {name: median(numbers[name] for numbers in self.rounds) for name in self.rounds[0]}


class Process:
    """A training run in a process of its own, which speaks the protocol of :mod:`experiments.peers.serve`."""

    def __init__(self, module: str, arguments: list[str], python: str = sys.executable):
        command = [python, "-m", f"experiments.peers.{module}", *arguments]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (open as long as the process; a pipe could fill up)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        self.hello = self._read()

    def measure(self, seconds: float) -> Numbers:
        """Trains for so long: steps per second of CPU time and by the clock, and the mean episode length."""
        with suppress(BrokenPipeError):  # it has died: reading says why
            print(seconds, file=self.process.stdin, flush=True)
        seen = self._read()
        return {
            "steps_per_cpu_second": seen["env_steps"] / seen["cpu_seconds"],
            "steps_per_second": seen["env_steps"] / seen["wall_seconds"],
            "episode_length": seen["env_steps"] / max(seen["episodes"], 1),
        }

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()
            self.close()
            raise RuntimeError(f"{' '.join(self.process.args[1:])} ended: {last[-1] if last else 'it said nothing'}")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # which it takes for the end
        self.process.wait()
        self.process.stdout.close()
        self.errors.close()


@contextmanager
def closing(rows: list[Row]) -> Iterator[None]:
    """Closes all rows at the end, also after a fault."""
    try:
        yield
    finally:
        for row in rows:
            row.close()


def table(title: str, medians: dict[str, Numbers]) -> str:
    """Rows by label as text; columns are the numbers that occur."""
    columns = list(dict.fromkeys(name for numbers in medians.values() for name in numbers))
    width = max(len(title), *(len(label) for label in medians))
    heads = [column.replace("_", " ") for column in columns]
    lines = ["  ".join([f"{title:<{width}}", *(f"{head:>9}" for head in heads)])]
    for label, numbers in medians.items():
        cells = (shown(numbers[name]) if name in numbers else "" for name in columns)
        lines.append(
            "  ".join([f"{label:<{width}}", *(f"{c:>{max(9, len(h))}}" for c, h in zip(cells, heads, strict=True))])
        )
    return "\n".join(lines)


def shown(number: float) -> str:
    """Four digits are enough."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
