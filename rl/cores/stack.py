"""Layers of one recurrent cell, with dropout between them: what rnn, gru, mingru and lstm share."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rl.checks import positive, within
from rl.cores.dropout import COUNT, draw_first_count, drop_units, initial_counts
from rl.types import State

MAX_SEQUENCES_ON_CPU = 128
"""The most sequences that are unrolled together on a CPU, so that their activations stay in its caches."""


class Layer(Protocol):
    """One layer of one cell. ``leaves`` names its state; the first leaf is the output of the layer."""

    leaves: tuple[str, ...]

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Take one step: ``x [B, D]``, leaves ``[B, H]`` already cleared at starts -> the next leaves."""

    def unroll(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run ``x [T, B, D]``, leaves ``[B, H]``, ``starts [T, B]`` -> outputs ``[T, B, H]``, leaves after step T."""


@runtime_checkable
class GatedLayer(Layer, Protocol):
    """A layer that shows its gates, for diagnostics alone."""

    def gates(self, x: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Compute all gates, 0 to 1, of one step that ``step`` would take -> ``[B, gates]``."""


class Stack(nn.Module):
    """A core made of recurrent layers; state leaves ``[B, layers, H]``.

    Dropout acts on the outputs of all layers but the last, in training mode only. ``rl.cores.dropout`` says why it
    has a state leaf of its own.

    Args:
        layers: the layers, bottom to top, all of one kind: modules with the members of ``Layer``.
        hidden_size: width of each layer.
        dropout: probability of dropping a unit, 0 to 0.99.

    Raises:
        ValueError: ``dropout`` is out of range, or above 0 with a single layer, where it would do nothing.
    """

    layers: Sequence[Layer]  # a ModuleList, of which a type checker knows only that it holds modules

    def __init__(self, layers: Sequence[nn.Module], hidden_size: int, dropout: float = 0.0):
        super().__init__()
        within(0.0, 0.99, dropout=dropout)
        if dropout and len(layers) == 1:
            raise ValueError(
                f"dropout={dropout}: it must be 0 with num_layers=1, since it acts between layers: "
                "use at least 2 layers, or no dropout"
            )
        self.register_module("layers", nn.ModuleList(layers))
        self.leaves = self.layers[0].leaves
        self.output_size = hidden_size
        self.dropout = dropout
        self.first_dropout_count = draw_first_count() if dropout else 0

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """Make the state of ``batch_size`` fresh memories: zeros, and the count of dropout if there is dropout."""
        shape = batch_size, len(self.layers), self.output_size
        state = {name: torch.zeros(shape, device=device) for name in self.leaves}
        if self.dropout:
            state[COUNT] = initial_counts(self.first_dropout_count, batch_size, device)
        return state

    def step(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """Take one step: ``x [B, D]``, ``starts [B]`` or None -> ``[B, H]`` and the next state."""
        cleared = [state[name] for name in self.leaves]  # each [B, layers, H]
        if starts is not None:
            cleared = [leaf.masked_fill(starts[:, None, None], 0.0) for leaf in cleared]
        after = []
        for index, layer in enumerate(self.layers):
            new = layer.step(x, tuple(leaf.select(1, index) for leaf in cleared))
            after.append(new)
            x = self._drop(new[0], state, index) if self.dropout else new[0]
        return x, self._next_state(after, state, steps=1)

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run a sequence: ``x [T, B, D]``, ``starts [T, B]`` -> ``[T, B, H]`` and the state after the last step."""
        if x.device.type == "cpu" and x.shape[1] > MAX_SEQUENCES_ON_CPU:
            return self._unroll_in_blocks(x, state, starts)
        after = []
        for index, layer in enumerate(self.layers):
            x, new = layer.unroll(x, tuple(state[name][:, index] for name in self.leaves), starts)
            after.append(new)
            x = self._drop(x, state, index) if self.dropout else x
        return x, self._next_state(after, state, steps=x.shape[0])

    def gates(self, x: Tensor, state: State, starts: Tensor) -> Tensor:
        """Compute the gates of one step: ``x [B, D]``, ``starts [B]`` -> ``[B, gates]``, of layers that have some."""
        cleared = [state[name].masked_fill(starts[:, None, None], 0.0) for name in self.leaves]  # each [B, layers, H]
        found = [x.new_empty(len(x), 0)]
        for index, layer in enumerate(self.layers):
            own = tuple(leaf.select(1, index) for leaf in cleared)
            if isinstance(layer, GatedLayer):
                found.append(layer.gates(x, own))
            y = layer.step(x, own)[0]
            x = self._drop(y, state, index) if self.dropout else y
        return torch.cat(found, dim=1)

    def _unroll_in_blocks(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run ``unroll`` on as many sequences at a time as fit the cache."""
        size = MAX_SEQUENCES_ON_CPU
        leaves = zip(*(leaf.split(size) for leaf in state.values()), strict=True)
        states = [dict(zip(state, part, strict=True)) for part in leaves]
        inputs = zip(x.split(size, dim=1), states, starts.split(size, dim=1), strict=True)
        done = [self.unroll(*part) for part in inputs]
        y = torch.cat([outputs for outputs, _ in done], dim=1)
        return y, {name: torch.cat([after[name] for _, after in done]) for name in done[0][1]}

    def _next_state(self, after: list[tuple[Tensor, ...]], state: State, steps: int) -> State:
        names = self.leaves
        if len(after) == 1:
            new = {name: leaf.unsqueeze(1) for name, leaf in zip(names, after[0], strict=True)}
        else:
            new = {
                name: torch.stack(leaves, dim=1) for name, leaves in zip(names, zip(*after, strict=True), strict=True)
            }
        if self.dropout:
            new[COUNT] = state[COUNT] + steps if self.training else state[COUNT]
        return new

    def _drop(self, y: Tensor, state: State, index: int) -> Tensor:
        """Apply dropout to the output of layer ``index``: ``[B, H]`` or ``[T, B, H]``."""
        if not self.training or index == len(self.layers) - 1:
            return y
        return drop_units(y, state[COUNT], index, self.dropout)


def initialise(layer: nn.Module, hidden_size: int) -> None:
    """Make the weights orthogonal, those of each gate on its own, and biases 0.

    Over all gates at once the weights of each would be half as large, or less, and a memory would begin fainter.
    """
    for parameter in layer.parameters():
        if parameter.dim() == 1:
            nn.init.zeros_(parameter)
            continue
        for of_gate in parameter.detach().split(hidden_size):
            nn.init.orthogonal_(of_gate)


def build(
    layer: Callable[[int, int], nn.Module], input_size: int, hidden_size: int, num_layers: int, dropout: float
) -> Stack:
    """Build a stack of ``num_layers`` layers of one kind.

    Args:
        layer: ``layer(input_size, hidden_size)`` makes one layer.
        input_size: features of the input, which the first layer sees.
        hidden_size: width of each layer.
        num_layers: number of layers.
        dropout: probability of dropping a unit between two layers.

    Raises:
        ValueError: a size is below 1 or ``dropout`` is out of range.
    """
    positive(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
    sizes = [input_size] + [hidden_size] * (num_layers - 1)
    return Stack([layer(size, hidden_size) for size in sizes], hidden_size, dropout)
