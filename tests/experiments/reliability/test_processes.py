"""Forked commands: how they end, what they print, what outlives them."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.reliability import processes
from experiments.reliability.processes import Running, call, run

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "work"
    inner.mkdir()
    return inner


def test_a_command_is_run_in_its_folder(folder):
    """As ``python -m`` would: refused in one sentence, and what it prints is kept apart from the folder."""
    ended = run(["evaluate", "run=nowhere"], folder)
    assert (ended.code, ended.out, ended.left) == (1, "", 0)
    assert ended.err == "evaluate: nowhere is no run folder: it has no config.yaml\n"
    assert list(folder.iterdir()) == [] and ended.seconds > 0


def test_it_begins_as_a_new_process_would(folder, monkeypatch):
    """In its folder, which is first on the path, the leader of a session, with the usual handlers."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    def tell():
        handlers = signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM)
        print(os.getcwd(), sys.path[0], os.getsid(0) == os.getpid(), *handlers, os.environ.get("HYDRA_FULL_ERROR"))

    before = os.getcwd(), os.getsid(0)
    ended = Running(tell, folder).wait()
    assert ended.out.split() == [str(folder), str(folder), "True", "True", "0", "None"]
    assert (os.getcwd(), os.getsid(0)) == before


def test_a_hang_is_ended(folder):
    ended = Running(lambda: time.sleep(60), folder).wait(0.2)
    assert ended.code is None and ended.seconds < 30


def test_signals_reach_it_and_its_session(folder):
    for group, left in ((False, 1), (True, 0)):
        running = Running(lambda: subprocess.run(["sleep", "60"], check=False), folder)
        while len(processes.list_session(running.process.pid)) < 2:
            time.sleep(0.01)
        running.send(signal.SIGTERM, group=group)
        ended = running.wait()
        assert (ended.code, ended.left) == (-signal.SIGTERM, left)
        while processes.list_session(running.process.pid):  # killed, and about to end
            time.sleep(0.01)


@pytest.fixture(autouse=True)
def little_grace(monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.2)


def test_an_error_of_input_is_a_sentence_and_another_a_traceback(folder):
    def refuse(error):
        raise error

    ended = call(lambda: refuse(ValueError("size=0: it must be positive")), folder)
    assert (ended.code, ended.err) == (1, "size=0: it must be positive\n")
    ended = call(lambda: refuse(KeyError("size")), folder)
    assert ended.code == 1 and "Traceback (most recent call last)" in ended.err


def test_something_can_be_done_before(folder):
    ended = Running(lambda: print("done"), folder, before=lambda: print("before")).wait()
    assert (ended.code, ended.text) == (0, "before\ndone\n")
