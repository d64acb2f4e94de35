"""``progress.csv``: rows, columns that are added, and what a killed run left."""

import csv

from rl.training.observers import CSV


def rows_of(run):
    with (run.run_dir / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(run, *reports):
    observer = CSV()
    observer.begin(run, {})
    for step, values in reports:
        observer.report(values, step)
    observer.end(None)


def test_a_row_for_each_report(make_run):
    run = make_run()
    write(run, (8, {"a": 0.1, "b": 2}), (16, {"a": float("nan"), "b": 1e-30}))
    assert (run.run_dir / "progress.csv").read_text() == "env_steps,a,b\n8,0.1,2\n16,nan,1e-30\n"


def test_columns_are_added_when_their_tags_come(make_run):
    run = make_run()
    write(run, (8, {"a": 1.0}), (8, {"eval/x": 2.0}), (16, {"a": 3.0}), (24, {"b,c": 4.0, "a": 5.0}))
    assert rows_of(run) == [
        {"env_steps": "8", "a": "1.0", "eval/x": "", "b,c": ""},
        {"env_steps": "8", "a": "", "eval/x": "2.0", "b,c": ""},
        {"env_steps": "16", "a": "3.0", "eval/x": "", "b,c": ""},
        {"env_steps": "24", "a": "5.0", "eval/x": "", "b,c": "4.0"},
    ]


def test_a_row_is_written_at_once(make_run):
    run, observer = make_run(), CSV()
    observer.begin(run, {})
    for step in (8, 16):
        observer.report({"a": 1.0}, step)
        assert rows_of(run)[-1] == {"env_steps": str(step), "a": "1.0"}


def test_a_run_that_goes_on_has_no_doubles(make_run):
    """It was killed after step 24, its last checkpoint is of step 16; the new rows have one column more."""
    write(make_run(), (8, {"a": 1.0}), (16, {"a": 2.0}), (24, {"a": 3.0}))
    write(make_run(16), (24, {"a": 4.0, "b": 5.0}))
    assert [(row["env_steps"], row["a"], row["b"]) for row in rows_of(make_run())] == [
        ("8", "1.0", ""),
        ("16", "2.0", ""),
        ("24", "4.0", "5.0"),
    ]


def test_wherever_a_row_broke_off(make_run):
    """The file of a killed run may end at any byte of its last row: with step 16 whole, or without it."""
    run = make_run()
    write(run, (8, {"a": 1.25, "b": 7.0}), (16, {"a": 2.5, "b": 8.0}))
    path = run.run_dir / "progress.csv"
    whole = path.read_bytes()
    for length in range(whole.index(b"\n16") + 1, len(whole) + 1):
        path.write_bytes(whole[:length])
        write(make_run(16), (24, {"a": 3.0, "b": 9.0}))
        steps = [row["env_steps"] for row in rows_of(run)]
        assert steps == (["8", "16", "24"] if length == len(whole) else ["8", "24"])
        assert all(len(row) == 3 and None not in row.values() for row in rows_of(run))


def test_a_new_run_in_the_same_folder_begins_anew(make_run):
    write(make_run(), (8, {"a": 1.0}))
    write(make_run(), (8, {"b": 2.0}))
    assert rows_of(make_run()) == [{"env_steps": "8", "b": "2.0"}]
