"""``rl`` and ``envs`` do not import each other, so each has checks of its own: they say the same."""

import os

import numpy as np
import pytest

from envs import checks as checks_of_envs
from envs import workers
from rl import checks as checks_of_rl
from rl.training import threads

BAD = [
    *(None, True, "1", "", [], (), {}, b"x"),
    *(-1, 0, 2, 0.5, -0.5, 1.5, 1e20, 2**40, float("nan"), float("inf"), -float("inf"), 1j),
    *(np.int64(-3), np.float64(7.5), np.float64("nan")),
]


def sentence(check, *args, value):
    """What is said of a value, or None if it is let pass."""
    try:
        check(*args, size=1, rate=value)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("name", "args", "allowed"),
    [
        ("positive", (), "a whole number of at least 1"),
        ("within", (0, 1), "a number from 0 to 1"),
        ("within", (1, float("inf")), "a number of at least 1"),
        ("within", (0.123456789, 123456789.5), "a number from 0.123456789 to 123456789.5"),
        ("one_of", (("x", 1, None),), "one of 'x', 1, None"),
    ],
)
def test_the_same_is_refused_in_the_same_words(name, args, allowed):
    refused = 0
    for value in BAD:
        said = sentence(getattr(checks_of_envs, name), *args, value=value)
        assert said == sentence(getattr(checks_of_rl, name), *args, value=value)
        assert said is None or said == f"rate={value!r}: it must be {allowed}"
        refused += said is not None
    assert refused > len(BAD) / 2


@pytest.mark.parametrize(
    ("affinity", "count", "cores"), [({0, 3, 5}, 8, 3), ({1}, 8, 1), (None, 5, 5), (None, None, 1)]
)
def test_both_count_the_cores_of_this_process(monkeypatch, affinity, count, cores):
    """Those it may run on, where the system tells; else all; one if not even that is known."""
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    if affinity is None:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: affinity, raising=False)
    assert threads.available_cores() == workers.available_cores() == cores
