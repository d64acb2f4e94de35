"""``python -m experiments.compare_cores``: what is compared, run and reported."""

import json

import pytest
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.tables import compare_cores
from experiments.tables.compare_cores import MARKERS, check_comparable, format_seeds, format_tables, time_actions
from experiments.tables.equal_cores import Entry
from experiments.tables.runs import Children, locate_run

ROW = "table.small={{experiment:t_maze_10,overrides:[{}],label:Small}}"


BATCH = {"num_envs": 8, "agent": {"bptt": 4, "state_stride": 1, "core": {"hidden_size": 3}}}


def entry(core, settings, free=(), task="maze"):
    node = "agent.core.hidden_size"
    return Entry(task, core, "train", [], {node: 3, "parameters": 7} | settings, set(free), None, [])


def test_unequal_batches_are_refused(tmp_path):
    same = {"num_envs": 8, "agent.bptt": 4, "agent.state_stride": 1}
    one = entry("gru", same)
    other = entry(
        "mamba", same | {"agent.state_stride": 4, "agent.core.hidden_size": 2, "parameters": 8}, ["agent.state_stride"]
    )
    check_comparable([one, other, entry("gru", same | {"num_envs": 1}, task="another")], tmp_path, [1, 2])
    with pytest.raises(ConfigError, match=r"maze: lstm has agent\.bptt=2, gru has 4; only equal batches are compared"):
        check_comparable([one, entry("lstm", same | {"agent.bptt": 2})], tmp_path, [1])

    for seed in (1, 2):
        target = locate_run(tmp_path / "maze", "gru", seed)
        target.mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(BATCH | {"seed": seed, "run_dir": str(target)}), target / "config.yaml")
        (target / "result.json").write_text('{"parameters": 7}')
    check_comparable([one, other], tmp_path, [1, 2])
    changed = BATCH | {"num_envs": 16}
    OmegaConf.save(OmegaConf.create(changed), target / "config.yaml")
    check_comparable([one, other], tmp_path, [1])
    with pytest.raises(ConfigError, match=r"gru/seed2 was run with num_envs=16, the others of maze with 8"):
        check_comparable([one, other], tmp_path, [1, 2])
    OmegaConf.save(OmegaConf.create(BATCH), target / "config.yaml")
    (target / "result.json").write_text('{"parameters": 9}')
    with pytest.raises(ConfigError, match=r"gru/seed2 was run with parameters=9, the others of maze with 7"):
        check_comparable([one, other], tmp_path, [1, 2])


def outcome(task, core, returns, **changes):
    return {
        "task": task,
        "core": core,
        "hidden_size": 64,
        "parameters": 25540,
        "wanted": 3,
        "return": returns,
        "speed": [1000.0, 2000.0, 6000.0][: len(returns)],
        "peak_mb": [300.0] * len(returns),
        "latency_ms": 0.12345,
        "state_bytes": 10336,
        **changes,
    }


def test_markdown():
    rows = [outcome("a", "gru", [1.0, 2.0, 6.0]), outcome("b", "gru", [-150.0, -250.0]), outcome("a", "mlp", [])]
    rows.append(outcome("b", "mlp", [0.5, 0.5, 0.5], latency_ms=2.0))
    text = format_tables(rows, {"a": "Task A", "b": "Task B", "c": "not chosen"})
    learned, sizes, speed, latency, peak, state = (table.splitlines() for table in text.split("\n\n"))
    # 1, 2, 6: mean 3, sum of squares 4 + 1 + 9 = 14, 14 / 2 = 7, sqrt(7 / 3) = 1.53
    assert learned == [
        "| return | Task A | Task B |",
        "| --- | --- | --- |",
        "| gru | 3 +- 1.5 | -200 +- 50 (2 of 3 seeds) |",
        "| mlp | failed | 0.5 +- 0 |",
    ]
    assert sizes[2] == "| gru | 25,540 (64) | 25,540 (64) |"
    assert speed[2] == "| gru | 3,000 +- 1,528 | 1,500 +- 500 (2 of 3 seeds) |"
    assert latency[2:] == ["| gru | 0.123 | 0.123 |", "| mlp | 0.123 | 2 |"]
    assert peak[2].startswith("| gru | 300 +- 0 |") and state[2] == "| gru | 10,336 | 10,336 |"
    assert format_seeds([2.5], 1) == "2.5"


def test_actions_are_timed_in_turns(monkeypatch):
    turns = []
    monkeypatch.setattr(compare_cores, "EARLY_STEP", 3)
    monkeypatch.setattr(compare_cores, "BLOCK", 2)

    def play(player, frames, steps):
        turns.append((player, steps))
        return [float(player)] * steps

    monkeypatch.setattr(compare_cores, "time_steps", play)
    players = [Entry(task, "core", "train", [], {}, set(), player, []) for player, task in enumerate("aba")]
    assert time_actions(players, 3) == [0.0, 1.0, 2.0]
    assert turns == [(0, 3), (2, 3), (0, 2), (2, 2), (0, 1), (2, 1), (1, 3), (1, 2), (1, 1)]


@pytest.fixture
def small(tiny, cwd, monkeypatch, child_environment):
    """``small(override, ...)``: arguments for a row of tiny runs."""
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, child_environment[name])
    (cwd / "docs").mkdir(exist_ok=True)
    (cwd / "docs/cores.md").write_text("\n".join(["Title", *MARKERS, "End"]))
    sizes = [size for size in tiny if not size.startswith("agent.core.hidden_size")]

    def arguments(*more):
        row = ROW.format(",".join(f"'{size}'" for size in [*sizes, *more]))
        return row, "rows=[small]", "seeds=[1]", "output=out", "page=docs/cores.md", "latency_steps=3", "jobs=1"

    return arguments


