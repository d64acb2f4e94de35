"""A call that does not return is interrupted, and ends the process where nothing interrupts it."""

import ctypes
import os
import signal
import sys
import threading
import time

import pytest

from rl.training import watchdog
from rl.training.watchdog import StepTimeout, Watchdog


def call(function, *given):
    """The function that is watched."""
    return function(*given)


def sleep_for_ever():
    time.sleep(3600)


def compute_for_ever():
    while True:
        pass


def read_for_ever():
    os.read(os.pipe()[0], 1)


@pytest.mark.parametrize("hang", [sleep_for_ever, compute_for_ever, read_for_ever])
def test_a_call_that_does_not_return_is_interrupted(hang):
    began, before = time.perf_counter(), signal.getsignal(watchdog.SIGNAL)
    told = pytest.raises(TimeoutError, match=r"^the environments: it took longer than env_timeout=0.2 s$")
    with told as info, Watchdog(0.2, call):
        call(hang)
    assert 0.2 <= time.perf_counter() - began < 3
    assert type(info.value.__cause__) is StepTimeout
    assert signal.getsignal(watchdog.SIGNAL) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_what_was_noted_on_the_way_is_kept():
    def hang():
        try:
            time.sleep(3600)
        except BaseException as error:
            error.add_note("a note")
            raise

    with pytest.raises(TimeoutError) as info, Watchdog(0.2, call):
        call(hang)
    assert info.value.__notes__ == ["a note"]


def test_many_short_calls_may_take_long_together():
    with Watchdog(0.2, call):
        for _ in range(20):
            call(time.sleep, 0.02)


def test_other_functions_may_take_long():
    with Watchdog(0.1, call):
        time.sleep(0.3)


def test_a_time_in_which_the_process_was_stopped_does_not_count(monkeypatch):
    """It looks ten times, however long that takes: here the eighth look has not come when the call returns."""
    watch = Watchdog(0.2, call)
    monkeypatch.setattr(watch.closed, "wait", lambda seconds: (time.sleep(0.2), watch.closed.is_set())[1])
    with watch:
        call(time.sleep, 1)


def test_without_a_time_nothing_is_watched():
    before = threading.active_count()
    with Watchdog(None, call):
        assert threading.active_count() == before
    with pytest.raises(ValueError, match=r"^env_timeout=0: it must be a number of at least 0.001$"):
        Watchdog(0, call)


def test_another_thread_is_interrupted_too():
    raised = []

    def work():
        try:
            with Watchdog(0.2, call):
                call(compute_for_ever)
        except TimeoutError as error:
            raised.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert raised == ["the environments: it took longer than env_timeout=0.2 s"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of a fork
def test_what_cannot_be_interrupted_ends_the_process_after_it_was_saved():
    """The C library sleeps on whatever signal comes; the child ends itself."""

    def sleep_deeply():
        signal.pthread_sigmask(signal.SIG_BLOCK, [watchdog.SIGNAL])
        ctypes.CDLL(None).sleep(60)

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        sys.stderr = os.fdopen(writing, "w")
        watchdog.GRACE_SECONDS = 0.2
        with Watchdog(0.2, call, save=lambda: "saved up to step 7"):
            call(sleep_deeply)
        os._exit(0)
    os.close(writing)
    began = time.perf_counter()
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitstatus_to_exitcode(status) == 1
    assert time.perf_counter() - began < 10
    sentence = (
        "the environments: it took longer than env_timeout=0.2 s, and cannot be interrupted; saved up to step 7\n"
    )
    assert said == sentence
