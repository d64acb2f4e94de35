from dataclasses import replace

import pytest

from experiments.device_check import learning


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(learning, "NUM_ENVS", 16)
    monkeypatch.setattr(learning, "NUM_STEPS", 8)
    monkeypatch.setattr(learning, "WINDOW", 10)


@pytest.mark.parametrize(("bar", "passed"), [(-100.0, True), (1e6, False)])
def test_it_ends_at_the_bar_or_after_a_while(bar, passed, small, monkeypatch):
    task = replace(learning.TASKS["T-maze, 10 cells"], bar=bar)
    monkeypatch.setattr(learning, "TASKS", {"T-maze": task})
    (found,) = learning.measure_learning("cpu", ["gru"], limit=2.0)
    assert (found.label, found.passed) == ("T-maze, gru", passed)
    assert found.numbers["steps"] % (16 * 8) == 0 and found.numbers["steps"] > 0
