"""``python -m experiments.benchmark``."""

import json

import gymnasium
import pytest

import envs  # noqa: F401 (registers)
from envs.copy_sequence import CopySequence
from envs.t_maze import TMaze
from experiments import benchmark


def test_end_to_end(command, cwd, monkeypatch):
    monkeypatch.setattr(benchmark, "ENVIRONMENTS", (TMaze, CopySequence))
    ended = command("benchmark", "rounds=1", "seconds=0.1", "output=speed.json")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((cwd / "speed.json").read_text())
    assert (report["rounds"], report["threads"]) == (1, 1)
    stepping = report["environment_steps_per_second_64_copies"]
    assert stepping.keys() == {"TMaze", "CopySequence"} and min(stepping.values()) > 0
    assert report["training"].keys() == {"lstm", "gru"}
    for name, row in report["training"].items():
        assert row.keys() == {"steps_per_second", "acting_us", "environment_us", "update_us"}
        parts = row["acting_us"], row["environment_us"], row["update_us"]
        assert min(parts) > 0 and sum(parts) * row["steps_per_second"] / 1e6 <= 1.0  # no more than the whole
        assert f"{name:<38}{row['steps_per_second']:>9.0f}" in ended.out
    assert [path.name for path in cwd.iterdir()] == ["speed.json"]


def test_every_environment_is_measured():
    known = {name.split("/")[1].removesuffix("-v0") for name in gymnasium.registry if name.startswith("RecurrentPPO/")}
    assert {task.__name__ for task in benchmark.ENVIRONMENTS} == known


def test_environment_speed_counts_all_copies(monkeypatch):
    """256 steps of 4 copies in one second of a clock that is asked twice."""
    monkeypatch.setattr(benchmark.time, "perf_counter", iter([10.0, 10.0, 11.0]).__next__)
    assert benchmark.environment_speed(TMaze(4), seconds=0.5) == pytest.approx(1024)
