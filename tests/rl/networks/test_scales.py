import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rl.networks.scales import Scale

INF = np.inf


def vector(low, high, dtype=np.float32):
    return spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


@pytest.fixture
def correct():
    """A scale after it was shown numbers; what they become, and the sentence."""

    def show(space, numbers, shared=False, normalised=False):
        scale, numbers = Scale("obs", space, shared), torch.tensor(numbers, dtype=torch.float32)
        ends = (numbers.amin(), numbers.amax()) if shared else (numbers.amin(0), numbers.amax(0))
        sentence = scale.correct(*ends, normalised)
        return scale(numbers), sentence

    return show


# ------------------------------------------------------------------------------------------------------ as declared


@pytest.mark.parametrize(
    ("space", "given", "scaled"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), [0, 51], [0, 0.2]),
        (spaces.Box(0, 1000, (1,), np.int64), [250], [0.25]),
        (spaces.Box(-500, 1000, (1,), np.int16), [-500], [-0.5]),
        (spaces.Box(1000, 1010, (1,), np.int32), [1005], [0.5]),
        (spaces.Box(-1, 2, (1,), np.int64), [2], [2]),  # small whole numbers stay
        (spaces.Box(0, 255, (1,), np.float32), [51], [0.2]),
        (vector([-4, -200, -INF, 0], [4, 100, INF, 1]), [3, -100, 7, 1], [3, -0.5, 7, 1]),
        (vector([0, 0], [3e38, 1e6]), [5, 6], [5, 6]),  # placeholders
        (spaces.Box(-(2**63), 2**63 - 1, (1,), np.int64), [9], [9]),
        (spaces.Box(-(2**31), 2**31 - 1, (1,), np.int32), [9], [9]),
        (spaces.Box(0, 1, (2,), bool), [1, 0], [1, 0]),
        (spaces.MultiBinary(2), [1, 0], [1, 0]),
    ],
    ids=str,
)
def test_vectors_are_scaled_by_bounds_that_are_wide_and_known(space, given, scaled):
    scale = Scale("obs", space, shared=False)
    given, scaled = (torch.tensor([numbers], dtype=torch.float32) for numbers in (given, scaled))
    assert torch.allclose(scale(given), scaled)
    assert not scale.state_dict()  # it follows from the space


@pytest.mark.parametrize(
    ("space", "given", "scaled"),
    [
        (spaces.Box(0, 255, (9, 9), np.uint8), 51, 0.2),
        (spaces.Box(0, 65535, (9, 9), np.uint16), 13107, 0.2),
        (spaces.Box(-1000, 1000, (9, 9), np.int16), 0, 0.5),
        (spaces.Box(-1, 1, (9, 9), np.float32), 0, 0.5),
        (spaces.Box(0, 2**31 - 1, (9, 9), np.int32), 7, 7),
        (spaces.Box(-INF, INF, (9, 9), np.float32), 7, 7),
        (spaces.Box(0, 1e6, (9, 9), np.float32), 7, 7),
    ],
    ids=str,
)
def test_images_are_scaled_by_known_bounds_of_any_width(space, given, scaled):
    assert Scale("obs", space, shared=True)(torch.tensor(float(given))).item() == pytest.approx(scaled)


# ------------------------------------------------------------------------------------------------------ as seen


@pytest.mark.parametrize(
    ("space", "seen", "scaled"),
    [
        # numbers that the bounds make vanish: pixels of 0 to 1 stay, others keep a headroom of 4 above a power of two
        (spaces.Box(0, 255, (2, 2), np.float32), [0.0, 0.9], [0, 0.9]),
        (spaces.Box(0, 255, (2, 2), np.uint8), [0, 1], [0, 0.25]),
        (spaces.Box(0, 65535, (2, 2), np.uint16), [0, 900], [0, 900 / 4096]),
        # numbers that saturate
        (spaces.Box(0, 1, (2, 2), np.float32), [0, 255], [0, 255 / 256]),
        (spaces.Box(-INF, INF, (2, 2), np.float32), [0, 200], [0, 200 / 256]),
        (spaces.Box(0, 2**31 - 1, (2, 2), np.int32), [3, 255], [3 / 1024, 255 / 1024]),
    ],
    ids=str,
)
def test_the_scale_of_an_image_follows_what_is_seen_where_its_bounds_destroy_it(space, seen, scaled, correct):
    result, sentence = correct(space, seen, shared=True)
    assert result.tolist() == pytest.approx(scaled)
    assert f"went from {seen[0]:g} to {seen[1]:g} in the first rollout" in sentence


