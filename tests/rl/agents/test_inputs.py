"""Observations as arrays by leaf: what is read, and what is refused."""

import re

import numpy as np
import pytest
from gymnasium import spaces

from rl.agents.inputs import as_flags, as_rewards, fit_leaf, flag_rows, name_leaves, read_batch
from rl.spaces import leaf_spaces

PAIR = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Box(-1, 1, (1,))})


@pytest.mark.parametrize("given", [np.arange(3.0), [0, 1, 2], {"a": [0, 1], "b": [2]}], ids=["flat", "list", "dict"])
def test_the_parts_of_an_observation_may_come_in_a_dict_or_side_by_side(given):
    parts = name_leaves(PAIR, leaf_spaces(PAIR), given)
    assert {name: part.tolist() for name, part in parts.items()} == {"a": [0, 1], "b": [2]}


@pytest.mark.parametrize(
    ("space", "given", "rows", "single"),
    [
        (spaces.Box(-1, 1, (3,)), np.zeros(3), 1, True),
        (spaces.Box(-1, 1, (3,)), np.zeros((1, 3)), 1, False),
        (spaces.Box(-1, 1, ()), np.zeros(3), 3, False),
        (spaces.Discrete(3), 2, 1, True),
        (spaces.Discrete(3), [2, 0], 2, False),
        (PAIR, np.zeros((4, 3)), 4, False),
        (PAIR, {"a": np.zeros((4, 2)), "b": np.zeros((4, 1))}, 4, False),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_the_shape_tells_a_single_observation_from_rows(space, given, rows, single):
    batch, *found = read_batch(space, leaf_spaces(space), given)
    assert found == [rows, single]
    assert {len(leaf) for leaf in batch.values()} == {rows}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (np.array([300, 1]), "holds numbers from 1 to 300, but its space is uint8"),
        (np.array([-1, 1]), "holds numbers from -1 to 1, but its space is uint8"),
        (np.array([0.5, 1]), "holds fractions"),
        (np.array([np.nan, 1]), "holds fractions"),
        (np.array([1j, 1]), "holds complex128"),
        (np.array([object(), 1]), "holds objects that are no numbers"),
        (np.zeros(3), r"has shape \(3,\), but \(1, 2\) is expected"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_numbers_that_a_leaf_cannot_hold_are_refused(given, sentence):
    with pytest.raises(ValueError, match=f"observation 'x' {sentence}"):
        fit_leaf("x", given, (1, 2), np.dtype(np.uint8))


def test_numbers_in_objects_are_numbers():
    assert fit_leaf("x", np.array([1, 2.0], dtype=object), (1, 2), np.dtype(np.uint8)).tolist() == [[1, 2]]


def test_flags_and_rewards_of_rows():
    assert as_flags(None, 2).tolist() == [False, False]
    assert as_flags(True, 1).tolist() == as_flags([1], 1).tolist() == [True]
    assert as_flags([0.0, 1.0], 2).tolist() == [False, True]
    assert as_rewards(None, np.ones(2, dtype=bool)).tolist() == [0.0, 0.0]
    assert as_rewards([2, float("nan")], np.array([False, True])).tolist() == [2.0, 0.0]
    assert flag_rows([], 2).tolist() == [False, False]
    assert (
        flag_rows(1, 2).tolist()
        == flag_rows([1, 1], 2).tolist()
        == flag_rows([False, True], 2).tolist()
        == [False, True]
    )


def test_a_reward_beyond_float32_is_refused_without_a_warning():
    with pytest.raises(ValueError, match="they must be finite"):
        as_rewards([1e300], np.array([False]))
