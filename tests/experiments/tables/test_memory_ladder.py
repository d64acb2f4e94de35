"""``python -m experiments.memory_ladder``."""

import json
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from experiments.launch.check import ConfigError
from experiments.tables import entries, memory_ladder, runs
from experiments.tables.entries import Entry
from experiments.tables.memory_ladder import (
    MARKERS,
    draw_climbs,
    format_rung,
    format_task,
    list_rung,
    read_rungs,
    summarise_rung,
)
from experiments.tables.runs import CHILD, Children

TIMES = "steps_to_threshold", "seconds_to_threshold"
ROW = {"experiment": "t_maze_100", "key": "env.length", "label": "T-maze", "rungs": {30: 200, 10: 100}}


def summary(reached, seeds=3, steps=None, seconds=None, lowest=None):
    times = {"steps_to_bar": steps, "seconds_to_bar": seconds}
    return {"reached": reached, "seeds": seeds, "lowest": lowest} | times


def test_end_to_end(command, tiny, cwd, monkeypatch, child_environment):
    """Of two rungs the second is not tried if no seed learns the first; finished runs are kept."""
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, child_environment[name])
    (cwd / "page.md").write_text("\n".join(["Title", *MARKERS, "End"]))
    left_out = ("evaluate_every", "num_steps", "agent.bptt", "total_steps")
    sizes = [size for size in tiny if not size.startswith(left_out)]
    sizes += ["num_envs=2", "num_minibatches=1"] if "agent.num_minibatches=1" not in tiny else []
    overrides = ",".join(f"'{size}'" for size in [*sizes, "evaluate_every=64", "evaluate_episodes=2", "threshold=9"])
    ladder = "table.small={experiment:t_maze_100,key:env.length,label:Small,rungs:{2:64,4:64}}"
    arguments = (
        ladder,
        "rows=[small]",
        "cores=[gru]",
        "seeds=[1]",
        f"overrides=[{overrides}]",
        "output=out",
        "plot=ladder.png",
    )
    ended = command("memory_ladder", *arguments, "page=page.md")
    assert (ended.code, ended.err) == (0, "")
    table = (cwd / "out/table.md").read_text()
    assert table.splitlines() == ["| Small | length=2 | length=4 |", "| --- | --- | --- |", "| gru | 0 of 1 |  |"]
    assert table in ended.out and table in (cwd / "page.md").read_text()
    assert (cwd / "ladder.png").stat().st_size > 5000
    assert not (cwd / "out/small/gru/4").exists()
    ((delay, numbers),) = json.loads((cwd / "out/table.json").read_text())["small"]["gru"]
    assert (delay, numbers["reached"], numbers["bar"]) == (2, 0, 9)

    clipped = f"overrides=[{overrides},'agent.value_clip=0.2']"
    elsewhere = "output=clipped", "plot=null"
    assert command("memory_ladder", *arguments[:4], clipped, *elsewhere).code == 0
    ended = command("memory_ladder", *arguments[:4], f"overrides=[{overrides}]", *elsewhere)
    assert ended.code != 0 and "was run with agent.value_clip=0.2, the rung small/gru/2 with None" in ended.err

    def no_process(*arguments, **options):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(runs.subprocess, "run", no_process)
    assert command("memory_ladder", *arguments).code == 0
    ended = command("memory_ladder", *arguments, "core_overrides.gro=['agent.bptt=64']")
    assert ended.code == 1 and "core_overrides: there is no core 'gro'; did you mean gru?" in ended.err
    changed = [each.replace("threshold=9", "threshold=8") for each in arguments]
    ended = command("memory_ladder", *changed)
    assert ended.code != 0 and "was run with threshold=9" in ended.err


def test_a_run_that_fails_ends_its_climb_alone(command, cwd, monkeypatch):
    """What the others came to is in the folder, and not on the page; the next call makes what is missing."""
    (cwd / "page.md").write_text("\n".join(["Title", *MARKERS, "End"]))

    def run_module(children, child, module, *words):
        target = cwd / next(word.partition("=")[2] for word in words if word.startswith("run_dir="))
        if "/gru/4/" in str(target):
            raise RuntimeError("experiments.train failed: no memory is left")
        result = {"agent": "a", "core": "c", "optimal_return": 1.0, "memoryless_return": 0.5, "total_steps": 64}
        result |= {"eval_return_mean": 0.94, "memory_zeroed_return_mean": 0.5, "threshold": 0.95, "env_steps": 64}
        target.mkdir(parents=True)
        (target / "result.json").write_text(json.dumps(result | dict.fromkeys(TIMES, 2000.0)))

    monkeypatch.setattr(Children, "run_module", run_module)
    rungs = "{experiment:t_maze_100,key:env.length,label:Small,rungs:{2:64,4:64,8:64}}"
    sizes = "overrides=['num_envs=2','agent.num_minibatches=1']"
    arguments = (f"table.small={rungs}", "rows=[small]", "cores=[gru,lstm]", "seeds=[1,2]", "plot=null", "output=out")
    ended = command("memory_ladder", *arguments, sizes, "page=page.md")
    failure = "small/gru/4, seed 1: experiments.train failed: no memory is left"
    assert ended.code == 1 and f"1 of 2 climbs failed: {failure}" in ended.err
    table = (cwd / "out/table.md").read_text()
    assert table.splitlines()[2:4] == [
        "| gru | 2 of 2; 2 k, 2,000 s |  |  |",
        "| lstm | 2 of 2; 2 k, 2,000 s | 2 of 2; 2 k, 2,000 s | 2 of 2; 2 k, 2,000 s |",
    ]
    assert "\n\nThe lowest final return of a run that reached the bar is 0.94.\n" in table
    assert f"failed: {failure}" in table and "2 of 2" not in (cwd / "page.md").read_text()
    assert not [*cwd.glob("**/*.png")]


