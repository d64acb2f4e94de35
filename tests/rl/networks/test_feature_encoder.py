"""An encoder of one's own that does not keep to the contract is refused in one sentence before anything is trained."""

import pytest
import torch
from torch import nn

from rl.agents import RecurrentPPO
from rl.networks.feature_encoder import make_feature_encoder, name_encoder

SHAPES = {"obs": (1, 8, 8), "x": (3,)}


class Mine(nn.Module):
    """A good one; what is wrong comes with the options."""

    def __init__(self, input_shapes, size=4, change=lambda y: y, **attributes):
        super().__init__()
        self.layer, self.change = nn.Linear(64 + 3, 4), change
        if size is not None:
            self.output_size = size
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, obs):
        return self.change(self.layer(torch.cat([obs["obs"].flatten(1), obs["x"]], dim=-1)))


def frozen(input_shapes):
    return Mine(input_shapes).requires_grad_(False)


def test_a_good_one_is_taken():
    module = make_feature_encoder(Mine, SHAPES)
    assert isinstance(module, Mine)


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        (lambda s: Mine(s, size=None), "has no output_size: it must be a whole number of at least 1"),
        (lambda s: Mine(s, size=0), "has output_size=0: it must be a whole number"),
        (lambda s: Mine(s, size=4.0), "has output_size=4.0: it must be a whole number"),
        (lambda s: Mine(s, size=5), r"gives features \[3, 4\] for 3 observations: .* they must be \[3, 5\]"),
        (lambda s: Mine(s, change=lambda y: y.sum()), r"gives features \[\] for 3"),
        (lambda s: Mine(s, change=lambda y: y / 0), "gives features that are not finite"),
        (lambda s: Mine(s, change=torch.Tensor.double), "gives torch.float64 features: they must be torch.float32"),
        (lambda s: Mine(s, change=lambda y: [y]), r"gives a list: it must be a tensor \[N, 4\]"),
        (lambda s: Mine(s, change=nn.Dropout(0.5)), "other features when it is called again, .* take dropout"),
        (lambda s: Mine(s, change=nn.BatchNorm1d(4)), "when others lie beside it: take LayerNorm or"),
        (lambda s: Mine(s, change=lambda y: y - y.mean(0)), "when others lie beside it: take LayerNorm or GroupNorm"),
        (lambda s: None, "made a NoneType: it must be a torch.nn.Module"),
        (frozen, "encoder frozen does not learn its parameter layer.weight: make it a buffer"),
    ],
)
def test_what_breaks_the_contract_is_told(encoder, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_feature_encoder(encoder, SHAPES)


def test_what_it_raises_itself_is_raised_with_the_shapes_that_it_was_given():
    def fail(y):
        raise KeyError("scalars")

    with pytest.raises(KeyError) as caught:
        make_feature_encoder(lambda s: Mine(s, change=fail), SHAPES)
    assert caught.value.__notes__ == ["encoder <lambda> was tried on 'obs' [3, 1, 8, 8], 'x' [3, 3]"]


def test_the_trial_draws_nothing_from_the_generator_of_the_weights():
    torch.manual_seed(0)
    make_feature_encoder(Mine, SHAPES)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    Mine(SHAPES)
    assert torch.equal(drawn, torch.rand(1))


def test_names():
    assert name_encoder(Mine) == "Mine" and name_encoder(RecurrentPPO.act) == "act"
