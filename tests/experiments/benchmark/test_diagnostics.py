"""What diagnostics cost: the same updates with and without them, in turn."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from experiments.benchmark import diagnostics
from experiments.peers.workloads import WORKLOADS
from rl.networks.diagnostics import NAMES


@pytest.fixture
def rows(monkeypatch):
    tiny = {"hidden_size": 4, "num_steps": 32, "epochs": 1, "num_minibatches": 1}
    monkeypatch.setitem(WORKLOADS, "w1", replace(WORKLOADS["w1"], **tiny))
    monkeypatch.setattr(diagnostics, "PAIRS", 1)
    return diagnostics.make_rows(["w1"], ["gru"])


def test_every_row_times_an_update_with_and_without(rows):
    assert [row.label for row in rows] == ["t_maze_10 gru", "w1 gru", "one environment gru", "quantiles gru"]
    for row in rows:
        numbers, (diagnosed, plain, _) = row.measure(0), row.measure.args
        assert list(numbers) == ["update_ms", "diagnosed_ms", "cost_percent"]
        assert numbers["update_ms"] > 0 and numbers["diagnosed_ms"] > 0
        weights = [torch.nn.utils.parameters_to_vector(each.agent.network.parameters()) for each in (diagnosed, plain)]
        assert torch.equal(*weights)
        assert {*NAMES} & diagnosed.agent.last_metrics.keys() and not {*NAMES} & plain.agent.last_metrics.keys()


def test_the_cost_is_shared_by_the_updates_that_are_not_diagnosed(monkeypatch):
    """Updates of 2 seconds beside some of 3: 50 % more, in every tenth or in two minibatches of five."""
    monkeypatch.setattr(diagnostics, "PAIRS", 3)

    def training(seconds, updates):
        agent = SimpleNamespace(updates=0)

        def time_update():
            agent.updates += updates
            return seconds

        return SimpleNamespace(agent=agent, time_update=time_update)

    found = diagnostics.measure_cost(training(3.0, 1), training(2.0, 1), 10)
    assert found == {"update_ms": 2000.0, "diagnosed_ms": 3000.0, "cost_percent": pytest.approx(5.0)}
    assert diagnostics.measure_cost(training(3.0, 2), training(2.0, 2), 5)["cost_percent"] == pytest.approx(20.0)
    assert diagnostics.measure_cost(training(3.0, 9), training(2.0, 9), 5)["cost_percent"] == pytest.approx(50.0)
