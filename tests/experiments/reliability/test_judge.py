"""What counts as a failure, on ends that were made up."""

import signal

import pytest

from experiments.reliability import judge
from experiments.reliability.judge import Fault
from experiments.reliability.processes import Ended

TRACEBACK = "Traceback (most recent call last):\n  File x\nKeyError: 'a'\n"


def end(code=0, err="", out="", left=0):
    return Ended(code, out, err, 1.0, left)


REFUSED = end(1, "train: seed=x is not a whole number\n")


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (end(None), "it hung"),
        (end(1, TRACEBACK), "a traceback"),
        (end(0, out=TRACEBACK), "a traceback"),
        (end(1, "x", left=2), "2 processes were left alive"),
        (end(0), "it went through"),
        (end(2, "x\n"), "exit code 2 where 1 was due"),
        (end(-11, "x\n"), "exit code -11"),
        (end(1), "0 lines on stderr"),
        (end(1, "a\nb\nc\n"), "3 lines on stderr"),
        (end(1, "another sentence\n"), "does not name seed or sad"),
    ],
)
def test_what_is_no_refusal(ended, words):
    with pytest.raises(Fault, match=words):
        judge.check_refused(ended, "seed", "sad")


def test_what_is_a_refusal():
    judge.check_refused(REFUSED)
    judge.check_refused(REFUSED, "sad", "seed")
    judge.check_refused(end(1, "/lib/x.py:3: UserWarning: slow\n  warn(slow)\n" * 3 + REFUSED.err), "seed")
    judge.check_refused_or_told(REFUSED, "seed")
    judge.check_refused_or_done(REFUSED, "seed")
    judge.check_refused(end(2, "usage\n"), code=2)


def test_damage_must_be_told():
    with pytest.raises(Fault, match="in silence"):
        judge.check_refused_or_told(end(0, out="return 1.0\n"), "last.pt")
    judge.check_refused_or_told(end(0, out="last.pt is damaged: previous.pt is used\n"), "last.pt")
    judge.check_refused_or_done(end(0, out="return 1.0\n"), "last.pt")
    with pytest.raises(Fault, match=r"does not name last\.pt"):
        judge.check_refused_or_told(REFUSED, "last.pt")
    with pytest.raises(Fault, match="exit code 1 where 0 was due"):
        judge.check_success(REFUSED)


@pytest.mark.parametrize("code", [130, -2])
def test_what_a_signal_ends(code):
    judge.check_stopped(end(code, "stopped at step 8\n"), signal.SIGINT)
    with pytest.raises(Fault, match="where 143 was due"):
        judge.check_stopped(end(code), signal.SIGTERM)
    with pytest.raises(Fault, match="3 lines"):
        judge.check_stopped(end(code, "a\nb\nc\n"), signal.SIGINT)


def test_what_is_left_behind(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    before = judge.list_files(tmp_path)
    judge.check_untouched(before, tmp_path)
    judge.check_no_temporary(tmp_path)
    judge.check_no_trace(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(Fault, match=r"left runs$"):
        judge.check_untouched(before, tmp_path)
    (tmp_path / "runs" / ".last.pt.4711").touch()
    with pytest.raises(Fault, match=r"runs/\.last\.pt\.4711"):
        judge.check_no_temporary(tmp_path)
    (tmp_path / "runs" / judge.TRACE).touch()
    with pytest.raises(Fault, match="code of the data was run"):
        judge.check_no_trace(tmp_path)
    with pytest.raises(Fault, match="lost runs"):
        judge.check_untouched({"runs", "runs/a"}, tmp_path)
