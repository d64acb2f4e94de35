"""Layers of one recurrent cell on top of each other, with dropout between them: what rnn, gru and lstm share."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from rl.checks import positive, within
from rl.types import State

BLOCK = 128
"""On a CPU so many sequences at most are unrolled together: the activations of more would not stay in its caches."""


class Layer(Protocol):
    """One layer of one cell. ``leaves`` names its state; the first leaf is the output of the layer."""

    leaves: tuple[str, ...]

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """``x [B, D]``, leaves ``[B, H]`` already cleared at starts -> the next leaves."""

    def unroll(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``x [T, B, D]``, leaves ``[B, H]``, ``starts [T, B]`` -> outputs ``[T, B, H]``, the leaves after step T."""


class Stack(nn.Module):
    """A core made of recurrent layers; state leaves ``[B, layers, H]``.

    Dropout acts on the outputs of all layers but the last, in training mode only. Its masks must be the same when a
    rollout is replayed, or the probability ratio of an unchanged policy would not be 1. So a mask is no draw from a
    global generator but a hash of (step count of this memory, layer, unit); the count is one more state leaf,
    ``dropout_count [B, 1]`` int64, which the buffer stores and hands back like any other. Every step has a fresh mask,
    every memory its own, and replay finds the old ones. Starts do not reset the count.

    Args:
        layers: the layers, bottom to top; all of one kind.
        hidden_size: width of each layer.
        dropout: probability of dropping a unit, 0 to 0.99.

    Raises:
        ValueError: dropout out of range, or above 0 with a single layer, where it would do nothing.
    """

    def __init__(self, layers: list[nn.Module], hidden_size: int, dropout: float = 0.0):
        super().__init__()
        within(0.0, 0.99, dropout=dropout)
        if dropout and len(layers) == 1:
            raise ValueError(f"dropout={dropout} with num_layers=1: dropout acts between layers, use at least 2 layers")
        self.layers = nn.ModuleList(layers)
        self.leaves = layers[0].leaves
        self.output_size = hidden_size
        self.dropout = dropout

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """Zeros, and a dropout count that starts far apart for each memory."""
        shape = batch_size, len(self.layers), self.output_size
        state = {name: torch.zeros(shape, device=device) for name in self.leaves}
        if self.dropout:
            state["dropout_count"] = torch.arange(batch_size, device=device).unsqueeze(1) << 40
        return state

    def step(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """``x [B, D]``, ``starts [B]`` or None -> ``[B, H]`` and the next state."""
        cleared = [state[name] for name in self.leaves]  # each [B, layers, H]
        if starts is not None:
            cleared = [leaf.masked_fill(starts[:, None, None], 0.0) for leaf in cleared]
        after = []
        for index, layer in enumerate(self.layers):
            new = layer.step(x, tuple(leaf.select(1, index) for leaf in cleared))
            after.append(new)
            x = self._drop(new[0], state, index)
        return x, self._next_state(after, state, steps=1)

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """``x [T, B, D]``, ``starts [T, B]`` -> ``[T, B, H]`` and the state after the last step."""
        if x.device.type != "cpu" or x.shape[1] <= BLOCK:
            return self._unroll(x, state, starts)
        parts = zip(*(leaf.split(BLOCK) for leaf in state.values()), strict=True)
        blocks = [
            self._unroll(*block, opens)
            for *block, opens in zip(
                x.split(BLOCK, dim=1),
                (dict(zip(state, part, strict=True)) for part in parts),
                starts.split(BLOCK, dim=1),
                strict=True,
            )
        ]
        outputs, states = zip(*blocks, strict=True)
        return torch.cat(outputs, dim=1), {name: torch.cat([part[name] for part in states]) for name in state}

    def _unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        after = []
        for index, layer in enumerate(self.layers):
            x, new = layer.unroll(x, tuple(state[name][:, index] for name in layer.leaves), starts)
            after.append(new)
            x = self._drop(x, state, index)
        return x, self._next_state(after, state, steps=x.shape[0])

    def _next_state(self, after: list[tuple[Tensor, ...]], state: State, steps: int) -> State:
        names = self.leaves
        if len(after) == 1:
            new = {name: leaf.unsqueeze(1) for name, leaf in zip(names, after[0], strict=True)}
        else:
            new = {
                name: torch.stack(leaves, dim=1) for name, leaves in zip(names, zip(*after, strict=True), strict=True)
            }
        if self.dropout:
            new["dropout_count"] = state["dropout_count"] + steps
        return new

    def _drop(self, y: Tensor, state: State, index: int) -> Tensor:
        """Dropout on the output of layer ``index``: ``[B, H]`` or ``[T, B, H]``."""
        if not self.dropout or not self.training or index == len(self.layers) - 1:
            return y
        count = state["dropout_count"]  # [B, 1]
        if y.dim() == 3:
            count = count + torch.arange(y.shape[0], device=y.device)[:, None, None]  # [T, B, 1]
        unit = torch.arange(index * self.output_size, (index + 1) * self.output_size, device=y.device)  # [H]
        keep = _uniform(count * 0x2545F4914F6CDD1D + unit) >= self.dropout
        return y * keep / (1.0 - self.dropout)


def _uniform(keys: Tensor) -> Tensor:
    """Numbers in [0, 1), each a hash of its int64 key: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    z = keys * -0x61C8864680B583EB  # the golden ratio 0x9E3779B97F4A7C15 as a signed number; products wrap around
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    z = z ^ ((z >> 31) & 0x1FFFFFFFF)
    return (z & 0xFFFFFF).to(torch.float32) / 0x1000000


def initialise(layer: nn.Module) -> None:
    """Orthogonal weights, over all gates at once, and biases of 0."""
    for parameter in layer.parameters():
        nn.init.orthogonal_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)


def build(
    layer: Callable[[int, int], nn.Module], input_size: int, hidden_size: int, num_layers: int, dropout: float
) -> Stack:
    """``num_layers`` layers of the kind ``layer``, the first on ``input_size`` features.

    Raises:
        ValueError: a size below 1 or a dropout out of range.
    """
    positive(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
    sizes = [input_size] + [hidden_size] * (num_layers - 1)
    return Stack([layer(size, hidden_size) for size in sizes], hidden_size, dropout)
