"""What is left of a run, and where a table goes."""

import json
import subprocess

import pytest

from experiments.launch.check import ConfigError
from experiments.tables import learning_table, runs
from experiments.tables.learning_table import MARKERS
from experiments.tables.runs import insert_table


def test_insert(cwd):
    begin, end = MARKERS
    readme = cwd / "README.md"
    readme.write_text(f"# Before\n{begin}\nold\n{end}\nAfter\n")
    for table in ("| one |\n", "| two |\n"):
        insert_table(readme, table, MARKERS)
        assert readme.read_text() == f"# Before\n{begin}\n{table}{end}\nAfter\n"
    readme.write_text("no markers\n")
    with pytest.raises(ConfigError, match="has no place for the table"):
        insert_table(readme, "| three |\n", MARKERS)
    assert readme.read_text() == "no markers\n"


@pytest.mark.parametrize(
    ("result", "arguments"),
    [
        (None, ["experiment=t_maze_10", "seed=3", "run_dir={target}"]),
        ({"env_steps": 99, "total_steps": 100}, ["resume={target}"]),  # stopped by a signal, which writes a result too
        ({"env_steps": 104, "total_steps": 100}, None),
    ],
)
def test_a_run_is_begun_or_goes_on_or_is_kept(result, arguments, tmp_path, monkeypatch):
    target, started = tmp_path / "row" / "seed3", []
    if result is not None:
        target.mkdir(parents=True)
        (target / "result.json").write_text(json.dumps(result))
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(runs.subprocess, "run", lambda command, **_: started.append(command[3:]) or done)
    learning_table.train_row(tmp_path, "row", {"experiment": "t_maze_10"}, 3)
    assert started == ([] if arguments is None else [[part.format(target=target) for part in arguments]])
