"""The progress of a run, and what TensorBoard reads back."""

import io
import logging
import shutil
import sys
import threading
import time
from fnmatch import fnmatchcase
from functools import partial

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from envs.probes import SpaceProbe
from rl import cores
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.recordings import Imitation, ImitationTrainer, Imitator
from rl.training.metrics import GLOSSARY, Metrics, tag_update
from rl.training.trainer import Trainer


@pytest.fixture
def read():
    """What TensorBoard shows of a folder: (step, value) pairs of every scalar."""

    def load(folder):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    return load


@pytest.fixture
def run():
    """A short training with everything that can be reported switched on; ``action`` decides the branches."""

    def train(folder, action, total_steps=48, kind=RecurrentPPO):
        envs = SpaceProbe(3, "box", action)
        update = (
            {"num_minibatches": 2, "teacher_kl": 0.1, "recall_coef": 0.1}
            if kind is RecurrentPPO
            else {"batch_size": 8, "burn_in": 0, "learning_starts": 8}
        )
        agent = kind(
            envs.single_observation_space,
            envs.single_action_space,
            8,
            seed=0,
            core=partial(cores.gru, hidden_size=8),
            num_envs=3,
            num_steps=8,
            bptt=4,
            normalise_observations=True,
            **update,
        )

        agent.save(folder / "first.pt")
        agent.load_network(folder / "first.pt")

        def evaluate():
            names = ("eval/episodic_return", "eval/episodic_return_memory_zeroed", "diagnostics/memory_gap")
            return dict(zip((*names, "diagnostics/memory_gap_stderr"), (0.75, 0.5, 0.25, 0.1), strict=True))

        trainer = Trainer(agent, envs, folder, total_steps, seed=0, evaluate=evaluate, evaluate_every=24)
        with Metrics(folder, total_steps) as metrics:
            trainer.train(metrics)
        return agent

    return train


def test_others_see_points_of_the_curves_soon(tmp_path, read):
    """Without a save of the run, or its end; beside TensorFlow, which buffers, once the time is over."""
    with Metrics(tmp_path, 100) as metrics:
        for step in (10, 20):
            metrics.scalars({"eval/episodic_return": 0.5}, step)
        end = time.monotonic() + 20
        while read(tmp_path) != {"eval/episodic_return": [(10, 0.5), (20, 0.5)]}:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert metrics.writer.flush_secs <= 5


def test_an_event_file_begins_in_a_later_second_than_the_ones_before(tmp_path):
    """In one second they would be read in the order of process ids: a resumed run's first, if its id is the lower."""
    second = int(time.time())
    (tmp_path / f"events.out.tfevents.{second}.host.99999999.0").touch()
    with Metrics(tmp_path, 100, step=50):
        made = sorted(path.name for path in tmp_path.glob("events.*"))
    assert len(made) == 2
    assert int(made[1].split(".")[3]) > second


# ------------------------------------------------------------------------------------------------------------ glossary


def test_every_tag_stands_in_the_glossary_and_every_entry_is_written(run, read, tmp_path, make_recording):
    """One run with a single branch, one with two, which adds an entropy for each, and one of a quantile network."""
    run(tmp_path / "quantiles", "discrete", kind=RecurrentIQN)
    written = set(read(tmp_path / "quantiles"))
    for action in ("discrete", "multi_discrete"):
        run(tmp_path / action, action)
        written |= read(tmp_path / action).keys()
    assert "losses/entropy_action_1" in written
    with Metrics(tmp_path / "table", 100) as metrics:
        metrics.hparams({"seed": 1}, {"eval_return_mean": 0.5})
    written |= read(tmp_path / "table").keys()
    recording = make_recording((5, 6), branch_weights={"six_heads": (1.0,)})
    agent = RecurrentPPO(recording.observation_space, recording.action_space, 4, seed=0)
    trainer = ImitationTrainer(Imitator(agent, recording, Imitation(epochs=1), seed=0), tmp_path / "imitation")
    with Metrics(tmp_path / "imitation", 100) as metrics:
        trainer.train(metrics)
    written |= read(tmp_path / "imitation").keys()
    unexplained = {tag for tag in written if not any(fnmatchcase(tag, entry) for entry in GLOSSARY)}
    assert not unexplained
    unused = {entry for entry in GLOSSARY if not any(fnmatchcase(tag, entry) for tag in written)}
    assert not unused
    assert all(meaning.strip() for meaning in GLOSSARY.values())


def test_the_results_of_an_update_are_grouped(read, tmp_path):
    with Metrics(tmp_path, 100) as metrics:
        metrics.scalars(tag_update({"loss": 1.0, "approx_kl": 2.0, "learning_rate": 3.0, "ratio_error": 4.0}), 7)
        of_member = {"a/loss": 1.0, "a/approx_kl": 5.0, "a/epsilon": 6.0}
        metrics.scalars(tag_update(of_member | {"a/state_staleness": 7.0, "gradient_share_older_than_8": 8.0}), 8)
    assert read(tmp_path) == {
        "losses/a/approx_kl": [(8, 5.0)],
        "charts/a/epsilon": [(8, 6.0)],
        "losses/approx_kl": [(7, 2.0)],
        "charts/learning_rate": [(7, 3.0)],
        "diagnostics/ratio_error": [(7, 4.0)],
        "diagnostics/a/state_staleness": [(8, 7.0)],
        "diagnostics/gradient_share_older_than_8": [(8, 8.0)],
    }


