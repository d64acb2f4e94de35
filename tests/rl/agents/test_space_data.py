"""Spaces as plain data and back."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.agents.space_data import space_from_data, space_to_data

BOX = spaces.Box(-1, 1, (3,))
SPACES = [
    BOX,
    spaces.Box(0, 255, (3, 12, 12), np.uint8),
    spaces.Box(np.array([0, -3], np.float32), np.array([np.inf, 0.1], np.float32)),
    spaces.Box(-0.1, 1 / 3, (2, 2), np.float64),
    spaces.Box(-np.inf, np.inf, (), np.float32),
    spaces.Box(-7, 100, (2,), np.int16),
    spaces.Discrete(5, start=-2),
    spaces.Discrete(3, dtype=np.int32),
    spaces.MultiDiscrete([3, 4], start=[1, -2]),
    spaces.MultiDiscrete([[3, 4], [2, 2]]),
    spaces.MultiDiscrete([3, 2], dtype=np.int8),
    spaces.MultiBinary(4),
    spaces.MultiBinary([2, 3]),
    spaces.Tuple([BOX, spaces.Dict({"q": spaces.MultiBinary(2)})]),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back_the_same(space, tmp_path):
    """Through a file that may hold nothing but plain data."""
    torch.save(space_to_data(space), tmp_path / "space.pt")
    again = space_from_data(torch.load(tmp_path / "space.pt", weights_only=True))
    assert again == space
    assert (again.dtype, again.shape) == (space.dtype, space.shape)
    if isinstance(space, spaces.Box):
        assert np.array_equal(again.low, space.low) and np.array_equal(again.high, space.high)


def test_the_parts_of_a_dict_keep_their_order():
    """The order of the leaves is that of the weights behind them; a Dict made from a dict would sort them."""
    space = spaces.Dict([("z", BOX), ("a", spaces.Discrete(2))])
    assert list(space_from_data(space_to_data(space)).spaces) == ["z", "a"]


def test_equal_bounds_are_stored_as_one_number():
    """An image would be twice as large in the checkpoint else."""
    assert space_to_data(SPACES[1]) == {"box": [3, 12, 12], "dtype": "|u1", "low": 0, "high": 255}


def test_another_kind_of_space_comes_back_as_a_stand_in():
    """Only an agent that ignores such a leaf can be constructed; which text it was does not matter then."""
    space = spaces.Dict({"seen": spaces.Discrete(3), "mission": spaces.Graph(spaces.Discrete(2), None)})
    assert space_from_data(space_to_data(space)) == spaces.Dict({"seen": spaces.Discrete(3), "mission": spaces.Text(1)})
    with pytest.raises(ValueError, match=r"the checkpoint holds \{'what': 1\} where a space should be"):
        space_from_data({"what": 1})
