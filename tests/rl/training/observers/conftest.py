"""Shared by the tests of observers: a run to begin with, and whoever takes notes."""

from types import SimpleNamespace

import pytest


@pytest.fixture
def make_run(tmp_path):
    """``make_run(step)``: what an observer is shown of a run that begins, or goes on from ``step``."""

    def make(step=0, name="run"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        return SimpleNamespace(agent=SimpleNamespace(env_steps=step), run_dir=folder, total_steps=100, evaluations=[])

    return make
