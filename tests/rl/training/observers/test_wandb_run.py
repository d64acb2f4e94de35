"""Weights & Biases, offline: nothing leaves this machine."""

import json
import sys

import pytest

from rl.training.observers import WandB


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"^the observer wandb needs the package wandb: pip install .recurrent-ppo\["):
        WandB()


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    return pytest.importorskip("wandb")


@pytest.mark.filterwarnings("ignore")
def test_a_run_is_logged_and_goes_on_under_its_name(offline, make_run):
    """Each part of an offline run is a folder of its own, whose name ends in that of the run."""
    seen = []
    for start, step in ((0, 8), (8, 16)):
        observer = WandB(project="mine", group="seeds")
        observer.begin(make_run(start), {"agent.clip": 0.2, "total_steps": step})
        observer.report({"losses/entropy": 0.5}, step)
        observer.report({"eval/episodic_return": 0.75}, step)
        observer.end({"eval_return_mean": 0.75, "evaluations": []})
        seen.append((observer.run.project, observer.run.group, observer.run.name, observer.run.resumed))
        assert observer.run.config["total_steps"] == step
    assert [each[:3] for each in seen] == [("mine", "seeds", "run")] * 2
    folder = make_run().run_dir
    name = json.loads((folder / "observers.json").read_text())["wandb"]
    files = sorted(folder.glob(f"wandb/offline-run-*-{name}/run-{name}.wandb"))
    assert len({*folder.glob("wandb/offline-run-*")}) == len(files) >= 1
    assert all(tag in files[0].read_bytes() for tag in (b"eval/episodic_return", b"eval_return_mean"))
