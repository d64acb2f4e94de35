"""The imitation of Slippi games by the command: without the extra, and a real game where there is one."""

import json
import sys
from pathlib import Path

import pytest

GAME = Path(__file__).parents[3] / "shared/data/melee_game.slp"


def test_the_missing_extra(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "peppi_py", None)
    ended = command("imitate", "data=game.slp")
    assert ended.code == 1 and ended.err == (
        "imitate: Slippi games need the package peppi_py: pip install 'recurrent-ppo[melee]'\n"
    )


@pytest.fixture
def real():
    pytest.importorskip("peppi_py")
    if not GAME.is_file():
        pytest.skip("there is no recorded game beside the repository")
    return GAME


def test_the_command_on_a_real_game(real, command, cwd):
    small = "agent.previous_action_reward=true", "agent.layer_size=8", "imitation.epochs=1", "imitation.split=time"
    ended = command("imitate", f"data={real}", *small, "imitation.held_out=0.2", "run_dir=run")
    assert (ended.code, ended.err) == (0, "")
    result = json.loads((cwd / "run/result.json").read_text())
    assert result["repeat_six_heads"] == pytest.approx(1.4548, abs=1e-3)
    assert result["marginal_six_heads"] == pytest.approx(3.5408, abs=1e-3)
    assert result["repeat_nll"] == pytest.approx(1.673, abs=1e-3)
    assert list(result["held_out_nll_branches"])[:2] == ["a", "b"]
