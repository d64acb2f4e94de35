"""What seeds in one process could gain: one agent with the environments of several beside one with its own."""

from types import SimpleNamespace

import pytest

from experiments.benchmark import seeds


def test_rows_have_the_sizes_of_the_presets():
    rows = {row.label: row for row in seeds.make_rows(seconds=0.01, core_names=["mlp"])}
    labels = ["t_maze_10 mlp 64", "t_maze_10 mlp 128", "cartpole_no_velocity mlp 64", "cartpole_no_velocity mlp 128"]
    assert list(rows) == labels
    for label, row in rows.items():
        sizes = (64, 32, 4, 8) if label.startswith("t_maze") else (8, 128, 10, 4)
        lone, shared, _ = row.measure.args
        for count, run in zip((1, 5, 10), (lone, *shared), strict=True):
            agent, (num_envs, num_steps, epochs, num_minibatches) = run.agent, sizes
            assert (agent.num_envs, agent.num_steps, agent.ppo.bptt) == (count * num_envs, num_steps, 32)
            assert (agent.ppo.epochs, agent.ppo.num_minibatches) == (epochs, num_minibatches)
            assert agent.network.actor.core.output_size == int(label.split()[-1])


@pytest.fixture
def clock(monkeypatch):
    """CPU time that moves when ``clock.now`` is told to; a measurement is one iteration."""
    made = SimpleNamespace(now=0.0)
    monkeypatch.setattr(seeds, "time", SimpleNamespace(process_time=lambda: made.now))
    monkeypatch.setattr(seeds, "repeat", lambda run, seconds: run())
    return made


def test_the_bound_is_the_cost_of_a_step_alone_over_that_of_one_that_shares_its_calls(clock):
    """A second for 100 steps, beside two for 500 and four for 1,000; the iterations that warm up do not count."""

    def run(seconds, steps):
        def iterate():
            clock.now += seconds
            return steps, 0

        return iterate

    found = seeds.measure_bound(run(1.0, 100), [run(2.0, 500), run(4.0, 1000)], seconds=1.0)
    assert found == {
        "alone_us": pytest.approx(10_000),
        "of_5_us": pytest.approx(4000),
        "of_5_times": pytest.approx(2.5),
        "of_10_us": pytest.approx(4000),
        "of_10_times": pytest.approx(2.5),
    }


def test_a_row_is_measured(monkeypatch):
    monkeypatch.setattr(seeds, "COUNTS", (2,))
    row = seeds.make_rows(seconds=0.01, core_names=["mlp"])[0]
    assert list(row.measure(0)) == ["alone_us", "of_2_us", "of_2_times"]
    assert min(row.measure(0).values()) > 0
