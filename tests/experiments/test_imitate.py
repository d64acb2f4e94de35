"""``python -m experiments.imitate``: runs that teach, that are played afterwards, and that go on."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl.checkpoint import load_checkpoint
from rl.recordings import ImitationTrainer

SMALL = "agent.layer_size=8", "agent.core.hidden_size=8", "imitation.streams=4", "imitation.epochs=2"
T_MAZE = "env=t_maze", "env.length=3"


@pytest.fixture
def expert(command, cwd):
    """A data set of 60 episodes of a scripted player."""
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    arguments = "player=envs.players.TMazeExpert", *T_MAZE, "episodes=60", "output=expert"
    assert command("record", *arguments).code == 0
    return "data=expert"


def test_a_run_and_what_it_leaves(expert, command, cwd):
    ended = command("imitate", expert, *T_MAZE, "agent/core=gru", *SMALL, "run_dir=run", "evaluate_every=1")
    assert (ended.code, ended.err) == (0, "")
    result = json.loads((cwd / "run/result.json").read_text())
    assert (result["core"], result["env"], result["expert_return_mean"]) == ("gru", "TMaze", 1.0)
    assert (result["episodes"], result["train_steps"], result["held_out_steps"]) == (60, 216, 24)
    assert result["epochs"] == len(result["history"]) == 2
    assert result["held_out_nll"] == pytest.approx(min(e["imitation/held_out_nll"] for e in result["history"]))
    assert result["held_out_nll"] == pytest.approx(sum(result["held_out_nll_branches"].values()))
    assert all("eval/episodic_return" in point for point in result["history"])
    assert list((cwd / "run").glob("events.*")) and (cwd / "run/train.log").is_file()

    ended = command("evaluate", "run=run", "episodes=100", "seed=1001")  # as any other run
    assert (ended.code, ended.err) == (0, "")
    row = json.loads((cwd / "run/evaluation.json").read_text())[0]
    assert (row["mean"], row["stderr"]) == (result["eval_return_mean"], result["eval_return_stderr"])


def test_a_resumed_run_ends_as_an_uninterrupted_one(expert, command, cwd):
    arguments = expert, *T_MAZE, *SMALL, "imitation.learning_rate_schedule=constant", "imitation.keep_best=false"
    assert command("imitate", *arguments, "imitation.epochs=3", "run_dir=whole").code == 0
    assert command("imitate", *arguments, "imitation.epochs=1", "run_dir=cut").code == 0
    ended = command("imitate", "resume=cut", "imitation.epochs=3")
    assert (ended.code, ended.err) == (0, "")
    weights = [load_checkpoint(cwd / f"{run}/checkpoints/last.pt")["agent"]["network"] for run in ("whole", "cut")]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def test_a_folder_belongs_to_one_run(expert, command, cwd):
    """It is named after the run, used once, and left alone by what is refused."""
    assert command("imitate", expert, *SMALL, "imitation.epochs=1", "seed=3").code == 0
    (run,) = (cwd / "runs").glob("*/*")
    assert run.name[9:] == "imitate-RecurrentPPOLSTM-seed3"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    ended = command("imitate", expert, *SMALL, f"run_dir={run}")
    assert ended.code == 1 and "holds a run already: resume=runs/" in ended.err
    assert command("imitate", f"resume={run}", "imitation.epochs=0").code == 1
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert command("imitate", "data=nowhere", *SMALL, "run_dir=other").code == 1
    assert command("imitate", *SMALL, "run_dir=other").code == 1
    assert not (cwd / "other").exists()


def test_a_signal_ends_the_epoch_and_says_how_to_go_on(expert, command, cwd, monkeypatch):
    original = ImitationTrainer._report

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(ImitationTrainer, "_report", signalled)
        ended = command("imitate", expert, *SMALL, "run_dir=run", "imitation.epochs=9")
    assert (ended.code, ended.err) == (
        143,
        "imitate: stopped by SIGTERM after epoch 1; resume=run goes on with it\n",
    )
    assert not (cwd / "run/result.json").exists()
    assert command("imitate", "resume=run", "imitation.epochs=2").code == 0
    assert json.loads((cwd / "run/result.json").read_text())["epochs"] == 2


def test_without_an_environment(expert, command, cwd):
    """The spaces of the recording are enough; there is then nothing to play in."""
    assert command("imitate", expert, *SMALL, "run_dir=run").code == 0
    result = json.loads((cwd / "run/result.json").read_text())
    assert result["env"] is None and "eval_return_mean" not in result
    ended = command("evaluate", "run=run")
    assert (ended.code, ended.err) == (
        1,
        "evaluate: this run has no environment: it was made of a recording, or of an agent of sb3, alone\n",
    )


def test_rewards_are_fed_as_the_environment_tells_them(command, cwd, tiny, monkeypatch):
    """The recording holds what was paid, a part of 1 in every step: scaled and clipped for the agent alone."""
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    fed, made = [], ImitationTrainer.__init__

    def note(trainer, imitator, *arguments):
        fed.append(imitator)
        made(trainer, imitator, *arguments)

    task = "env=repeat_previous", "env.episode_length=8"
    assert command("train", *task, *tiny, "run_dir=player").code == 0
    assert command("record", "run=player", "episodes=20", "output=data").code == 0
    monkeypatch.setattr(ImitationTrainer, "__init__", note)
    changed = "env.scale_rewards=100", "env.clip_rewards=9", "agent.previous_action_reward=true"
    assert command("imitate", "data=data", *task, *SMALL, *changed, "imitation.epochs=1", "run_dir=taught").code == 0
    paid, starts = fed[0].recording.rewards, fed[0].recording.starts
    seen = fed[0].obs["previous_reward"].squeeze(1).numpy()
    assert 0.09 < np.abs(paid).max() <= 1.0 and {-9.0, 0.0} <= {*seen.tolist()}
    assert seen[1:].tolist() == np.where(starts[1:], 0.0, np.clip(100.0 * paid[:-1], -9.0, 9.0)).tolist()


def test_the_weights_are_those_of_a_training_run(expert, command, cwd, tiny):
    """Same names, same shapes: an agent of `experiments.train` takes the checkpoint's network strictly."""
    sizes = "agent.layer_size=8", "agent.core.hidden_size=8"
    assert command("imitate", expert, *T_MAZE, "agent/core=gru", *SMALL, "run_dir=taught").code == 0
    assert command("train", *T_MAZE, "agent/core=gru", *tiny, *sizes, "run_dir=trained").code == 0
    taught, trained = (
        load_checkpoint(cwd / f"{run}/checkpoints/last.pt")["agent"]["network"] for run in ("taught", "trained")
    )
    assert {name: leaf.shape for name, leaf in taught.items()} == {name: leaf.shape for name, leaf in trained.items()}
    assert all(torch.isfinite(leaf).all() for leaf in taught.values())


