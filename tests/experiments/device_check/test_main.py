"""The command: its report, its fences, its exit code."""

import json
import subprocess
import time
from types import SimpleNamespace

import pytest

from experiments.device_check import __main__ as device_check
from experiments.device_check import suite
from experiments.device_check.findings import Finding


def section_that_fails():
    yield Finding("first", {"x": 1.0}, most={"x": 2.0})
    raise RuntimeError("no kernel image\nand a long story")


def test_an_error_ends_its_section_and_is_told():
    lines = [*device_check.fenced(section_that_fails(), time.monotonic() + 60)]
    assert [(each.label, each.passed, each.note) for each in lines] == [
        ("first", True, ""),
        ("stopped", False, "RuntimeError: no kernel image"),
    ]
    assert (
        device_check.describe("replay", lines[1]) == f"FAIL  {'replay':<12}{'stopped':<34}RuntimeError: no kernel image"
    )


def test_what_does_not_fit_the_time_is_left_out():
    (line,) = device_check.fenced(section_that_fails(), time.monotonic() - 1)
    assert (line.label, line.passed) == ("out of time", None)


def test_the_report_and_the_exit_code(command, cwd, monkeypatch):
    asked = "device_check", "sections=[replay,waits]", "cores=[gru]", "output=found.json"
    ended = command(*asked)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "2 passed, 0 failed, 1 measured")
    content = json.loads((cwd / "found.json").read_text())
    assert content["device"] == "cpu" and list(content["sections"]) == ["replay", "waits"]
    assert [line["passed"] for line in content["sections"]["replay"]] == [True, True]

    monkeypatch.setitem(device_check.SECTIONS, "replay", lambda *_: section_that_fails())
    ended = command(*asked)
    assert ended.code == 1 and "1 of 3 lines failed, the first one: stopped" in ended.err
    assert json.loads((cwd / "found.json").read_text())["sections"]["replay"][1]["failed"]


@pytest.mark.parametrize(
    ("code", "out", "passed", "note"),
    [
        (0, "....\n12 passed in 3 s\n", None, "12 passed in 3 s"),
        (1, "FAILED tests/a.py::b\n1 failed, 3 passed\n", False, "1 failed, 3 passed; FAILED tests/a.py::b"),
        (4, "", False, "no such option"),
    ],
)
def test_the_tests_are_run_on_the_device(code, out, passed, note, monkeypatch):
    asked = []

    def run(command, **options):
        asked.append(command)
        return SimpleNamespace(returncode=code, stdout=out, stderr="no such option")

    monkeypatch.setattr(subprocess, "run", run)
    (line,) = suite.run_suite("cuda:0", 5.0)
    assert (line.passed, line.note) == (passed, note)
    assert asked[0][asked[0].index("--device") + 1] == "cuda"


def test_tests_that_do_not_end_are_told(monkeypatch):
    def run(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    (line,) = suite.run_suite("cpu", 5.0)
    assert (line.passed, line.note) == (False, "did not end within 5 s")
