"""``python -m experiments.train`` with several threads and with worker processes."""

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from envs import workers
from rl.training import threads


def test_threads_by_measurement(train_maze, command, cwd, monkeypatch, run_of):
    """Ten updates, of which the first seven are timed; a resumed run measures anew."""
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    try:
        train_maze("total_steps=80", "threads=auto", "run_dir=run")
        assert run_of(cwd / "run").result["threads"] in (1, 2)
        assert OmegaConf.load(cwd / "run/config.yaml").threads == "auto"
        assert command("train", "resume=run", "total_steps=160").code == 0
        said = re.findall(r"updates: \S+ s on 1 thread, \S+ s on 2: (.) threads?", (cwd / "run/train.log").read_text())
        assert len(said) == 2 and run_of(cwd / "run").result["threads"] == int(said[1])
        assert torch.get_num_threads() == 1
        assert command("evaluate", "run=run", "episodes=2").code == 0
        train_maze("threads=2", "run_dir=other")
        assert run_of(cwd / "other").result["threads"] == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


class Frail(gymnasium.Env):
    """Takes 2 ms for a step; the one that is number ``fails_at`` of its life fails, or ends the process."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails_at=None, dies_at=None):
        self.fails_at, self.dies_at, self.life = fails_at, dies_at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.life += 1
        time.sleep(2e-3)
        if self.life == self.fails_at:
            raise ValueError("the simulator has failed")
        if self.life == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.reset()[0], float(action), self.life % 5 == 0, False, {}


@pytest.fixture
def frail(command, tiny, monkeypatch):
    """``frail(override, ...)`` trains on ``Frail``, with a core to spare; no process may be left."""
    monkeypatch.setitem(gymnasium.registry, "Frail-v0", gymnasium.envs.registration.EnvSpec("Frail-v0", Frail))
    monkeypatch.setattr(workers, "available_cores", lambda: 2)

    def train(*arguments):
        ended = command("train", "env=gymnasium", "env.id=Frail-v0", *tiny, *arguments)
        assert multiprocessing.active_children() == []
        return ended

    return train


def test_slow_environments_get_workers_by_themselves(frail, command, cwd, run_of):
    for mode in ("auto", "sync"):
        ended = frail(f"env.vectorization_mode={mode}", "total_steps=24", f"run_dir={mode}")
        assert (ended.code, ended.err) == (0, "")
    log = (cwd / "auto/train.log").read_text()
    assert log.count(": worker processes are used") == 2  # to train and to evaluate
    assert run_of(cwd / "auto").network_equals(run_of(cwd / "sync"))
    assert run_of(cwd / "auto").result["eval_return_mean"] == run_of(cwd / "sync").result["eval_return_mean"]
    assert command("evaluate", "run=auto", "episodes=2").code == 0
    assert multiprocessing.active_children() == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # with which Gymnasium shows the traceback of the worker
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("env.fails_at=7",), "the simulator has failed"),
        (("env.dies_at=7",), "the worker process of copy 0 (signal SIGKILL)"),
        (("agent.learning_rate=-1",), "learning_rate=-1.0: it must be a number of at least 1e-12"),
    ],
)
def test_workers_end_after_a_fault(frail, arguments, sentence):
    """In the environment, of a worker, and while the agent is made."""
    ended = frail("env.vectorization_mode=async", "total_steps=80", *arguments)
    assert ended.code == 1 and ended.err.startswith("train: ") and ended.err.count("\n") == 1
    assert sentence in ended.err


@pytest.fixture
def with_workers(wait_for_checkpoint, process, tiny, cwd):
    """An endless run of its own process, once it has been saved, and the numbers of its worker processes."""
    children = Path("/proc/self/task") / str(os.getpid()) / "children"
    if not children.exists():
        pytest.skip("needs the children of a process from /proc")
    task = "env=gymnasium", "env.vectorization_mode=async", *tiny
    child = process("train", *task, "total_steps=10_000_000", "checkpoint_every=32", f"run_dir={cwd / 'run'}")
    wait_for_checkpoint(child, cwd / "run")
    numbers = [int(number) for number in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    assert len(numbers) == 2 + 2  # to train and to evaluate
    return child, numbers


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_a_run_and_its_workers(with_workers, sent):
    """Ctrl-C and ``timeout`` reach the workers as well, which must not keep the run from finishing its update.

    All of them hold the pipes of the run: they close when the last one has ended.
    """
    child, numbers = with_workers
    for number in [*numbers, child.pid]:
        os.kill(number, sent)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + sent
    line = rf"train: stopped by {sent.name} at step \d+; resume=run goes on with it\n"
    assert re.fullmatch(line, err), err


def test_workers_end_with_a_killed_run(with_workers):
    child, _ = with_workers
    child.kill()
    child.communicate(timeout=60)  # the workers hold its pipes, and have ended when those close
    assert child.returncode == -signal.SIGKILL
