"""``python -m experiments.train``: a run folder belongs to one run, whoever starts it, and a signal loses nothing."""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from experiments import train
from experiments.launch.build import build
from experiments.launch.check import ConfigError
from rl.training import signals

MAZE = "env=t_maze", "env.length=2"


@pytest.fixture
def composed(cwd, tiny):
    """``composed("seed=2")``: a configuration of a tiny run, made in Python without Hydra's launcher."""

    def make(*overrides):
        with initialize_config_module("conf", version_base="1.3"):
            below = [f"++{each}" if each.startswith("agent.") else each for each in tiny]
            return compose("train", [*MAZE, *below, *overrides])

    return make


def list_results(folder):
    return sorted(path.parent.name for path in folder.rglob("result.json"))


def test_runs_and_sweeps_of_one_second_have_folders_of_their_own(command, tiny, cwd, monkeypatch):
    """Two runs of one seed, one of another environment, two sweeps."""
    monkeypatch.setattr("experiments.launch.claim.locate_new", lambda name: cwd / "runs" / f"12-00-00-{name}")
    for env in (MAZE, MAZE, ("env=gymnasium", "env.id=CartPole-v1")):
        assert command("train", *env, *tiny, "seed=7").code == 0
    names = "12-00-00-RecurrentPPOLSTM-CartPole-v1-seed7", "12-00-00-RecurrentPPOLSTM-TMaze-seed7"
    assert list_results(cwd) == [*names, f"{names[1]}-2"]
    for _ in range(2):
        assert command("train", "-m", *MAZE, *tiny, "seed=1,2").code == 0
    jobs = ["0-RecurrentPPOLSTM-TMaze-seed1", "1-RecurrentPPOLSTM-TMaze-seed2"]
    for sweep in ("12-00-00-sweep", "12-00-00-sweep-2"):
        assert list_results(cwd / "runs" / sweep) == jobs


def test_a_folder_of_a_run_is_used_once(train_maze, command, tiny, cwd, run_of):
    train_maze("run_dir=r", "total_steps=16")
    files = {path: path.stat().st_mtime_ns for path in (cwd / "r").rglob("*") if path.is_file()}
    ended = command("train", *MAZE, *tiny, "run_dir=r")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "train: run_dir=r holds a run already: resume=r goes on with it, overwrite=true replaces it, "
        "or choose another\n"
    )
    assert {path: path.stat().st_mtime_ns for path in (cwd / "r").rglob("*") if path.is_file()} == files
    train_maze("run_dir=r", "overwrite=true")
    assert run_of(cwd / "r").result["env_steps"] == 8
    assert run_of(cwd / "r").steps("losses/policy_loss") == [8]
    assert "16 steps" not in (cwd / "r/train.log").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("agent.clib=1",),
        ("agent.clip=-1",),
        ("seed=-1",),
        ("sede=1",),
        ("init_from=nowhere",),
        ("resume=nowhere",),
        ("run_dir=deep/er", "env.length=0"),
        ("-m", "seed=-1,-2"),
        ("-m", "sede=1,2"),
        ("-m", "agent.clib=1,2"),
        ("--cfg", "job"),
        ("-m", "--cfg", "hydra"),
    ],
)
def test_what_is_refused_leaves_no_folder(command, tiny, cwd, arguments):
    command("train", *arguments[:1], *MAZE, *tiny, *arguments[1:])
    assert list(cwd.iterdir()) == []


def test_a_refused_resume_changes_nothing(train_maze, command, cwd):
    train_maze("run_dir=r")
    before = {path: path.read_bytes() for path in (cwd / "r").rglob("*") if path.is_file()}
    for arguments in (("agent.clip=-1",), ("run_dir=other",), ("overwrite=true",), ("agent.core.hidden_size=5",)):
        assert command("train", "resume=r", *arguments).code == 1
        assert {path: path.read_bytes() for path in (cwd / "r").rglob("*") if path.is_file()} == before
    assert [path.name for path in cwd.iterdir()] == ["r"]


def test_a_folder_that_hydra_is_told_is_taken(command, tiny, cwd):
    """Users of Hydra give ``hydra.run.dir`` and ``hydra.sweep.subdir``."""
    assert command("train", *MAZE, *tiny, "hydra.run.dir=a").code == 0
    own = "hydra.sweep.dir=b", "hydra.sweep.subdir=${hydra.job.num}"
    assert command("train", "-m", *MAZE, *tiny, *own, "seed=1,2").code == 0
    assert command("train", "-m", *MAZE, *tiny, "hydra.sweep.dir=c", "run_dir=c/s${seed}", "seed=1,2").code == 0
    assert list_results(cwd) == ["0", "1", "a", "s1", "s2"]


