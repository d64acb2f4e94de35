"""``python -m experiments.export``: a trained run leaves as files that need neither torch nor this code base."""

import builtins
import importlib
import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ALONE = """
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "rl", "envs", "experiments", "gymnasium"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
sys.argv[1:] = ["policy.onnx", "policy.npz"]
runpy.run_path("replay_onnx.py", run_name="__main__")
"""


@pytest.fixture
def onnx():
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    return pytest.importorskip("onnx")


@pytest.fixture
def trained(command, tiny, cwd):
    """``trained(override, ...)``: a tiny run in the folder run."""

    def train(*overrides):
        assert command("train", *tiny, "run_dir=run", *overrides).code == 0
        return cwd / "run"

    return train


@pytest.mark.parametrize(
    "overrides",
    [
        ("env=witness_vote", "agent=dual_head_recurrent_ppo", "agent.core.num_layers=2"),
        ("env=pendulum_no_velocity", "agent.previous_action_reward=true", "agent.normalise_observations=true"),
        ("env=t_maze", "agent/core=jamba", "agent.separate_critic=true", "agent.precision=bfloat16"),
    ],
    ids=["two_branches", "continuous", "jamba"],
)
def test_the_files_are_enough(onnx, trained, command, cwd, overrides):
    trained(*overrides)
    ended = command("export", "run=run", "output=out/policy.onnx", "steps=60")
    assert (ended.code, ended.err) == (0, "")
    head, *compared = ended.out[ended.out.index("RecurrentPPO") :].splitlines()
    assert "after 8 steps, run/checkpoints/last.pt: out/policy.onnx" in head
    files = sorted(path.name for path in (cwd / "out").iterdir())
    assert files == ["policy.npz", "policy.onnx", "replay_onnx.py"]
    recording = np.load(cwd / "out/policy.npz")
    assert recording["input/start"].shape == (60, 2) and recording["input/start"][0].all()

    line = [sys.executable, "-I", "-W", "error", "-c", ALONE]
    done = subprocess.run(line, cwd=cwd / "out", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == compared  # the command itself has said the same, and nothing else
    names = {row.split()[0] for row in done.stdout.splitlines()}
    assert names == {name.removeprefix("output/") for name in recording.files if name.startswith("output/")}


def test_a_program_of_torch(trained, command, cwd):
    trained("env=t_maze", "agent/core=gru")
    ended = command("export", "run=run", "output=policy.pt2", "steps=5")
    assert (ended.code, ended.err) == (0, "")
    assert sorted(path.name for path in cwd.iterdir()) == ["policy.npz", "policy.pt2", "run"]


def test_worlds_of_several_agents_are_recorded_whole(trained, command, cwd):
    trained("env=state_punishment", "num_envs=6", "total_steps=24")
    assert command("export", "run=run", "output=policy.pt2", "steps=5").code == 0
    assert np.load(cwd / "policy.npz")["input/start"].shape[1] % 3 == 0


def test_the_run_is_left_alone(trained, command):
    folder = trained("env=t_maze")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert command("export", "run=run", "output=policy.pt2", "steps=5").code == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert json.loads((folder / "result.json").read_text())["env_steps"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "run is missing: give run=RUN_DIR, the folder of a training run"),
        (("run=nowhere",), "nowhere is no run folder: it has no config.yaml"),
        (("run=nowhere", "output=policy.txt"), "output=policy.txt: it must end in .onnx, .pt2 or .ts"),
        (("run=nowhere", "steps=0"), "steps=0"),
        (("run=nowhere", "ouput=x"), "there is no key 'ouput'; did you mean output?"),
    ],
)
def test_bad_input(command, cwd, arguments, message):
    ended = command("export", *(arguments if "output" in str(arguments) else (*arguments, "output=policy.pt2")))
    assert ended.code == 1 and ended.err.count("\n") == 1 and message in ended.err
    assert list(cwd.iterdir()) == []


def test_without_the_extra(command, cwd, monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name == "onnx":
            raise ImportError(f"no {name}", name=name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    ended = command("export", "run=run")
    assert (ended.code, ended.err) == (1, "export: ONNX needs the package onnx: pip install 'recurrent-ppo[export]'\n")


def array_file():
    """The bytes of one array alone, an .npy file."""
    memory = io.BytesIO()
    np.save(memory, np.zeros(3))
    return memory.getvalue()


def spoil_array(path, name, value):
    """Put another array in the place of one."""
    np.savez(path, **dict(np.load(path)) | {name: np.asarray(value)})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), r"is missing, damaged or no recording of export \(FileNotFoundError\)"),
        (lambda path: path.write_bytes(b""), r"is missing, damaged or no recording of export \(EOFError\)"),
        (lambda path: path.write_bytes(path.read_bytes()[:99]), r"is missing, damaged or no recording of export"),
        (lambda path: path.write_bytes(b"PK" * 99), r"is missing, damaged or no recording of export"),
        (lambda path: path.write_bytes(array_file()), r"is missing, damaged or no recording of export"),
        (lambda path: np.savez(path, other=np.zeros(3)), r"is no recording of export: it has no input/start"),
        (lambda path: spoil_array(path, "states_at", "text"), "is damaged: states_at has another length than the rest"),
        (lambda path: spoil_array(path, "input/start", np.zeros(2)), "is damaged: input/start has another length"),
        (lambda path: spoil_array(path, "decided", ["a", "b", "c"]), "is damaged: decided .* holds no numbers"),
    ],
)
def test_a_recording_that_is_damaged_or_foreign_is_one_sentence(tmp_path, monkeypatch, spoil, message):
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    read_recording = importlib.import_module("experiments.replay_onnx").read_recording
    monkeypatch.delitem(sys.modules, "experiments.replay_onnx")  # it would keep the package that is none
    path = tmp_path / "policy.npz"
    names = "input/start", "states_at", "decided"
    np.savez_compressed(path, **{name: np.zeros(3) for name in names})
    assert read_recording(str(path)).keys() == set(names)
    spoil(path)
    with pytest.raises(ValueError, match=message):
        read_recording(str(path))


def test_the_chosen_checkpoint_is_exported(chosen, command, cwd):
    ended = command("export", "run=run", "output=policy.pt2", "steps=5", chosen.argument)
    assert (ended.code, ended.err) == (0, "")
    assert f"after {chosen.env_steps} steps, {chosen.file}: " in ended.out
    assert (np.load(cwd / "policy.npz")["output/action"] == chosen.action).all()
    step = torch.export.load(cwd / "policy.pt2").module()
    assert set(step.state_dict()["network.heads.bias"].tolist()) == {0.0, 100.0}
