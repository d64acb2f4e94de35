"""Verdicts as they are printed."""

from rl.memory_check import Verdict


def test_a_verdict_is_a_line_and_its_advice_another():
    assert str(Verdict("rows", None, "5 of 6", "", {})) == "NOTE  rows: 5 of 6"
    assert f"{Verdict('rows', False, '5 of 6', 'count', {})}" == "FAIL  rows: 5 of 6\n      -> count"
