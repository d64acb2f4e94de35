"""``python -m experiments.status``: runs that are done, running, stopped, dead or elsewhere, and studies."""

import json
import os

import pytest
from torch.utils.tensorboard import SummaryWriter

from experiments.launch.lock import NAME, measure_start
from experiments.sweeps.status import name_run_state, read_progress
from experiments.sweeps.study import import_optuna, load_study


@pytest.fixture
def make_run(cwd):
    """``make_run("a", steps=40, result={...}, holder={...})``: a folder as a run leaves it."""

    def make(name, steps=0, result=None, holder=None, saved=True):
        folder = cwd / "runs" / name
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "config.yaml").write_text("total_steps: 100\nseed: 1\n")
        if saved:
            (folder / "checkpoints/last.pt").touch()
        with SummaryWriter(str(folder)) as writer:
            for step in range(10, steps + 1, 10):
                writer.add_scalar("charts/episodic_return", -1.0, step)
                writer.add_scalar("eval/episodic_return", step / 100, step)
        if result is not None:
            (folder / "result.json").write_text(json.dumps(result))
        if holder is not None:
            usual = {"pid": os.getpid(), "start": measure_start(os.getpid()), "since": 1.0, "host": os.uname().nodename}
            (folder / NAME).write_text(json.dumps(usual | holder))
        return folder

    return make


DONE = {"env_steps": 104, "total_steps": 100, "eval_return_mean": 0.9, "wall_seconds": 5.0}


def test_states(make_run, command, cwd):
    """Steps and return of a run that is under way come from its curves, those of a finished one from its result."""
    make_run("done", 100, DONE)
    make_run("dead", 40, holder={"start": "0"})
    make_run("elsewhere", 30, holder={"host": "node7"})
    make_run("running", 20, DONE, holder={})  # it goes on to more steps
    make_run("stopped", 10)
    make_run("nothing", saved=False)
    (cwd / "runs/other").mkdir()
    ended = command("status")
    assert (ended.code, ended.err) == (0, "")
    rows = {line.split()[0]: line.split(None, 1)[1] for line in ended.out.splitlines()[1:-1]}
    assert {name.removeprefix("runs/"): " ".join(row.split()) for name, row in rows.items()} == {
        "done": "done 104 of 100 (100%) 0.9 5",
        "dead": "dead 40 of 100 (40%) 0.4 0",
        "elsewhere": f"elsewhere 30 of 100 (30%) 0.3 0 process {os.getpid()} of node7",
        "running": f"running 20 of 100 (20%) 0.2 0 process {os.getpid()} of {os.uname().nodename}",
        "stopped": "stopped 10 of 100 (10%) 0.1 0",
        "nothing": "stopped 0 of 100 (0%) - 0 nothing was saved",
    }
    last = ended.out.splitlines()[-1]
    assert last == "1 done, 1 running, 2 stopped, 1 dead, 1 elsewhere; 200 of 600 steps (33%)"
    some = command("status", "states=[dead,running]").out.splitlines()
    assert [line.split()[0] for line in some[1:-1]] == ["runs/dead", "runs/running"] and some[-1] == last


def test_a_real_run(train_maze, command):
    train_maze("run_dir=run", "total_steps=16")
    assert command("status", "runs=run").out.splitlines()[1].split()[:5] == ["run", "done", "16", "of", "16"]


def test_the_lock_comes_first():
    """A finished run that goes on to more steps is running."""
    assert name_run_state({"alive": True}, True, True) == "running"
    assert name_run_state({"alive": False}, True, True) == "done"
    assert name_run_state(None, True, False) == "stopped"


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("plateau", "done"),
        ("threshold", "done"),
        ("max_seconds", "done"),
        ("total_steps", "stopped"),
        (None, "stopped"),
    ],
)
def test_a_run_that_ended_early_is_done(make_run, reason, state):
    """Not one that had reached its steps and was then asked for more, nor one of before, which says no reason."""
    result = DONE | {"env_steps": 40} | ({} if reason is None else {"stop_reason": reason})
    found = read_progress(make_run("a", 40, result))
    assert (found.state, found.steps, found.total) == (state, 40, 100)


def test_a_finished_run_without_a_final_evaluation_shows_the_last_one_before(make_run):
    result = DONE | {"eval_return_mean": None, "train_return_mean": 0.1, "evaluations": [{"return": 0.7}]}
    assert read_progress(make_run("a", result=result)).value == 0.7
    assert read_progress(make_run("b", result=result | {"evaluations": []})).value == 0.1


def test_an_imitation_has_no_total(make_run):
    """Its ``total_steps`` are those of a training that goes on from it; what it has learned from its curves say."""
    result = {"epochs": 3, "eval_return_mean": 0.9, "training_seconds": 7.0}
    for name, known in (("done", result), ("stopped", None)):
        folder = make_run(name, 40, known)
        (folder / "config.yaml").write_text("total_steps: 100\nimitation:\n  epochs: 3\n")
        found = read_progress(folder)
        assert (found.state, found.steps, found.total) == (name, 40, None)
        assert found.value == pytest.approx(0.4 if known is None else 0.9)


def test_an_agent_that_was_taken_over_is_not_gone_on_with_by_resume(make_run):
    folder = make_run("taken")
    for file in folder.glob("events*"):
        file.unlink()
    found = read_progress(folder)
    assert (found.state, found.total) == ("stopped", None) and "init_from" in found.note


def test_a_damaged_run_is_a_line_of_its_own(make_run, command):
    make_run("bad", result=DONE).joinpath("result.json").write_text("{")
    ended = command("status")
    assert ended.code == 0 and "result.json is damaged" in ended.out


def test_a_study_shows_its_trials(cwd, command):
    optuna = pytest.importorskip("optuna")
    import_optuna()
    (cwd / "runs/study").mkdir(parents=True)
    study = load_study(cwd / "runs/study", sampler=optuna.samplers.RandomSampler(), pruner=optuna.pruners.NopPruner())
    for value in (0.25, 0.5):
        study.tell(study.ask(), value)
    study.ask()
    journal = (cwd / "runs/study/journal.log").read_bytes()
    shown = " ".join(command("status").out.splitlines()[1].split())
    assert shown == "runs/study study 2 done, 1 running 0.5 - best: trial 1"
    assert (cwd / "runs/study/journal.log").read_bytes() == journal
    (cwd / "runs/study/journal.log").write_text("[]\n[]\n")
    assert "journal.log is damaged" in command("status").out


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("runs=nowhere", "status: runs=nowhere: there is no such folder"),
        ("states=[dad]", "status: states: there is no state 'dad'; did you mean dead?"),
        ("runs=[]", "status: runs is empty"),
    ],
)
def test_bad_input(argument, words, command, cwd):
    (cwd / "runs").mkdir()
    ended = command("status", argument)
    assert (ended.code, ended.err.strip()) == (1, words)


def test_no_runs(cwd, command):
    (cwd / "runs").mkdir()
    assert command("status").out.strip() == "no runs"
