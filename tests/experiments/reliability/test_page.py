"""The page on reliability: its table, and how a failure can be repeated."""

from experiments.reliability.page import Part, format_page, format_table
from experiments.reliability.tries import Outcome, Try


def outcome(number, fault=None, seconds=1.0):
    return Outcome(Try("command_lines", number, "train a|b", print), fault, seconds)


PARTS = [
    Part("what is mistyped", "command_lines", [outcome(0), outcome(1, "a <traceback> | a hang", 2.6)]),
    Part("what is killed", "kills", [outcome(0, seconds=0.4)]),
]


def test_the_table_has_a_line_for_each_kind_and_the_sum():
    lines = format_table(PARTS).splitlines()
    assert lines[0] == "| kind | what is tried | tries | failures | seconds |"
    assert lines[2:] == [
        "| command lines | what is mistyped | 2 | 1 | 4 |",
        "| kills | what is killed | 1 | 0 | 0 |",
        "| sum |  | 3 | 1 | 4 |",
    ]


def test_failures_are_listed_with_the_command_that_repeats_them():
    page = format_page(PARTS, share=0.2, minutes=3.2, processes=2, cores=8)
    assert "2 tries at a time on 8 cores, 3 minutes in all; 20% of all tries, drawn." in page
    assert "python -m experiments.reliability only=NAME" in page
    assert r"| command_lines-001 | train a\|b | a &lt;traceback> \| a hang |" in page
    assert "## Failures" not in format_page(PARTS[1:], share=1, minutes=3, processes=2, cores=8)
