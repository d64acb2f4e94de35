import numpy as np
import pytest
from gymnasium import spaces

from rl.spaces import (
    are_known,
    fed_dtype,
    find_ignored,
    get_shape,
    leaf_arrays,
    leaf_spaces,
    split_flat,
    stack_rows,
    take_rows,
    unsupported_leaves,
)

BOX, BITS, NUMBER = spaces.Box(-1.0, 1.0, (2, 3)), spaces.MultiBinary(4), spaces.Discrete(3)


class MissionSpace(spaces.Space):
    """A space of a package that Gymnasium does not know."""


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
    "leaf",
    [
        spaces.Text(3),
        spaces.Sequence(NUMBER),
        spaces.Graph(spaces.Box(0, 1, (2,)), None),
        spaces.OneOf([NUMBER, BITS]),
        MissionSpace(),
    ],
    ids=lambda space: type(space).__name__,
)
def test_a_leaf_that_is_no_array_is_named_with_what_drops_it(leaf):
    space, kind = spaces.Dict({"a": NUMBER, "b": BITS, "goal": leaf}), type(leaf).__name__
    with pytest.raises(ValueError) as caught:
        leaf_spaces(space)
    sentence = (
        f"observation 'goal' is {kind}, which is not supported: leave it out with agent.ignore_leaves=[goal], or with "
        "env.wrappers=[{path: gymnasium.wrappers.FilterObservation, filter_keys: [a, b]}]"
    )
    hint = ", or env.wrappers=[minigrid.wrappers.ImgObsWrapper]" if kind == "MissionSpace" else ""
    assert str(caught.value) == sentence + hint
    with pytest.raises(ValueError, match=f"'1/goal' is {kind}.*ignore_leaves=.1/goal., or with a wrapper that drops"):
        leaf_spaces(spaces.Tuple([NUMBER, space]))
    with pytest.raises(ValueError, match=f"observation space {kind} is not supported: use Box, Discrete, Multi"):
        leaf_spaces(leaf)
    assert unsupported_leaves(space) == ["goal"]
    assert list(leaf_spaces(space, ["goal"])) == ["a", "b"]


def test_leaves_are_left_out_by_their_name_or_that_of_what_holds_them():
    assert find_ignored(NESTED, ["a"]) == ["a/0", "a/1/x"]
    assert leaf_spaces(NESTED, ["a/1/x"]) == {"a/0": BOX, "b": BITS}
    assert leaf_spaces(NESTED, ["a"]) == {"b": BITS}
    assert leaf_spaces(NESTED, []) == leaf_spaces(NESTED)


@pytest.mark.parametrize(
    ("space", "ignored", "sentence"),
    [
        (NESTED, ["c"], r"ignore_leaves=\['c'\]: there is no leaf 'c', but a/0, a/1/x, b"),
        (NESTED, ["a/1/x", "a/"], "no leaf 'a/'"),
        (NESTED, "b", r"ignore_leaves=b: it must be a list of names, such as \[b\]"),
        (NESTED, ["a", "b"], "without a/0, a/1/x, b has nothing that an agent could see"),
        (BOX, ["obs"], "without obs has nothing"),
        (spaces.Dict({}), [], r"observation space Dict\(\) has nothing"),
        (spaces.Tuple([]), [], "has nothing"),
        (spaces.Dict({"a": BOX, "b": spaces.Box(0, 1, (0, 3))}), [], r"'b' is Box.*no number: .*ignore_leaves=\[b\]"),
        (spaces.Dict({"a/b": BOX, "a": spaces.Dict({"b": BITS})}), [], "two parts of the observation are named 'a/b'"),
    ],
)
def test_leaves_that_cannot_be_are_told(space, ignored, sentence):
    with pytest.raises(ValueError, match=sentence):
        leaf_spaces(space, ignored)


def test_arrays_of_the_wanted_leaves_only():
    space = spaces.Dict({"a": NUMBER, "goal": MissionSpace(), "t": spaces.Tuple([spaces.Text(3), BITS])})
    obs = {"a": np.arange(2), "t": (("x", "y"), np.ones((2, 4)))}  # the goal need not even be there
    arrays = leaf_arrays(space, obs, ["a", "t/1"])
    assert list(arrays) == ["a", "t/1"]
    assert arrays["t/1"].shape == (2, 4)


@pytest.mark.parametrize(
    ("given", "fed"),
    [
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.uint16, np.int32),  # torch has no index_copy_ for these
        (np.uint32, np.int64),
        (np.uint64, np.float32),
        (np.float64, np.float32),
        (np.float16, np.float32),
        (np.longdouble, np.float32),
        (bool, bool),
    ],
)
def test_leaves_are_fed_in_dtypes_that_torch_can_work_with(given, fed):
    assert fed_dtype(spaces.Box(0, 1, (2,), given)) == fed


def test_bounds_that_no_one_knows():
    low = np.array([0.0, -np.inf, 0, -1e6, 3, -999_999])
    high = np.array([1.0, 0, np.finfo(np.float32).max, 0, 3, 999_999])
    assert are_known(low, high).tolist() == [True, False, False, False, False, True]


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
    pair = spaces.Tuple([NUMBER, NUMBER])
    space = spaces.Dict({"a": NUMBER, "b": pair, "c": spaces.Dict({"d": BOX}), "e": spaces.Text(3)})
    obs = {"a": column, "b": (10 * column, [100, 101, 102, 103]), "c": {"d": np.stack([column, -column], axis=1)}}
    taken = take_rows(space, obs | {"e": ("0", "1", "2", "3")}, np.array([3, 0]))
    assert taken["e"] == ("3", "0")  # Gymnasium batches what is no array as a tuple
    assert taken["a"].tolist() == [3, 0]
    assert isinstance(taken["b"], tuple)
    assert [part.tolist() for part in taken["b"]] == [[30, 0], [103, 100]]
    assert taken["c"]["d"].tolist() == [[3, -3], [0, 0]]
    assert take_rows(space, np.eye(4), np.array([2])).tolist() == [[0, 0, 1, 0]]  # all leaves side by side


@pytest.mark.parametrize(
    ("space", "row", "shapes"),
    [
        (BOX, np.full((2, 3), 5.0, dtype=np.float32), {"obs": (np.float32, (3, 2, 3))}),
        (NUMBER, 2, {"obs": (np.int64, (3,))}),
        (NESTED, {"a": (np.ones((2, 3)), {"x": 1}), "b": np.ones(4, dtype=np.int8)}, None),
    ],
    ids=["box", "discrete", "nested"],
)
def test_single_observations_are_stacked_where_they_are(space, row, shapes):
    """Row 1 of three has one; the others are zero."""
    leaves = leaf_arrays(space, stack_rows([None, row, None], space))
    given = leaf_arrays(space, row)
    shapes = shapes or {name: (np.asarray(leaf).dtype, (3, *np.shape(leaf))) for name, leaf in given.items()}
    assert {name: (leaf.dtype, leaf.shape) for name, leaf in leaves.items()} == shapes
    for name, leaf in leaves.items():
        assert np.array_equal(leaf[1], given[name]) and not leaf[[0, 2]].any()


def test_what_is_no_array_stays_what_it_is_in_a_stack():
    space = spaces.Dict({"goal": spaces.Text(9), "number": NUMBER})
    batch = stack_rows([None, {"goal": "go", "number": 2}], space)
    assert batch["goal"] == (None, "go")
    assert batch["number"].tolist() == [0, 2]
    with pytest.raises(ValueError, match="no observation in 2 rows"):
        stack_rows([None, None], BOX)
