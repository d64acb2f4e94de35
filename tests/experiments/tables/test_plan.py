"""What a command that fills a table is asked for, and where the table goes."""

import json

import pytest
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.tables.plan import check_rows, insert_table, read_env_keys, read_plan

MARKERS = "<!-- begin -->", "<!-- end -->"
TABLE = {"hard": {"task": 1, "default": False}, "long": {"task": 2, "label": "Long"}, "short": {"task": 3}}


@pytest.fixture
def plan(cwd):
    """``plan(key=value)``: what is read of a configuration with these keys."""

    def read(**keys):
        usual = {"table": TABLE, "rows": [], "seeds": [1, 2], "jobs": 2, "output": "out", "page": None}
        return read_plan(OmegaConf.create(usual | keys), MARKERS, ("task",), ("task",))

    return read


def test_rows_stand_in_the_order_of_the_table(plan, cwd):
    found = plan()
    assert (found.rows, found.seeds, found.jobs) == ({name: TABLE[name] for name in ("long", "short")}, [1, 2], 2)
    assert found.folder.resolve() == (cwd / "out").resolve() and found.folder.is_dir() and found.page is None
    assert list(plan(rows=["short", "hard"]).rows) == ["hard", "short"]  # one that is not run by default, asked for
    assert plan(seeds=7).seeds == [7]


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"rows": ["shrt"]}, "rows: there is no row 'shrt'; did you mean short?"),
        ({"seeds": []}, "seeds is empty"),
        ({"jobs": 0}, "jobs=0: it must be a whole number of at least 1"),
        ({"table": {"a": 3}}, "table.a=3: it must have keys with values, of task, label, default"),
        ({"table": {"a": {"task": 1, "tusk": 2}}}, "there is no key 'table.a.tusk'; did you mean task?"),
        ({"table": {"a": {"label": "A"}}}, "table.a.task is missing"),
        ({"table": {"a": {"task": 1, "default": "no"}}}, "table.a.default='no' is not true or false"),
    ],
)
def test_what_cannot_be_is_refused(plan, keys, sentence):
    with pytest.raises(ValueError) as raised:
        plan(**keys)
    assert str(raised.value) == sentence


def test_keys_of_the_environment_are_those_alone():
    check_rows({"a": {"where": ["env=t_maze", "env.length=3"]}}, ["where"])
    assert read_env_keys({"where": ["env=t_maze", "env.length=3"]}, "where", "a") == ["env=t_maze", "env.length=3"]
    for wrong in (["env=t_maze", "agent.clip=0.1"], [], "env=t_maze"):
        with pytest.raises(ConfigError, match=r"table.a.where=.*: it must be a list of keys of the environment"):
            read_env_keys({"where": wrong}, "where", "a")


def test_a_table_is_written_and_published(plan, cwd, capsys):
    """Where runs failed it is written, with the reasons, but not published."""
    (cwd / "page.md").write_text("\n".join(["Title", *MARKERS, "End"]))
    found = plan(page="page.md")
    found.write("| a |\n", {"runs": 1}, ["long: it fell"])
    text = "| a |\n\nfailed: long: it fell\n"
    assert (cwd / "out/table.md").read_text() == text and capsys.readouterr().out == f"{text}\n"
    assert json.loads((cwd / "out/table.json").read_text()) == {"runs": 1}
    with pytest.raises(RuntimeError, match=r"^1 of 4 runs failed: long: it fell$"):
        found.publish("| a |\n", ["long: it fell"], 4)
    assert (cwd / "page.md").read_text() == "\n".join(["Title", *MARKERS, "End"])
    found.publish("| a |\n", [], 4)
    assert (cwd / "page.md").read_text() == f"Title\n{MARKERS[0]}\n| a |\n{MARKERS[1]}\nEnd"


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