def test_ppo_goes_on_from_the_weights(expert, command, cwd, tiny):
    """At ratio 1, and with what was taught: after an update too small to change anything the return is the same."""
    sizes = "agent.layer_size=64", "agent.core.hidden_size=64"
    longer = "imitation.window_size=8", "imitation.epochs=20", "imitation.learning_rate=0.01", "final_episodes=20"
    assert command("imitate", expert, *T_MAZE, "agent/core=gru", *SMALL, *sizes, *longer, "run_dir=taught").code == 0
    taught = json.loads((cwd / "taught/result.json").read_text())
    assert taught["eval_return_mean"] == 1.0 and taught["memory_zeroed_return_mean"] < 1.0
    arguments = *T_MAZE, "agent/core=gru", *tiny, *sizes, "agent.learning_rate=1e-9", "final_episodes=20"
    ended = command("train", *arguments, "init_from=taught", "run_dir=trained")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads((cwd / "trained/result.json").read_text())["eval_return_mean"] == 1.0
    events = EventAccumulator(str(cwd / "trained")).Reload()
    assert events.Scalars("diagnostics/ratio_error")[0].value < 1e-5

    ended = command("train", *T_MAZE, "agent/core=lstm", *tiny, *sizes, "init_from=taught", "run_dir=x")
    assert (
        ended.code == 1
        and "init_from=taught: taught/checkpoints/last.pt: the checkpoint is of another network:" in ended.err
    )
    ended = command("train", "resume=taught")
    assert ended.code == 1 and "taught learned from a recording: go on with experiments.imitate" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "data is missing: give data=FOLDER, a Minari data set, or data=GAME.slp"),
        (("data=nowhere",), "data=nowhere: there is no Minari data set in that folder or under that id"),
        (("data=expert", "env=witness_vote"), "the recording has the observation space Box(0.0, 1.0, (4,), float32)"),
        (("data=expert", "agent=recurrent_iqn"), "cannot learn from recordings: choose agent=recurrent_ppo_lstm"),
        (("data=expert", "imitation.epoch=3"), "there is no key 'imitation.epoch'; did you mean epochs?"),
        (("data=expert", "imitation.split=steps"), "imitation.split='steps' is not"),
        (("data=[expert,expert]",), "data names 2 data sets: give one, or .slp files"),
        (("data=[game.slp,expert]",), "data=expert: it must be a .slp file or a folder of them, as the other data are"),
    ],
)
def test_bad_input(expert, command, monkeypatch, cwd, arguments, message):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(cwd / "own"))
    ended = command("imitate", *arguments, "run_dir=run")
    assert ended.code == 1 and ended.err.count("\n") == 1 and message in ended.err


def test_what_is_played_may_be_left_out_or_cut(expert, command, cwd):
    """One environment alone, episodes of one step at most, no control without memory; then nothing in the end."""
    shared = expert, *T_MAZE, *SMALL, "evaluation_envs=1"
    cut = "evaluation_max_steps=1", "final_episodes=3", "evaluate_memory_zeroed=false"
    ended = command("imitate", *shared, *cut, "run_dir=run")
    assert (ended.code, ended.err) == (0, "")
    result = json.loads((cwd / "run/result.json").read_text())
    assert (result["eval_episodes"], result["eval_episodes_cut"], result["memory_zeroed_return_mean"]) == (1, 1, None)
    ended = command("imitate", *shared, "final_episodes=0", "run_dir=other")
    assert (ended.code, ended.err) == (0, "") and "no final evaluation, of the recording 1.000" in ended.out
    assert json.loads((cwd / "other/result.json").read_text())["eval_return_mean"] is None


def test_bad_values_in_a_recording(expert, command, cwd):
    h5py = pytest.importorskip("h5py")
    with h5py.File(cwd / "expert/data/main_data.hdf5", "a") as file:
        file["episode_2/observations"][1, 0] = float("nan")
    ended = command("imitate", expert, *SMALL)
    assert (ended.code, ended.err) == (
        1,
        "imitate: observation 'obs' is nan at step 1 of episode 2 of the recording: it must be finite\n",
    )
