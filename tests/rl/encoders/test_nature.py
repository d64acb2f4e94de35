import pytest
import torch
from torch.nn.functional import conv2d

from rl.encoders import nature


def test_the_number_of_parameters_of_mnih_et_al():
    """Convolutions 8 x 8 x 4 x 32, 4 x 4 x 32 x 64, 3 x 3 x 64 x 64, a layer 3136 x 512, and their biases."""
    number = sum(parameter.numel() for parameter in nature({"obs": (4, 84, 84)}).parameters())
    assert number == (256 * 32 + 32) + (512 * 64 + 64) + (576 * 64 + 64) + (3136 * 512 + 512) == 1_684_128


def test_the_layers_one_by_one(assert_close):
    encoder = nature({"scalars": (2,), "obs": (1, 36, 40)}, features=5)
    obs = {"obs": torch.rand(2, 1, 36, 40), "scalars": torch.tensor([[3.0, -4.0], [5.0, 6.0]])}
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = _pairs(encoder)
    x = torch.relu(conv2d(obs["obs"], w1, b1, stride=4))
    x = torch.relu(conv2d(x, w2, b2, stride=2))
    x = torch.relu(conv2d(x, w3, b3))
    assert x.shape == (2, 64, 1, 1)  # of 40 columns the last four are seen by no convolution
    x = torch.relu(x.flatten(1) @ w4.T + b4)
    assert encoder.output_size == 7
    assert_close(encoder(obs), torch.cat([x, obs["scalars"]], dim=-1), 1e-6)


def _pairs(encoder):
    parameters = list(encoder.parameters())
    return list(zip(parameters[::2], parameters[1::2], strict=True))


@pytest.mark.parametrize("shape", [(3, 35, 84), (3, 84, 7)])
def test_an_image_too_small_for_its_strides_is_refused_with_the_smallest_size(shape):
    sentence = f"'obs' is an image of {shape[1]} x {shape[2]}, and encoder nature needs 36 x 36 at least: take auto or"
    with pytest.raises(ValueError, match=sentence):
        nature({"obs": shape})


def test_the_smallest_image_is_encoded():
    assert nature({"obs": (1, 36, 36)}, features=3)({"obs": torch.rand(2, 1, 36, 36)}).shape == (2, 3)


def test_a_bad_width_is_named():
    with pytest.raises(ValueError, match="features=0: it must be a whole number of at least 1"):
        nature({"obs": (1, 36, 36)}, features=0)
