import copy
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl.networks import Encoder
from rl.spaces import leaf_arrays, leaf_spaces

SPACES = {
    "box": spaces.Box(-2.0, 2.0, (5,)),
    "box of one number": spaces.Box(-2.0, 2.0, ()),
    "matrix": spaces.Box(-2.0, 2.0, (3, 4)),
    "four axes": spaces.Box(-2.0, 2.0, (2, 2, 2, 2)),
    "integers": spaces.Box(-5, 5, (4,), np.int64),
    "unbounded image": spaces.Box(-np.inf, np.inf, (3, 7, 7)),
    "image 3x7x7": spaces.Box(0, 255, (3, 7, 7), np.uint8),
    "image 8x8x3": spaces.Box(0, 255, (8, 8, 3), np.uint8),
    "image 84x84x1": spaces.Box(0.0, 1.0, (84, 84, 1)),
    "image 4x84x84": spaces.Box(0, 255, (4, 84, 84), np.uint8),
    "image 36x48x3": spaces.Box(0, 255, (36, 48, 3), np.uint8),
    "image 1x1x1": spaces.Box(0.0, 1.0, (1, 1, 1)),
    "discrete": spaces.Discrete(4),
    "discrete from -3": spaces.Discrete(4, start=-3),
    "multi-discrete": spaces.MultiDiscrete([2, 3, 4]),
    "multi-discrete matrix": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "multi-discrete from 5": spaces.MultiDiscrete([2, 3], start=[5, -1]),
    "multi-binary": spaces.MultiBinary(6),
    "multi-binary matrix": spaces.MultiBinary([2, 3]),
    "dict": spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Dict({"c": spaces.Discrete(3)})}),
    "tuple": spaces.Tuple([spaces.MultiBinary(2), spaces.Tuple([spaces.Box(-1.0, 1.0, (2, 2)), spaces.Discrete(2)])]),
    "image and scalars": spaces.Dict(
        {"image": spaces.Box(0, 255, (8, 8, 3), np.uint8), "scalars": spaces.Box(-1.0, 1.0, (2,))}
    ),
}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


@pytest.fixture
def draw():
    """Leaves ``[count, *shape]`` of samples of a space."""

    def sample(space, count):
        space.seed(0)
        rows = [leaf_arrays(space, space.sample()) for _ in range(count)]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in leaf_spaces(space)}

    return sample


@pytest.fixture
def make_encoder():
    def make(space, layer_size=16, **options):
        torch.manual_seed(0)
        return Encoder(leaf_spaces(space), layer_size, **options)

    return make


@every_space
def test_features_do_not_depend_on_the_leading_axes(space, draw, make_encoder, device, assert_close):
    encoder = make_encoder(space).to(device)
    flat = {name: leaf.to(device) for name, leaf in draw(space, 6).items()}  # [B]
    sequence = {name: leaf.view(2, 3, *leaf.shape[1:]) for name, leaf in flat.items()}  # [T, B]
    features = encoder(flat)
    assert features.shape == (6, encoder.output_size)
    assert features.dtype == torch.float32
    assert_close(encoder(sequence), features.view(2, 3, encoder.output_size), 1e-6)
    single = {name: leaf[4] for name, leaf in flat.items()}
    assert_close(encoder(single), features[4], 1e-6)


@every_space
def test_every_leaf_changes_the_features(space, draw, make_encoder):
    encoder, obs = make_encoder(space), draw(space, 40)
    for name, leaf in obs.items():
        place = next(i for i in range(1, 40) if not torch.equal(leaf[i], leaf[0]))  # another value of this leaf
        first = {other: value[:1] for other, value in obs.items()}
        changed = first | {name: leaf[place : place + 1]}
        assert (encoder(changed) - encoder(first)).abs().max() > 1e-4


