"""Shared by the tests of the workers."""

import subprocess
import sys
from dataclasses import replace

import pytest

from experiments.peers import workloads


@pytest.fixture
def python(cwd, child_environment):
    """``python([arguments], input)`` runs Python with them from another folder; what came of it."""

    def call(arguments, text):
        pipes = {"input": text, "capture_output": True, "text": True, "timeout": 60, "check": False}
        return subprocess.run([sys.executable, *arguments], cwd=cwd, env=child_environment, **pipes)

    return call


@pytest.fixture(params=sorted(workloads.WORKLOADS))
def tiny_workload(request, monkeypatch):
    """The name of a workload whose sizes are tiny for the time of a test."""
    sizes = {"hidden_size": 4, "num_envs": 2, "num_steps": 8, "layer_size": 4, "epochs": 1, "num_minibatches": 2}
    tiny = replace(workloads.WORKLOADS[request.param], **sizes)
    monkeypatch.setitem(workloads.WORKLOADS, tiny.name, tiny)
    return tiny.name


@pytest.fixture
def check_worker():
    """``check_worker(worker)``: a worker of tiny sizes does whole iterations of 16 steps."""

    def check(worker):
        assert worker.parameters > 0 and all(worker.versions.values())
        steps, episodes = worker.measure(1e-6)
        assert steps == 16 and 0 <= episodes <= 16

    return check
