"""Shared by the tests of the model of characters: the command on a small text."""

from pathlib import Path

import pytest

TINY = ("batch=4", "block=8", "core.hidden_size=8", "embedding_size=4", "sample_length=10", "text=text.txt")


@pytest.fixture
def line():
    """The text repeats this line."""
    return "She sells sea shells by the sea shore.\n"


@pytest.fixture
def lm(command, cwd, line):
    """``lm("steps=3", ...)``: the command on a small text."""
    Path("text.txt").write_text(line * 30)
    return lambda *arguments: command("char_lm", *TINY, *arguments)
