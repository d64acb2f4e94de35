import pytest
import torch

from rl.encoders import mlp


def test_the_layers_one_by_one(assert_close):
    encoder = mlp({"image": (1, 2, 2), "x": (3,)}, widths=[4, 2], activation="relu", layer_norm=True)
    obs = {"x": torch.rand(5, 3), "image": torch.rand(5, 1, 2, 2)}
    x = torch.cat([obs["image"].flatten(1), obs["x"]], dim=-1)
    for layer in (encoder.layers[0], encoder.layers[3]):
        x = x @ layer.weight.T + layer.bias
        x = torch.relu((x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt())
    assert_close(encoder(obs), x, 1e-5)
    assert (encoder.output_size, len(encoder.layers)) == (2, 6)


@pytest.mark.parametrize("activation", ["elu", "gelu", "relu", "silu", "tanh"])
def test_every_activation(activation):
    encoder = mlp({"x": (2,)}, widths=[2], activation=activation)
    encoder.layers[0].weight.data = torch.eye(2)
    expected = getattr(torch.nn.functional, activation)(torch.tensor([[1.0, -2.0]]))
    assert torch.allclose(encoder({"x": torch.tensor([[1.0, -2.0]])}), expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"widths": []}, r"widths=\[\]: there must be a layer"),
        ({"widths": [0]}, r"widths\[0\]=0: it must be"),
        ({"activation": "sine"}, "activation='sine': it must be one of 'elu', 'gelu'"),
    ],
)
def test_bad_options_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        mlp({"x": (2,)}, **options)
