"""What an environment returns, brought into the form that it declared."""

import re

import numpy as np
import pytest
from gymnasium import spaces

from envs.faults import MisfitError
from envs.fitting import fit_flag, fit_flags, fit_reward, fit_rewards, make_fit


class Tensor:
    """As torch has it: cannot be read before it is detached and on the CPU."""

    def __init__(self, numbers, detached=False):
        self.numbers, self.detached = numbers, detached

    def detach(self):
        return Tensor(self.numbers, True)

    def cpu(self):
        assert self.detached
        return np.asarray(self.numbers)

    def __array__(self, *_, **__):
        raise RuntimeError("requires grad")


BOX = spaces.Box(-1, 1, (2,), np.float32)
BYTES = spaces.Box(0, 255, (2,), np.uint8)


@pytest.mark.parametrize(
    ("space", "given", "expected"),
    [
        (BOX, [0.5, 7], np.array([0.5, 7], np.float32)),  # bounds are no limits
        (BOX, np.array([1, 2]), np.array([1, 2], np.float32)),
        (BOX, Tensor([1.0, 2.0]), np.array([1, 2], np.float32)),
        (BYTES, np.array([3.0, 255.0]), np.array([3, 255], np.uint8)),
        (BYTES, np.array([True, False]), np.array([1, 0], np.uint8)),
        (spaces.Discrete(3, start=2), np.array([4]), np.int64(4)),
        (spaces.MultiDiscrete([2, 3]), (1, 2), np.array([1, 2])),
        (spaces.MultiBinary(2), [True, 0], np.array([1, 0], np.int8)),
        (spaces.Tuple([BYTES, spaces.Discrete(2)]), [[1, 2], 1], (np.array([1, 2], np.uint8), np.int64(1))),
    ],
)
def test_numbers_come_out_in_the_type_of_the_space(space, given, expected):
    found = make_fit(space)(given)
    np.testing.assert_equal(found, expected)
    assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)


def test_leaves_of_a_dict_are_new_arrays_and_others_are_left_out():
    given = {"a": np.zeros(2, np.float32), "b": {"c": np.zeros(2, np.uint8)}, "more": "text"}
    found = make_fit(spaces.Dict(a=BOX, b=spaces.Dict(c=BYTES)))(given)
    assert list(found) == ["a", "b"]
    assert not np.shares_memory(found["a"], given["a"]) and not np.shares_memory(found["b"]["c"], given["b"]["c"])


def test_other_spaces_are_left_to_others():
    assert make_fit(spaces.Text(5))("word") == "word"


@pytest.mark.parametrize(
    ("space", "given", "sentence"),
    [
        (BOX, np.zeros(3), "observation has shape (3,): it must be (2,), as its space Box(-1.0, 1.0, (2,), float32) "),
        (BOX, [0, np.nan], "observation holds nan: it must be finite"),
        (BOX, np.array([np.inf, 0], np.float32), "observation holds inf: it must be finite"),
        (BOX, None, "observation=None: it must be a number"),
        (BOX, [[1], [2, 3]], "observation=[[1], [2, 3]]: it must be an array of numbers"),
        (BOX, ["a", "b"], "observation=['a', 'b']: it must be an array of numbers"),
        (BYTES, [0.5, 1], "observation holds fractions, but its space Box(0, 255, (2,), uint8) is of uint8"),
        (BYTES, [np.nan, 1], "observation holds fractions, but its space Box(0, 255, (2,), uint8) is of uint8"),
        (BYTES, [-1, 1], "observation holds -1 to 1, but its space Box(0, 255, (2,), uint8) is of uint8"),
        (BYTES, [1, 256], "observation holds 1 to 256, but its space Box(0, 255, (2,), uint8) is of uint8"),
        (spaces.Discrete(3), 3, "observation=3: it must be one of 0 to 2"),
        (spaces.Discrete(3), [0, 1], "observation=[0, 1]: it must be one of 0 to 2"),
        (spaces.MultiDiscrete([2, 3]), [2, 0], "observation=[2, 0]: it must lie in MultiDiscrete([2 3])"),
        (spaces.MultiBinary(2), [2, 0], "observation=[2, 0]: it must lie in MultiBinary(2)"),
        (spaces.Dict(a=BOX), {"b": 1}, "observation holds 'b': it must be a dict with 'a'"),
        (spaces.Dict(a=spaces.Dict(b=BOX)), {"a": {"b": [1]}}, "observation 'a/b' has shape (1,): it must be (2,), as"),
        (spaces.Tuple([BOX]), [], "observation=[]: it must be a tuple of 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_the_name_of_the_leaf(space, given, sentence):
    with pytest.raises(MisfitError, match=f"^{re.escape(sentence)}"):
        make_fit(space)(given)


@pytest.mark.parametrize(
    "reward", [1.5, np.float32(1.5), np.array(1.5), np.array([1.5]), np.array([[1.5]]), Tensor([1.5]), [1.5]]
)
def test_rewards_of_any_kind(reward):
    found = fit_reward(reward)
    assert found == 1.5 and type(found) is float


def test_whole_and_logical_rewards():
    assert [fit_reward(given) for given in (2, True, np.int8(3), np.bool_(False))] == [2.0, 1.0, 3.0, 0.0]


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        (None, "reward=None: it must be a number"),
        ("1", "reward='1': it must be a number"),
        (np.array([1.0, 2.0]), r"reward=array\(\[1., 2.\]\): it must be one number, but it has shape \(2,\)"),
        (float("nan"), "reward=nan: it must be finite"),
        (np.array([-np.inf]), "reward=-inf: it must be finite"),
        ({"a": 1.0}, "reward={'a': 1.0}: it must be one number; several agents go with env=pettingzoo"),
    ],
)
def test_rewards_that_are_none(reward, sentence):
    with pytest.raises(MisfitError, match=f"^{sentence}$"):
        fit_reward(reward)


def test_flags_of_any_kind():
    assert [fit_flag(given, "x") for given in (True, np.bool_(True), 1, np.array([1]), Tensor(1.0))] == [True] * 5
    assert fit_flag(0, "x") is fit_flag(np.array(False), "x") is False
    for given in (None, 2, 0.5, {"a": True}):
        with pytest.raises(MisfitError, match=r"^truncated=.*: it must be true or false$"):
            fit_flag(given, "truncated")


def test_rewards_and_flags_of_several_environments():
    assert fit_rewards([[1], [2]], 2).tolist() == [1.0, 2.0]
    assert fit_flags(Tensor([0, 1]), 2, "x").tolist() == [False, True]
    with pytest.raises(MisfitError, match=r"^rewards has shape \(1, 2\): it must be \(2,\), one for each environment$"):
        fit_rewards([[1, 2]], 2)
    with pytest.raises(MisfitError, match=r"^rewards\[1\]=nan: it must be finite$"):
        fit_rewards([1, np.nan, np.inf], 3)
    with pytest.raises(MisfitError, match=r"^terminated=\[0, 3\]: each must be true or false$"):
        fit_flags([0, 3], 2, "terminated")
