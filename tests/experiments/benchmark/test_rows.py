"""Rows, their processes and their tables."""

import sys
from functools import partial

import pytest

from experiments.benchmark.rows import Process, Row, close_rows, format_number, format_table

TOY = """#!{python}
import sys
from experiments.peers.serve import Worker, serve

def measure(seconds):
    if seconds == 13.0:
        print("a warning", file=sys.stderr)
        raise ValueError("no luck")
    return 800, 4

serve(lambda: Worker("toy", {{}}, 5, measure))
"""


def test_table():
    medians = {"a row": {"steps_per_second": 12345.6, "share": 0.87654}, "another": {"share": 1.0, "ms": -1500.0}}
    assert format_table("title", medians).split("\n") == [
        "title    steps per second      share         ms",
        "a row              12,346     0.8765           ",
        "another                            1     -1,500",
    ]


@pytest.mark.parametrize(
    "number, text", [(999.94, "999.9"), (1000.4, "1,000"), (0.000123456, "0.0001235"), (3, "3"), (2e6, "2,000,000")]
)
def test_four_digits(number, text):
    assert format_number(number) == text


def test_medians_over_rounds():
    row = Row("row", lambda round: {"x": [5.0, 1.0, 2.0][round], "y": float(round)})
    for round in range(3):
        row.rounds.append(row.measure(round))
    assert row.compute_medians() == {"x": 2.0, "y": 1.0}


def test_closing_after_a_fault():
    closed = []
    rows = [Row(name, dict, partial(closed.append, name)) for name in "abc"]
    with pytest.raises(ZeroDivisionError), close_rows(rows):
        raise ZeroDivisionError
    assert closed == ["a", "b", "c"]
    with close_rows(rows):
        closed.clear()
    assert closed == ["a", "b", "c"]


@pytest.fixture
def toy(cwd, monkeypatch, child_environment):
    """A program to start in place of Python, which serves a toy worker whatever module it is asked for."""
    monkeypatch.setenv("PYTHONPATH", child_environment["PYTHONPATH"])
    program = cwd / "toy"
    program.write_text(TOY.format(python=sys.executable))
    program.chmod(0o755)
    return str(program)


def test_process(toy):
    process = Process("toy", ["--workload", "w1"], python=toy)
    assert process.process.args == [toy, "-m", "experiments.peers.toy", "--workload", "w1"]
    assert process.hello == {"name": "toy", "versions": {}, "parameters": 5}
    numbers = process.measure(0.5)
    assert numbers.keys() == {"steps_per_cpu_second", "steps_per_second", "episode_length"}
    assert numbers["episode_length"] == 200.0 and min(numbers.values()) > 0
    process.close()
    assert process.process.returncode == 0
    process.close()  # twice does no harm


def test_process_divides_by_its_seconds():
    process = Process.__new__(Process)
    process.input = None
    process._read = lambda: {"env_steps": 600, "episodes": 0, "wall_seconds": 3.0, "cpu_seconds": 2.0}
    assert process.measure(1.0) == {"steps_per_cpu_second": 300, "steps_per_second": 200, "episode_length": 600}


def test_process_that_dies_says_why(toy):
    process = Process("toy", [], python=toy)
    with pytest.raises(RuntimeError, match=r"^-m experiments\.peers\.toy ended: ValueError: no luck$"):
        process.measure(13.0)
    assert process.process.returncode == 1
    with pytest.raises(RuntimeError, match=r"purejaxrl --workload w2 ended: .* error: .*--checkout"):
        Process("purejaxrl", ["--workload", "w2"])
    process.close()
