"""Training that ends before its last step, once evaluations say so."""

from itertools import count
from types import SimpleNamespace

import pytest

from envs.probes import EchoCue
from rl.checkpoint import load_checkpoint
from rl.training import trainer as trainer_module
from rl.training.run import checkpoint_path
from rl.training.stopping import EarlyStop
from rl.training.trainer import Trainer


@pytest.mark.parametrize(
    ("returns", "patience", "min_delta", "reason"),
    [
        ([], 1, 0.0, None),
        ([5.0], 1, 0.0, None),  # the first is better than nothing
        ([1.0, 1.0], 1, 0.0, "plateau"),  # as good is no better
        ([1.0, 2.0, 1.5], 2, 0.0, None),
        ([1.0, 2.0, 1.5, 2.0], 2, 0.0, "plateau"),
        ([1.0, 2.0, 1.5, 2.1], 2, 0.0, None),
        ([-3.0, -4.0, -2.0, -2.5], 2, 0.0, None),
        ([1.0, 1.25, 1.375, 1.5], 3, 0.5, "plateau"),  # each less than or exactly 0.5 above the 1 of the first
        ([1.0, 1.25, 1.375, 1.625], 3, 0.5, None),
        ([1.0, 1.625, 2.0, 2.125], 2, 0.5, "plateau"),  # 2.0 is not 0.5 above 1.625, nor is 2.125
        ([1.0, 0.0, 0.0, 2.0], 2, 0.0, None),  # it would have ended before; it went on with more patience
        ([1.0, 1.0, 1.0, 1.0], None, 0.0, None),
    ],
)
def test_a_plateau(returns, patience, min_delta, reason):
    assert EarlyStop(None, patience, min_delta).find_reason(returns) == reason


@pytest.mark.parametrize(("returns", "reason"), [([], None), ([0.5, 1.0], "threshold"), ([1.0, 0.5], None)])
def test_a_threshold_is_of_the_last_evaluation(returns, reason):
    assert EarlyStop(1.0).find_reason(returns) == reason


@pytest.mark.parametrize(
    ("seconds", "reason"), [(9.99, None), (10.0, "max_seconds"), (11.0, "max_seconds"), (0.0, None)]
)
def test_seconds_are_over(seconds, reason):
    assert EarlyStop(max_seconds=10.0).find_reason([], seconds) == reason
    assert EarlyStop(1.0, max_seconds=10.0).find_reason([1.0], seconds) == "threshold"
    assert EarlyStop().find_reason([], 1e9) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_seconds": 0.0}, "max_seconds=0.0: it must be a number of at least 0.001"),
        ({"patience": 0}, "patience=0: it must be a whole number of at least 1"),
        ({"min_delta": -0.1}, "min_delta=-0.1: it must be a number of at least 0"),
    ],
)
def test_ranges(options, sentence):
    with pytest.raises(ValueError) as raised:
        EarlyStop(**options)
    assert str(raised.value) == sentence


RETURNS = {16: 1.0, 32: 3.0, 48: 2.0, 64: 3.0, 80: 9.0, 96: 8.0}


@pytest.fixture
def make_patient(scribe, tmp_path):
    """A trainer that evaluates after each update of 16 steps; the returns depend on the step alone."""

    def make(folder, total_steps, **options):
        agent = scribe(2, 8)
        play = {"evaluate": lambda: {"eval/episodic_return": RETURNS[agent.env_steps]}, "evaluate_every": 16}
        return Trainer(agent, EchoCue(2), tmp_path / folder, total_steps, seed=0, **play | {"patience": 2} | options)

    return make


def points(trainer):
    return [(point["env_steps"], point["return"]) for point in trainer.evaluations]


def test_training_ends_on_a_plateau_and_says_so(make_patient, notebook):
    trainer = make_patient("run", 96)
    assert trainer.train(notebook) is True
    assert (trainer.agent.env_steps, trainer.stop_reason) == (64, "plateau")
    assert load_checkpoint(checkpoint_path(trainer.run_dir))["agent"]["env_steps"] == 64
    assert load_checkpoint(checkpoint_path(trainer.run_dir).with_name("best.pt"))["agent"]["env_steps"] == 32
    assert notebook.lines == [
        "the last 2 evaluations were not better than the best one before them by more than min_delta=0: training ends "
        "at step 64, a greater patience goes on"
    ]


def test_without_patience_it_goes_on(make_patient, notebook):
    trainer = make_patient("run", 96, patience=None)
    trainer.train(notebook)
    assert (trainer.agent.env_steps, trainer.stop_reason, notebook.lines) == (96, "total_steps", [])


@pytest.mark.parametrize("stopped", [16, 32, 48])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(make_patient, notebook, stopped):
    straight = make_patient("straight", 96)
    straight.train(notebook)
    make_patient("broken", stopped).train(notebook)
    second = make_patient("broken", 96)
    second.resume()
    second.train(notebook)
    assert points(second) == points(straight) == [(16, 1.0), (32, 3.0), (48, 2.0), (64, 3.0)]


def test_a_run_that_has_ended_goes_on_only_with_more_patience(make_patient, notebook):
    make_patient("run", 96).train(notebook)
    again = make_patient("run", 96)
    again.resume()
    again.train(notebook)
    assert (again.agent.env_steps, again.agent.notes, len(notebook.lines)) == (64, [], 2)
    patient = make_patient("run", 96, patience=3)
    patient.resume()
    patient.train(notebook)
    assert (patient.agent.env_steps, patient.stop_reason) == (96, "total_steps")


def test_so_does_one_at_its_threshold(make_patient, notebook):
    options = {"patience": None, "threshold": 3.0}
    for stops, steps in ((True, 32), (True, 32), (False, 96)):
        trainer = make_patient("run", 96, **options, stop_at_threshold=stops)
        if checkpoint_path(trainer.run_dir).is_file():
            trainer.resume()
        trainer.train(notebook)
        assert trainer.agent.env_steps == steps


def test_training_ends_when_its_seconds_are_over(make_patient, notebook, monkeypatch):
    """Each update takes 1.5 s; a run goes on with more seconds alone."""
    ticks = count()
    monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: 1.5 * next(ticks)))
    for seconds, steps, reason in ((3.0, 32, "max_seconds"), (3.0, 32, "max_seconds"), (9.5, 96, "total_steps")):
        trainer = make_patient("run", 96, patience=None, max_seconds=seconds)
        if checkpoint_path(trainer.run_dir).is_file():
            trainer.resume()
        assert trainer.train(notebook) is True
        assert (trainer.agent.env_steps, trainer.stop_reason) == (steps, reason)
    assert notebook.lines == ["max_seconds=3 are over: training ends at step 32, more seconds go on"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluate_every": None}, "patience=2: it counts evaluations, so evaluate_every must be a number"),
        ({"evaluation_share": 0.25}, "evaluation_share=0.25: it must be None where patience is set"),
        (
            {"stop_at_threshold": True},
            "stop_at_threshold=True: an evaluation has to reach the threshold, so threshold must be a number",
        ),
        (
            {"stop_at_threshold": True, "threshold": 1.0, "patience": None, "evaluate_every": None},
            "stop_at_threshold=True: an evaluation has to reach the threshold, so evaluate_every must be a number",
        ),
    ],
)
def test_what_evaluations_cannot_decide(make_patient, options, message):
    with pytest.raises(ValueError) as raised:
        make_patient("run", 96, **options)
    assert str(raised.value) == message
