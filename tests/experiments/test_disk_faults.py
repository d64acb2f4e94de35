"""Disks that are full, folders that are gone, files that are damaged: one sentence that names the file."""

import logging
import resource
import shutil
import signal
from contextlib import contextmanager

import pytest

from experiments.launch.output import tell_broken_logs
from rl.checkpoint import load_checkpoint
from rl.training.trainer import Trainer

LONG = ("total_steps=64", "checkpoint_every=16", "run_dir=run")


@contextmanager
def limited(size):
    """Files may grow to ``size`` bytes: as on a full disk, more fails with an OSError."""
    usual, before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)


@pytest.fixture
def at_step(monkeypatch):
    """``at_step(32, fault)`` calls ``fault()`` once a training run has made so many steps."""

    def plant(step, fault):
        report = Trainer.report

        def reporting(trainer, metrics):
            if trainer.agent.env_steps == step:
                fault()
            report(trainer, metrics)

        monkeypatch.setattr(Trainer, "report", reporting)

    return plant


@pytest.fixture
def train(command, tiny):
    return lambda: command("train", "env=t_maze", "env.length=2", *tiny, *LONG)


def assert_one_sentence(ended, *words):
    assert ended.code == 1, ended
    lines = ended.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("train: "), ended.err
    assert all(word in ended.err for word in words), ended.err


def test_a_run_folder_that_is_deleted(train, at_step, cwd):
    """What was learned until the next save is written all the same, then the run ends."""
    at_step(24, lambda: shutil.rmtree(cwd / "run"))
    assert_one_sentence(train(), "run", "curves cannot be written", "No such file or directory")
    assert load_checkpoint(cwd / "run/checkpoints/last.pt")["agent"]["env_steps"] == 32


def test_a_file_where_the_checkpoints_should_be(train, at_step, cwd):
    def block():
        shutil.rmtree(cwd / "run/checkpoints")
        (cwd / "run/checkpoints").write_text("")

    at_step(24, block)
    assert_one_sentence(train(), "run/checkpoints/", "cannot be written", "Not a directory")


def test_a_full_disk(train, command, cwd):
    """The checkpoints of before stand, whole."""
    assert train().code == 0
    files = {path: path.read_bytes() for path in cwd.rglob("*.pt")}
    assert len(files) == 2
    shutil.copytree(cwd / "run", cwd / "again")
    with limited(6000):
        ended = command("train", "resume=again", "total_steps=128")
    assert_one_sentence(ended, "again", "cannot be written", "File too large")
    assert {path: path.read_bytes() for path in (cwd / "again").rglob("*.pt")} == {
        cwd / "again" / path.relative_to(cwd / "run"): data for path, data in files.items()
    }
    assert not list((cwd / "again").rglob(".*"))
    assert command("train", "resume=again", "total_steps=128").code == 0


class Full(logging.Handler):
    """A log on a full disk."""

    def emit(self, record):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            self.handleError(record)


def test_a_log_that_cannot_be_written_is_told_once(capsys):
    """The run itself goes on."""
    full, log = Full(), logging.getLogger()
    log.addHandler(full)
    try:
        with tell_broken_logs("train"):
            for line in ("one", "two"):
                log.warning(line)
    finally:
        log.removeHandler(full)
    line = "train: the log cannot be written: [Errno 28] No space left on device\n"
    assert capsys.readouterr().err.count(line) == 1  # handlers of other tests may be there, too


def damage(data):
    return {"half": data[: len(data) // 2], "noise": b"\x00\xff\xfe" * 50, "a list": b"- 1\n- 2\n", "empty": b""}


def test_damaged_configurations(train, command, cwd):
    """Also one with a tag that other readers of YAML would run code for."""
    assert train().code == 0
    path = cwd / "run/config.yaml"
    whole = path.read_bytes()
    faults = damage(whole) | {"a tag": b"agent: !!python/object/apply:os.system [touch PWNED]\n", "a text": b"hello"}
    for name, data in faults.items():
        path.write_bytes(data)
        ended = command("evaluate", "run=run")
        assert ended.code == 1 and ended.err.count("\n") == 1, (name, ended.err)
        assert "run/config.yaml" in ended.err or name == "half", (name, ended.err)
    assert not (cwd / "PWNED").exists()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(train, command, tiny, cwd):
    assert train().code == 0
    path = cwd / "run/checkpoints/last.pt"
    path.write_bytes(path.read_bytes()[:-1])
    ended = command("evaluate", "run=run", "episodes=2")
    assert ended.code == 0, ended.err
    assert "after 48 steps, run/checkpoints/previous.pt" in ended.out
    assert "last.pt is damaged" in ended.out + ended.err
    assert command("train", "init_from=run", "env=t_maze", "env.length=2", *tiny, "run_dir=fresh").code == 0
    (cwd / "run/checkpoints/previous.pt").write_bytes(b"")
    ended = command("evaluate", "run=run")
    assert ended.code == 1 and ended.err.count("\n") == 1
    assert "last.pt is damaged" in ended.err and "previous.pt is damaged" in ended.err
