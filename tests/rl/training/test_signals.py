"""Signals that end a run: noted or raised, once, and never where they are not ours to handle."""

import os
import signal
import threading
import time

import pytest

from rl.training import signals
from rl.training.signals import Stopped, StopSignals

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_noted_and_the_second_acts_as_usual(usual_handlers, number):
    noted, _ = usual_handlers
    with StopSignals() as stop:
        assert stop.number is None
        send(number)
        assert stop.number == number and noted == []
        send(signal.SIGTERM)
        assert noted == [signal.SIGTERM] and stop.number == number


def test_outside_signals_are_not_touched(usual_handlers):
    noted, usual = usual_handlers
    with StopSignals() as stop:
        assert not any(signal.getsignal(n) == handler for n, handler in usual.items())
    assert {n: signal.getsignal(n) for n in usual} == usual
    send(signal.SIGTERM)
    assert noted == [signal.SIGTERM]
    assert stop.number is None
    with pytest.raises(OSError), StopSignals():
        raise OSError
    assert {n: signal.getsignal(n) for n in usual} == usual


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_raised_where_that_is_asked_for(usual_handlers, number):
    """As an interrupt that knows its number, so that no ``except Exception`` on the way takes it for a fault."""
    reached = []
    with StopSignals() as stop:
        with pytest.raises(Stopped) as raised, stop.raising():
            send(number)
            reached.append("after the signal")
        assert raised.value.exit_code == 128 + number and stop.number == number
        with pytest.raises(Stopped), stop.raising():  # it came before
            reached.append("the next block")
    assert reached == [] and isinstance(raised.value, KeyboardInterrupt)


def test_the_sentence_of_a_stop():
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"
    assert str(Stopped(signal.SIGINT, "at step 8")) == "stopped by SIGINT at step 8"


def test_a_signal_that_comes_twice_at_once_is_one(usual_handlers, monkeypatch):
    """``timeout`` sends it to the process and to its group."""
    noted, _ = usual_handlers
    now = [100.0]
    monkeypatch.setattr(signals, "ECHO", 0.3)
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    with StopSignals() as outer, StopSignals() as stop:
        send(signal.SIGTERM)
        now[0] += 0.1
        send(signal.SIGTERM)
        assert (stop.number, outer.number) == (signal.SIGTERM, None)
        send(signal.SIGINT)  # another one
        assert outer.number == signal.SIGINT
        now[0] += 0.31
        send(signal.SIGINT)
        assert noted == [signal.SIGINT]


def test_blocks_inside_each_other_pass_a_second_signal_outwards(usual_handlers):
    """A command raises it, though its run had only noted the first."""
    noted, _ = usual_handlers
    with pytest.raises(Stopped), StopSignals() as outer, outer.raising(), StopSignals() as inner:
        send(signal.SIGINT)
        assert (inner.number, outer.number) == (signal.SIGINT, None)
        send(signal.SIGINT)
    assert outer.number == signal.SIGINT and noted == []


def test_outside_the_main_thread_nothing_is_handled(usual_handlers):
    """Python allows no handlers there, and the signals belong to the program around."""
    _, usual = usual_handlers
    seen = []

    def work():
        with StopSignals() as stop, stop.raising():
            seen.append(stop.number)
            seen.append({n: signal.getsignal(n) for n in usual} == usual)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, True]


def test_a_hangup_that_is_ignored_stays_so(usual_handlers):
    """That is what ``nohup`` asks for."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as stop:
        send(signal.SIGHUP)
        assert stop.number is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside the threads of torch
def test_a_forked_process_dies_of_a_signal_as_it_did():
    """Workers inherit the handlers, but their run is not theirs to save."""
    ready, child_is_ready = os.pipe()
    with StopSignals() as stop, stop.raising():
        child = os.fork()
        if child == 0:
            os.write(child_is_ready, b"1")
            for _ in range(1000):  # not signal.pause, which would miss what came just before
                time.sleep(0.01)
            os._exit(1)
        os.read(ready, 1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    os.close(ready)
    os.close(child_is_ready)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM and stop.number is None
