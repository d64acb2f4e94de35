"""Layers between the memory and what policy and value make of it, each with a network of its own."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

from torch import Tensor, nn

from rl.checks import one_of, positive
from rl.encoders.mlp import ACTIVATIONS, Activation


class HeadLayers(nn.Module):
    """Fully connected layers for the policy and for the value, behind one memory or two.

    Args:
        input_sizes: H of what the memory gives to the policy, and to the value.
        num_params: P, distribution parameters.
        policy_layers: widths of the layers in front of those of the policy; none make it linear.
        value_layers: of the value.
        activation: behind each of them.

    Raises:
        ValueError: a width is below 1, or the activation is unknown.
    """

    def __init__(
        self,
        input_sizes: tuple[int, int],
        num_params: int,
        policy_layers: Sequence[int],
        value_layers: Sequence[int],
        activation: Activation,
    ):
        super().__init__()
        one_of(get_args(Activation), head_activation=activation)
        of_policy, of_critic = input_sizes
        self.policy = _make(of_policy, policy_layers, num_params, 0.01, activation, "head_layers")
        self.value = _make(of_critic, value_layers, 1, 1.0, activation, "value_head_layers")

    def forward(self, features: Tensor, of_critic: Tensor) -> tuple[Tensor, Tensor]:
        """Map features ``[..., H]`` of policy and critic to parameters ``[..., P]`` and values ``[..., 1]``."""
        return self.policy(features), self.value(of_critic)


def check_head_layers(
    head_layers: Sequence[int] | None,
    value_head_layers: Sequence[int] | None,
    activation: str,
    input_sizes: tuple[int, int],
) -> None:
    """Check that nothing is set that would do nothing, and that two memories as wide as one another share one layer.

    Raises:
        ValueError: something is, or they are not.
    """
    of_policy, of_critic = input_sizes
    if head_layers is None and of_policy != of_critic:
        raise ValueError(
            f"critic_core gives {of_critic} features and core {of_policy}: give both as many, or give head_layers"
        )
    if head_layers is None and value_head_layers is not None:
        raise ValueError(
            f"value_head_layers={list(value_head_layers)} needs those of the policy: give head_layers, too"
        )
    if head_layers is None and activation != "tanh":
        raise ValueError(f"head_activation={activation!r} needs layers that it stands behind: give head_layers, too")


def _make(
    input_size: int, widths: Sequence[int], output_size: int, gain: float, activation: Activation, name: str
) -> nn.Sequential:
    """Make layers whose last one is linear, with orthogonal weights of this gain."""
    positive(**{f"{name}[{index}]": width for index, width in enumerate(widths)})
    layers: list[nn.Module] = []
    for before, after in pairwise([input_size, *widths]):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    layers.append(nn.Linear(widths[-1] if widths else input_size, output_size))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight, gain if layer is layers[-1] else math.sqrt(2))
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
