"""No memory: the control that every memory must beat."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from rl.checks import positive
from rl.types import State


class MLP(nn.Module):
    """``num_layers`` fully connected tanh layers: each step sees its own input only."""

    def __init__(self, input_size: int, hidden_size: int = 128, num_layers: int = 1):
        super().__init__()
        positive(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        sizes = [input_size] + [hidden_size] * num_layers
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.output_size = hidden_size

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """Empty: there is nothing to carry."""
        return {}

    def step(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """``x [B, D]`` -> ``[B, H]``."""
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x, {}

    unroll = step  # the layers act on the last axis alone, so [T, B, D] -> [T, B, H] is the same function


def mlp(input_size: int, hidden_size: int = 128, num_layers: int = 1, dropout: float = 0.0) -> MLP:
    """A core without memory. ``dropout`` is accepted for the sake of swapping cores and must be 0.

    Raises:
        ValueError: a size below 1, or ``dropout`` other than 0.
    """
    if dropout:
        raise ValueError(f"dropout={dropout}: the mlp core has no dropout, give 0")
    return MLP(input_size, hidden_size, num_layers)
