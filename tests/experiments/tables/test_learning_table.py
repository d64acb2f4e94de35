"""``python -m experiments.learning_table``."""

import json
from pathlib import Path

import pytest
from hydra import initialize_config_module
from matplotlib import image
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.tables import learning_table, runs
from experiments.tables.learning_table import (
    KEYS,
    MARKERS,
    NEEDED,
    check_elsewhere,
    draw_row,
    plot_rows,
    read_elsewhere,
    read_row,
    train_row,
)
from experiments.tables.plan import check_rows

ROWS = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[3] / "conf/learning_table.yaml").table)


@pytest.fixture
def composing():
    """A place in which configurations can be composed, as a command has."""
    with initialize_config_module("conf", version_base="1.3"):
        yield


def test_end_to_end(command, tiny, cwd, monkeypatch, child_environment):
    """One row, one seed; the second time nothing is trained again."""
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, child_environment[name])
    (cwd / "page.md").write_text("\n".join(["Title", *MARKERS, "End"]))
    sizes = [size for size in tiny if not size.startswith("evaluate_every")]
    overrides = ",".join(f"'{size}'" for size in [*sizes, "evaluate_every=8", "evaluate_episodes=2", "threshold=-9"])
    row = f"table.small={{experiment:t_maze_10,overrides:[{overrides}],label:Small}}"
    arguments = row, "rows=[small]", "seeds=[1]", "output=out", "plot=docs/curves.png", "page=page.md"
    arguments += ("gallery=docs/gallery",)

    ended = command("learning_table", *arguments)
    assert (ended.code, ended.err) == (0, "")
    assert (cwd / "docs/curves.png").stat().st_size > 5000
    assert image.imread(cwd / "docs/gallery/small.png").shape[:2] == (330, 462)
    table = (cwd / "out/table.md").read_text()
    assert len(table.splitlines()) == 3 and "| Small | RecurrentPPOLSTM, lstm | 1 / 0.5 | -9 |" in table
    assert table in ended.out and table in (cwd / "page.md").read_text()
    raw = json.loads((cwd / "out/table.json").read_text())["small"]
    assert raw["runs"] == [json.loads((cwd / "out/small/seed1/result.json").read_text())]
    assert raw["runs"][0]["env_steps"] == 8 and raw["summary"]["reached"] == 1

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
    ended = command("learning_table", row, "rows=[bad]", "seeds=[1]", "output=out")
    assert ended.code == 1 and ended.err.count("\n") == 1
    assert "agent.clib=1" in ended.err
    assert ended.err.endswith(" failed: train: there is no key 'agent.clib'; did you mean clip?\n")


def test_rows_that_are_played_elsewhere(command, tiny, cwd):
    """Trained once, played once, and read from then on; as many episodes as the run ended with."""
    asked = []

    class Children:
        def run_module(self, module, name, *arguments):
            asked.append(name)
            assert command(name.removeprefix("experiments."), *arguments).code == 0

    row = {"experiment": "t_maze_10", "overrides": [*tiny, "evaluate_every=8"], "evaluate": ["env.length=1"]}
    overrides, target = row["evaluate"], Path("out/far/seed3")
    train_row(Children(), Path("out"), "far", row, 3, overrides)
    train_row(Children(), Path("out"), "far", row, 3, overrides)
    assert asked == ["experiments.train", "experiments.evaluate"]
    content = read_row(Path("out"), "far", row, [3], overrides)
    rows = json.loads((target / "evaluation.json").read_text())
    assert {row["episodes"] for row in rows} == {content["runs"][0]["eval_episodes"]}
    assert content["elsewhere"] == [rows[4] | {"memory_zeroed": rows[5]["mean"]}]
    assert content["summary"]["elsewhere"]["final_return"]["value"] == rows[4]["mean"]

    stale = {"seed 4": (4, overrides), "another place": (3, ["env.length=2"])}
    assert {name: read_elsewhere(target, *other) for name, other in stale.items()} == dict.fromkeys(stale)
    result = json.loads((target / "result.json").read_text())
    (target / "result.json").write_text(json.dumps(result | {"env_steps": 16}))  # it was trained on
    assert read_elsewhere(target, 3, overrides) is None
    (target / "evaluation.json").write_text("[{")
    assert read_elsewhere(target, 3, overrides) is None


def test_runs_in_one_environment_share_a_panel_titled_as_the_first_row(monkeypatch):
    places = {"a": ("TMaze", "lstm"), "b": ("TMaze", "lstm"), "c": ("Pole", "gru")}
    drawn = {}
    monkeypatch.setattr(learning_table, "label_run", lambda folder: places[folder.parent.name])
    monkeypatch.setattr(learning_table, "read_curve", lambda folder, tag: str(folder))
    monkeypatch.setattr(learning_table, "read_result", lambda folder: {"threshold": 0.9, "memoryless_return": None})
    monkeypatch.setattr(learning_table, "draw_curves", lambda *given: drawn.update(panels=given[0], levels=given[3]))
    plot_rows(Path("out"), {"a": {"label": "Maze"}, "b": {"label": "Maze 2", "suffix": ", far"}, "c": {}}, [1], Path())
    assert drawn["panels"] == {
        "Maze": {"lstm": ["out/a/seed1"], "lstm, far": ["out/b/seed1"]},
        "Pole": {"gru": ["out/c/seed1"]},
    }
    assert drawn["levels"] == {"Maze": {"threshold": 0.9}, "Pole": {"threshold": 0.9}}
    plot_rows(Path("out"), {"a": {"label": "Task"}, "c": {"label": "Task"}}, [1], Path())  # which are two
    assert list(drawn["panels"]) == ["Task", "Pole"]

    titles = []
    monkeypatch.setattr(learning_table, "draw_memory", lambda groups, *given, **options: titles.extend(groups))
    for name, row in {"a": {"label": "Maze", "suffix": ", far"}, "c": {}}.items():
        draw_row([Path("out") / name / "seed1"], row, Path("picture.png"))
    assert titles == ["Maze\nlstm, far", "Pole\ngru"]


def test_the_rows_of_the_table_can_be_played_where_they_say(composing):
    check_rows(ROWS, KEYS, NEEDED)
    found = {name: check_elsewhere(name, row) for name, row in ROWS.items() if "evaluate" in row}
    assert found == {name: ROWS[name]["evaluate"] for name in found} and len(found) >= 2


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"evaluate": ["env.lenght=3"]}, "there is no key 'env.lenght'; did you mean length"),
        ({"evaluate": ["env.passive=false"]}, "env.passive=false: the actions there are Discrete.4., those of"),
        ({"evaluate": ["episodes=3"]}, "table.far.evaluate=.*: it must be a list of keys of the environment"),
        ({"evaluate": []}, "table.far.evaluate=.*: it must be a list of keys of the environment"),
        ({"evaluate": ["env.length=3"], "overrides": ["final_episodes=0"]}, "final_episodes=0: it must be a whole"),
        ({"controls": True}, "there is no key 'table.far.controls'; did you mean control"),
    ],
    ids=["key", "spaces", "no environment", "nothing", "no episodes", "row"],
)
def test_rows_that_cannot_be_are_refused(composing, row, sentence):
    with pytest.raises((ConfigError, ValueError), match=sentence):
        check_rows({"far": {"experiment": "t_maze_10"} | row}, KEYS, NEEDED)
        check_elsewhere("far", {"experiment": "t_maze_10"} | row)