def test_end_to_end(command, cwd, small, monkeypatch):
    """Two cores; the second time nothing is trained again, and runs of another table are refused."""
    monkeypatch.setattr(compare_cores, "EARLY_STEP", 1)
    arguments = *small(), "cores=[mlp,attention]"
    ended = command("compare_cores", *arguments)
    assert (ended.code, ended.err) == (0, "")
    table = (cwd / "out/table.md").read_text()
    assert (
        table in ended.out and (cwd / "docs/cores.md").read_text() == f"Title\n{MARKERS[0]}\n{table}{MARKERS[1]}\nEnd"
    )
    content = json.loads((cwd / "out/table.json").read_text())
    assert (content["seeds"], content["reference"], content["failures"]) == ([1], "gru", [])
    mlp, attention = content["rows"]
    result = json.loads((cwd / "out/small/attention/seed1/result.json").read_text())
    assert (mlp["core"], attention["core"]) == ("mlp", "attention")
    assert attention["parameters"] == result["parameters"] and attention["return"] == [result["eval_return_mean"]]
    assert attention["speed"] == [result["steps_per_second"]] and mlp["state_bytes"] == 0
    assert 50 < mlp["peak_mb"][0] < 2000 and 0 < mlp["latency_ms"] < 100
    assert OmegaConf.load(cwd / "out/small/attention/seed1/config.yaml").agent.state_stride == 4

    def no_process(*_):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(Children, "run_module", no_process)
    assert command("compare_cores", *arguments).code == 0
    ended = command("compare_cores", *small("num_steps=8"), "cores=[mlp,attention]")
    assert ended.code == 1 and "out/small/mlp/seed1 was run with num_steps=4, the others of small with 8" in ended.err


def test_cores_take_turns(command, cwd, monkeypatch):
    """Seed by seed, so that a comparison that is stopped has whole seeds; runs that failed do not stop the others."""
    monkeypatch.setattr(compare_cores, "EARLY_STEP", 1)
    order = []

    def train(children, folder, entry, seed):
        order.append((seed, entry.task, entry.core))
        return None if entry.core == "gru" else f"{entry.task} {seed}"

    monkeypatch.setattr(compare_cores, "train_entry", train)
    arguments = "rows=[bandit_2,copy_4]", "cores=[gru,mlp]", "seeds=[1,2]", "jobs=1", "latency_steps=1"
    ended = command("compare_cores", *arguments)
    tasks = "copy_4", "bandit_2"  # in the order of the table
    assert order == [(seed, task, core) for seed in (1, 2) for task in tasks for core in ("gru", "mlp")]
    assert ended.err == "compare_cores: 4 of 8 runs failed: copy_4 1; bandit_2 1; copy_4 2; bandit_2 2\n"


def test_a_failing_run_says_why(command, cwd, small):
    """It does not keep the others from being reported, but the page from being changed."""
    before = (cwd / "docs/cores.md").read_text()
    ended = command("compare_cores", *small("init_from=nowhere"), "cores=[mlp]")
    assert ended.code == 1 and ended.err.count("\n") == 1
    assert ended.err.startswith("compare_cores: 1 of 1 runs failed: small, mlp, seed 1: ")
    assert "failed: train: init_from=nowhere" in ended.err
    assert "| mlp | failed |" in ended.out and "\nfailed: small, mlp, seed 1: " in (cwd / "out/table.md").read_text()
    assert (cwd / "docs/cores.md").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rows=[t_maze_11]",), "rows: there is no row 't_maze_11'; did you mean t_maze_10 or t_maze_30?"),
        (("cores=[gro]",), "cores: there is no core 'gro'; did you mean gru?"),
        (("reference=lstn",), "reference: there is no core 'lstn'; did you mean lstm?"),
        (("seeds=[]",), "seeds is empty"),
        (("seeds=[a]",), "seeds='a' is not a whole number"),
        (("jobs=0",), "jobs=0: it must be a whole number of at least 1"),
        (("tolerance=2",), "tolerance=2: it must be a number from 0 to 1"),
        (("page=docs/cores.md",), "docs/cores.md has no place for the table"),
        (
            ("rows=[copy_4]", "table.copy_4.command=trian"),
            "table.copy_4.command: there is no command 'trian'; did you mean",
        ),
        (
            ("rows=[copy_4]", "table.copy_4.overrides=['agent.clib=1']"),
            "there is no key 'agent.clib'; did you mean clip?",
        ),
        (
            ("rows=[copy_4]", "core_overrides.train.mlp=['num_envs=32']"),
            "copy_4: mlp has num_envs=32, gru has 64; only equal",
        ),
        (
            ("rows=[copy_4]", "cores=[jamba]", "table.copy_4.overrides=['agent.core.hidden_size=1']"),
            "copy_4: jamba comes nearest to the",
        ),
    ],
)
def test_bad_input(command, cwd, arguments, message, monkeypatch):
    """Nothing is trained, nothing is written."""
    monkeypatch.setattr(compare_cores, "train_entry", lambda *_: pytest.fail("a run was started"))
    (cwd / "docs").mkdir(exist_ok=True)
    (cwd / "docs/cores.md").write_text("no markers")
    ended = command("compare_cores", "cores=[gru,mlp]", *arguments)
    assert ended.code == 1 and ended.err.count("\n") == 1 and message in ended.err
    assert not list(cwd.rglob("result.json")) and not list(cwd.rglob("table.md"))
