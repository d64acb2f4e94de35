import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.networks.images import ImageEncoder, find_image_axes


def box(*shape, dtype=np.uint8, high=255):
    return spaces.Box(0, high, shape, dtype)


@pytest.mark.parametrize(
    ("shape", "rows", "planes"),
    [
        ((84, 84), 0, ()),
        ((16, 40), 0, ()),
        ((84, 84, 1), 0, (2,)),
        ((1, 84, 84), 1, (0,)),
        ((4, 84, 84), 1, (0,)),
        ((84, 84, 4), 0, (2,)),
        ((27, 9, 9), 1, (0,)),  # more channels than rows
        ((4, 4, 16), 0, (2,)),
        ((210, 160, 3), 0, (2,)),
        ((3, 160, 210), 1, (0,)),
        ((2, 42, 42, 3), 1, (0, 3)),
        ((4, 3, 42, 42), 2, (0, 1)),
        ((42, 42, 3, 4), 0, (2, 3)),
        ((4, 210, 160, 3), 1, (0, 3)),
    ],
)
def test_sides_are_found_wherever_channels_and_frames_are(shape, rows, planes):
    assert find_image_axes(box(*shape)) == (rows, planes)


@pytest.mark.parametrize(
    "space",
    [
        box(128),
        box(4, 7),
        box(9, 9, dtype=np.int64, high=2),  # a board
        box(20, 20, high=3),  # a larger one
        box(4, 128),  # stacked vectors of bytes
        box(30, 30, dtype=np.float32),
        box(2, 3, 4, 5),
        box(2, 2, 42, 42, 3),
        spaces.MultiBinary([42, 42]),
    ],
    ids=str,
)
def test_what_is_no_image(space):
    assert find_image_axes(space) is None


def test_any_numbers_of_large_sides_are_an_image():
    assert find_image_axes(box(36, 48, dtype=np.float32, high=1)) == (0, ())
    assert find_image_axes(box(36, 48, dtype=np.uint16, high=65535)) == (0, ())
    assert find_image_axes(box(35, 48, dtype=np.uint16, high=65535)) is None


@pytest.mark.parametrize(
    ("shape", "layout", "found"),
    [
        ((5, 7, 3), "channels_first", (1, (0,))),
        ((3, 7, 5), "channels_last", (0, (2,))),
        ((2, 5, 7, 3), "channels_first", (2, (0, 1))),
        ((2, 5, 7, 3), "channels_last", (1, (0, 3))),
        ((42, 42), "channels_last", (0, ())),
        ((4, 7), "channels_first", None),
        ((84, 84, 3), "flat", None),
        ((84, 84), "flat", None),
    ],
)
def test_a_layout_decides_where_the_channels_of_three_and_four_axes_are(shape, layout, found):
    assert find_image_axes(box(*shape), layout) == found


@pytest.mark.parametrize(
    ("shape", "to_planes"),
    [
        ((20, 24), lambda x: x[:, None]),
        ((20, 24, 1), lambda x: x.permute(0, 3, 1, 2)),
        ((20, 24, 4), lambda x: x.permute(0, 3, 1, 2)),
        ((2, 20, 24, 3), lambda x: torch.cat([x[:, 0], x[:, 1]], dim=-1).permute(0, 3, 1, 2)),
        ((2, 3, 20, 24), lambda x: torch.cat([x[:, 0], x[:, 1]], dim=1)),
    ],
)
def test_every_layout_is_the_same_picture(shape, to_planes, make_encoder, assert_close):
    pictures = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8))
    planes = to_planes(pictures)
    encoder = make_encoder(box(*shape))
    other = make_encoder(box(*planes.shape[1:]), image_layout="channels_first")
    other.load_state_dict(encoder.state_dict())
    for each, given in ((encoder, pictures), (other, planes)):
        each.update_moments({"obs": given[:4].unflatten(0, (2, 2))})
    assert_close(encoder({"obs": pictures}), other({"obs": planes}), 1e-6)
    assert isinstance(encoder.parts[0], ImageEncoder)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (box(84, 84), "image 84x84, gray, CNN 'nature', scaled by its bounds 0 to 255, normalised"),
        (box(4, 84, 84), "image 84x84, 4 frames or channels, CNN 'nature', scaled by its bounds 0 to 255, normalised"),
        (box(8, 8, 3), "image 8x8, 3 channels, CNN 'two 3x3 layers', scaled by its bounds 0 to 255, normalised"),
        (
            box(7, 7, 3),
            "image 7x7, 3 channels, CNN 'two 3x3 layers', one-hot planes of 11, 6, 4 categories "
            "(agent.image_encoding=brightness reads a picture), normalised",
        ),
        (
            box(2, 42, 40, 3),
            "image 42x40, 2 x 3 frames and channels, CNN 'nature', scaled by its bounds 0 to 255, normalised",
        ),
        (
            spaces.Box(-np.inf, np.inf, (40, 40)),
            "image 40x40, gray, CNN 'nature', as it is, for it has no bounds, normalised",
        ),
    ],
    ids=str,
)
def test_an_image_is_described(space, words, make_encoder):
    assert make_encoder(space).describe() == [f"observation 'obs': {words}"]
