"""Metrics as a table of text, for whatever reads CSV."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl.checkpoint import write_text
from rl.training.observers.observer import Run

STEP = "env_steps"
FILE = "progress.csv"

Row = dict[str, Any]


class CSV:
    """Keeps ``progress.csv`` in the run folder: a row for each update and for each evaluation, a column for each tag.

    A row is written at once. Where a tag comes for the first time the file is written anew with one more column. A row
    that broke off, and rows behind the step that a resumed run goes on from, are left out when the run goes on.
    """

    def __init__(self) -> None:
        self.path, self.columns = Path(FILE), [STEP]

    def begin(self, run: Run, config: Mapping[str, Any]) -> None:
        """Begin the file, or keep what it holds up to the step that the run goes on from."""
        self.path = run.run_dir.absolute() / FILE
        kept = self.read() if run.agent.env_steps else []
        self.columns = list(kept[0]) if kept else [STEP]
        self.write([row for row in kept if int(row[STEP]) <= run.agent.env_steps])

    def report(self, values: Mapping[str, float], step: int) -> None:
        """Append a row."""
        new = [tag for tag in values if tag not in self.columns]
        if new:
            rows = self.read()
            self.columns += new
            self.write(rows)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            self._writer(file).writerow({STEP: step, **values})

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Do nothing: all is written."""

    def read(self) -> list[Row]:
        """Return the whole rows of the file; none if there is no file."""
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))

    def write(self, rows: list[Row]) -> None:
        """Write the file anew, whole or not at all."""
        text = io.StringIO()
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())

    def _writer(self, file: Any) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self.columns, lineterminator="\n")
