"""A run: where its checkpoint lies, when an interval is full, and the signals that end it."""

import os
import signal
from pathlib import Path

import pytest

from rl.training.run import StopSignals, checkpoint_path, crossed, make_later_seed


def test_the_latest_state_lies_in_the_run_folder():
    for folder in ("runs/a", Path("runs/a")):
        assert checkpoint_path(folder) == Path("runs/a/checkpoints/last.pt")


@pytest.mark.parametrize(
    ("interval", "before", "after", "expected"),
    [
        (None, 0, 100, False),
        (10, 0, 9, False),
        (10, 0, 10, True),
        (10, 10, 19, False),
        (10, 10, 20, True),
        (10, 5, 35, True),
    ],
)
def test_multiples_are_crossed(interval, before, after, expected):
    assert crossed(interval, before, after) is expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(usual_handlers, number):
    noted, usual = usual_handlers
    with StopSignals() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
        assert noted == []
        assert {n: signal.getsignal(n) for n in usual} == usual  # the next one acts as usual
        os.kill(os.getpid(), number)
        assert noted == [number]


def test_outside_signals_are_not_touched(usual_handlers):
    noted, usual = usual_handlers
    with StopSignals() as stop:
        assert not any(signal.getsignal(n) == handler for n, handler in usual.items())
    assert {n: signal.getsignal(n) for n in usual} == usual
    os.kill(os.getpid(), signal.SIGTERM)
    assert noted == [signal.SIGTERM]
    assert not stop.asked


def test_an_error_inside_puts_the_handlers_back(usual_handlers):
    _, usual = usual_handlers
    with pytest.raises(OSError), StopSignals():
        raise OSError
    assert {n: signal.getsignal(n) for n in usual} == usual


def test_later_episodes_have_seeds_of_their_own():
    seeds = [make_later_seed(7, steps) for steps in (0, 100, 200)] + [make_later_seed(8, 100)]
    assert seeds[0] == 7 and len(set(seeds)) == 4 and all(0 <= seed < 2**31 for seed in seeds)
    assert make_later_seed(7, 100) == seeds[1]
    assert make_later_seed(None, 100) is None
