"""The run of an imitation: what it reports, keeps, saves and resumes, and what stops it."""

import os
import signal
from functools import partial

import numpy as np
import pytest
import torch

from rl import cores
from rl.agents import RecurrentPPO
from rl.checkpoint import load_checkpoint
from rl.recordings import ImitationTrainer
from rl.training.run import checkpoint_path


@pytest.fixture
def make_trainer(make_imitator, tmp_path):
    def make(epochs, folder=".", evaluate=None, evaluate_every=None, **hyperparameters):
        return ImitationTrainer(
            make_imitator(epochs=epochs, **hyperparameters), tmp_path / folder, evaluate, evaluate_every
        )

    return make


def interrupt(trainer, epoch, error):
    """Lets an epoch, counted from 0, fail."""
    original = trainer.imitator.epoch

    def fail(number):
        if number == epoch:
            raise error
        return original(number)

    trainer.imitator.epoch = fail


def losses_of(trainer):
    return [point["imitation/held_out_nll"] for point in trainer.history]


def test_every_epoch_is_learned_reported_and_saved_in_this_order(make_trainer, notebook, monkeypatch):
    trainer = make_trainer(3)
    learned, epoch, save = [], trainer.imitator.epoch, trainer.save

    def noted_epoch(number):
        result = epoch(number)
        learned.append((number, result))
        return result

    def noted_save(metrics, last=None):
        save(metrics, last)
        learned.append(("saved", load_checkpoint(trainer.path)["imitation"]["done"]))

    monkeypatch.setattr(trainer.imitator, "epoch", noted_epoch)
    monkeypatch.setattr(trainer, "save", noted_save)
    assert trainer.train(notebook) is True
    assert [entry[0] for entry in learned] == [0, "saved", 1, "saved", 2, "saved", "saved"]
    assert [entry[1] for entry in learned if entry[0] == "saved"] == [1, 2, 3, 3]
    steps = trainer.steps_per_epoch
    assert steps == len(trainer.imitator.train_steps)
    results = [entry[1] for entry in learned if entry[0] != "saved"]
    for number, ((step, values), point, result) in enumerate(
        zip(notebook.written, trainer.history, results, strict=True), 1
    ):
        assert step == number * steps
        assert values["imitation/train_nll"] == result["nll"]
        assert values["losses/grad_norm"] == result["grad_norm"]
        assert values["imitation/skill"] == values["imitation/repeat_nll"] - values["imitation/held_out_nll"]
        assert point == {"epoch": number, "seconds": point["seconds"], **values}
    assert [(step, value) for step, value, _ in notebook.bar] == [
        (number * steps, loss) for number, loss in enumerate(losses_of(trainer), 1)
    ]
    seconds = [point["seconds"] for point in trainer.history]
    assert 0 < seconds[0] < seconds[1] < seconds[2] == trainer.seconds
    assert notebook.bar[1][2] == 2 * steps / seconds[1]  # steps a second


def test_metrics_are_on_disk_before_the_checkpoint(make_trainer, notebook):
    trainer, order = make_trainer(1), []
    notebook.flush = lambda: order.append(trainer.path.exists())
    trainer.save(notebook)
    assert order == [False] and trainer.path.exists()


def test_evaluations_come_every_so_many_epochs(make_trainer, notebook):
    calls = []

    def evaluate():
        calls.append(trainer.epochs_done)
        return {"eval/episodic_return": 10.0 * len(calls)}

    trainer = make_trainer(5, evaluate=evaluate, evaluate_every=2)
    trainer.train(notebook)
    assert calls == [2, 4]
    returns = [values.get("eval/episodic_return") for _, values in notebook.written]
    assert returns == [None, 10.0, None, 20.0, None]
    assert trainer.history[1]["eval/episodic_return"] == 10.0


def test_evaluations_are_no_learning_time(make_trainer, notebook, monkeypatch):
    """A second for each epoch, an hour for each evaluation."""
    now = [0.0]
    monkeypatch.setattr("rl.recordings.imitation_trainer.time.perf_counter", lambda: now[0])

    def pass_time(seconds, result):
        now[0] += seconds
        return result

    trainer = make_trainer(3, evaluate=lambda: pass_time(3600.0, {}), evaluate_every=1)
    original = trainer.imitator.epoch
    trainer.imitator.epoch = lambda number: pass_time(1.0, original(number))
    trainer.train(notebook)
    assert (trainer.seconds, now[0]) == (3.0, 3 * 3601.0)