def test_an_image_keeps_the_scalars_beside_it(draw, make_encoder):
    space = SPACES["image and scalars"]
    encoder, obs = make_encoder(space), draw(space, 3)
    for number in range(2):
        changed = obs["scalars"].clone()
        changed[:, number] += 0.5
        assert ((encoder(obs | {"scalars": changed}) - encoder(obs)).abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("side", [7, 84])
def test_channels_last_and_channels_first_are_the_same_picture(side, draw, make_encoder, assert_close):
    last = spaces.Box(0, 255, (side, side, 3), np.uint8)
    first = spaces.Box(0, 255, (3, side, side), np.uint8)
    encoder, other = make_encoder(last, image_encoding="brightness"), make_encoder(first)
    other.load_state_dict(encoder.state_dict())
    pictures = draw(last, 2)["obs"]
    assert_close(other({"obs": pictures.permute(0, 3, 1, 2)}), encoder({"obs": pictures}), 1e-6)
    assert (encoder({"obs": pictures}) - encoder({"obs": pictures.transpose(1, 2)})).abs().max() > 1e-3


def test_bytes_and_floats_are_the_same_picture(draw, make_encoder, assert_close):
    space = SPACES["image 3x7x7"]
    encoder, pictures = make_encoder(space), draw(space, 2)["obs"]
    unit, signed = make_encoder(spaces.Box(0.0, 1.0, (3, 7, 7))), make_encoder(spaces.Box(-1.0, 1.0, (3, 7, 7)))
    expected = encoder({"obs": pictures})
    assert_close(unit({"obs": pictures.float() / 255}), expected, 1e-6)  # 0 ... 255 and 0 ... 1 are both 0 ... 1,
    assert_close(signed({"obs": pictures.float() / 127.5 - 1}), expected, 1e-6)  # and -1 ... 1 is moved there


def test_an_unbounded_image_is_not_scaled(draw, make_encoder, assert_close):
    free, unit = make_encoder(SPACES["unbounded image"]), make_encoder(spaces.Box(0.0, 1.0, (3, 7, 7)))
    picture = draw(SPACES["unbounded image"], 2)
    assert_close(free(picture), unit(picture), 1e-6)


def test_images_can_be_flattened(draw, make_encoder):
    space = SPACES["image 8x8x3"]
    encoder = make_encoder(space, image_layout="flat")
    assert [type(part).__name__ for part in encoder.parts] == ["VectorEncoder"]
    assert encoder.layer.in_features == 8 * 8 * 3
    assert encoder(draw(space, 2)).shape == (2, 16)


@pytest.mark.parametrize(
    ("shape", "layout", "channels_last"),
    [
        ((8, 8, 3), "channels_first", False),
        ((3, 7, 5), "channels_last", True),
        ((3, 7, 3), "auto", False),  # of equal axes the first
        ((3, 7, 5), "auto", False),
        ((7, 5, 3), "auto", True),
    ],
)
def test_where_the_channels_are(shape, layout, channels_last, make_encoder, assert_close):
    encoder = make_encoder(spaces.Box(0.0, 1.0, shape), image_layout=layout)
    picture = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    planes = picture.permute(0, 3, 1, 2) if channels_last else picture
    other = make_encoder(spaces.Box(0.0, 1.0, tuple(planes.shape[1:])), image_layout="channels_first")
    other.load_state_dict(encoder.state_dict())
    assert_close(encoder({"obs": picture}), other({"obs": planes}), 1e-6)


@pytest.mark.parametrize(
    ("space", "lines"),
    [
        (spaces.Box(-1, 1, (3,)), ["observation 'obs': vector of 3, as it is"]),
        (spaces.Box(-1, 1, ()), ["observation 'obs': a number, as it is"]),
        (spaces.Box(-np.inf, np.inf, (3,)), ["observation 'obs': vector of 3, as it is, for it has no bounds"]),
        (spaces.Box(0, 9, (3, 2), np.int64), ["observation 'obs': vector of 6, scaled by its bounds 0 to 9"]),
        (spaces.MultiBinary(6), ["observation 'obs': 6 bits, as they are"]),
        (
            spaces.Dict({"direction": spaces.Discrete(4), "goods": spaces.MultiDiscrete([2, 3])}),
            ["observation 'direction': one of 4, one-hot", "observation 'goods': 2 numbers of 2, 3 values, one-hot"],
        ),
    ],
    ids=str,
)
def test_every_leaf_is_described(space, lines, make_encoder):
    assert make_encoder(space).describe() == lines


def test_normalisation_is_described(make_encoder):
    space = spaces.Dict({"a": spaces.Box(-1, 1, (3,)), "b": spaces.Box(0, 255, (20, 20), np.uint8)})
    assert all(line.endswith(", normalised") for line in make_encoder(space, normalise=True).describe())


@pytest.mark.parametrize("space", [spaces.Discrete(10**9), spaces.MultiDiscrete([2**63 - 2] * 3)], ids=str)
def test_a_code_of_too_many_values_is_refused(space, make_encoder):
    with pytest.raises(ValueError, match=r"'obs' is one of \d+ values, more than the 65536 .*ignore_leaves=\[obs\]"):
        make_encoder(space)


def test_an_encoder_needs_a_leaf():
    with pytest.raises(ValueError, match="no observation to encode"):
        Encoder({})


@pytest.mark.parametrize("normalise", [False, True])
def test_scales_are_corrected_once_and_moments_follow(normalise, make_encoder):
    space = spaces.Dict({"far": spaces.Box(-1e5, 1e5, (1,)), "near": spaces.Box(-1.0, 1.0, (1,))})
    encoder = make_encoder(space, normalise=normalise)
    obs = {name: torch.tensor([[-1.0], [1.0]]) for name in ("far", "near")}
    encoder.update_moments(obs)
    (sentence,) = encoder.correct_scales({name: leaf.view(2, 1, 1) for name, leaf in obs.items()})  # [T, B, ...]
    assert "'far'" in sentence
    assert encoder.correct_scales({name: 1e4 * leaf for name, leaf in obs.items()}) == []
    far, near = (part(leaf).flatten().tolist() for part, leaf in zip(encoder.parts, obs.values(), strict=True))
    assert near == pytest.approx([-1, 1])
    assert far == pytest.approx([-1, 1] if normalise else [-0.25, 0.25])
    assert "scaled by what was seen" in encoder.describe()[0]


def test_an_unknown_layout_is_named(make_encoder):
    with pytest.raises(ValueError, match="image_layout='rows': it must be one of 'auto', 'channels_first'"):
        make_encoder(SPACES["image 8x8x3"], image_layout="rows")


@pytest.mark.parametrize(
    ("shape", "features"),
    [
        # 84 -> (84 - 8) / 4 + 1 = 20 -> (20 - 4) / 2 + 1 = 9 -> 9 - 3 + 1 = 7: 64 * 7 * 7 = 3136 features
        ((4, 84, 84), 3136),
        # 36 -> 8 -> 3 -> 1 and 48 -> 11 -> 4 -> 2: 64 * 1 * 2
        ((36, 48, 3), 128),
        # a side below 36: 35 -> 35 -> 18 and 48 -> 48 -> 24: 32 * 18 * 24
        ((35, 48, 3), 13_824),
    ],
)
def test_the_network_for_large_images_is_that_of_mnih_et_al(shape, features, make_encoder):
    assert make_encoder(spaces.Box(0, 255, shape, np.uint8)).layer.in_features == features


@pytest.mark.parametrize(
    ("space", "value", "code"),
    [
        (spaces.Discrete(4), 2, [0, 0, 1, 0]),
        (spaces.Discrete(4, start=-3), -3, [1, 0, 0, 0]),
        (spaces.Discrete(4, start=-3), 0, [0, 0, 0, 1]),
        (spaces.MultiDiscrete([2, 3]), [1, 0], [0, 1, 1, 0, 0]),
        (spaces.MultiDiscrete([2, 3], start=[5, -1]), [5, 1], [1, 0, 0, 0, 1]),
        (spaces.MultiDiscrete([[2, 3], [2, 2]]), [[0, 2], [1, 0]], [1, 0, 0, 0, 1, 0, 1, 1, 0]),
        (spaces.MultiBinary(3), [1, 0, 1], [1, 0, 1]),
    ],
    ids=str,
)
def test_codes_of_discrete_observations(space, value, code, make_encoder):
    encoder = make_encoder(space)
    assert encoder.parts[0](torch.tensor([value])).tolist() == [code]
    assert not encoder.state_dict()  # the codes follow from the space, and no layer is behind them


@pytest.mark.parametrize(
    ("space", "options", "as_they_are"),
    [
        (spaces.Discrete(16), {}, True),
        (spaces.Discrete(17), {}, False),  # wider than layer_size
        (spaces.MultiBinary(3), {}, True),
        (spaces.Box(-1.0, 1.0, (16,)), {}, True),
        (spaces.Box(-1.0, 1.0, (16,)), {"normalise": True}, False),  # up to +-10
        (spaces.Box(-1.5, 1.0, (2,)), {}, False),
        (spaces.Box(-np.inf, np.inf, (2,)), {}, False),
        (spaces.Box(0, 255, (4,), np.uint8), {}, True),  # scaled by its bounds
        (spaces.Box(0.0, 1.0, (1, 4, 4)), {}, False),  # an image, whose features have no bounds
        (spaces.Dict({"a": spaces.Discrete(9), "b": spaces.Box(0.0, 1.0, (7,))}), {}, True),
        (spaces.Dict({"a": spaces.Discrete(9), "b": spaces.Box(0.0, 1.0, (8,))}), {}, False),
        (spaces.Dict({"a": spaces.Discrete(9), "b": spaces.Box(0.0, 1.1, (7,))}), {}, False),
    ],
    ids=str,
)
def test_what_is_narrow_and_bounded_reaches_the_memory_as_it_is(space, options, as_they_are, draw, make_encoder):
    encoder, obs = make_encoder(space, **options), draw(space, 5)
    parts = [part(obs[name]) for name, part in zip(encoder.names, encoder.parts, strict=True)]
    joined = torch.cat(parts, dim=-1)
    assert (encoder.layer is None) == as_they_are
    assert encoder.output_size == (joined.shape[-1] if as_they_are else 16)
    expected = joined if as_they_are else torch.tanh(encoder.layer(joined))
    torch.testing.assert_close(encoder(obs), expected)


@every_space
def test_weights_are_orthogonal_and_biases_zero(space, make_encoder):
    encoder = make_encoder(space)
    if encoder.divisors is not None:
        encoder.layer.weight.data.div_(encoder.divisors)
    for module in encoder.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            weight = module.weight.flatten(1)  # [rows, columns], orthogonal with gain sqrt(2): the products are 2
            gram = weight @ weight.t() if weight.shape[0] <= weight.shape[1] else weight.t() @ weight
            assert torch.allclose(gram, 2.0 * torch.eye(len(gram)), atol=1e-4)
            assert torch.count_nonzero(module.bias) == 0


def test_thousands_of_features_begin_alike_but_do_not_saturate_with_a_few_steps(make_encoder):
    """84 x 84 pixels make 3136 features, 3136 / 256 = 12.25; the two numbers beside them are left alone."""
    space = spaces.Dict({"image": spaces.Box(0, 255, (84, 84), np.uint8), "numbers": spaces.Box(-1.0, 1.0, (2,))})
    encoder = make_encoder(space)
    assert encoder.divisors.tolist() == [12.25] * 3136 + [1.0] * 2
    assert "divisors" in encoder.state_dict()  # weights of before are refused, not misread
    obs = {"image": torch.full((1, 84, 84), 87, dtype=torch.uint8), "numbers": torch.zeros(1, 2)}
    features = torch.cat([part(obs[name]) for name, part in zip(encoder.names, encoder.parts, strict=True)], -1)
    plain = torch.tanh(features @ (encoder.layer.weight / encoder.divisors).t())
    assert torch.allclose(encoder(obs), plain, atol=1e-5)

    moves = []
    for divisors in (encoder.divisors, None):
        other = make_encoder(space)
        if divisors is None:
            other.layer.weight.data.div_(encoder.divisors)
            other.divisors = None
        (-other(obs).sum()).backward()  # the same push on all of them, as a value that is yet to find its level
        before = other.layer(features / (1.0 if divisors is None else divisors)).detach()
        torch.optim.Adam(other.layer.parameters(), 1e-3).step()
        moves.append((other.layer(features / (1.0 if divisors is None else divisors)) - before).mean().item())
    assert moves[1] == pytest.approx(12.25 * moves[0], rel=0.1)  # but for the bias
    assert moves[0] < 0.05 < moves[1]


@pytest.mark.parametrize(
    ("shape", "features"),
    [((2000,), None), ((3, 8, 16), None), ((3, 8, 18), 1152)],  # 32 * 4 * 8 = 1024, 32 * 4 * 9
)
def test_which_features_are_too_many(shape, features, make_encoder):
    divisors = make_encoder(spaces.Box(-1.0, 1.0, shape)).divisors
    assert (None if divisors is None else len(divisors)) == features


@pytest.mark.parametrize("layer_size", [0, -4, 1.5])
def test_a_bad_layer_size_is_named(layer_size, make_encoder):
    with pytest.raises(ValueError, match=f"layer_size={layer_size}"):
        make_encoder(SPACES["box"], layer_size)


# ------------------------------------------------------------------------------------------------------- normalisation


def test_normalised_vectors_have_mean_0_and_variance_1(draw, make_encoder, assert_close):
    space = SPACES["matrix"]
    encoder, plain = make_encoder(space, normalise=True), make_encoder(space)
    plain.load_state_dict({name: value for name, value in encoder.state_dict().items() if "moments" not in name})
    obs = {"obs": draw(space, 50)["obs"] * 2 + 3}
    assert_close(encoder(obs), plain(obs), 1e-5)  # nothing is known yet
    before = copy.deepcopy(encoder)
    encoder.update_moments({"obs": obs["obs"].view(5, 10, 3, 4)})  # [T, B, ...]
    flat = obs["obs"]
    normalised = (flat - flat.mean(0)) / flat.std(0, unbiased=False)
    assert_close(encoder(obs), plain({"obs": normalised}), 1e-5)
    assert not torch.allclose(before(obs), encoder(obs))


@pytest.mark.parametrize("shape", [(3, 7, 7), (7, 7, 3)])
def test_images_are_normalised_by_channel(shape, draw, make_encoder, assert_close):
    space = spaces.Box(0, 255, shape, np.uint8)
    encoder = make_encoder(space, image_encoding="brightness")
    pictures = draw(space, 8)["obs"]
    encoder.update_moments({"obs": pictures.view(2, 4, *space.shape)})
    planes = (pictures if shape == (3, 7, 7) else pictures.permute(0, 3, 1, 2)).float() / 255
    moments = encoder.parts[0].moments
    assert_close(moments.mean, planes.mean((0, 2, 3)).view(3, 1, 1), 1e-5)
    assert_close(moments.var, planes.var((0, 2, 3), unbiased=False).view(3, 1, 1), 1e-5)
    assert moments.count == 8 * 7 * 7
    plain = make_encoder(SPACES["unbounded image"])  # which does not scale, and has seen nothing
    plain.load_state_dict(
        {name: value for name, value in encoder.state_dict().items() if "moments" not in name}, strict=False
    )
    deviation = planes.std((0, 2, 3), unbiased=False, keepdim=True)
    normalised = (planes - planes.mean((0, 2, 3), keepdim=True)) / deviation
    assert_close(encoder({"obs": pictures}), plain({"obs": normalised}), 1e-5)


def test_every_leaf_has_moments_of_its_own(make_encoder):
    space = spaces.Dict({"a": spaces.Box(-9.0, 9.0, (1,)), "b": spaces.Box(-9.0, 9.0, (1,))})
    encoder = make_encoder(space, normalise=True)
    encoder.update_moments({"a": torch.tensor([[1.0], [3.0]]), "b": torch.tensor([[5.0], [9.0]])})
    assert [part.moments.mean.tolist() for part in encoder.parts] == [[2.0], [7.0]]


def test_codes_are_not_normalised(draw, make_encoder):
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.MultiBinary(2), "c": spaces.MultiDiscrete([2, 2])})
    encoder, obs = make_encoder(space, normalise=True), draw(space, 5)
    before = encoder(obs)
    encoder.update_moments(obs)
    assert torch.equal(encoder(obs), before)


def test_features_are_bounded(draw, make_encoder):
    huge = {"obs": 1e6 * draw(SPACES["box"], 5)["obs"]}
    features = make_encoder(SPACES["box"])(huge)
    assert features.abs().max() <= 1.0
    assert math.isfinite(features.sum().item())
