"""Shared by the tests of the commands: running them in this process and in one of their own."""

import importlib
import logging.config
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra

import experiments.launch.build

ROOT = Path(__file__).parents[2]
TINY = (
    "num_envs=2",
    "num_steps=4",
    "total_steps=8",
    "evaluate_every=null",
    "final_episodes=2",
    "agent.bptt=4",
    "agent.num_minibatches=1",
    "agent.epochs=1",
    "agent.layer_size=4",
    "agent.core.hidden_size=4",
)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def tiny():
    """Overrides of a training run of one update that takes no time."""
    return TINY


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    """An empty folder, which the commands run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(cwd, monkeypatch, capsys):
    """``command("train", "env=t_maze", ...)``: ``main`` of that module in this process, with two evaluation copies."""
    monkeypatch.setattr(experiments.launch.build, "EVALUATION_ENVS", 2)
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)  # composes everything once more, for hydra.mode=...
    root = logging.getLogger()
    before = root.level, root.handlers[:]

    def run(name, *arguments):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        GlobalHydra.instance().clear()
        capsys.readouterr()
        try:
            module = importlib.import_module(f"experiments.{name}")
            if hasattr(module, "__path__"):  # a package: python -m runs its __main__
                module = importlib.import_module(f"experiments.{name}.__main__")
            module.main()
            code = 0
        except SystemExit as end:
            code = end.code
        finally:
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # closes Hydra's log files
            root.setLevel(before[0])
            root.handlers[:] = before[1]
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture
def child_environment():
    """The environment of child processes: the project importable from anywhere, one thread."""
    inherited = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    path = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH")]))
    return inherited | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def process(cwd, child_environment):
    """``process("train", ...)`` starts ``python -m experiments.train ...`` as a user would, from another folder."""
    started = []

    def start(name, *arguments):
        line = [sys.executable, "-m", f"experiments.{name}", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(line, cwd=cwd, env=child_environment, **pipes))
        return started[-1]

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.wait()
        child.stdout.close()
        child.stderr.close()
