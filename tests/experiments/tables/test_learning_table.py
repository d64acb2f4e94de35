"""``python -m experiments.learning_table``."""

import json

from experiments.tables import runs
from experiments.tables.learning_table import MARKERS, format_table


def outcome(seed, hit=True, **changes):
    """What ``result.json`` of a run may hold."""
    return {
        "agent": "RecurrentPPOLSTM",
        "core": "gru",
        "optimal_return": 1.0,
        "memoryless_return": 0.5,
        "threshold": 0.95,
        "eval_return_mean": 0.9 + seed / 100,
        "memory_zeroed_return_mean": 0.4 + seed / 10,
        "steps_to_threshold": 10_000 * seed if hit else None,
        "seconds_to_threshold": 2.0 * seed if hit else None,
        "total_steps": 200_000,
        **changes,
    }


def test_format_table():
    rows = {"maze": {"label": "a maze"}, "pole": {}}
    results = {
        "maze": [outcome(1), outcome(2), outcome(6)],
        "pole": [outcome(1), outcome(2, hit=False, optimal_return=None), outcome(3)],
    }
    head, rule, maze, pole = format_table(rows, results).splitlines()
    assert head.count("|") == rule.count("|") == maze.count("|") == pole.count("|") == 10
    cells = [cell.strip() for cell in maze.strip("|").split("|")]
    assert cells == [
        "a maze",
        "RecurrentPPOLSTM, gru",
        "1 / 0.5",
        "0.95",
        "0.91, 0.92, 0.96",
        "0.7",  # mean of 0.5, 0.6 and 1.0
        "20 k",  # medians
        "4",
        "200 k",
    ]
    cells = [cell.strip() for cell in pole.strip("|").split("|")]
    assert cells[0] == "pole" and cells[6:8] == ["2 of 3 seeds", "-"]
    assert "?" in format_table(rows, {"maze": [outcome(1, memoryless_return=None)]})


def test_end_to_end(command, tiny, cwd, monkeypatch, child_environment):
    """One row, one seed; the second time nothing is trained again."""
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, child_environment[name])
    (cwd / "page.md").write_text("\n".join(["Title", *MARKERS, "End"]))
    sizes = [size for size in tiny if not size.startswith("evaluate_every")]
    overrides = ",".join(f"'{size}'" for size in [*sizes, "evaluate_every=8", "evaluate_episodes=2", "threshold=-9"])
    row = f"table.small={{experiment:t_maze_10,overrides:[{overrides}],label:Small}}"
    arguments = row, "rows=[small]", "seeds=[1]", "output=out", "plot=docs/curves.png", "page=page.md"

    ended = command("learning_table", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert (cwd / "docs/curves.png").stat().st_size > 5000
    table = (cwd / "out/table.md").read_text()
    assert len(table.splitlines()) == 3 and "| Small | RecurrentPPOLSTM, lstm | 1 / 0.5 | -9 |" in table
    assert table in ended.out and table in (cwd / "page.md").read_text()
    raw = json.loads((cwd / "out/table.json").read_text())
    assert raw == {"small": [json.loads((cwd / "out/small/seed1/result.json").read_text())]}
    assert raw["small"][0]["env_steps"] == 8

    def no_process(*arguments, **options):
        raise AssertionError("a finished run was started again")

    (cwd / "out/table.md").unlink()
    monkeypatch.setattr(runs.subprocess, "run", no_process)
    assert command("learning_table", *arguments).code == 0
    assert (cwd / "out/table.md").read_text() == table
    ended = command("learning_table", arguments[0].replace("num_steps=4", "num_steps=8"), *arguments[1:])
    assert ended.code == 1
    assert ended.err.startswith(
        "learning_table: out/small/seed1 was run with num_steps=4, the row small with 8: delete"
    )


def test_a_failing_run_says_why(command, cwd, monkeypatch, child_environment):
    monkeypatch.setenv("PYTHONPATH", child_environment["PYTHONPATH"])
    row = "table.bad={experiment:t_maze_10,overrides:['agent.clib=1']}"
    ended = command("learning_table", row, "rows=[bad]", "seeds=[1]", "output=out", "page=null")
    assert ended.code == 1 and ended.err.count("\n") == 1
    assert "agent.clib=1" in ended.err
    assert ended.err.endswith(" failed: train: there is no key 'agent.clib'; did you mean clip?\n")
