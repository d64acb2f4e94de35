"""The scripts under ``examples/`` run, and what they train is learned, on a small budget."""

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(tmp_path, monkeypatch):
    """``example("deploy", ...)``: what ``main`` of that script returns, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda name, *arguments: runpy.run_path(str(FOLDER / f"{name}.py"))["main"](*arguments)


def test_an_agent_trained_by_hand_is_deployed(example):
    assert example("train_by_hand", "maze.pt", 32_000) >= 0.95  # a guess: 0.5
    assert example("deploy", "maze.pt", 40) >= 0.95


def test_an_own_environment_is_learned(example):
    assert example("own_environment", "run", 20_000) >= 0.85  # best 0.95, without memory 0.5
    assert Path("run/checkpoints/last.pt").is_file()


def test_an_own_core_is_learned(example):
    assert example("own_core", 10_000) >= 0.9  # a guess: 0


def test_an_own_encoder_is_learned(example):
    assert example("own_encoder", 10_000) >= 0.9  # a guess: 0


def test_an_own_loss_changes_what_is_learned(example):
    """The logits stay smaller than without the term."""
    (_, small), (_, large) = example("own_loss", 8_192, 0.3), example("own_loss", 8_192, 0.0)
    assert 0 < small < 0.6 * large


def test_an_own_observer_sees_the_returns(example):
    assert example("own_observer", "run", 4_096) > -2  # a rollout of the first guesses: about -3
    assert Path("run/progress.csv").read_text().startswith("env_steps,")


def test_a_module_that_clears_its_memory_late_is_found(example):
    assert example("check_module") == ["nothing_crosses_a_start"] and example("check_module", False) == []


def test_an_agent_of_sb3_contrib_is_checked(example):
    pytest.importorskip("sb3_contrib")
    assert example("check_sb3") == []


def test_an_agent_of_sb3_contrib_is_taken_over(example):
    pytest.importorskip("sb3_contrib")
    assert example("from_sb3", 1_024, (1,)) == [True]


def test_every_example_is_run_here():
    text = Path(__file__).read_text()
    assert [path.stem for path in sorted(FOLDER.glob("*.py")) if f'example("{path.stem}"' not in text] == []
