"""Several images have a network each."""

import torch

from rl.encoders import impala, nature


def test_each_image_goes_through_layers_of_its_own(randomise):
    generator = torch.Generator().manual_seed(1)
    for make, side in ((impala, 8), (nature, 36)):
        shapes = {"first": (2, side, side), "numbers": (3,), "second": (2, side, side)}
        encoder = randomise(make(shapes, features=4))
        obs = {name: torch.rand(5, *shape, generator=generator) for name, shape in shapes.items()}
        parts = [cnn(obs[name]) for cnn, name in zip(encoder.cnns, ("first", "second"), strict=True)]
        assert torch.equal(encoder(obs), torch.cat([*parts, obs["numbers"]], dim=1))
        assert not torch.equal(*parts)
