"""Observers are told what TensorBoard is told, change nothing, and keep their faults for themselves."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.repeat_previous import RepeatPrevious
from rl import cores
from rl.agents import RecurrentPPO
from rl.training import Metrics, Trainer
from rl.training.metrics import Mute
from rl.training.observers import Observer, Observers
from rl.training.observers.observer import recall_name, remember_name


class Note:
    """Keeps what it is told, and is as rude as an observer can be without touching the trainer."""

    def __init__(self, fails=()):
        self.calls, self.seen, self.fails = [], {}, fails

    def begin(self, run, config):
        self.note("begin", run.agent.env_steps, config)

    def report(self, values, step):
        for tag, value in values.items():
            self.seen.setdefault(tag, []).append((step, value))
        self.note("report", step)
        values.clear()
        for draw in (random.random, np.random.rand, partial(torch.rand, 3)):
            draw()

    def end(self, result):
        self.note("end", result)

    def note(self, *call):
        self.calls.append(call)
        if call[0] in self.fails:
            raise RuntimeError("no\n  network")


@pytest.fixture
def train(tmp_path):
    """A short training with observers by name; the agent that it made."""

    def make(folder, observers, result=None):
        envs = RepeatPrevious(3, episode_length=11)
        options = {"num_envs": 3, "num_steps": 8, "bptt": 4, "num_minibatches": 2, "seed": 0}
        core = partial(cores.gru, hidden_size=8, num_layers=2, dropout=0.1)
        agent = RecurrentPPO(envs.single_observation_space, envs.single_action_space, 8, core=core, **options)
        play = {"evaluate": lambda: {"eval/episodic_return": 0.5}, "evaluate_every": 48}
        trainer = Trainer(agent, envs, tmp_path / folder, 96, seed=0, **play)
        with Metrics(tmp_path / folder, 96, 0, observers) as metrics:
            metrics.observers.begin(trainer, {"seed": 0})
            trainer.train(metrics)
            if result is not None:
                metrics.observers.end(result)
        return agent

    return make


def test_weights_are_the_same_with_and_without_observers(train, assert_same):
    assert_same(train("watched", {"one": Note(), "other": Note({"report"})}), train("alone", None))


def test_an_observer_sees_what_tensorboard_gets(train, tmp_path):
    one, other = Note(), Note()
    train("run", {"one": one, "other": other})
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"scalars": 0})
    events.Reload()
    shown = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert {"losses/policy_loss", "charts/SPS", "charts/episodic_return", "eval/episodic_return"} <= shown.keys()
    for note in (one, other):
        assert note.seen.keys() == shown.keys()
        for tag, points in shown.items():
            steps, values = zip(*note.seen[tag], strict=True)
            assert list(steps) == [step for step, _ in points]
            assert values == pytest.approx([value for _, value in points], rel=1e-6)  # float32 there


def test_the_order_of_calls(train):
    note = Note()
    train("run", {"note": note}, {"env_steps": 96})
    reports = [("report", step) for step in (24, 48, 48, 72, 96, 96)]  # evaluations at 48 and 96
    assert note.calls == [("begin", 0, {"seed": 0}), *reports, ("end", {"env_steps": 96})]


def test_without_a_result_the_end_says_so(train):
    note = Note()
    train("run", {"note": note})
    assert note.calls[-1] == ("end", None) and len([call for call in note.calls if call[0] == "end"]) == 1


@pytest.mark.parametrize(("moment", "calls"), [("begin", 1), ("report", 2), ("end", 8)])
def test_a_fault_is_told_once_and_ends_nothing(train, caplog, moment, calls):
    broken, whole = Note({moment}), Note()
    train("run", {"broken": broken, "whole": whole}, {})
    assert (len(broken.calls), len(whole.calls)) == (calls, 8)
    (message,) = [record.getMessage() for record in caplog.records if "observer" in record.getMessage()]
    assert message == "observer broken has failed: RuntimeError: no network; training goes on without it"


def test_an_interrupt_is_no_fault_of_an_observer():
    class Interrupted(Note):
        def report(self, values, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Observers({"it": Interrupted()}).report({}, 1)


def test_nobody_watches_the_other_shards():
    Mute().observers.begin(None, {})
    Mute().scalars({"charts/SPS": 1.0}, 8)
    Mute().observers.end(None)


def test_what_an_observer_is():
    assert isinstance(Note(), Observer) and not isinstance(object(), Observer)


def test_names_elsewhere_last_as_long_as_the_run(make_run):
    first, later = make_run(), make_run(8)
    assert recall_name(first, "wandb") is None
    for observer, name in (("wandb", "abc-1"), ("mlflow", "f0")):
        remember_name(first, observer, name)
    assert (recall_name(later, "wandb"), recall_name(later, "mlflow"), recall_name(later, "x")) == ("abc-1", "f0", None)
    Observers({"note": Note()}).begin(later, {})
    assert recall_name(later, "wandb") == "abc-1"
    Observers({"note": Note()}).begin(make_run(0), {})  # another run in the same folder
    assert recall_name(first, "wandb") is None


def test_a_strange_name_is_refused(make_run):
    remember_name(make_run(), "wandb", "../../etc")
    with pytest.raises(ValueError, match=r"observers\.json holds '\.\./\.\./etc' where the name of a run should be"):
        recall_name(make_run(8), "wandb")
