"""What is checked of an argument, and the sentence that says so; tests/test_wording.py compares it with that of rl."""

from fractions import Fraction

import numpy as np
import pytest

from envs.checks import at_least, is_number, one_of, positive, within


@pytest.mark.parametrize("value", [0, -2, 1.5, np.float32(0.5), np.int8(3), Fraction(1, 3)])
def test_numbers(value):
    assert is_number(value)


@pytest.mark.parametrize("value", [True, np.True_, None, "1", 1j, float("nan"), -float("inf"), np.float64("nan"), [1]])
def test_what_is_no_number(value):
    assert not is_number(value)


def test_good_arguments_are_let_pass():
    positive(a=1, b=np.int64(7))
    at_least(0, a=0)
    at_least(-1, a=-1, b=np.uint8(0))
    within(0, 1, a=0, b=1, c=np.float32(0.5), d=np.int64(1))
    within(0, np.inf, a=1e300)
    one_of(("x", None), a="x", b=None)


@pytest.mark.parametrize("value", [0, 1.0, True, None, "2"])
def test_counts(value):
    with pytest.raises(ValueError) as caught:
        positive(good=1, bad=value)
    assert str(caught.value) == f"bad={value!r}: it must be a whole number of at least 1"
    with pytest.raises(ValueError, match=r"^bad=2: it must be a whole number of at least 3$"):
        at_least(3, bad=2)


@pytest.mark.parametrize("value", [-0.1, 1.1, True, None, "1", float("nan"), float("inf")])
def test_ranges(value):
    with pytest.raises(ValueError) as caught:
        within(0, 1, good=1, bad=value)
    assert str(caught.value) == f"bad={value!r}: it must be a number from 0 to 1"
    with pytest.raises(ValueError, match=r"^bad=.*: it must be a number of at least 2$"):
        within(2, np.inf, bad=value)


def test_choices():
    with pytest.raises(ValueError, match=r"^bad='z': it must be one of 'x', None$"):
        one_of(("x", None), good="x", bad="z")
