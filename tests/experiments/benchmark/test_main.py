"""``python -m experiments.benchmark``: rows, report, and what is refused."""

import json
from statistics import median

import pytest
import torch

from experiments.benchmark import peers, training
from experiments.benchmark.rows import format_table
from experiments.peers.workloads import WORKLOADS

PARTS = ["environment", "acting", "policy_step", "write", "outcome", "targets", "gather", "encoder", "core"]
PARTS += ["heads_loss", "backward", "clip", "optimiser", "rest_of_update"]


@pytest.fixture
def small_workloads(monkeypatch, small):
    """All workloads with tiny sizes for the time of a test, and little to grow."""
    for name in WORKLOADS:
        monkeypatch.setitem(WORKLOADS, name, small(name))
    monkeypatch.setattr(training, "GROWTH", {"num_envs": (2, 4), "episode_length": (5,), "threads": (1,)})


def test_end_to_end(command, cwd, small_workloads):
    ended = command("benchmark", "rounds=3", "seconds=0.01", "workloads=[w1,w3]", "cores=[gru]", "output=speed.json")
    assert (ended.code, ended.err) == (0, "")
    assert [path.name for path in cwd.iterdir()] == ["speed.json"]
    report = json.loads((cwd / "speed.json").read_text())
    assert (report["rounds"], report["threads"]) == (3, 1) and torch.__version__.startswith(report["versions"]["torch"])
    medians, raw = report["medians"], report["all_rounds"]
    assert list(medians) == ["environments", "training", "acting", "growth"]
    assert list(medians["training"]) == ["w1 gru", "w3 gru"]
    assert list(medians["acting"]) == ["one environment, gru"]
    assert list(medians["growth"]) == ["num_envs 2", "num_envs 4", "episode_length 5", "threads 1"]
    for section, rows in medians.items():
        for label, numbers in rows.items():
            assert min(numbers.values()) > 0, label
            rounds = raw[section][label]
            assert len(rounds) == 3
            assert numbers == {name: median(seen[name] for seen in rounds) for name in rounds[0]}
        assert format_table(section, rows) in ended.out
    for row in raw["training"]["w1 gru"]:
        assert list(row) == ["steps_per_second", "light_speed", "share", *PARTS, "buffer_MB", "host_reads"]
        assert row["share"] == pytest.approx(row["steps_per_second"] / row["light_speed"])
        assert row["host_reads"] == 1
    assert "ratios" not in report


@pytest.mark.parametrize(
    "argument, words",
    [
        ("sections=[trainin]", ["sections: there is no section 'trainin'", "did you mean training?"]),
        ("sections=[training,speed]", ["sections: there is no section 'speed'", "did you mean seeds or peers?"]),
        ("workloads=[w4]", ["workloads: there is no workload 'w4'", "w1"]),
        ("cores=[lstmm]", ["cores: there is no core 'lstmm'", "did you mean lstm"]),
        ("sections=[]", ["sections is empty"]),
        ("rounds=0", ["rounds=0"]),
        ("rounds=few", ["rounds='few' is not a whole number"]),
        ("seconds=0", ["seconds=0"]),
        ("section=training", ["there is no key 'section'", "did you mean sections"]),
        ("output=.", ["output=. cannot be written"]),
    ],
)
def test_bad_keys(command, cwd, argument, words):
    ended = command("benchmark", argument)
    assert ended.code == 1 and ended.err.startswith("benchmark: ") and ended.err.count("\n") == 1
    assert all(word in ended.err for word in words), ended.err
    assert ended.out == "" and not list(cwd.iterdir())


def test_a_missing_peer_is_named(command, monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    ended = command("benchmark", "sections=[peers]")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert "sb3_contrib is not installed: pip install 'recurrent-ppo[bench]'" in ended.err


def test_beside_peers_end_to_end(command, cwd, fake_processes):
    ended = command("benchmark", "sections=[peers]", "workloads=w1", "cores=[gru]", "rounds=2", "seconds=2")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((cwd / "benchmark.json").read_text())
    wanted = {"per_cpu_second": 4.0, "by_the_clock": 4.0}
    assert report["ratios"] == {"w1 gru / skrl": wanted, "w1 gru / skrl, padded": wanted}
    assert format_table("ratio", report["ratios"]) in ended.out
    assert len(fake_processes) == 5 and all(process.closed == 1 for process in fake_processes)


def test_workers_are_closed_after_a_fault(command, cwd, fake_processes, monkeypatch):
    def fail(self, seconds):
        raise RuntimeError("worker ended")

    monkeypatch.setattr(peers.Process, "measure", fail)
    ended = command("benchmark", "sections=[peers]", "workloads=[w1]", "cores=[gru]", "seconds=2")
    assert ended.code == 1 and ended.err.startswith("benchmark: RuntimeError: worker ended (")
    assert len(fake_processes) == 5 and all(process.closed == 1 for process in fake_processes)
    assert not list(cwd.iterdir())
