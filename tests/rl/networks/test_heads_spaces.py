"""Which action spaces have a head, and which of their bounds are ranges."""

import numpy as np
import pytest
from gymnasium import spaces

from rl.networks import make_head

CONTINUOUS = spaces.Box(np.float32([-1, 0, -np.inf]), np.float32([1, 4, np.inf]))


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (spaces.Box(0, 5, (2,), np.int64), "whole numbers have a MultiDiscrete space"),
        (spaces.MultiDiscrete([[2, 3]]), r"use a wrapper with MultiDiscrete\(\[2, 3\]\)"),
        (spaces.Tuple([spaces.Discrete(2)]), "use a wrapper that takes one MultiDiscrete"),
        (spaces.Discrete(10**9), "has 1000000000 choices, more than 65536"),
        (spaces.MultiDiscrete([2, 10**6]), "has 1000002 choices, more than 65536"),
    ],
    ids=str,
)
def test_the_way_out_is_named(space, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_head(space)


BIG = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("low", "high", "sent"),  # of actions -2, 0.5 and 2
    [
        (-10, 10, [-10, 5, 10]),
        (-BIG, BIG, [-2, 0.5, 2]),
        (-1e6, 1e6, [-2, 0.5, 2]),
        (0, np.inf, [0, 0.5, 2]),
        (-np.inf, 1, [-2, 0.5, 1]),
        (0, 1e6, [0, 0.5, 2]),
        (3, 3, [3, 3, 3]),
    ],
)
def test_bounds_that_are_placeholders_clip_but_scale_nothing(low, high, sent):
    head = make_head(spaces.Box(low, high, (1,)))
    assert head.to_environment(np.float32([[-2], [0.5], [2]]))[:, 0].tolist() == sent
    inside = np.float32([[min(max(0.25, low), high)]])
    assert head.to_environment(head.from_environment(inside)).tolist() == inside.tolist()


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (spaces.Discrete(4), "one of 4"),
        (spaces.MultiDiscrete([4, 3]), "2 choices of 4, 3"),
        (spaces.MultiBinary(5), "5 bits"),
        (spaces.Box(-2.0, 2.0, (2,)), "2 numbers, -1 to 1 is scaled to the bounds"),
        (spaces.Box(-BIG, BIG, (2,)), "2 numbers, as they are, clipped where there is a bound"),
        (CONTINUOUS, "3 numbers: of 2 -1 to 1 is scaled to the bounds, the others as they are, clipped where there is"),
    ],
    ids=str,
)
def test_actions_are_described(space, words):
    assert make_head(space).describe().startswith(words)
