import pytest
import torch
from torch.nn.functional import conv2d

from rl.encoders import impala
from rl.encoders.impala import ResidualBlock


def test_a_residual_block_by_hand():
    """One pixel: only the middles of the kernels count. x + 5 relu(3 relu(x) - 2) + 1, for x = 2 and x = -2."""
    block = ResidualBlock(1)
    for layer, weight, bias in ((block.first, 3.0, -2.0), (block.last, 5.0, 1.0)):
        torch.nn.init.constant_(layer.weight, 7.0)  # of what lies beside the pixel, where there is nothing
        layer.weight.data[..., 1, 1] = weight
        torch.nn.init.constant_(layer.bias, bias)
    x = torch.tensor([2.0, -2.0]).view(2, 1, 1, 1)
    assert block(x).flatten().tolist() == [2 + 5 * (3 * 2 - 2) + 1, -2 + 5 * 0 + 1]


def test_a_section_by_hand():
    """The largest of each 3 x 3 in steps of 2, its edges included; blocks begin as the identity; then ReLU, a layer."""
    encoder = impala({"obs": (1, 4, 4)}, channels=[1], features=4)
    convolution, layer = encoder.cnns[0][0], encoder.cnns[0][-2]
    torch.nn.init.zeros_(convolution.weight)
    convolution.weight.data[..., 1, 1] = 1.0
    layer.weight.data = torch.eye(4)
    image = torch.arange(16.0).view(1, 1, 4, 4) - 6  # rows begin with -6, -2, 2, 6
    assert encoder({"obs": image}).tolist() == [[0.0, 1.0, 7.0, 9.0]]  # -1 is shut


def test_the_number_of_parameters_of_espeholt_et_al():
    def section(before, after):
        return 9 * before * after + after + 4 * (9 * after * after + after)

    expected = section(4, 16) + section(16, 32) + section(32, 32) + 11 * 11 * 32 * 256 + 256
    encoder = impala({"obs": (4, 84, 84)})
    assert sum(parameter.numel() for parameter in encoder.parameters()) == expected == 1_089_232
    assert sum(isinstance(module, ResidualBlock) for module in encoder.modules()) == 6


def test_every_side_will_do_and_vectors_come_behind():
    encoder = impala({"numbers": (3,), "obs": (2, 1, 5)}, features=4)
    numbers = torch.rand(2, 3)
    features = encoder({"numbers": numbers, "obs": torch.rand(2, 2, 1, 5)})
    assert features.shape == (2, encoder.output_size) == (2, 7)
    assert torch.equal(features[:, 4:], numbers)


def test_blocks_learn_although_they_begin_as_the_identity():
    encoder = impala({"obs": (1, 8, 8)}, channels=[4], features=4)
    (block, _) = (module for module in encoder.modules() if isinstance(module, ResidualBlock))
    encoder({"obs": torch.rand(3, 1, 8, 8)}).sum().backward()
    assert block.last.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"channels": []}, r"channels=\[\]: there must be a section"),
        ({"channels": [4, 0]}, r"channels\[1\]=0: it must be"),
        ({"features": 0}, "features=0: it must be"),
    ],
)
def test_bad_sizes_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        impala({"obs": (1, 8, 8)}, **options)


def test_a_block_is_its_formula(randomise):
    block = randomise(ResidualBlock(2))
    x = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    inner = conv2d(x.clamp_min(0), block.first.weight, block.first.bias, padding=1).clamp_min(0)
    torch.testing.assert_close(block(x), x + conv2d(inner, block.last.weight, block.last.bias, padding=1))
