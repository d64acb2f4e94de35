"""Training on several ranks, as the benchmark measures it."""

from math import log, pi, sqrt

import pytest

from experiments.benchmark import ranks
from experiments.benchmark.ranks import StartedRanks, Watched, predict_efficiency
from rl.shards import ALONE


def test_two_ranks_train_the_environments_of_one(child_environment, monkeypatch):
    monkeypatch.setattr(ranks.os, "environ", child_environment)
    one, two = StartedRanks(1, "w1", "gru", 4), StartedRanks(2, "w1", "gru", 4)
    try:
        alone, numbers = one.measure(0.01), two.measure(0.01)
    finally:
        one.close()
        two.close()
    assert set(alone) == {"steps_per_second", "iteration_ms"}
    assert alone["steps_per_second"] == pytest.approx(4 * 128 / alone["iteration_ms"] * 1e3, rel=0.1)
    assert numbers["steps_per_second"] == pytest.approx(4 * 128 / numbers["iteration_ms"] * 1e3, rel=0.3)
    assert numbers["sums"] == 32  # 4 epochs of 8 minibatches
    assert numbers["MB_of_a_sum"] == pytest.approx(4 * (91_394 + 1) / 1e6, rel=0.05)
    parts = numbers["transfer_ms"] + numbers["waiting_ms"] + numbers["gathers_ms"]
    assert 0 < parts < 2 * numbers["iteration_ms"]
    assert all(process.returncode == 0 for process in (*one.processes, *two.processes))


def test_transfer_is_what_the_last_needs_and_waiting_the_rest(monkeypatch):
    """Sums of 1 and 3 ms on one rank, of 2 and 1 on the other: 2 ms of transfer, 3 of waiting, in one iteration."""
    made = StartedRanks.__new__(StartedRanks)
    made.processes = []
    told = {"iterations": [0.1], "env_steps": 20, "wall_seconds": 0.1, "bytes": 4_000_000, "gathers": 0.005}
    answers = [told | {"sums": [0.001, 0.003]}, told | {"sums": [0.002, 0.001]}]
    monkeypatch.setattr(made, "_read", lambda: answers)
    numbers = made.measure(1.0)
    assert numbers["steps_per_second"] == 200
    assert numbers["transfer_ms"] == pytest.approx(2.0)
    assert numbers["waiting_ms"] == pytest.approx(3.0)
    assert numbers["gathers_ms"] == pytest.approx(5.0)
    assert (numbers["sums"], numbers["MB_of_a_sum"]) == (2, 4.0)
    assert numbers["deviation_ms"] == pytest.approx(1.5 * sqrt(pi) / 2)


def test_rows():
    started = []

    class Never:
        def __init__(self, *arguments):
            started.append(arguments)
            self.measure = self.close = print

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "StartedRanks", Never)
        rows = ranks.make_rows(1.0, ["lstm"])
    assert started == [
        (1, "w1", "lstm", 256),
        (2, "w1", "lstm", 256),
        (1, "w2", "lstm", 16),
        (2, "w2", "lstm", 32),
        (2, "w2", "lstm", 16),
    ]
    assert len({row.label for row in rows}) == 5


def test_gradients_are_told_from_all_else():
    import torch

    watched = Watched(ALONE)
    for length in (1, 100, 1, 100):
        watched.sum(torch.ones(length))
    assert watched.bytes == 400
    watched.begin()
    for length in (1, 100, 1, 100):
        watched.sum(torch.ones(length))
    watched.gather(None)
    assert len(watched.sums) == 2
    assert watched.gathers > 0


def test_the_prediction_by_hand():
    """Two ranks: two hops of 0.1 ms and 2 MB over 1 GB/s are 2.2 ms a sum, and 0.5 ms times sqrt(2 ln 2) of waiting."""
    found = predict_efficiency(2, 100.0, 10, 2.0, 0.5, hop_ms=0.1, gigabytes_per_second=1.0)
    assert found == pytest.approx(100 / (100 + 10 * (2.2 + 0.5 * sqrt(2 * log(2)))))
    assert predict_efficiency(512, 100.0, 10, 2.0, 0.5) < predict_efficiency(8, 100.0, 10, 2.0, 0.5) < 1
