"""A folder belongs to one run: names, refusals, what is removed and what is left alone."""

import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from experiments.launch import claim
from experiments.launch.check import ConfigError
from experiments.launch.claim import claim_folder, name_target, remove_run, remove_temporary_files, remove_unused
from rl.training.signals import Stopped

GONE = 2**22 + 1  # the number of no process


def configure(**changes):
    return OmegaConf.create({"resume": None, "run_dir": None, "overwrite": False} | changes)


def fill(folder):
    """What a run leaves, and what it does not know of."""
    files = "config.yaml", "result.json", "train.log", "events.out.tfevents.1.host.2.0"
    files += "checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt", "evaluation.json"
    others = "notes.txt", "checkpoints/mine.pt", "data/config.yaml"
    for name in (*files, *others):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return set(others)


def list_files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def use(config, name="agent-maze-seed1", begin=True, command="train"):
    """The folder of a run that writes its configuration and ends."""
    with claim_folder(command, config, name) as folder:
        assert (folder.path / ".lock").is_file()
        if begin:
            folder.begin("train.log")
            (folder.path / "config.yaml").write_text("")
        return folder.path


def test_names_are_unique(cwd, monkeypatch):
    """Of processes and threads that start in one second, and of sweeps."""
    monkeypatch.setattr(claim, "locate_new", lambda name: cwd / "runs" / name)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: use(configure(), begin=False), range(1)))
        paths = list(pool.map(lambda _: use(configure()), range(8)))
    assert sorted(path.name for path in paths) == ["agent-maze-seed1", *(f"agent-maze-seed1-{n}" for n in range(2, 9))]
    sweeps = {claim.make_sweep_folder("sweep") for _ in range(3)}
    assert len(sweeps) == 3
    remove_unused()
    assert sorted(path.name for path in (cwd / "runs").iterdir()) == sorted(path.name for path in paths)


def test_a_name_holds_date_and_seed_and_stays_one_folder(cwd):
    path = use(configure(), "PPO-ALE/Pong-v5-seed7")
    date, time_and_name = path.relative_to(cwd / "runs").parts
    assert len(date) == 10 and time_and_name[8:] == "-PPO-ALE-Pong-v5-seed7"
    assert name_target(OmegaConf.create({"_target_": "rl.agents.RecurrentIQN"})) == "RecurrentIQN"
    assert name_target(None) == name_target(OmegaConf.create({})) == "none"


def test_a_folder_that_holds_a_run_is_refused(cwd):
    (cwd / "a b").mkdir()
    (cwd / "a b/notes.txt").write_text("mine")
    use(configure(run_dir="a b"))  # no run in it
    before = list_files(cwd)
    with pytest.raises(ConfigError) as raised:
        use(configure(run_dir="a b"))
    assert str(raised.value) == (
        "run_dir=a b holds a run already: 'resume=a b' goes on with it, overwrite=true replaces it, or choose another"
    )
    without_resume = OmegaConf.create({"run_dir": "a b", "overwrite": False})
    with pytest.raises(ConfigError, match=r"^run_dir=a b holds a run already: overwrite=true replaces it, or choose"):
        use(without_resume, command="char_lm")
    assert list_files(cwd) == before


@pytest.mark.parametrize("evidence", ["config.yaml", "result.json", "checkpoints/best.pt", "events.out.tfevents.3.h"])
def test_any_part_of_a_run_is_a_run(cwd, evidence):
    (cwd / "r" / evidence).parent.mkdir(parents=True)
    (cwd / "r" / evidence).touch()
    with pytest.raises(ConfigError, match="holds a run already"):
        use(configure(run_dir="r"))


def test_overwrite_removes_the_run_and_nothing_else(cwd):
    others = fill(cwd / "r")
    use(configure(run_dir="r", overwrite=True), begin=False)  # refused later: nothing is removed
    assert len(list_files(cwd / "r")) == len(others) + 8
    use(configure(run_dir="r", overwrite=True))
    assert list_files(cwd / "r") == others | {"config.yaml", "train.log"}
    (cwd / "r/checkpoints/mine.pt").unlink()
    remove_run(cwd / "r")
    assert not (cwd / "r/checkpoints").exists()


@pytest.mark.parametrize("key", ["resume", "run_dir"])
def test_a_live_run_is_neither_resumed_nor_overwritten(cwd, key):
    with claim_folder("train", configure(run_dir="r"), "x") as folder:
        folder.begin("train.log")
        (folder.path / "config.yaml").touch()
        with pytest.raises(ConfigError, match=rf"^{key}=r is in use by process {os.getpid()} since"):
            use(configure(**{key: "r"}, **({"overwrite": True} if key == "run_dir" else {})))
        with pytest.raises(ConfigError, match="in use"):
            use(configure(run_dir="r"))
    assert list_files(cwd / "r") == {"config.yaml", "train.log"}