def test_the_numbers_of_a_vector_are_corrected_one_by_one(correct):
    space = vector([-1e5, -1e5, -1, -INF, 0, -INF], [1e5, 1e5, 1, INF, 1e5, INF])
    seen = [[-3, -90_000, -1, -7, 70_000, 300], [2, 90_000, 1, 7, 70_010, 300]]
    result, sentence = correct(space, seen)
    # -3 ... 2 -> 4 * 4; scaled by its bounds; as it is; as it is; 70 000 + 0 ... 10 -> 16 * 4; constant, 512 * 4
    expected = [[-3 / 16, -0.9, -1, -7, 0, 300 / 2048], [2 / 16, 0.9, 1, 7, 10 / 64, 300 / 2048]]
    assert torch.allclose(result, torch.tensor(expected))
    assert "3 of its 6 numbers went from -3 to 70010" in sentence
    assert "divided by 16 or 2048 or 64" in sentence


@pytest.mark.parametrize(
    ("space", "seen", "shared"),
    [
        (spaces.Box(0, 255, (2, 2), np.uint8), [0, 6], True),  # a grid of symbols
        (spaces.Box(0, 255, (2, 2), np.uint8), [9, 9], True),  # an empty screen
        (spaces.Box(0, 1, (2, 2), np.float32), [0, 0.001], True),
        (spaces.Box(0, 1, (2, 2), np.float32), [0, 60], True),
        (spaces.Box(-INF, INF, (1,), np.float32), [[-60], [60]], False),
        (spaces.Box(-INF, INF, (1,), np.float32), [[0], [INF]], False),
        (spaces.Box(-INF, INF, (1,), np.float32), [[0], [np.nan]], False),
        (spaces.Box(0, 1, (1,), bool), [[0], [1]], False),
        (spaces.MultiBinary(1), [[0], [1]], False),
    ],
)
def test_a_scale_that_serves_is_kept(space, seen, shared, correct):
    plain = Scale("obs", space, shared)(torch.tensor(seen, dtype=torch.float32))
    result, sentence = correct(space, seen, shared)
    assert sentence is None
    assert torch.equal(result.nan_to_num(), plain.nan_to_num())


def test_numbers_that_were_to_stay_within_one_are_corrected_sooner(correct):
    """Four times what was declared, after which nothing may bound them; 64 where a tanh does."""
    kind, floats = spaces.Box(-1.0, 1.0, (2,)), spaces.Box(-2.0, 2.0, (2,))
    assert correct(kind, [[0.0, 0.0], [4.0, -4.0]])[1] is None
    _, sentence = correct(kind, [[0.0, 0.0], [1.0, 5.0]])
    assert "1 of its 2 numbers went from 0 to 5" in sentence
    assert correct(floats, [[0.0, 0.0], [1.0, 5.0]])[1] is None
    bytes_ = spaces.Box(0, 255, (2,), np.float32)  # scaled to 1
    assert correct(bytes_, [[0, 0], [255, 1000]])[1] is None and correct(bytes_, [[0, 0], [255, 1100]])[1]


def test_moments_behind_a_scale_need_no_help_with_large_numbers(correct):
    wide, tiny = spaces.Box(-INF, INF, (1,), np.float32), spaces.Box(-1e5, 1e5, (1,), np.float32)
    assert correct(wide, [[0], [500]], normalised=True)[1] is None
    assert correct(tiny, [[0], [0.5]], normalised=True)[1] is not None  # their smallest deviation is 1e-4


def test_the_sentence_names_leaf_bounds_numbers_and_what_to_do(correct):
    assert correct(spaces.Box(0, 255, (2, 2), np.float32), [0.0, 0.9], shared=True)[1] == (
        "observation 'obs': its space declares 0 to 255, but its numbers went from 0 to 0.9 in the first rollout, so "
        "they are divided by 1 instead; declare the bounds that it keeps"  # images are always normalised
    )
    assert correct(spaces.Box(0, 255, (2,), np.float32), [[0.0, 0.0], [0.9, 0.9]])[1].endswith(
        "declare the bounds that it keeps, or set agent.normalise_observations=true"
    )
    assert "declares no bounds (-inf to inf), but" in correct(spaces.Box(-INF, INF, (2, 2)), [0, 99], shared=True)[1]


# --------------------------------------------------------------------------------------------------- checkpoints


def test_a_corrected_scale_goes_with_the_weights():
    def make():
        return nn.ModuleDict({"scale": Scale("obs", spaces.Box(0, 255, (2,), np.float32), shared=False)})

    numbers = torch.tensor([[0.5, 255.0]])
    one, other = make(), make()
    before = other["scale"](numbers)
    one["scale"].correct(torch.zeros(2), torch.tensor([1.0, 255.0]), False)
    assert list(one.state_dict()) == ["scale.low", "scale.width"]
    other.load_state_dict(one.state_dict())
    assert torch.equal(other["scale"](numbers), one["scale"](numbers))
    assert other["scale"].corrected
    other.load_state_dict(make().state_dict())  # of a run whose bounds were right
    assert torch.equal(other["scale"](numbers), before)
    assert not other["scale"].corrected
