"""The command: its settings, and some tries of every kind."""

import pytest
from omegaconf import OmegaConf

from experiments.launch.arguments import load_defaults
from experiments.launch.check import ConfigError
from experiments.reliability import __main__ as command
from experiments.reliability.tries import Outcome

LEAST = {
    "kills": 60,
    "signals": 40,
    "disk": 30,
    "ranks": 200,
    "environments": 40,
    "command_lines": 250,
    "damage": 400,
    "hostile": 100,
}


@pytest.fixture
def settings(tmp_path):
    """``settings(key=value)`` reads the YAML file with other values."""

    def read(**changes):
        config = load_defaults("reliability")
        return command.read_settings(OmegaConf.merge(config, {"page": str(tmp_path / "page.md")} | changes))

    return read


def test_there_are_enough_tries_of_every_kind(settings):
    found = {kind: command.choose_tries(kind, settings()) for kind in command.KINDS}
    assert found.keys() == LEAST.keys()
    for kind, tries in found.items():
        assert len(tries) >= LEAST[kind], kind
        assert len({tried.name for tried in tries}) == len(tries)
        assert len({tried.label for tried in tries}) > 1 and {tried.kind for tried in tries} == {kind}


def test_tries_can_be_chosen(settings):
    assert [tried.name for tried in command.choose_tries("damage", settings(only="damage-017"))] == ["damage-017"]
    assert command.choose_tries("kills", settings(only="damage-017")) == []
    assert len(command.choose_tries("damage", settings(share=0.1, damage=50))) == 5


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("kinds", ["kill"], "there is no kind 'kill'; did you mean kills"),
        ("share", 0, "share=0.0: it must be a number from 0.001 to 1"),
        ("processes", 0, "processes=0: it must be a whole number of at least 1"),
        ("seed", "x", "seed='x' is not a whole number"),
    ],
)
def test_settings_are_checked(settings, key, value, words):
    with pytest.raises(ValueError, match=words):
        settings(**{key: value})


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """``planted(fault)`` runs the command, where each try is said to have ended like that."""

    def run(fault, **changes):
        def end_all(tries, prepared, processes):
            return [Outcome(tried, fault, 1.0) for tried in tries]

        monkeypatch.setattr(command, "prepare", lambda folder: None)
        monkeypatch.setattr(command, "import_commands", lambda: None)
        monkeypatch.setattr(command, "run_all", end_all)
        config = load_defaults("reliability")
        return command.run(OmegaConf.merge(config, {"page": str(tmp_path / "page.md"), "share": 0.01} | changes))

    return run


def test_the_page_is_written_and_a_failure_is_an_error(planted, tmp_path, capsys):
    page = tmp_path / "page.md"
    assert planted(None, kinds=["kills"]) == 0 and not page.exists()
    assert planted(None) == 0
    assert "| kills |" in page.read_text() and "## Failures" not in page.read_text()
    with pytest.raises(ConfigError, match="tries failed"):
        planted("a fault")
    assert "| kills-0" in page.read_text() and "| a fault |" in page.read_text()
    assert "a fault" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no such try"):
        planted(None, only="kills-999")


@pytest.mark.slow
def test_a_few_tries_of_every_kind(process):
    """None of them breaks by itself; whether the project stands them is for the whole command to say."""
    child = process("reliability", "share=0.004", "page=null", "processes=1")
    out, err = child.communicate(timeout=500)
    assert [kind for kind in command.KINDS if kind not in out] == [], out + err
    assert "the try itself broke" not in out, out + err
    assert child.returncode == 0 or "tries failed" in err
