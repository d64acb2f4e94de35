"""Mistakes on command lines: each is to be refused in one sentence, before any work, with nothing left behind."""

from functools import partial

from experiments.reliability.command_lines import list_command_lines
from experiments.reliability.judge import check_refused, check_untouched, list_files
from experiments.reliability.processes import run
from experiments.reliability.recipes import copy_run
from experiments.reliability.tries import Place, Try, number_tries

WORDS = "mistakes in keys, values, groups, syntax and options of every command: one sentence, and no folder left"
LIMIT = 60.0
USAGE = 2
"""The exit code of an option that there is not."""


def list_tries() -> list[Try]:
    """List every mistake as a try."""
    lines = [[name, *arguments] for name, arguments in list_command_lines("run")]
    return number_tries("command_lines", [(" ".join(words), partial(mistake, words=words)) for words in lines])


def mistake(place: Place, words: list[str]) -> None:
    """Run a command line with a mistake beside a finished run."""
    copy_run(place, "ppo")
    before = list_files(place.folder)
    ended = run(words, place.folder, limit=LIMIT)
    check_refused(ended, code=USAGE if ended.code == USAGE else 1)
    check_untouched(before, place.folder)
