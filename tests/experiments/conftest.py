"""Shared by the tests of the commands: running them in this process and in one of their own."""

import importlib
import json
import logging.config
import os
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

import experiments.launch.build
from envs.t_maze import DOWN, FORWARD, UP
from rl.checkpoint import load_checkpoint, save_checkpoint

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
    monkeypatch.setattr(sys, "path", sys.path[:])  # to which a command adds its working folder
    root = logging.getLogger()
    before = root.level, root.handlers[:]

    def call(name, *arguments):
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

    return call


@pytest.fixture
def train_maze(command, tiny):
    """``train_maze("seed=3", ...)``: a tiny run on the T-maze of length 2 that ends well."""

    def train(*arguments):
        ended = command("train", "env=t_maze", "env.length=2", *tiny, *arguments)
        assert (ended.code, ended.err) == (0, ""), ended.err
        return ended

    return train


class Chosen(NamedTuple):
    """What a checkpoint that a command chooses must turn out to be; ``file`` is its path as the command says it."""

    argument: str
    file: str
    action: int
    env_steps: int
    total: float


CHOSEN = (
    Chosen("checkpoint=last", "run/checkpoints/last.pt", UP, 8, -3.0),
    Chosen("checkpoint=best", "run/checkpoints/best.pt", FORWARD, 16, -2.0),
    Chosen("checkpoint=own/other.pt", "own/other.pt", DOWN, 24, -3.0),
)


@pytest.fixture(params=CHOSEN, ids=lambda chosen: Path(chosen.file).stem)
def chosen(request, train_maze, cwd):
    """One of three checkpoints that differ, each of an agent that takes the same action in every step.

    In a T-maze of length 2 an episode is truncated after 6 steps, and a step costs 1/2: all six that go up or down in
    the corridor, and the last four that go forward at the junction.
    """
    train_maze("run_dir=run")
    content = load_checkpoint("run/checkpoints/last.pt")
    for each in CHOSEN:
        network = content["agent"]["network"]
        bias = torch.zeros_like(network["heads.bias"])  # the logits of the three actions, and the value
        bias[each.action] = 100.0
        network |= {"heads.weight": torch.zeros_like(network["heads.weight"]), "heads.bias": bias}
        content["agent"]["env_steps"] = each.env_steps
        save_checkpoint(content, each.file)
    return request.param


class RunFolder:
    """What a run has left in its folder."""

    def __init__(self, folder):
        self.folder = Path(folder)

    @cached_property
    def result(self):
        return json.loads((self.folder / "result.json").read_text())

    @cached_property
    def checkpoint(self):
        return torch.load(self.folder / "checkpoints/last.pt", weights_only=True)

    @property
    def network(self):
        return self.checkpoint["agent"]["network"]

    @cached_property
    def events(self):
        reader = EventAccumulator(str(self.folder), size_guidance={"scalars": 0})
        reader.Reload()
        return reader

    @property
    def tags(self):
        return set(self.events.Tags()["scalars"])

    def steps(self, tag):
        return [point.step for point in self.events.Scalars(tag)]

    def values(self, tag):
        return [point.value for point in self.events.Scalars(tag)]

    def network_equals(self, other):
        assert self.network.keys() == other.network.keys()
        return all(torch.equal(leaf, other.network[name]) for name, leaf in self.network.items())


@pytest.fixture
def run_of(monkeypatch):
    """``run_of(folder)`` reads a run folder.

    Event files of one second are told apart by a counter, and read in the order of names: it gets two digits.
    """
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(10))
    return RunFolder


@pytest.fixture
def wait_for_checkpoint():
    """``wait_for_checkpoint(child, folder)``: until the run in a process has saved itself once."""

    def wait(child, folder, seconds=120):
        end = time.monotonic() + seconds
        while not (folder / "checkpoints/last.pt").exists():
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)

    return wait


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
