"""Shared by the tests of the benchmark: tiny workloads, and workers that are never started."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.benchmark import peers
from experiments.peers.workloads import WORKLOADS


@pytest.fixture
def small():
    """``small("w1", hidden_size=8)``: a workload of tiny sizes."""

    def make(name="w1", **sizes):
        tiny = {"hidden_size": 4, "num_envs": 2, "num_steps": 16, "layer_size": 4, "epochs": 1, "num_minibatches": 2}
        return replace(WORKLOADS[name], **tiny | sizes)

    return make


class FakeProcess:
    """A worker of a known speed that is never started."""

    made: list["FakeProcess"]

    def __init__(self, module, arguments, python=sys.executable):
        self.line, self.closed = [module, *arguments], 0
        if python != sys.executable:
            self.line.append(python)
        self.made.append(self)

    def measure(self, seconds):
        assert seconds == 2.0
        slower = 4.0 if self.line[0] == "skrl" else 10.0 if self.line[0] == "sb3_contrib" else 1.0
        speeds = {"steps_per_cpu_second": 1000.0 / slower, "steps_per_second": 1100.0 / slower}
        return speeds | {"episode_length": 20.0}

    def close(self):
        self.closed += 1


@pytest.fixture
def fake_processes(monkeypatch):
    """All workers are fake; those that were made."""
    monkeypatch.setattr(peers, "Process", FakeProcess)
    monkeypatch.setattr(peers, "require", lambda *packages: None)
    monkeypatch.setattr(FakeProcess, "made", [], raising=False)
    return FakeProcess.made


@pytest.fixture
def started(monkeypatch):
    """``started(result, answer)``: processes are not run; a training leaves a result, others print an answer.

    Returns the list of the lines that were started, without the interpreter.
    """

    def fake(result, answer):
        lines = []

        def run(line, check, capture_output, text=False):
            assert check and capture_output and line[:2] == [sys.executable, "-m"]
            lines.append(line[2:])
            if line[2] == "experiments.train":
                folder = Path(line[-1].removeprefix("run_dir="))
                folder.mkdir()
                (folder / "result.json").write_text(json.dumps(result))
            return subprocess.CompletedProcess(line, 0, stdout=f"noise\n{json.dumps(answer)}\n")

        monkeypatch.setattr(peers.subprocess, "run", run)
        monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: name)
        return lines

    return fake