def test_a_configuration_composed_in_python_trains(composed, cwd, run_of):
    """Without Hydra's launcher, in a thread, with a folder or without, whatever Hydra holds from before."""
    with initialize_config_module("conf", version_base="1.3"):
        HydraConfig.instance().set_config(compose("train", return_hydra_config=True))
    with ThreadPoolExecutor(1) as pool:
        value = pool.submit(train.run, composed("run_dir=r")).result()
    assert run_of(cwd / "r").result["eval_return_mean"] == value
    train.run(composed("seed=3"))
    assert [name[9:] for name in list_results(cwd / "runs")] == ["RecurrentPPOLSTM-TMaze-seed3"]
    (cwd / "own").mkdir()
    assert train.train(build(composed()), cwd / "own", False) == train.run(composed("run_dir=s"))
    with pytest.raises(ConfigError, match=r"^resume=r: a configuration composed in Python does not tell what was set"):
        train.run(composed("resume=r", "total_steps=16"))
    train.run(composed("resume=r", "total_steps=16"), overrides=["total_steps=16"])
    assert run_of(cwd / "r").result["env_steps"] == 16


@pytest.fixture
def send(monkeypatch, hangup_ends):
    """``send(target, "name", number, call)``: the call of that name sends a signal first, as a user would meanwhile."""
    monkeypatch.setattr(signals, "ECHO", 0.0)

    def plant(target, name, number):
        original = getattr(target, name)

        def signalled(*arguments, **options):
            os.kill(os.getpid(), number)
            return original(*arguments, **options)

        monkeypatch.setattr(target, name, signalled)

    return plant


def test_a_signal_while_building_leaves_nothing(command, tiny, cwd, send):
    send(train, "build", signal.SIGTERM)
    ended = command("train", *MAZE, *tiny)
    assert (ended.code, ended.out) == (143, "")
    assert ended.err == "train: stopped by SIGTERM before it began; nothing was written\n"
    assert list(cwd.iterdir()) == []


def test_a_signal_in_the_final_evaluation_leaves_a_run_that_can_make_it(command, tiny, cwd, send, monkeypatch, run_of):
    with monkeypatch.context() as patched:
        send(train.Evaluations, "play_final", signal.SIGHUP)
        ended = command("train", *MAZE, *tiny, "run_dir=r")
        patched.undo()
    assert ended.code == 129
    assert ended.err == (
        "train: stopped by SIGHUP in the final evaluation; training is complete, resume=r goes on with it\n"
    )
    assert run_of(cwd / "r").checkpoint["agent"]["env_steps"] == 8 and list_results(cwd) == []


@pytest.mark.parametrize("place", ["save", "report"])
def test_a_signal_while_saving_or_training_saves(command, tiny, cwd, send, place, run_of):
    send(train.Trainer, place, signal.SIGINT)
    ended = command("train", *MAZE, *tiny, "run_dir=a b")
    assert (ended.code, ended.err) == (130, "train: stopped by SIGINT at step 8; 'resume=a b' goes on with it\n")
    assert run_of(cwd / "a b").checkpoint["agent"]["env_steps"] == 8
    assert (cwd / "a b/train.log").read_text().endswith(ended.err.removeprefix("train: s"))


def test_a_signal_ends_a_sweep(command, tiny, cwd, send):
    send(train.Trainer, "report", signal.SIGTERM)
    ended = command("train", "-m", *MAZE, *tiny, "seed=1,2,3", "hydra.sweep.dir=s")
    assert ended.code == 143
    assert re.fullmatch(
        r"train: stopped by SIGTERM in job 0 of a sweep, at step 8; resume=s/0-\S+-seed1 goes on with it; "
        r"jobs done: none; those after 0 did not start\n",
        ended.err,
    )
    assert [path.name for path in (cwd / "s").iterdir() if path.is_dir()] == ["0-RecurrentPPOLSTM-TMaze-seed1"]


def test_one_line_while_it_imports(process):
    """Importing takes seconds; the first of them see the package alone."""
    child = process("train")
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "train: stopped by SIGINT\n")


def test_a_stored_configuration_has_its_folder(train_maze, cwd):
    train_maze("run_dir=r")
    assert OmegaConf.load(cwd / "r/config.yaml").run_dir == "r"