def test_texts_and_hyperparameters_stand_in_the_run_itself(tmp_path):
    """The table takes what is plain: no None and no list."""
    with Metrics(tmp_path, 100) as metrics:
        metrics.text("config", "seed: 1")
        metrics.hparams({"seed": 1, "core": "gru", "env": None, "seats": [1]}, {"eval_return_mean": 0.5})
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    assert events.Tensors("config/text_summary")[0].tensor_proto.string_val == [b"seed: 1"]
    assert events.Scalars("hparam/eval_return_mean")[0].value == 0.5
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"core" in content and b"seats" not in content and b"env" not in content


def test_the_x_axis_is_environment_steps(run, read, tmp_path):
    """48 steps of 3 environments in rollouts of 8: updates at 24 and 48, an evaluation at each."""
    agent = run(tmp_path, "discrete")
    curves = read(tmp_path)
    for tag in ("losses/policy_loss", "charts/SPS", "charts/episodic_return", "eval/episodic_return"):
        assert [step for step, _ in curves[tag]] == [24, 48], tag
    assert [value for _, value in curves["diagnostics/memory_gap"]] == [0.25, 0.25]
    assert curves["losses/grad_norm"][-1][1] == pytest.approx(agent.last_metrics["grad_norm"])
    assert [value for _, value in curves["charts/episodic_length"]] == [4.0, 4.0]


# -------------------------------------------------------------------------------------------------------------- resume


def test_a_resumed_run_draws_one_curve(read, tmp_path):
    """Steps 10 to 50 are written, the checkpoint is at 30; the second writer goes on with 40 and 50, new values."""
    with Metrics(tmp_path, 100) as metrics:
        for step in (10, 20, 30, 40, 50):
            metrics.scalars({"losses/entropy": float(step)}, step)
    with Metrics(tmp_path, 100, 30) as metrics:
        for step in (40, 50, 60):
            metrics.scalars({"losses/entropy": float(-step)}, step)
    assert read(tmp_path)["losses/entropy"] == [(10, 10), (20, 20), (30, 30), (40, -40), (50, -50), (60, -60)]


def test_a_run_that_goes_on_from_its_end_loses_nothing(read, tmp_path):
    with Metrics(tmp_path, 20) as metrics:
        metrics.scalars({"losses/entropy": 1.0}, 10)
        metrics.scalars({"losses/entropy": 2.0}, 20)
    with Metrics(tmp_path, 40, 20) as metrics:
        metrics.scalars({"losses/entropy": 3.0}, 30)
    assert read(tmp_path)["losses/entropy"] == [(10, 1), (20, 2), (30, 3)]


# ------------------------------------------------------------------------------------------------------------ progress


def test_without_a_terminal_a_line_for_each_tenth_is_logged(tmp_path, caplog):
    """Steps 5 to 100 of 100 in fives: ten lines. A run that goes on from 50 has five left."""
    for start, lines in ((0, 10), (50, 5)):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="rl.training.metrics"), Metrics(tmp_path, 100, start) as metrics:
            assert metrics.bar.disable  # pytest captures the error stream
            assert metrics.bar.n == start
            for step in range(start + 5, 101, 5):
                metrics.progress(step, None if step < 60 else 0.5, 123.4)
        assert len(caplog.messages) == lines
    assert caplog.messages[0] == "60 steps, return 0.50, 123 steps/s"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar_that_messages_do_not_tear(tmp_path, caplog, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO, logger="rl.training.metrics"), Metrics(tmp_path, 100, 20) as metrics:
        assert (metrics.bar.total, metrics.bar.n) == (100, 20)
        for step in (30, 50):
            metrics.progress(step, 0.5, 123.4, "held-out nll")
            assert metrics.bar.n == step
        metrics.bar.refresh()
        metrics.say("hello")
    assert "held-out nll 0.50" in terminal.getvalue()
    assert "hello\n" in terminal.getvalue()
    assert caplog.messages == []
    assert metrics.bar.disable  # it is closed


def test_messages_are_logged_without_a_terminal(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="rl.training.metrics"), Metrics(tmp_path, 100) as metrics:
        metrics.say("hello")
    assert caplog.messages == ["hello"]


def test_flushed_scalars_can_be_read_while_the_run_goes_on(read, tmp_path):
    with Metrics(tmp_path, 100) as metrics:
        metrics.scalars({"losses/entropy": 1.0}, 10)
        metrics.flush()
        assert read(tmp_path) == {"losses/entropy": [(10, 1.0)]}


def test_an_event_file_that_cannot_be_written_is_told_when_the_run_is_saved(tmp_path, capsys):
    """Training goes on until then; no thread prints a traceback, and afterwards threads speak as before."""
    usual = threading.excepthook
    metrics = Metrics(tmp_path / "run", 100)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(OSError, match=r"its curves cannot be written: No such file or directory: '.*run'$"), metrics:
        for step in range(50):
            metrics.scalars({"charts/SPS": 1.0}, step)
        metrics.flush()
    assert threading.excepthook is usual
    assert capsys.readouterr().err == ""


def test_a_folder_that_can_have_no_event_file_is_named(tmp_path):
    usual = threading.excepthook
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"its curves cannot be written: .*file/run"):
        Metrics(tmp_path / "file/run", 100)
    assert threading.excepthook is usual


def test_the_metric_is_the_last_part_of_a_name():
    found = tag_update({"red/a/clip": 0.2, "red/a/policy_loss": 0.5, "red/a/loss": 1.0, "red/hidden_norm": 2.0})
    assert found == {"charts/red/a/clip": 0.2, "losses/red/a/policy_loss": 0.5, "diagnostics/red/hidden_norm": 2.0}
