import numpy as np
import pytest
from gymnasium import spaces

from rl.spaces import get_shape, leaf_arrays, leaf_spaces, split_flat, take_rows

BOX, BITS, NUMBER = spaces.Box(-1.0, 1.0, (2, 3)), spaces.MultiBinary(4), spaces.Discrete(3)
NESTED = spaces.Dict({"a": spaces.Tuple([BOX, spaces.Dict({"x": NUMBER})]), "b": BITS})


@pytest.mark.parametrize("space", [BOX, BITS, NUMBER, spaces.MultiDiscrete([2, 3])], ids=str)
def test_a_plain_space_is_one_leaf_named_obs(space):
    assert leaf_spaces(space) == {"obs": space}
    sample = space.sample()
    arrays = leaf_arrays(space, sample)
    assert list(arrays) == ["obs"]
    assert np.array_equal(arrays["obs"], sample)


def test_leaves_of_nested_spaces_are_named_by_their_path():
    assert leaf_spaces(NESTED) == {"a/0": BOX, "a/1/x": NUMBER, "b": BITS}


def test_arrays_go_to_the_leaves_of_their_space():
    sample = NESTED.sample()
    arrays = leaf_arrays(NESTED, sample)
    assert list(arrays) == list(leaf_spaces(NESTED))
    assert np.array_equal(arrays["a/0"], sample["a"][0])
    assert arrays["a/1/x"] == sample["a"][1]["x"]
    assert np.array_equal(arrays["b"], sample["b"])


def test_arrays_keep_their_dtype_and_may_be_batched():
    space = spaces.Tuple([spaces.Box(0, 255, (4,), np.uint8), NUMBER])
    arrays = leaf_arrays(space, (np.ones((5, 4), np.uint8), np.arange(5)))
    assert (arrays["0"].dtype, arrays["0"].shape, arrays["1"].shape) == (np.uint8, (5, 4), (5,))


def test_order_of_the_keys_in_an_observation_does_not_matter():
    space = spaces.Dict({"a": NUMBER, "b": BITS})
    arrays = leaf_arrays(space, {"b": np.ones(4), "a": 2})
    assert list(arrays) == ["a", "b"]
    assert arrays["a"] == 2


@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.Dict({"a": spaces.Sequence(NUMBER)})], ids=["text", "sequence"]
)
def test_an_unsupported_space_is_named(space):
    with pytest.raises(ValueError, match=r"(Text|Sequence).* is not supported"):
        leaf_spaces(space)


def test_flat_observations_are_split_into_leaves():
    leaves = {"a": spaces.Box(-1.0, 1.0, (2, 2)), "b": spaces.Box(-1.0, 1.0, (3,)), "c": spaces.Box(-1.0, 1.0, ())}
    parts = split_flat(leaves, np.arange(16.0).reshape(2, 8))
    # the observations are 0 ... 7 and 8 ... 15; a takes the first four numbers, b the next three, c the last
    assert parts["a"].tolist() == [[[0, 1], [2, 3]], [[8, 9], [10, 11]]]
    assert parts["b"].tolist() == [[4, 5, 6], [12, 13, 14]]
    assert parts["c"].tolist() == [7, 15]


def test_one_flat_observation_is_split_into_leaves():
    parts = split_flat({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Box(-1.0, 1.0, (1,))}, np.arange(3.0))
    assert {name: part.tolist() for name, part in parts.items()} == {"a": [[0, 1]], "b": [[2]]}


@pytest.mark.parametrize("width", [7, 9])
def test_flat_observations_of_a_wrong_width_are_refused(width):
    with pytest.raises(ValueError, match=rf"{width} numbers .* 8 are expected"):
        split_flat({"a": spaces.Box(-1.0, 1.0, (2, 4))}, np.zeros((2, width)))


def test_shapes_of_elementary_spaces():
    shapes = [get_shape(space) for space in (BOX, BITS, NUMBER, spaces.MultiDiscrete([2, 3]))]
    assert shapes == [(2, 3), (4,), (), (2,)]


def test_rows_are_taken_from_every_part_of_an_observation():
    column = np.arange(4)
    obs = {"a": column, "b": (10 * column, [100, 101, 102, 103]), "c": {"d": np.stack([column, -column], axis=1)}}
    taken = take_rows(obs, np.array([3, 0]))
    assert taken["a"].tolist() == [3, 0]
    assert isinstance(taken["b"], tuple)
    assert [part.tolist() for part in taken["b"]] == [[30, 0], [103, 100]]
    assert taken["c"]["d"].tolist() == [[3, -3], [0, 0]]
