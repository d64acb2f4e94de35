"""``python -m experiments.train --multirun`` with jobs side by side, of joblib and of submitit on this machine."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher")

LONG = ("total_steps=40_000", "checkpoint_every=1_000_000", "evaluate_every=null", "final_episodes=2", "num_steps=32")
SMALL = (
    "env=t_maze",
    "env.length=2",
    "num_envs=4",
    "agent.num_minibatches=2",
    "agent.core.hidden_size=4",
    "agent.layer_size=4",
)
JOBLIB = ("--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
SUBMITIT = ("--multirun", "hydra/launcher=submitit_local", "hydra.sweep.dir=sweep")


def runs(cwd):
    return sorted(cwd.glob("sweep/[0-9]*"))


def wait_for(true, seconds=90):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def have_learned(cwd, number):
    """Whether so many runs have told of a tenth of their steps."""
    return (
        len([run for run in runs(cwd) if (run / "train.log").is_file() and " steps, return " in said_by(run)]) == number
    )


def said_by(run):
    return (run / "train.log").read_text()


def test_jobs_side_by_side_have_folders_of_their_own_and_one_failure_is_told(process, cwd, tiny):
    """Two values of each of two keys; one combination cannot be."""
    child = process("train", *JOBLIB, *tiny, "env=t_maze", "seed=1,2", "agent.clip=0.2,-1")
    out, err = child.communicate(timeout=240)
    assert child.returncode == 1
    assert [run.name for run in runs(cwd)] == ["0-RecurrentPPOLSTM-TMaze-seed1", "2-RecurrentPPOLSTM-TMaze-seed2"]
    assert all((run / "result.json").is_file() for run in runs(cwd))
    assert "job 1 failed: clip=-1.0: it must be a number of at least 1e-12; the other jobs go on" in err
    assert "job 0: return " in out and "job 2: return " in out
    assert err.splitlines()[-1] == (
        "train: job 1 failed: clip=-1.0: it must be a number of at least 1e-12; jobs that failed: 1, 3; jobs done: 0, 2"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_every_job_save(number, process, cwd):
    child = process("train", *JOBLIB, *SMALL, *LONG, "seed=1,2,3,4,5")
    wait_for(lambda: have_learned(cwd, 2))
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 128 + number
    name = signal.Signals(number).name
    assert err.splitlines()[-1] == (
        f"train: stopped by {name} in a sweep; jobs done: none; stopped and told above: 0, 1; failed: none; "
        "the others did not start"
    )
    assert len(runs(cwd)) == 2
    for run in runs(cwd):
        assert (run / "checkpoints/last.pt").is_file() and not (run / ".lock").exists()
        assert f"resume=sweep/{run.name} goes on with it" in err


def test_jobs_save_and_end_when_their_command_is_killed(process, cwd):
    child = process("train", *JOBLIB, *SMALL, *LONG, "seed=1,2,3,4,5")
    wait_for(lambda: have_learned(cwd, 2))
    child.kill()
    child.wait()
    wait_for(lambda: all((run / "checkpoints/last.pt").is_file() for run in runs(cwd)))
    wait_for(lambda: not any((run / ".lock").exists() for run in runs(cwd)))
    assert len(runs(cwd)) == 2
    assert all("Stopped by SIGTERM at step" in said_by(run) for run in runs(cwd))


def list_tasks(cwd):
    """The processes of jobs of submitit in a folder, by the number of their job."""
    found = {}
    for place in os.listdir("/proc"):
        if place.isdecimal():
            try:
                line = Path("/proc", place, "cmdline").read_text().split("\0")
                variables = Path("/proc", place, "environ").read_text().split("\0")
            except OSError:
                continue
            if "submitit.core._submit" in line and any(str(cwd) in part for part in line):
                job = next(each.partition("=")[2] for each in variables if each.startswith("SUBMITIT_LOCAL_JOB_ID="))
                found[job] = int(place)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the processes of jobs are looked up in /proc")
def test_jobs_that_a_cluster_ends_are_queued_again_and_go_on(process, cwd):
    """By SIGUSR2, as submitit is told of a preemption or of the end of the time, and by SIGTERM."""
    child = process("train", *SUBMITIT, *SMALL, *LONG, "seed=1,2")
    wait_for(lambda: have_learned(cwd, 2))
    tasks = list_tasks(cwd)
    assert len(tasks) == 2
    for task, number in zip(tasks.values(), (signal.SIGUSR2, signal.SIGTERM), strict=True):
        os.kill(task, number)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    assert [run.name for run in runs(cwd)] == ["0-RecurrentPPOLSTM-TMaze-seed1", "1-RecurrentPPOLSTM-TMaze-seed2"]
    for run in runs(cwd):
        assert said_by(run).count("parameters, run folder") == 2 and "Stopped by SIGTERM at step" in said_by(run)
        assert json.loads((run / "result.json").read_text())["env_steps"] >= 40_000


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the processes of jobs are looked up in /proc")
def test_jobs_of_submitit_on_this_machine_end_with_the_command(process, cwd):
    child = process("train", *SUBMITIT, *SMALL, *LONG, "seed=1,2")
    wait_for(lambda: have_learned(cwd, 2))
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 143
    assert "train: stopped by SIGTERM in a sweep; jobs done: none; stopped and told above: 0, 1" in err
    wait_for(lambda: not list_tasks(cwd))
    for run in runs(cwd):
        assert said_by(run).count("parameters, run folder") == 1 and (run / "checkpoints/last.pt").is_file()
