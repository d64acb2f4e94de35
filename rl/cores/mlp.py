"""No memory: the control that every memory must beat."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from rl.checks import positive, whole
from rl.cores.dropout import refuse_dropout
from rl.types import State


class MLP(nn.Module):
    """A core without memory: fully connected tanh layers, so each step sees its own input only; none hand it on."""

    def __init__(self, input_size: int, hidden_size: int = 128, num_layers: int = 1):
        super().__init__()
        positive(input_size=input_size, hidden_size=hidden_size)
        whole(0, num_layers=num_layers)
        sizes = [input_size] + [hidden_size] * num_layers
        layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        for layer in layers:
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.output_size = sizes[-1]

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """Return an empty state: there is nothing to carry."""
        return {}

    def step(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """Take one step: ``x [B, D]`` -> ``[B, H]``."""
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x, {}

    unroll = step  # the layers act on the last axis alone, so [T, B, D] -> [T, B, H] is the same function


def mlp(input_size: int, hidden_size: int = 128, num_layers: int = 1, dropout: float = 0.0) -> MLP:
    """Build a core without memory.

    Args:
        input_size: features of the input.
        hidden_size: width of each layer.
        num_layers: number of layers; 0 hands the input on as it is.
        dropout: must be 0; it is an argument so that cores can be swapped.

    Raises:
        ValueError: ``hidden_size`` is below 1, ``num_layers`` below 0, or ``dropout`` is not 0.
    """
    refuse_dropout("mlp", dropout)
    return MLP(input_size, hidden_size, num_layers)
