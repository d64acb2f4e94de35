"""Mistakes on command lines: how many there are, and that some of every kind end in one sentence."""

import pytest

from experiments.reliability.command_lines import list_command_lines
from rl.training.trainer import Trainer

LINES = list_command_lines("run")
SAMPLE = LINES[:: len(LINES) // 12]


def test_there_are_many_and_no_two_are_alike():
    assert len(LINES) >= 250 and len(set(LINES)) == len(LINES)
    commands = {"train", "evaluate", "record", "export", "imitate", "plot", "char_lm", "realtime"}
    assert {name for name, _ in LINES} == commands
    assert ("evaluate", ("run=run", "episodes=0")) in LINES


@pytest.mark.parametrize(("name", "arguments"), SAMPLE)
def test_a_mistake_ends_in_one_sentence(name, arguments, command, monkeypatch):
    monkeypatch.setattr(Trainer, "collect", lambda trainer: pytest.fail("a rollout has begun"))
    ended = command(name, *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"{name}: ") and ended.err.count("\n") == 1 and "Traceback" not in ended.err
