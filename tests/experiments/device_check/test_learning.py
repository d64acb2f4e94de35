from dataclasses import replace

import pytest

from experiments.device_check import learning


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(learning, "NUM_ENVS", 16)
    monkeypatch.setattr(learning, "NUM_STEPS", 8)
    monkeypatch.setattr(learning, "WINDOW", 10)


@pytest.mark.parametrize(("bar", "reached"), [(-100.0, True), (1e6, False)])
def test_it_ends_at_the_bar_or_after_a_while(bar, reached, small):
    task = replace(learning.TASKS["T-maze, 10 cells"], bar=bar)
    seconds, steps, mean = learning.train(task, "gru", "cpu", seed=1, limit=2.0)
    assert (mean >= bar) is reached
    assert (seconds > 2.0) is not reached
    assert steps > 0 and steps % (16 * 8) == 0


def test_a_cpu_is_measured_and_not_judged(small, monkeypatch):
    monkeypatch.setattr(learning, "TASKS", {"T-maze": learning.TASKS["T-maze, 10 cells"]})
    (found,) = learning.measure_learning("cpu", ["gru"], limit=0.1)
    assert (found.label, found.passed) == ("T-maze, gru", None)
    assert set(found.numbers) == {"seconds", "steps", "mean_return"}
