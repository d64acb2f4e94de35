"""What a command that fills a table is asked for, checked before any work, and where its table goes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.launch.check import ConfigError, choose_names, convert, prepare_output, read_list, suggest, to_dict
from rl.checkpoint import write_text
from rl.checks import positive

Markers = tuple[str, str]
"""Lines of a page, between which a table goes."""

COMMON = ("label", "default")
"""Keys of a row of any table: its name for readers; false if it is run only where ``rows`` names it."""


@dataclass(frozen=True)
class Plan:
    """What is to be run and reported.

    Attributes:
        rows: those that were chosen, in the order of the table.
        seeds: of the runs of each row.
        jobs: runs at a time.
        folder: of all runs, and of the table.
        page: where the table goes as well; None for nowhere.
        markers: its place there.
    """

    rows: dict[str, dict[str, Any]]
    seeds: list[int]
    jobs: int
    folder: Path
    page: Path | None
    markers: Markers

    def write(self, text: str, content: Any, failures: Sequence[str] = ()) -> None:
        """Write the table and its numbers into the folder, and print the table.

        Args:
            text: the table.
            content: of ``table.json``.
            failures: why runs failed; they stand below the table.
        """
        whole = text + "".join(f"\nfailed: {failure}\n" for failure in failures)
        write_text(self.folder / "table.md", whole)
        write_text(self.folder / "table.json", json.dumps(content, indent=1))
        print(whole)

    def publish(self, text: str, failures: Sequence[str], count: int, unit: str = "runs") -> None:
        """Put the table on its page, unless some of ``count`` runs failed, or of what else ``unit`` says.

        Raises:
            RuntimeError: they did; the page stays as it is.
        """
        if failures:
            raise RuntimeError(f"{len(failures)} of {count} {unit} failed: {'; '.join(failures)}")
        if self.page:
            insert_table(self.page, text, self.markers)


def read_plan(config: DictConfig, markers: Markers, keys: Sequence[str], needed: Sequence[str] = ()) -> Plan:
    """Read what such commands have in common: ``table``, ``rows``, ``seeds``, ``jobs``, ``output`` and ``page``.

    Without ``rows`` all rows are chosen but those that say ``default: false``.

    Args:
        config: of the command.
        markers: of its table.
        keys: of a row, beside ``COMMON``.
        needed: those of them that it must have.

    Raises:
        ConfigError, ValueError: a value cannot be, or the page has no place for the table.
    """
    table = to_dict(config.table)
    check_rows(table, keys, needed)
    chosen = config.rows or [name for name, row in table.items() if row.get("default", True)]
    names = choose_names(chosen, table, "rows", "row")
    seeds = [convert(seed, int, "seeds") for seed in read_list(config.seeds, "seeds")]
    jobs = convert(config.jobs, int, "jobs")
    positive(jobs=jobs)
    page = Path(config.page) if config.page else None
    if page:
        split_at_markers(page, markers)
    folder = prepare_output(f"{config.output}/table.md", "output").parent
    return Plan({name: row for name, row in table.items() if name in names}, seeds, jobs, folder, page, markers)


def check_rows(table: dict[str, Any], keys: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Check that the rows of a table have the keys that a row has.

    Args:
        table: the rows by name.
        keys: of a row, beside ``COMMON``.
        needed: those of them that it must have.

    Raises:
        ConfigError: one has another one, or lacks one that it must have.
    """
    allowed = [*keys, *COMMON]
    for name, row in table.items():
        if not isinstance(row, dict):
            raise ConfigError(f"table.{name}={row}: it must have keys with values, of {', '.join(allowed)}")
        for key in row:
            if key not in allowed:
                raise ConfigError(f"there is no key 'table.{name}.{key}'{suggest(key, allowed)}")
        for key in needed:
            if key not in row:
                raise ConfigError(f"table.{name}.{key} is missing")
        convert(row.get("default", True), bool, f"table.{name}.default")


def read_env_keys(row: dict[str, Any], key: str, name: str) -> list[str]:
    """Return a key of a row that holds what a command line sets of the environment, and nothing else.

    Args:
        row: of the table.
        key: of the row.
        name: of the row, for messages.

    Raises:
        ConfigError: there is another thing in it, or nothing.
    """
    asked = row[key]
    if not isinstance(asked, list) or not asked or not all(str(each).startswith(("env.", "env=")) for each in asked):
        raise ConfigError(f"table.{name}.{key}={asked}: it must be a list of keys of the environment, env.KEY=VALUE")
    return asked


def split_at_markers(page: Path, markers: Markers) -> tuple[str, str]:
    """Return what stands before and after the place of a table on a page.

    Raises:
        ConfigError: the markers are not there.
    """
    text = page.read_text()
    begin, end = markers
    if begin not in text or end not in text:
        raise ConfigError(f"{page} has no place for the table: the lines {begin!r} and {end!r}")
    return text.split(begin)[0], text.split(end)[1]


def insert_table(page: Path, table: str, markers: Markers) -> None:
    """Put a table between its markers on a page."""
    before, after = split_at_markers(page, markers)
    write_text(page, f"{before}{markers[0]}\n{table}{markers[1]}{after}")
