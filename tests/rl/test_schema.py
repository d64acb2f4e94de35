"""The one check of what a file holds."""

import math

import pytest
import torch

from rl.schema import check_entry, finite, finite_list, like, natural

SCHEMA = {"a": torch.zeros(2), "b": {"c": [int, finite]}, "d": (int, type(None)), "e": natural, "f": finite_list}
GOOD = {"a": torch.ones(2), "b": {"c": [1, 0.5]}, "d": None, "e": 0, "f": [1, 2.5], "more": "x"}


def test_what_fits_passes_and_may_hold_more():
    check_entry(GOOD, SCHEMA, "")
    check_entry(GOOD, like(GOOD), "")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"a": torch.zeros(3)}, "{x}.a of the checkpoint is a tensor float32 [3]: it must be a tensor float32 [2]"),
        ({"a": torch.zeros(2).int()}, "{x}.a of the checkpoint is a tensor int32 [2]: it must be a tensor float32 [2]"),
        ({"a": [0.0, 0.0]}, "{x}.a of the checkpoint is a list of 2: it must be a tensor float32 [2]"),
        ({"b": 3}, "{x}.b of the checkpoint is 3: it must be entries by name"),
        ({"b": {}}, "the checkpoint has no entry x.b.c"),
        ({"b": {"c": [1]}}, "{x}.b.c of the checkpoint is a list of 1: it must be a list of 2"),
        ({"b": {"c": ["y", 1]}}, "{x}.b.c.0 of the checkpoint is 'y': it must be int"),
        ({"b": {"c": [1, math.nan]}}, "{x}.b.c.1 of the checkpoint is nan: it must be a finite number"),
        ({"d": 1.5}, "{x}.d of the checkpoint is 1.5: it must be int or NoneType"),
        ({"e": -1}, "{x}.e of the checkpoint is -1: it must be a whole number of at least 0"),
        ({"e": True}, "{x}.e of the checkpoint is True: it must be a whole number of at least 0"),
        ({"f": None}, "{x}.f of the checkpoint is None: it must be a list of numbers"),
        ({"f": [1, "y"]}, "{x}.f.1 of the checkpoint is 'y': it must be a finite number"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_named(changes, sentence):
    with pytest.raises(ValueError) as refused:
        check_entry(GOOD | changes, SCHEMA, "x")
    assert str(refused.value) == sentence.replace("{x}", "the entry x")


def test_all_that_is_missing_is_named():
    with pytest.raises(ValueError, match=r"^the checkpoint has no entry a, d$"):
        check_entry({name: value for name, value in GOOD.items() if name not in "ad"}, SCHEMA, "")
