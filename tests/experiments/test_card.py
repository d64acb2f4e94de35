"""``python -m experiments.card``, and the card at the end of a run."""

import shutil
import sys

import numpy as np
import pytest

import rl


@pytest.fixture
def run_dir(train_maze, cwd):
    train_maze("total_steps=16", "evaluate_every=8", "evaluate_episodes=2", "evaluation_share=null", "run_dir=run")
    return cwd / "run"


def load_as_told(folder):
    """Run the three lines of a card with the path of its folder in place of ``THIS_FOLDER``."""
    text = (folder / "card.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    found = {"observation": np.zeros(4, dtype=np.float32)}
    exec(code.replace("THIS_FOLDER", str(folder)), found)
    return found


def test_a_run_ends_with_a_card_that_can_be_handed_on(run_dir, cwd, tmp_path_factory):
    text = (run_dir / "card.md").read_text()
    assert str(cwd) not in text and "card.png" not in text and "python -m experiments.card run=THIS_FOLDER" in text
    assert f"torch {rl.agents.player.torch.__version__}" in text
    elsewhere = tmp_path_factory.mktemp("shared") / "copy"
    shutil.copytree(run_dir, elsewhere)
    found = load_as_told(elsewhere)
    assert isinstance(found["player"], rl.Player) and found["action"] in (0, 1, 2)


def test_the_command_draws_the_curve(run_dir, command):
    ended = command("card", "run=run", "licence=MIT")
    assert (ended.code, ended.err) == (0, "")
    assert (run_dir / "card.png").read_bytes().startswith(b"\x89PNG")
    text = (run_dir / "card.md").read_text()
    assert "![Evaluation return over environment steps](card.png)" in text and "| licence | MIT |" in text


def test_without_matplotlib_the_card_says_so(run_dir, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert command("card", "run=run").code == 0
    text = (run_dir / "card.md").read_text()
    assert 'There is no picture: plots need matplotlib: pip install "recurrent-ppo[plot]".' in text
    assert not (run_dir / "card.png").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "card: run=run: it has not finished, for it has no result.json\n"),
        ('{"epochs": 3}', "card: run=run: its result is not that of experiments.train\n"),
    ],
)
def test_runs_without_a_card(run_dir, command, content, sentence):
    (run_dir / "result.json").unlink()
    if content is not None:
        (run_dir / "result.json").write_text(content)
    assert command("card", "run=run") == (1, "", sentence)


def test_there_must_be_a_run(command):
    assert command("card").err == "card: run is missing: give run=RUN_DIR, the folder of a finished training run\n"
