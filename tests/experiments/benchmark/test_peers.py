"""Rows beside other programs: which are started, their ratios, the time to a threshold."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.benchmark import peers
from experiments.launch.check import ConfigError


def speeds(cpu, wall):
    return {"steps_per_cpu_second": float(cpu), "steps_per_second": float(wall)}


def test_ratios():
    """Per CPU second one thread against one thread, by the clock the best of each side."""
    medians = {
        "w1 lstm recurrent_ppo": speeds(100, 100),
        "w1 lstm recurrent_ppo, 2 threads": speeds(70, 120),
        "w1 lstm skrl": speeds(20, 20),
        "w1 lstm skrl, 2 threads": speeds(16, 30),
        "w1 lstm skrl, padded": speeds(25, 24),
        "w1 lstm sb3_contrib": speeds(10, 10),
        "w1 lstm sb3_contrib, 2 threads": speeds(5, 8),
        "w1 lstm sb3_contrib, one LSTM": speeds(20, 16),
        "w1 lstm recurrent_ppo, whole rollout": speeds(90, 80),
        "w1 lstm purejaxrl": speeds(50, 160),
        "w1 gru recurrent_ppo": speeds(110, 110),
        "w1 gru recurrent_ppo, 2 threads": speeds(60, 90),
        "w1 gru skrl": speeds(11, 11),
        "w3 gru recurrent_ppo": speeds(7, 7),
        "w3 gru skrl, padded": speeds(7, 14),
    }
    found = {label: tuple(numbers.values()) for label, numbers in peers.compute_ratios(medians).items()}
    assert found == {
        "w1 lstm / skrl": (5.0, 4.0),
        "w1 lstm / skrl, padded": (4.0, 5.0),
        "w1 lstm / sb3_contrib": (10.0, 12.0),
        "w1 lstm / sb3_contrib, one LSTM": (5.0, 7.5),
        "w1 lstm / purejaxrl": (2.0, 0.75),
        "w1 lstm / purejaxrl, whole rollout": (1.8, 0.5),
        "w1 gru / skrl": (10.0, 10.0),
        "w3 gru / skrl, padded": (1.0, 0.5),
        "w1 gru / sb3_contrib (LSTM)": (11.0, 11.0),
    }
    assert list(peers.compute_ratios(medians)["w1 lstm / skrl"]) == ["per_cpu_second", "by_the_clock"]


def test_rows_of_peers(fake_processes):
    rows = peers.make_rows(2.0, ["w1", "w2"], ["lstm", "gru"], "CHECKOUT", "JAX")
    lines = {row.label: " ".join(process.line) for row, process in zip(rows, fake_processes, strict=True)}
    names = {}
    for label in lines:
        names.setdefault(" ".join(label.split(" ")[:2]), []).append(label.split(" ", 2)[2])
    both = ["recurrent_ppo", "skrl", "recurrent_ppo, 2 threads", "skrl, 2 threads", "skrl, padded"]
    lstm = [*both, "sb3_contrib", "sb3_contrib, 2 threads", "sb3_contrib, one LSTM"]
    jax = ["recurrent_ppo, whole rollout", "recurrent_ppo, sequences of 8", "purejaxrl"]
    assert {place: sorted(found) for place, found in names.items()} == {
        "w1 lstm": sorted(lstm + jax),
        "w1 gru": sorted(both + jax),
        "w2 lstm": sorted(lstm),
        "w2 gru": sorted(both),
    }
    assert lines["w1 gru skrl, padded"] == "skrl --workload w1 --core gru --variant padded"
    assert lines["w2 gru skrl, 2 threads"] == "skrl --workload w2 --core gru --threads 2"
    assert lines["w2 lstm sb3_contrib, one LSTM"] == "sb3_contrib --workload w2 --core lstm --variant shared"
    assert lines["w1 gru recurrent_ppo, whole rollout"] == "recurrent_ppo --workload w1 --core gru --bptt 128"
    assert lines["w1 gru recurrent_ppo, sequences of 8"] == "recurrent_ppo --workload w1 --core gru --bptt 8"
    assert lines["w1 lstm purejaxrl"] == "purejaxrl --workload w1 --core lstm --checkout CHECKOUT JAX"


def test_time_to_threshold(monkeypatch, started):
    """Each round is a run of its own with the next seed, and is timed with its start."""
    clock = iter([0.0, 8.5, 0.0, 6.5, 0.0, 7.5, 0.0, 40.0]).__next__
    lines = started(
        {"env_steps": 20480, "total_steps": 100_000, "eval_return_mean": 498.5, "wall_seconds": 1.0},
        {"env_steps": 35072, "eval_return": 500.0, "solved": True, "training_seconds": 9.0},
    )
    monkeypatch.setattr(peers, "time", SimpleNamespace(perf_counter=clock))
    cart_pole, with_gru, maze, sb3 = peers.make_threshold_rows()
    assert cart_pole.measure(2) == {"seconds": 8.5, "env_steps": 20480, "eval_return": 498.5}
    assert with_gru.measure(0)["seconds"] == 6.5
    assert maze.measure(0)["seconds"] == 7.5
    assert sb3.measure(1) == {"seconds": 40.0, "env_steps": 35072, "eval_return": 500.0}
    at_threshold = "stop_at_threshold=true"
    preset = ["experiments.train", "experiment=cartpole_no_velocity", "evaluate_every=2048"]
    assert [line[:-1] for line in lines[:3]] == [
        [*preset, at_threshold, "seed=3"],
        [*preset, "agent/core=gru", "agent.epochs=20", at_threshold, "seed=1"],
        ["experiments.train", "experiment=t_maze_30", at_threshold, "seed=1"],
    ]
    assert lines[3] == ["experiments.peers.sb3_threshold", "--seed", "2", "--evaluate-every", "2048"]
    assert not Path(lines[0][-1].removeprefix("run_dir=")).exists()
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert len(peers.make_threshold_rows()) == 3
    with pytest.raises(ConfigError, match="skrl is not installed"):
        peers.require("skrl")
