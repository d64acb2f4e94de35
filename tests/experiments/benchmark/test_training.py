"""Rows about this project's own training: its parts are what they say, and one size changes at a time."""

import importlib
import inspect
import pkgutil
from types import SimpleNamespace

import pytest
import torch

import envs
from envs.batched_env import BatchedEnv
from experiments.benchmark import training
from experiments.peers.recurrent_ppo import make_training
from experiments.peers.workloads import WORKLOADS
from rl.agents.actor import Actor

PARTS = ["environment", "acting", "policy_step", "write", "outcome", "targets", "gather", "encoder", "core"]
PARTS += ["heads_loss", "backward", "clip", "optimiser", "rest_of_update"]


@pytest.fixture
def clock(monkeypatch):
    """The clock of the parts: ``clock.now`` moves when told, or with calls that were made to ``take`` so long."""

    class Clock:
        now = 0.0

        def take(self, seconds, call=lambda: None):
            def slow(*arguments, **options):
                self.now += seconds
                return call(*arguments, **options)

            return slow

    made = Clock()
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def is_base(task):
    """Whether other tasks of the package derive from it; tests derive some of their own."""
    return any(kind.__module__.startswith("envs.") for kind in task.__subclasses__())


def test_every_environment_is_measured():
    """Every task class of the package, not only those that somebody remembered to register."""
    found = [module.name for module in pkgutil.walk_packages(envs.__path__, "envs.")]
    modules = [importlib.import_module(name) for name in found]
    tasks = {
        f"{name}-v0"
        for module in modules
        for name, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, BatchedEnv) and not is_base(member) and module.__name__ != "envs.probes"
    }
    rows = training.make_environment_rows(seconds=1e-3)
    labels = [row.label.split() for row in rows]
    assert {name for name, *_ in labels} == tasks
    levels = {name: [level for other, *level in labels if other == name] for name in tasks}
    assert levels["TMaze-v0"] == [[]] and levels["Battleship-v0"] == [["easy"], ["medium"], ["hard"]]
    assert all(each in ([[]], [["easy"], ["medium"], ["hard"]]) for each in levels.values())
    for row in rows:
        assert row.measure(0)["steps_per_second"] > 0, row.label


def test_environment_speed_counts_all_copies(monkeypatch):
    """64 steps of 64 copies in one second of a clock that is asked three times."""
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=iter([10.0, 10.0, 11.0]).__next__))
    assert training.measure_environment("RecurrentPPO/TMaze-v0", 0.5, {}) == {"steps_per_second": 64 * 64}


def test_nested_parts_do_not_count_twice(clock):
    spent, inside = {"outer": 0.0, "middle": 0.0, "inner": 0.0}, [0.0]
    inner = training.clock_calls(clock.take(2.0), "inner", spent, inside)
    middle = training.clock_calls(clock.take(30.0, inner), "middle", spent, inside)

    def calls():
        middle()
        inner()
        clock.now += 400.0
        return "result"

    outer = training.clock_calls(calls, "outer", spent, inside)
    assert (outer(), outer()) == ("result", "result")
    assert spent == {"outer": 800.0, "middle": 60.0, "inner": 8.0}
    assert inside == [868.0] and clock.now == 868.0


def test_a_generator_counts_only_while_it_works(clock):
    spent, inside = {"gather": 0.0}, [0.0]

    def items():
        for item in "ab":
            clock.now += 5.0
            yield item
        clock.now += 1.0

    seen = []
    for item in training.clock_calls(items, "gather", spent, inside)():
        clock.now += 100.0  # the work of whoever takes the items
        seen.append(item)
    assert (seen, spent) == (["a", "b"], {"gather": 11.0})


def test_stopwatch_takes_parts_out_of_those_around(clock, monkeypatch, small):
    """Only these calls take time, so all else has none; 16 steps, then 2 minibatches."""
    run = make_training(small(), "lstm", bptt=8)
    run()
    monkeypatch.setattr(run.envs, "step", clock.take(1.0, run.envs.step))
    monkeypatch.setattr(Actor, "step", clock.take(2.0, Actor.step))
    core = run.agent.network.actor.core
    monkeypatch.setattr(core, "unroll", clock.take(10.0, core.unroll))
    monkeypatch.setattr(torch.autograd, "grad", clock.take(100.0, torch.autograd.grad))
    monkeypatch.setattr(run.agent.optimizer, "step", clock.take(1000.0, run.agent.optimizer.step))
    with training.time_parts(run) as parts:
        run()
    wanted = {"environment": 16.0, "policy_step": 32.0, "core": 20.0, "backward": 200.0, "optimiser": 2000.0}
    assert parts == dict.fromkeys(PARTS, 0.0) | wanted
    run()
    assert parts["environment"] == 16.0  # closed


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_no_part_is_missed(name, small):
    """What is watched still stands where the stopwatch looks for it, and comes to no more than the whole."""
    run = make_training(small(name), "gru", bptt=8)
    run()
    began = training.time.perf_counter()
    with training.time_parts(run) as parts:
        run()
        elapsed = training.time.perf_counter() - began
    assert list(parts) == PARTS and min(parts.values()) > 0.0
    assert 0.5 * elapsed < sum(parts.values()) < elapsed


@pytest.mark.parametrize("what", training.GROWTH)
def test_growth_changes_one_size(what, monkeypatch, small):
    monkeypatch.setitem(WORKLOADS, "w1", small(num_steps=32))
    value = {"core": "gru", "bptt": 32, "episode_length": 9}.get(what, 3 if what != "num_steps" else 16)
    run = training.vary_workload(what, value)
    agent = run.agent
    seen = {
        "num_envs": agent.num_envs,
        "num_steps": agent.num_steps,
        "hidden_size": agent.network.actor.core.output_size,
        "bptt": agent.ppo.bptt,
        "episode_length": getattr(run.envs.envs, "mean", None),
        "core": type(agent.network.actor.core.layers[0]).__name__.removesuffix("Layer").lower(),
    }
    fixed = {"num_envs": 2, "num_steps": 32, "hidden_size": 4, "bptt": 16, "episode_length": None, "core": "lstm"}
    assert seen == fixed | ({what: value} if what != "threads" else {})


def test_threads_are_set_for_their_row_only(monkeypatch, small):
    threads = []
    monkeypatch.setattr(training.torch, "set_num_threads", threads.append)
    run = make_training(small(), "lstm", bptt=8)
    for what, value in (("threads", 2), ("num_envs", 4)):
        numbers = training.measure_growth(run, what, value, 1e-6, threads=1, round=1)
        assert numbers["us_per_step"] == pytest.approx(1e6 / numbers["steps_per_second"])
    assert threads == [2, 1, 1, 1]


def test_random_ends():
    env = training.RandomEnds(num_envs=200, mean=20)
    env.reset(seed=0)
    ended = sum(int(env.step(env.action_space.sample())[2].sum()) for _ in range(200))
    assert 200 * 200 / ended == pytest.approx(20, rel=0.1)
