import math

import numpy as np
import pytest

from rl.checks import one_of, positive, whole, within


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_whole_numbers_of_at_least_1_are_positive(value):
    positive(size=value)


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, True, "3", None, math.nan])
def test_anything_else_is_not(value):
    with pytest.raises(ValueError) as caught:
        positive(size=value)
    assert str(caught.value) == f"size={value!r}: it must be a whole number of at least 1"


def test_the_first_bad_value_is_named():
    with pytest.raises(ValueError, match=r"^b=0: "):
        positive(a=1, b=0, c=-1)
    with pytest.raises(ValueError, match=r"^b=3: "):
        within(0.0, 2.0, a=1, b=3, c=9)
    with pytest.raises(ValueError, match=r"^b=3: "):
        one_of((1, 2), a=1, b=3, c=9)


@pytest.mark.parametrize("value", [0.5, 1, 2.0, np.float64(1.5), np.float32(1.5), np.int64(1)])
def test_numbers_from_the_lowest_to_the_highest_are_within(value):
    within(0.5, 2.0, rate=value)


@pytest.mark.parametrize("value", [0.49, 2.01, -1, math.nan, math.inf, True, "1", None])
def test_numbers_beyond_and_what_is_no_number_are_not(value):
    with pytest.raises(ValueError) as caught:
        within(0.5, 2.0, rate=value)
    assert str(caught.value) == f"rate={value!r}: it must be a number from 0.5 to 2"


def test_without_a_highest_number_none_is_named():
    within(0.5, math.inf, rate=1e300)
    for value in 0.4, math.inf:
        with pytest.raises(ValueError) as caught:
            within(0.5, math.inf, rate=value)
        assert str(caught.value) == f"rate={value!r}: it must be a number of at least 0.5"


def test_a_bound_of_many_digits_is_named_in_full():
    with pytest.raises(ValueError, match=r"from 0 to 4294967295$"):
        within(0, 2**32 - 1, seed=2**32)


def test_one_of_names_what_is_allowed():
    one_of(("joint", None), ratio="joint", other=None)
    with pytest.raises(ValueError) as caught:
        one_of(("joint", "per_head", None), ratio="each")
    assert str(caught.value) == "ratio='each': it must be one of 'joint', 'per_head', None"
    with pytest.raises(ValueError, match=r"^ratio='': "):
        one_of(("joint",), ratio="")


@pytest.mark.parametrize(("value", "limits"), [(1.5, (0, None)), (True, (0, None)), (None, (0, None)), (5, (0, 4))])
def test_whole_numbers_within_limits(value, limits):
    low, high = limits
    allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
    with pytest.raises(ValueError, match=f"^k={value!r}: it must be a whole number {allowed}$"):
        whole(low, high, a=1, k=value)
    whole(0, 4, a=0, k=4)