@pytest.mark.parametrize(("evaluate", "every"), [(None, 2), (lambda: 1 / 0, None)])
def test_without_an_environment_or_an_interval_nothing_is_evaluated(make_trainer, notebook, evaluate, every):
    assert make_trainer(2, evaluate=evaluate, evaluate_every=every).train(notebook)


def test_an_interval_is_a_whole_number(make_trainer):
    with pytest.raises(ValueError, match=r"^evaluate_every=0: it must be a whole number of at least 1$"):
        make_trainer(2, evaluate=dict, evaluate_every=0)


def test_running_moments_come_from_what_is_learned_from(make_trainer, notebook):
    """Once, before the first epoch."""
    trainer = make_trainer(2, agent_options={"normalise_observations": True})
    trainer.train(notebook)
    learned = trainer.imitator.recording.obs["obs"][trainer.imitator.train_steps]
    moments = trainer.imitator.network.actor.encoder.parts[0].moments
    assert moments.mean.numpy() == pytest.approx(learned.mean(axis=0), abs=1e-5)
    assert moments.count == len(learned)
    resumed = make_trainer(3, agent_options={"normalise_observations": True})
    resumed.resume()
    resumed.train(notebook)
    assert resumed.imitator.network.actor.encoder.parts[0].moments.count == len(learned)


# ------------------------------------------------------------------------------------------------- the weights to keep


def test_the_best_epoch_is_kept(make_trainer, notebook):
    """On random actions a high learning rate soon makes it worse."""
    trainer = make_trainer(6, learning_rate=0.2, learning_rate_schedule="constant")
    trainer.train(notebook)
    losses = losses_of(trainer)
    assert trainer.best_epoch == 1 + int(np.argmin(losses)) < 6
    assert trainer.best_nll == min(losses)
    assert trainer.imitator.measure()["imitation/held_out_nll"] == pytest.approx(min(losses))
    content = load_checkpoint(trainer.path)
    kept, last = content["agent"]["network"], content["imitation"]["last"]
    assert not all(kept[name].equal(last[name]) for name in kept)
    resumed = make_trainer(7)
    resumed.resume()  # more epochs go on from the last one, not from the best
    assert all(leaf.equal(last[name]) for name, leaf in resumed.imitator.network.state_dict().items())
    assert (resumed.epochs_done, resumed.best_epoch, resumed.best_nll) == (6, trainer.best_epoch, min(losses))
    assert all(leaf.equal(kept[name]) for name, leaf in resumed.best_weights.items())


def test_the_last_epoch_is_kept_if_asked(make_trainer, notebook):
    trainer = make_trainer(6, learning_rate=0.2, learning_rate_schedule="constant", keep_best=False)
    trainer.train(notebook)
    losses = losses_of(trainer)
    assert np.argmin(losses) < 5
    assert (trainer.best_epoch, trainer.best_nll) == (6, losses[-1])
    assert trainer.imitator.measure()["imitation/held_out_nll"] == pytest.approx(losses[-1])


# ------------------------------------------------------------------------------------------------- resume and signals


