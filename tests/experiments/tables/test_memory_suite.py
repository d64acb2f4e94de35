"""``python -m experiments.memory_suite``: what is run and reported."""

import json
import sys

import pytest
from matplotlib import image
from torch.utils.tensorboard import SummaryWriter

from experiments.tables import entries, memory_suite
from experiments.tables.memory_suite import MARKERS, format_tables
from experiments.tables.runs import Children

SETTINGS = (
    *("num_envs=2", "num_steps=4", "evaluate_episodes=2", "final_episodes=2"),
    *("agent.bptt=4", "agent.num_minibatches=1", "agent.epochs=1", "agent.layer_size=4", "agent.core.hidden_size=4"),
)
TINY = f"overrides=[{','.join(repr(word) for word in SETTINGS)}]"
TWO = "rows=[repeat_first_easy,rock_sample]", "cores=[mlp,gru]"
HERE = "output=out", "plot=docs/suite.png", "page=page.md", "jobs=1"


@pytest.fixture
def page(cwd):
    path = cwd / "page.md"
    path.write_text("\n".join(["Title", *MARKERS, "End"]))
    return path


def leave_run(target, final, zeroed, seconds=2.0, total=500_000):
    """What a finished run leaves that is read of it."""
    target.mkdir(parents=True)
    result = {"env_steps": total, "total_steps": total, "training_seconds": seconds}
    result |= {"eval_return_mean": final, "memory_zeroed_return_mean": zeroed}
    result |= {"optimal_return": 1.0, "memoryless_return": -0.4994}
    (target / "result.json").write_text(json.dumps(result))
    (target / "config.yaml").write_text("num_envs: 2\n")
    with SummaryWriter(str(target)) as writer:
        for step in (0, total // 2, total):
            writer.add_scalar("eval/episodic_return", final * step / total, step)


@pytest.fixture
def made_up(monkeypatch, page):
    """The trainings are made up: the list of those that were asked for, as module and folder."""
    asked = []

    def run_module(children, child, module, *words):
        target = next(word.partition("=")[2] for word in words if word.startswith(("run_dir=", "--folder=")))
        asked.append((module, target))
        seed = int(target[-1])
        core = {"mlp": -0.5, "gru": 0.5, "sb3-contrib": 0.25}[target.split("/")[2]]
        leave_run(page.parent / target, core + 0.1 * seed, core - 1)

    monkeypatch.setattr(Children, "run_module", run_module)
    return asked


def test_markdown():
    """1, 2, 6: mean 3, standard error sqrt(7 / 3) = 1.53. What was not to be trained has a dash."""

    def row(task, column, returns, **changes):
        known = {"label": task.upper(), "budget": 500_000, "optimal_return": 1.0, "memoryless_return": None}
        numbers = {"return": returns, "memory_zeroed": [-each for each in returns], "seconds": [60.0] * len(returns)}
        return {"task": task, "column": column, "wanted": 3} | known | numbers | changes

    unknown = {"optimal_return": None}
    rows = [row("a", "mlp", [], **unknown), row("a", "gru", [1.0, 2.0, 6.0]), row("a", "sb3-contrib", [0.5] * 3)]
    rows += [row("b", "mlp", [2.0, 4.0], **unknown), row("b", "gru", [0.0] * 3, **unknown)]
    found = [part for part in format_tables(rows, ["mlp", "gru", "sb3-contrib"]).split("\n\n")]
    assert found[::2] == [f"{title}:" for title in memory_suite.QUANTITIES.values()]
    returns, zeroed, seconds = (table.splitlines() for table in found[1::2])
    assert returns == [
        "| task | budget | best / memoryless | mlp | gru | sb3-contrib |",
        "| --- | --- | --- | --- | --- | --- |",
        "| A | 500 k | 1 / ? | failed | 3 +- 1.5 | 0.5 +- 0 |",
        "| B | 500 k | ? / ? | 3 +- 1 (2 of 3 seeds) | 0 +- 0 | - |",
    ]
    assert zeroed[2] == "| A | 500 k | 1 / ? | failed | -3 +- 1.5 | -0.5 +- 0 |"
    assert seconds[2] == "| A | 500 k | 1 / ? | failed | 60 +- 0 | 60 +- 0 |"


def test_what_was_run_is_reported(command, cwd, page, made_up, monkeypatch):
    """Whole seeds one after the other; a program beside the cores on the rows that name it."""
    monkeypatch.setattr(entries, "find_spec", lambda name: name)
    ended = command("memory_suite", *TWO, *HERE, "seeds=[1,2,3]", "peers=[sb3-contrib]", TINY)
    assert (ended.code, ended.err) == (0, "")
    columns = {"repeat_first_easy": ("mlp", "gru", "sb3-contrib"), "rock_sample": ("mlp", "gru")}
    folders = [f"out/{row}/{name}/seed{seed}" for seed in (1, 2, 3) for row in columns for name in columns[row]]
    assert [target for _, target in made_up] == folders
    modules = {module for module, target in made_up if "sb3-contrib" in target}
    assert modules == {"experiments.peers.sb3_tasks"} and len({module for module, _ in made_up}) == 2
    table = (cwd / "out/table.md").read_text()
    # 0.6, 0.7, 0.8: standard error 0.1 / sqrt(3) = 0.0577
    head = "RepeatFirst easy | 500 k | 1 / -0.4994"
    assert f"| {head} | -0.3 +- 0.058 | 0.7 +- 0.058 | 0.45 +- 0.058 |" in table
    assert f"| {head} | -1.5 +- 0 | -0.5 +- 0 | -0.75 +- 0 |" in table
    assert "| RockSample 11, 11 | 500 k | 1 / -0.4994 | -0.3 +- 0.058 | 0.7 +- 0.058 | - |" in table
    assert table in ended.out and page.read_text() == f"Title\n{MARKERS[0]}\n{table}{MARKERS[1]}\nEnd"
    content = json.loads((cwd / "out/table.json").read_text())
    assert (content["seeds"], content["failures"], len(content["rows"])) == ([1, 2, 3], [], 5)
    first = content["rows"][1]
    assert (first["task"], first["column"], first["return"]) == ("repeat_first_easy", "gru", [0.6, 0.7, 0.8])
    assert image.imread(cwd / "docs/suite.png").shape[:2] == (330, 924)  # two panels

    made_up.clear()
    assert command("memory_suite", *TWO, *HERE, "seeds=[1,2,3]", TINY).code == 0
    assert made_up == []


def test_without_plot_and_page(command, cwd, page, made_up):
    before = page.read_text()
    assert command("memory_suite", *TWO, *HERE, "seeds=[1]", "plot=null", "page=null", TINY).code == 0
    assert page.read_text() == before and not (cwd / "docs").exists() and (cwd / "out/table.md").is_file()


def test_a_line_for_each_core_and_a_panel_for_each_task(command, page, made_up, monkeypatch):
    drawn = []
    monkeypatch.setattr(memory_suite, "draw_curves", lambda *arguments, **_: drawn.append(arguments))
    assert command("memory_suite", *TWO, *HERE, "seeds=[1,2]", TINY).code == 0
    ((panels, tag, output, levels),) = drawn
    assert {panel: {*lines} for panel, lines in panels.items()} == {
        "RepeatFirst easy": {"mlp", "gru"},
        "RockSample 11, 11": {"mlp", "gru"},
    }
    curves = panels["RepeatFirst easy"]["gru"]
    assert [values[-1] for _, values in curves] == pytest.approx([0.6, 0.7]) and len(curves[0][0]) == 3
    assert tag == "eval/episodic_return" and str(output) == "docs/suite.png"
    assert levels["RepeatFirst easy"] == {"best": 1.0, "memoryless": -0.4994}


def test_runs_that_fail_do_not_stop_the_others(command, cwd, page, monkeypatch):
    """They keep the page from being changed, and nothing is drawn where there is no curve."""
    before = page.read_text()

    def run_module(children, child, module, *words):
        raise RuntimeError("it fell")

    monkeypatch.setattr(Children, "run_module", run_module)
    ended = command("memory_suite", *TWO, *HERE, "seeds=[1]", TINY)
    failures = [
        f"{row}, {core}, seed 1: it fell" for row in ("repeat_first_easy", "rock_sample") for core in ("mlp", "gru")
    ]
    assert ended.err == f"memory_suite: 4 of 4 runs failed: {'; '.join(failures)}\n" and ended.code == 1
    assert "| RockSample 11, 11 | 500 k | ? / ? | failed | failed |" in (cwd / "out/table.md").read_text()
    assert page.read_text() == before and not (cwd / "docs/suite.png").exists()


def test_runs_of_other_settings_are_refused(command, cwd, page, made_up):
    target = cwd / "out/rock_sample/gru/seed2"
    target.mkdir(parents=True)
    (target / "config.yaml").write_text("seed: 2\nnum_steps: 8\n")
    ended = command("memory_suite", *TWO, *HERE, "seeds=[1,2]", TINY)
    assert ended.code == 1 and made_up == []
    assert ended.err.startswith(
        "memory_suite: out/rock_sample/gru/seed2 was run with num_steps=8, the row rock_sample with 4: delete it"
    )


def test_what_draws_is_looked_for_before_anything_is_trained(command, page, made_up, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in ("memory_suite", "learning_table"):
        ended = command(name, *(TWO if name == "memory_suite" else ["rows=[t_maze_10]", "seeds=[1]"]))
        assert ended.err == f'{name}: plots need matplotlib: pip install "recurrent-ppo[plot]"\n' and made_up == []
    assert command("memory_suite", *TWO, *HERE, "seeds=[1]", "plot=null", TINY).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rows=[rock_sampel]",), "rows: there is no row 'rock_sampel'; did you mean rock_sample?"),
        (("cores=[gro]",), "cores: there is no core 'gro'; did you mean gru?"),
        (("core_overrides.mpl=['agent.bptt=64']",), "core_overrides: there is no core 'mpl'; did you mean mlp?"),
        (("peers=[sb3]",), "peers: there is no program 'sb3'"),
        (("plot=page.md/suite.png",), "plot=page.md/suite.png cannot be written"),
        (("table.rock_sample.bugdet=3",), "there is no key 'table.rock_sample.bugdet'; did you mean budget?"),
        (("overrides=['agent.clib=1']",), "there is no key 'agent.clib'; did you mean clip?"),
    ],
)
def test_bad_input(command, cwd, page, made_up, arguments, message):
    """Nothing is trained, nothing is written."""
    ended = command("memory_suite", *TWO, *HERE, TINY, *arguments)
    assert ended.code == 1 and ended.err.count("\n") == 1 and message in ended.err
    assert made_up == [] and not (cwd / "out").exists()


def test_end_to_end(command, cwd, page, monkeypatch, child_environment):
    """Two tasks, one core; the second time nothing is trained again."""
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, child_environment[name])
    budgets = [f"table.{row}.budget=16" for row in ("repeat_first_easy", "rock_sample")]
    arguments = TWO[0], "cores=[gru]", *HERE, "seeds=[1]", TINY, *budgets
    ended = command("memory_suite", *arguments)
    assert (ended.code, ended.err) == (0, "")
    rows = json.loads((cwd / "out/table.json").read_text())["rows"]
    results = [json.loads((cwd / f"out/{row['task']}/gru/seed1/result.json").read_text()) for row in rows]
    assert [row["return"] for row in rows] == [[result["eval_return_mean"]] for result in results]
    assert [row["memory_zeroed"] for row in rows] == [[result["memory_zeroed_return_mean"]] for result in results]
    assert [result["env_steps"] for result in results] == [16, 16] and (cwd / "docs/suite.png").is_file()

    monkeypatch.setattr(Children, "run_module", lambda *_: pytest.fail("a finished run was started again"))
    assert command("memory_suite", *arguments).code == 0