def test_what_is_refused_leaves_nothing_behind(cwd):
    """Whether it was to make the folder, those above it, or neither."""
    (cwd / "kept").mkdir()
    for run_dir in (None, "deep/er", "kept", "kept/deep"):
        with pytest.raises(ValueError, match="agent"), claim_folder("train", configure(run_dir=run_dir), "x"):
            logging.getLogger("experiments").warning("on the way")
            raise ValueError("agent.clip")
    assert [path.name for path in cwd.rglob("*")] == ["kept"]


def test_a_refused_resume_leaves_the_run_as_it_was(cwd):
    fill(cwd / "r")
    before = {path: path.read_text() for path in (cwd / "r").rglob("*") if path.is_file()}
    with pytest.raises(ValueError), claim_folder("train", configure(resume="r"), "x"):
        logging.getLogger("experiments").warning("on the way")
        raise ValueError
    assert {path: path.read_text() for path in (cwd / "r").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"resume": "r", "run_dir": "other"}, "resume=r goes on in its own folder: leave run_dir out"),
        ({"resume": "r", "overwrite": True}, "resume=r goes on in its own folder: leave overwrite out"),
        ({"resume": "nowhere"}, "resume=nowhere: there is no run in that folder (no config.yaml)"),
        ({"run_dir": "file"}, "run_dir=file is no folder: {cwd}/file is a file"),
        ({"run_dir": "file/r"}, "run_dir=file/r is no folder: {cwd}/file"),
        ({"run_dir": ""}, "run_dir='': it must be the path of a folder, or null for a new one"),
        ({"run_dir": True}, ""),
        ({"overwrite": "yes"}, "overwrite='yes' is not true or false"),
    ],
)
def test_arguments_that_cannot_be(cwd, keys, message):
    fill(cwd / "r")
    (cwd / "file").touch()
    before = list_files(cwd)
    if message:
        with pytest.raises(ConfigError) as raised:
            use(configure(**keys))
        assert str(raised.value).startswith(message.format(cwd=cwd))
        assert list_files(cwd) == before


def test_the_log_has_what_was_said_before_the_run_began(cwd):
    """And what was said by others, in other threads, it has not; a resumed run adds to it."""
    log, before = logging.getLogger("experiments"), logging.getLogger().handlers[:]
    for config in (configure(run_dir="r"), configure(resume="r")):
        with claim_folder("train", config, "x") as folder:
            log.warning("while building")
            folder.begin("train.log")
            (cwd / "r/config.yaml").touch()
            other = threading.Thread(target=log.warning, args=["from elsewhere"])
            other.start()
            other.join()
            log.warning("training")
        log.warning("afterwards")
    assert (cwd / "r/train.log").read_text().splitlines() == ["while building", "training"] * 2
    assert logging.getLogger().handlers == before


def test_temporary_files_of_processes_that_are_gone_are_removed(cwd):
    stale = f".result.json.{GONE}", f"checkpoints/.last.pt.{GONE}"
    kept = f".result.json.{os.getpid()}", f"checkpoints/.mine.{GONE}", ".lock", "checkpoints/last.pt", ".notes.1.txt"
    for name in (*stale, *kept):
        (cwd / name).parent.mkdir(exist_ok=True)
        (cwd / name).touch()
    remove_temporary_files(cwd)
    assert list_files(cwd) == set(kept)


@pytest.mark.parametrize(
    ("begin", "saved", "config", "sentence"),
    [
        (False, False, {"run_dir": "r"}, "before it began; nothing was written"),
        (False, True, {"resume": "r"}, "before it began; the run is as it was"),
        (True, False, {"run_dir": "r"}, "before anything was saved"),
        (True, True, {"resume": "r"}, "before it was done; resume=r goes on with it"),
    ],
)
def test_a_stop_says_how_to_go_on(cwd, begin, saved, config, sentence):
    if saved:
        fill(cwd / "r")
        (cwd / "r/train.log").unlink()
    with pytest.raises(Stopped) as raised, claim_folder("train", configure(**config), "x") as folder:
        if begin:
            folder.begin("train.log")
        raise Stopped(signal.SIGTERM)
    assert str(raised.value) == f"stopped by SIGTERM {sentence}"
    if begin:
        assert (cwd / "r/train.log").read_text().splitlines()[-1] == f"Stopped by SIGTERM {sentence}"
    else:
        assert (cwd / "r").exists() == saved


def test_a_sweep_of_which_no_job_began_leaves_nothing(cwd):
    for jobs in (0, 1):
        folder = cwd / claim.make_sweep_folder("sweep")
        (folder / "multirun.yaml").touch()
        if jobs:
            (folder / "0-x").mkdir()
        remove_unused()
        assert folder.exists() == bool(jobs)