def test_a_resumed_run_goes_on_exactly(make_trainer, notebook):
    whole = make_trainer(4, "whole", keep_best=False)
    assert whole.train(notebook)
    broken = make_trainer(4, "broken", keep_best=False)
    interrupt(broken, 2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        broken.train(notebook)
    resumed = make_trainer(4, "broken", keep_best=False)
    resumed.resume()
    assert (resumed.epochs_done, resumed.seconds) == (2, broken.seconds)
    assert resumed.train(notebook)
    pairs = zip(whole.imitator.network.parameters(), resumed.imitator.network.parameters(), strict=True)
    assert all(one.equal(other) for one, other in pairs)
    assert losses_of(whole) == losses_of(resumed) and len(losses_of(whole)) == 4
    assert resumed.seconds > broken.seconds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_running_epoch(make_trainer, notebook, usual_handlers, number):
    noted, usual = usual_handlers
    trainer = make_trainer(5)
    original = trainer.imitator.epoch

    def signalled(epoch):
        if epoch == 1:
            os.kill(os.getpid(), number)
        return original(epoch)

    trainer.imitator.epoch = signalled
    assert trainer.train(notebook) is False
    assert trainer.epochs_done == len(trainer.history) == 2
    assert load_checkpoint(trainer.path)["imitation"]["done"] == 2
    assert noted == []
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_a_failed_epoch_leaves_the_checkpoint_of_the_last_good_one(make_trainer, notebook):
    trainer = make_trainer(3)
    interrupt(trainer, 2, FloatingPointError("a gradient was not finite"))
    with pytest.raises(FloatingPointError):
        trainer.train(notebook)
    resumed = make_trainer(3)
    resumed.resume()
    assert resumed.epochs_done == 2
    resumed.train(notebook)
    assert resumed.epochs_done == 3


def test_the_weights_load_by_name_into_a_ppo_agent_that_starts_at_ratio_one(make_trainer, notebook):
    options = {"num_envs": 2, "num_steps": 8, "bptt": 4, "num_minibatches": 1, "separate_critic": True}
    trainer = make_trainer(2, agent_options=options)
    trainer.train(notebook)
    recording = trainer.imitator.recording
    agent = RecurrentPPO(
        recording.observation_space, recording.action_space, 8, core=partial(cores.gru, hidden_size=8), **options
    )
    agent.network.load_state_dict(load_checkpoint(trainer.path)["agent"]["network"], strict=True)
    for _ in range(8):
        agent.act(np.random.default_rng(0).normal(size=(2, 2)).astype(np.float32))
        agent.observe(np.ones(2), np.zeros(2, dtype=bool))
    agent.learn()
    assert agent.last_metrics["ratio_error"] < 1e-5
    agent.load(trainer.path)  # the file is an agent's checkpoint as well


def test_a_foreign_checkpoint_is_refused(make_trainer, tmp_path):
    trainer = make_trainer(1)
    assert trainer.path == checkpoint_path(tmp_path)
    with pytest.raises(FileNotFoundError):
        trainer.resume()
    trainer.imitator.agent.save(trainer.path)
    before = [leaf.clone() for leaf in trainer.imitator.network.parameters()]
    with pytest.raises(ValueError, match="was written by a training run, not by learning from a recording"):
        trainer.resume()
    assert all(map(torch.equal, before, trainer.imitator.network.parameters()))


@pytest.mark.parametrize(
    "change", [{"held_out": 0.6}, {"split": "time"}, {"seed": 1}, {"lengths": (4, 3, 5, 4)}], ids=str
)
def test_another_recording_or_split_is_refused_and_changes_nothing(make_trainer, notebook, change):
    make_trainer(1).train(notebook)
    other = make_trainer(2, **change)
    before = [leaf.clone() for leaf in other.imitator.network.parameters()]
    with pytest.raises(
        ValueError, match=r"last\.pt: it learned from another recording, or with another part of it held"
    ):
        other.resume()
    assert all(map(torch.equal, before, other.imitator.network.parameters())) and other.epochs_done == 0


def test_a_checkpoint_that_does_not_name_its_recording_is_gone_on_with(make_trainer, notebook):
    trainer = make_trainer(1)
    trainer.train(notebook)
    content = load_checkpoint(trainer.path)
    del content["imitation"]["recording"]
    torch.save(content, trainer.path)
    other = make_trainer(2)
    other.resume()
    assert other.epochs_done == 1


def test_a_damaged_checkpoint_falls_back_to_the_epoch_before(make_trainer, notebook, caplog):
    trainer = make_trainer(epochs=3)
    trainer.train(notebook)
    trainer.path.write_bytes(trainer.path.read_bytes()[:-1])
    second = make_trainer(epochs=3)
    second.resume()
    assert second.epochs_done == 2
    assert "last.pt is damaged" in caplog.text and "previous.pt" in caplog.text


def test_a_wrong_entry_is_named_and_nothing_is_changed(make_trainer, notebook):
    trainer = make_trainer(epochs=1)
    trainer.train(notebook)
    content = load_checkpoint(trainer.path)
    for entry in ("done", "best", "history", "last"):
        torch.save(content | {"imitation": content["imitation"] | {entry: "x"}}, trainer.path)
        second = make_trainer(epochs=1)
        with pytest.raises(ValueError, match=rf"last\.pt: the entry imitation\.{entry}"):
            second.resume()
        assert (second.epochs_done, second.history) == (0, [])
