"""The page of what was tried: a table by kind, and every failure with the command that repeats it."""

import platform
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

from experiments.reliability.tries import Outcome

INTRODUCTION = """# Reliability

<!-- written by python -m experiments.reliability -->

What happens to a run when something goes wrong? Each line of the table is a kind of mishap, tried many times on tiny
runs. A try fails if there is a traceback, a hang, an exit code that does not fit (0 for what was done, 1 for what was
refused, 130 and 143 for what was stopped), more than one sentence, a checkpoint that is lost, a run that cannot be
resumed, a damaged file that is loaded in silence, a file or a process left behind, or if code of the data was run.
"""
PACKAGES = ("torch", "gymnasium", "numpy", "hydra-core")


@dataclass(frozen=True)
class Part:
    """A line of the table.

    Attributes:
        words: what is tried.
        kind: its name on the command line.
        outcomes: of its tries.
    """

    words: str
    kind: str
    outcomes: list[Outcome]

    @property
    def failed(self) -> list[Outcome]:
        """Those that failed."""
        return [outcome for outcome in self.outcomes if outcome.fault is not None]

    @property
    def seconds(self) -> float:
        """What they took together."""
        return sum(outcome.seconds for outcome in self.outcomes)


def format_table(parts: list[Part]) -> str:
    """Write a table: one line for each kind, and the sum."""
    lines = ["| kind | what is tried | tries | failures | seconds |", "|---|---|---|---|---|"]
    every = [outcome for part in parts for outcome in part.outcomes]
    for part in [*parts, Part("", "sum", every)]:
        kind, counts = part.kind.replace("_", " "), (len(part.outcomes), len(part.failed))
        cells = kind, part.words, *map(str, counts), f"{part.seconds:.0f}"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def format_page(parts: list[Part], share: float, minutes: float, processes: int, cores: int) -> str:
    """Write the whole page.

    Args:
        parts: the lines of the table.
        share: of all tries that was drawn.
        minutes: that all of it took.
        processes: tries at a time.
        cores: of the machine.
    """
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    head = (
        f"{date.today().isoformat()}, Python {platform.python_version()}, {versions}; {processes} tries at a time on "
        f"{cores} cores, {minutes:.0f} minutes in all" + (f"; {share:.0%} of all tries, drawn." if share < 1 else ".")
    )
    lines = [INTRODUCTION, head, "", format_table(parts)]
    failed = [outcome for part in parts for outcome in part.failed]
    if failed:
        lines += ["## Failures", "", "Each can be repeated with `python -m experiments.reliability only=NAME`.", ""]
        lines += ["| name | what was done | what was wrong |", "|---|---|---|"]
        for outcome in failed:
            words = (outcome.tried.label, outcome.fault or "")
            label, fault = (" ".join(text.split()).replace("|", "\\|").replace("<", "&lt;") for text in words)
            lines.append(f"| {outcome.tried.name} | {label} | {fault} |")
        lines.append("")
    return "\n".join(lines)
