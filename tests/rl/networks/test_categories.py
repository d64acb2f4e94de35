"""Images of categories: which are some, how many they have, their planes by hand, and numbers that are none."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.networks.categories import MINIGRID, Categories, check_encoding, count_categories, means_brightness
from rl.networks.images import find_image_axes


def box(*shape, dtype=np.uint8, high=255):
    return spaces.Box(0, high, shape, dtype)


GRID = box(7, 7, 3)


def count(space, encoding="auto", layout="auto"):
    return count_categories("view", space, find_image_axes(space, layout).planes, encoding)


@pytest.mark.parametrize(
    ("space", "found"),
    [
        (GRID, MINIGRID),
        (box(5, 5, 3), MINIGRID),
        (box(15, 15, 3), MINIGRID),
        (box(17, 17, 3), None),  # as large as pictures are
        (box(8, 8, 3), None),  # no partial view has even sides
        (box(7, 9, 3), None),
        (box(7, 7, 4), None),
        (box(3, 7, 7), None),  # MiniGrid has its channels last
        (box(4, 7, 7, 3), None),
        (box(7, 7, 3, high=10), None),
        (box(7, 7, 3, dtype=np.int64), None),
        (box(7, 7, 3, dtype=np.float32), None),
        (spaces.Box(-1, 1, (7, 7, 3)), None),
    ],
    ids=str,
)
def test_views_of_minigrid_are_recognised_by_their_space(space, found):
    assert count(space) == found
    assert count(space, "brightness") is None


def test_views_of_minigrid_itself():
    minigrid = pytest.importorskip("minigrid")
    gymnasium = pytest.importorskip("gymnasium")
    env = minigrid.wrappers.ImgObsWrapper(gymnasium.make("MiniGrid-MemoryS7-v0"))
    assert count(env.observation_space) == MINIGRID
    constants = minigrid.core.constants
    assert (len(constants.OBJECT_TO_IDX), len(constants.COLOR_TO_IDX)) == MINIGRID[:2]
    assert max(constants.STATE_TO_IDX.values()) < MINIGRID[2] == 4  # or one of four directions


BOUNDS = spaces.Box(0, np.broadcast_to(np.array([4, 2], np.uint8), (6, 6, 2)), dtype=np.uint8)


@pytest.mark.parametrize(
    ("space", "encoding", "layout", "found"),
    [
        (GRID, "categories", "auto", MINIGRID),
        (GRID, [12, 6, 4], "auto", (12, 6, 4)),
        (box(8, 8, 3), [3, 3, 2], "auto", (3, 3, 2)),
        (BOUNDS, "categories", "auto", (5, 3)),  # each channel has bounds of its own
        (box(9, 8, high=1, dtype=np.int64), "categories", None, (2,)),  # without an axis of channels
        (box(2, 9, 9, high=6), "categories", "auto", (7, 7)),
        (box(4, 7, 7, 3), [11, 6, 4], "auto", (11, 6, 4)),  # of each frame
    ],
    ids=str,
)
def test_how_many_categories_there_are(space, encoding, layout, found):
    planes = () if layout is None else find_image_axes(space, layout).planes
    assert count_categories("view", space, planes, encoding) == found


@pytest.mark.parametrize(
    ("space", "encoding", "sentence"),
    [
        (box(8, 8, 3), "categories", r"whose bounds do not say how many categories there are: give their number"),
        (box(8, 8, 3, dtype=np.int32, high=1000), "categories", "whose bounds do not say"),
        (box(8, 8, 3, dtype=np.float32, high=1), "categories", "categories are whole numbers from 0 on"),
        (spaces.Box(-1, 5, (8, 8, 3), np.int8), [7, 7, 7], "categories are whole numbers from 0 on"),
        (GRID, [11, 6], r"observation 'view' has 3 channel\(s\): give a number of categories for each"),
    ],
    ids=str,
)
def test_categories_that_cannot_be_known_are_refused(space, encoding, sentence):
    with pytest.raises(ValueError, match=sentence):
        count(space, encoding)


@pytest.mark.parametrize("encoding", ["one-hot", [], [11, 1, 4], [11, 6.0, 4], [True, 6, 4], [257], 11, None])
def test_other_encodings_are_refused(encoding):
    with pytest.raises(ValueError, match=r"image_encoding=.* it must be one of 'auto', 'brightness'"):
        check_encoding(encoding)


def test_planes_by_hand():
    """Two cells with two channels of three and two categories; one frame, then two."""
    x = torch.tensor([[[[2.0, 0.0]], [[1.0, 0.0]]]])  # [1, 2, 1, 2]
    expected = [[[0, 1]], [[0, 0]], [[1, 0]], [[0, 1]], [[1, 0]]]
    assert Categories("view", (3, 2))(x)[0].tolist() == expected
    both = Categories("view", (3, 2), frames=2)(torch.cat([x, x.flip(3)], dim=1))[0]
    assert both.tolist() == expected + [[row[::-1] for row in plane] for plane in expected]


def test_a_view_becomes_normalised_planes(make_encoder):
    """Of the four cells of two views one has category 2: mean 1/8, deviation sqrt(7)/8, so 7/sqrt(7) there."""
    encoder = make_encoder(box(2, 2, 1, high=2), image_encoding="categories")
    views = torch.zeros(2, 2, 2, 1, dtype=torch.uint8)
    views[1, 0, 1] = 2
    encoder.update_moments({"obs": views})
    planes = encoder.parts[0].prepare(views)
    assert encoder.parts[0].shape == (3, 2, 2) and planes.shape == (2, 3, 2, 2)
    rare = torch.full((2, 2, 2), -1 / math.sqrt(7))
    rare[1, 0, 1] = math.sqrt(7)
    torch.testing.assert_close(planes[:, 2], rare)
    torch.testing.assert_close(planes[:, 0], -rare)
    assert (planes[:, 1] == 0).all()  # was never seen


def test_frames_of_channels_are_stacked_as_pictures_are(make_encoder):
    views = torch.randint(0, 4, (5, 2, 7, 7, 3), dtype=torch.uint8)
    part = make_encoder(box(2, 7, 7, 3), image_encoding=[11, 6, 4]).parts[0]
    one = make_encoder(GRID).parts[0]
    assert part.shape == (42, 7, 7)
    torch.testing.assert_close(part.prepare(views), torch.cat([one.prepare(views[:, t]) for t in (0, 1)], dim=1))


def test_the_scale_of_categories_is_never_corrected(make_encoder):
    """Numbers of 0 to 10 among 255 would be too faint as brightness."""
    views = torch.zeros(4, 7, 7, 3, dtype=torch.uint8)
    views[0, 0, 0] = 2
    assert make_encoder(GRID).correct_scales({"obs": views}) == []
    assert len(make_encoder(GRID, image_encoding="brightness").correct_scales({"obs": views})) == 1


@pytest.mark.parametrize("look", ["correct_scales", "update_moments", "forward"])
def test_a_number_that_is_no_category_is_told(look, make_encoder):
    """Where a graph is made of it, or on a device that would have to wait, nothing behind it is finite."""
    encoder, views = make_encoder(GRID), torch.zeros(2, 3, 7, 7, 3, dtype=torch.uint8)
    views[1, 2, 3, 4] = torch.tensor([10, 6, 1])
    sentence = r"observation 'obs' holds numbers up to \[10, 6, 1\] in its channels, but there are \[11, 6, 4\] categ"
    with torch.inference_mode(), pytest.raises(ValueError, match=sentence):
        getattr(encoder, look)({"obs": views})
    views[1, 2, 3, 4, 1] = 5
    getattr(encoder, look)({"obs": views})


def test_without_a_look_a_number_that_is_no_category_makes_nothing_finite(make_encoder):
    views = torch.zeros(2, 7, 7, 3, dtype=torch.uint8)
    views[1, 0, 0, 0] = 200
    features = make_encoder(GRID)({"obs": views})
    assert torch.isfinite(features[0]).all() and torch.isnan(features[1]).all()


@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN])
def test_the_option_reaches_the_encoder(kind):
    def planes(**options):
        agent = kind(box(9, 9, 3), spaces.Discrete(2), layer_size=8, core=cores.gru, **options)
        return next(part.shape[0] for part in agent.network.modules() if hasattr(part, "categories"))

    assert planes() == planes(image_encoding="categories") == 21
    assert planes(image_encoding="brightness") == 3
    assert planes(image_encoding=[12, 7, 5]) == 24


def test_weights_tell_whether_there_are_categories(make_encoder):
    assert means_brightness(make_encoder(box(8, 8, 3)).state_dict())
    assert not means_brightness(make_encoder(GRID).state_dict())
