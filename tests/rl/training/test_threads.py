"""The number of threads of an update: given, or chosen by the clock."""

import itertools
import os
import time

import pytest
import torch

from rl.training import threads
from rl.training.threads import Threads, available_cores, check_threads


@pytest.fixture
def torch_threads(monkeypatch):
    """Every number that torch was set to, in order."""
    numbers = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


@pytest.fixture
def cores(monkeypatch):
    """``cores(n)``: this process may run on n of them."""
    return lambda number: monkeypatch.setattr(threads, "available_cores", lambda: number)


@pytest.fixture
def clock(monkeypatch):
    """``clock.now`` is the time."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)
    return Clock


def run_updates(chosen, clock, torch_threads, seconds):
    """Updates that take ``seconds``; the threads of each and what was said."""
    used, lines = [], []
    for duration in seconds:
        with chosen.update(lines.append):
            used.append(torch_threads[-1])
            clock.now += duration
    return used, lines


def test_a_given_number_holds_for_everything(torch_threads, clock):
    given = Threads(3)
    assert torch_threads == [3]
    used, lines = run_updates(given, clock, torch_threads, [1.0] * 20)
    assert (used, lines, given.number) == ([3] * 20, [], 3)
    assert torch_threads == [3]  # set once, and the clock was not read either


def test_the_faster_median_is_kept(torch_threads, clock, cores):
    """The warm-up and the slowest of three do not count: one thread takes 31 ms, four take 24 ms."""
    cores(4)
    auto = Threads("auto")
    assert (auto.number, torch_threads) == (1, [1])
    timed = [9.0, 0.031, 0.024, 0.030, 0.055, 5.0, 0.020]
    used, lines = run_updates(auto, clock, torch_threads, timed)
    assert used == [1, 1, 4, 1, 4, 1, 4]
    assert lines == ["updates: 0.031 s on 1 thread, 0.024 s on 4: 4 threads are used"]
    assert auto.number == 4
    assert run_updates(auto, clock, torch_threads, [9.0] * 5) == ([4] * 5, [])


def test_one_thread_is_kept_where_more_are_no_faster(torch_threads, clock, cores):
    cores(2)
    auto = Threads("auto")
    used, lines = run_updates(auto, clock, torch_threads, [1.0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25])
    assert used == [1, 1, 2, 1, 2, 1, 2]
    assert lines == ["updates: 0.25 s on 1 thread, 0.25 s on 2: 1 thread is used"]
    before = len(torch_threads)
    assert run_updates(auto, clock, torch_threads, [1.0] * 5) == ([1] * 5, [])
    assert (auto.number, len(torch_threads)) == (1, before)


@pytest.mark.parametrize(
    ("timed", "line"),
    [
        ([1.0, 0.1, 0.21], "updates: 0.1 s on 1 thread, 0.21 s on 2: 1 thread is used"),
        ([1.0, 0.1, 0.05, 0.2, 20.0], "updates: 0.15 s on 1 thread, 10 s on 2: 1 thread is used"),
    ],
)
def test_one_update_of_more_than_twice_the_time_settles_it(torch_threads, clock, cores, timed, line):
    """Where another process keeps a core busy; the next one would be as slow."""
    cores(2)
    auto = Threads("auto")
    used, lines = run_updates(auto, clock, torch_threads, [*timed, 1.0, 1.0, 1.0])
    assert used == [*[1, 1, 2, 1, 2][: len(timed)], 1, 1, 1]
    assert (auto.number, lines) == (1, [line])


def test_one_update_of_twice_the_time_does_not(torch_threads, clock, cores):
    cores(2)
    used, lines = run_updates(Threads("auto"), clock, torch_threads, [1.0, 0.25, 0.5, 0.25, 0.125, 0.25, 0.125])
    assert used == [1, 1, 2, 1, 2, 1, 2]
    assert lines == ["updates: 0.25 s on 1 thread, 0.125 s on 2: 2 threads are used"]


def test_between_updates_there_is_one_thread(torch_threads, clock, cores):
    cores(2)
    auto = Threads("auto")
    for duration in [1.0, 1.0, 0.5, 1.0, 0.5, 1.0, 0.5, 0.5, 0.5]:
        assert torch_threads[-1] == 1
        run_updates(auto, clock, torch_threads, [duration])
    assert auto.number == 2
    assert torch_threads[-1] == 1


def test_a_failing_update_leaves_one_thread(torch_threads, clock, cores):
    cores(2)
    auto = Threads("auto")
    run_updates(auto, clock, torch_threads, [1.0, 1.0])
    with pytest.raises(ArithmeticError), auto.update(print):
        assert torch_threads[-1] == 2
        raise ArithmeticError
    assert torch_threads[-1] == 1


def test_with_one_core_there_is_nothing_to_choose(torch_threads, clock, cores):
    cores(1)
    auto = Threads("auto")
    assert run_updates(auto, clock, torch_threads, [1.0] * 9) == ([1] * 9, [])
    assert (auto.number, torch_threads) == (1, [1])


def test_torch_gets_the_number():
    before = torch.get_num_threads()
    try:
        for number in (2, 1):
            Threads(number)
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("bad", [0, -1, 1.5, 2.0, True, None, "many", "2", ""])
def test_other_values_are_refused(bad, torch_threads):
    for check in (check_threads, Threads):
        with pytest.raises(
            ValueError, match=r"^threads=.*: it must be a whole number of at least 1, or auto$"
        ) as error:
            check(bad)
        assert repr(bad) in str(error.value)
    assert torch_threads == []


def test_available_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    assert available_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, expected in ((8, 8), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", itertools.repeat(count).__next__)
        assert available_cores() == expected
