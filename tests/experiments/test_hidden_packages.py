"""A folder that hides our packages, as ``python -m`` lets it, is named in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

import experiments
from experiments import check_not_hidden, leave_run_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def in_front(tmp_path, monkeypatch):
    """A folder in front of all others on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["program.py"])
    for name in ("rl", "envs", "conf"):
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_nothing_hides_ours_here(in_front):
    (in_front / "rl").mkdir()  # without __init__.py it is no package, and ours is found behind it
    check_not_hidden()
    assert experiments.__file__ == str(ROOT / "experiments/__init__.py")


@pytest.mark.parametrize("hiding", ["rl/__init__.py", "envs.py", "conf/__init__.py"])
def test_a_package_or_module_of_the_same_name(hiding, in_front, monkeypatch):
    (in_front / hiding).parent.mkdir(exist_ok=True)
    (in_front / hiding).write_text("raise AssertionError('it has run')\n")
    place, name = in_front / hiding.removesuffix("/__init__.py"), hiding.partition("/")[0].removesuffix(".py")
    sentence = f"^{place} hides the package {name} of recurrent-ppo: rename it, start in another folder, or "
    with pytest.raises(ImportError, match=sentence):
        check_not_hidden()
    for program in ("-m", "/usr/bin/recurrent-ppo-train"):
        monkeypatch.setattr(sys, "argv", [program])
        with pytest.raises(SystemExit, match=sentence):
            check_not_hidden()


def test_as_a_process(tmp_path):
    (tmp_path / "rl").mkdir()
    (tmp_path / "rl/__init__.py").write_text("")
    line = [sys.executable, "-m", "experiments.train", "seed=1"]
    done = subprocess.run(
        line, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"{tmp_path}/rl hides the package rl of recurrent-ppo")


def test_a_module_command_that_starts_in_a_run_folder_imports_nothing_from_it(tmp_path, monkeypatch):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    for argument, folder, has_config, stays in (
        ("-m", "run", False, True),
        ("-m", "run", True, False),
        ("-m", "run/checkpoints", True, False),
        ("-m", ".", True, True),  # it holds run folders
        ("notebook", "run", True, True),
    ):
        if has_config:
            (tmp_path / "run/config.yaml").touch()
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setattr(sys, "argv", [argument])
        monkeypatch.setattr(sys, "path", [str(Path.cwd()), "/somewhere"])
        leave_run_folder()
        assert sys.path == [str(Path.cwd())] * stays + ["/somewhere"]