def test_another_program_and_cores_that_take_hours_climb_with_three_seeds(command, cwd, monkeypatch):
    """A program has the task, environments and steps of a rung, ends at the bar or in time, no settings of ours."""
    trained = []

    def run_module(children, child, module, *words):
        given = dict(word.removeprefix("--").split("=", 1) for word in words)
        target = cwd / given.get("folder", given.get("run_dir", ""))
        trained.append((module, given))
        found = 1.0 if "/2/" in str(target) else 0.0
        result = {"agent": "a", "core": "c", "optimal_return": 1.0, "memoryless_return": 0.5, "total_steps": 64}
        result |= {"eval_return_mean": found, "memory_zeroed_return_mean": 0.5, "threshold": 0.95, "env_steps": 64}
        result |= {"steps_to_threshold": 8192 if found else None, "seconds_to_threshold": 61.0 if found else None}
        target.mkdir(parents=True)
        (target / "result.json").write_text(json.dumps(result))

    monkeypatch.setattr(Children, "run_module", run_module)
    monkeypatch.setattr(entries, "find_spec", lambda name: name)
    rungs = "{experiment:t_maze_100,key:env.length,label:Small,rungs:{2:64,4:64},peers:[sb3-contrib]}"
    arguments = (
        *(f"table.small={rungs}", "rows=[small]", "cores=[gru,lstm]", "seeds=[4,5,6,7]", "jobs=1"),
        *(
            "few_seeds=[lstm]",
            "output=out",
            "plot=ladder.png",
            "overrides=['num_envs=2','agent.num_minibatches=1']",
            "peers=[sb3-contrib]",
            "max_seconds=9",
        ),
    )
    ended = command("memory_ladder", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert (cwd / "out/table.md").read_text().splitlines()[2:5] == [
        "| gru | 4 of 4; 8 k, 61 s | 0 of 3 |",
        "| lstm | 3 of 3; 8 k, 61 s | 0 of 3 |",
        "| sb3-contrib | 3 of 3; 8 k, 61 s | 0 of 3 |",
    ]
    others = [given for module, given in trained if module == "experiments.peers.sb3_tasks"]
    places = [(2, seed) for seed in (4, 5, 6)] + [(4, seed) for seed in (4, 5, 6)]
    assert [given["folder"] for given in others] == [f"out/small/sb3-contrib/{d}/seed{seed}" for d, seed in places]
    assert {key: others[0][key] for key in ("num-envs", "total-steps", "threshold", "max-seconds")} == {
        "num-envs": "64",
        "total-steps": "64",
        "threshold": "0.95",
        "max-seconds": "9.0",
    }
    assert json.loads(others[0]["env"])["length"] == 2
    for target in (cwd / "out").glob("*/*/*/*"):
        (target / "config.yaml").write_text("num_envs: 64\n" if "sb3" in str(target) else "num_envs: 2\n")
    trained.clear()
    assert command("memory_ladder", *arguments).code == 0 and trained == []
    ended = command("memory_ladder", *arguments, "few_seeds=[mamba]")
    assert ended.code == 1 and "few_seeds: there is no climb of 'mamba'" in ended.err
    ended = command("memory_ladder", *arguments, "max_seconds=0")
    assert ended.code == 1 and "max_seconds=0.0: it must be a number of at least 0.001" in ended.err
    ended = command("memory_ladder", *arguments, "overrides=['agent.clib=1']")
    assert ended.code == 1 and "there is no key 'agent.clib'; did you mean clip" in ended.err


@pytest.mark.parametrize(
    ("delay", "sequence", "envs"),
    [(2, 32, 64), (16, 32, 64), (17, 64, 64), (100, 256, 64), (512, 1024, 64), (1000, 2048, 32)],
)
def test_sequences_hold_whole_episodes(delay, sequence, envs):
    assert list_rung(ROW, delay, 6000) == [
        "experiment=t_maze_100",
        f"env.length={delay}",
        "total_steps=6000",
        "evaluate_every=200",
        "evaluate_episodes=100",
        "stop_at_threshold=true",
        f"num_envs={envs}",
        f"num_steps={sequence}",
        f"agent.bptt={sequence}",
        f"agent.memory_span={50 * sequence}",
        "agent.recall_coef=0.1",
    ]


@pytest.mark.parametrize(
    ("steps", "tried"),
    [([None, None, None, 9], 3), ([None, None, 9, None, None], 5), ([None, None], 2), ([9, None, None, None], 4)],
)
def test_a_rung_that_none_of_three_seeds_learns_is_left(steps, tried, monkeypatch):
    trained = []

    class Children:
        def try_module(self, name, *arguments):
            trained.append(arguments)

    monkeypatch.setattr(
        memory_ladder,
        "read_result",
        lambda target: {"steps_to_threshold": steps[int(target.name[4:])]},
    )
    rung = Entry("maze/gru/10", "gru", {}, lambda target, seed: ["train", f"{target}", f"{seed}"])
    results, failure = memory_ladder.train_rung(Children(), Path("out"), rung, list(range(len(steps))))
    assert failure is None and [each["steps_to_threshold"] for each in results] == steps[:tried]
    assert trained == [(CHILD, "train", f"out/maze/gru/10/seed{seed}", f"{seed}") for seed in range(tried)]


def test_what_counts_is_an_evaluation_at_the_bar():
    """The final return of the same agent over other episodes may be just below it; it is told."""
    shared = {"agent": "a", "core": "c", "optimal_return": 1.0, "memoryless_return": 0.5, "total_steps": 64}
    shared |= {"memory_zeroed_return_mean": 0.5, "threshold": 0.95}
    runs = [{"eval_return_mean": final} | dict.fromkeys(TIMES, 9) for final in (1.0, 0.94)]
    runs.append({"eval_return_mean": 0.5} | dict.fromkeys(TIMES))
    found = summarise_rung([shared | each for each in runs])
    assert (found["reached"], found["seeds"], found["steps_to_bar"], found["lowest"]) == (2, 3, 9, 0.94)
    assert summarise_rung([shared | runs[2]])["lowest"] is None


def test_rungs_are_climbed_from_below():
    assert list(read_rungs("maze", ROW["rungs"]).items()) == [(10, 100), (30, 200)]


@pytest.mark.parametrize(
    ("rungs", "sentence"),
    [
        ({}, "table.maze.rungs={}: it must be delays with their steps"),
        ([10], "it must be delays with their steps"),
        ({"far": 10}, "table.maze.rungs"),
        ({10: "many"}, "table.maze.rungs.10"),
    ],
)
def test_rungs_that_cannot_be_climbed_are_refused(rungs, sentence):
    with pytest.raises(ConfigError) as error:
        read_rungs("maze", rungs)
    assert sentence in str(error.value)


def test_cells():
    assert format_rung(summary(0)) == "0 of 3"
    assert format_rung(summary(2, steps=106_496, seconds=3.4)) == "2 of 3; 106 k, 3 s"
    climbs = {
        "gru": [(10, summary(3, steps=2_000, seconds=1.0, lowest=0.9664)), (30, summary(0))],
        "rnn": [(10, summary(0))],
    }
    assert format_task(ROW, [10, 30], climbs).splitlines() == [
        "| T-maze | length=10 | length=30 |",
        "| --- | --- | --- |",
        "| gru | 3 of 3; 2 k, 1 s | 0 of 3 |",
        "| rnn | 0 of 3 |  |",
        "",
        "The lowest final return of a run that reached the bar is 0.966.",
    ]


def test_a_climb_is_drawn_where_most_seeds_arrive(tmp_path, monkeypatch):
    drawn = []
    plot = Axes.plot

    def record(axis, x, y, *rest, **style):
        drawn.append((x, y, style, rest))
        return plot(axis, x, y, *rest, **style)

    monkeypatch.setattr(Axes, "plot", record)
    climbs = {"gru": [(10, summary(3, steps=2_000)), (30, summary(2, steps=5_000)), (100, summary(1))]}
    draw_climbs({"T-maze": climbs}, tmp_path / "ladder.png")
    line, full, hollow, cross = drawn
    assert line[:2] == ([10, 30], [2_000, 5_000]) and line[2]["label"] == "gru"
    assert full[:2] == (10, 2_000) and full[2]["markerfacecolor"] == "C0"
    assert hollow[:2] == (30, 5_000) and hollow[2]["markerfacecolor"] == "white"
    assert cross[0] == [100] and cross[3] == ("x",) and 0 < cross[1][0] < 1  # of the panel's height
