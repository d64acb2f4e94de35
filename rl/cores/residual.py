"""A stream of features with layers that add to it: what attention, mamba and jamba share."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from rl.types import State


class Layer(Protocol):
    """One layer; ``leaves`` names its state."""

    leaves: tuple[str, ...]

    def initial_state(self, batch_size: int, device: torch.device | str | None) -> State:
        """Make the cleared state, all zeros: leaves ``[B, ...]``."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one step: ``x [B, H]``, leaves ``[B, ...]`` already cleared at starts -> ``[B, H]``, next leaves."""

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run ``x [T, B, H]``, leaves ``[B, ...]``, ``starts [T, B]`` -> ``[T, B, H]``, the leaves after step T."""


class Residual(nn.Module):
    """A core: a linear map to ``hidden_size`` features, layers that may be of several kinds, a final normalisation.

    A state leaf ``[B, layers, ...]`` holds those of all layers that have one of its name, bottom to top.

    Args:
        input_size: features of the input.
        hidden_size: width of the stream and of the output.
        layers: bottom to top: modules with the members of ``Layer``.
    """

    layers: Sequence[Layer]  # a ModuleList, of which a type checker knows only that it holds modules

    def __init__(self, input_size: int, hidden_size: int, layers: Sequence[nn.Module]):
        super().__init__()
        self.inputs = linear(input_size, hidden_size)
        self.register_module("layers", nn.ModuleList(layers))
        self.norm = nn.LayerNorm(hidden_size)
        self.output_size = hidden_size
        self.owners: dict[str, list[int]] = {}  # the layers that have a leaf of this name
        for index, layer in enumerate(self.layers):
            for name in layer.leaves:
                self.owners.setdefault(name, []).append(index)

    def initial_state(self, batch_size: int, device: torch.device | str | None = None) -> State:
        """Make the state of ``batch_size`` fresh memories: zeros."""
        return self._gather([layer.initial_state(batch_size, device) for layer in self.layers])

    def step(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """Take one step: ``x [B, D]``, ``starts [B]`` or None -> ``[B, H]`` and the next state."""
        if starts is not None and (starts.device.type != "cpu" or starts.any()):  # asking a GPU would cost more
            state = {name: leaf.masked_fill(_beside(starts, leaf), 0) for name, leaf in state.items()}
        x, after = self.inputs(x), []
        for layer, own in zip(self.layers, self._scatter(state), strict=True):
            x, new = layer.step(x, own)
            after.append(new)
        return self.norm(x), self._gather(after)

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run a sequence: ``x [T, B, D]``, ``starts [T, B]`` -> ``[T, B, H]`` and the state after the last step."""
        x, after = self.inputs(x), []
        for layer, own in zip(self.layers, self._scatter(state), strict=True):
            x, new = layer.unroll(x, own, starts)
            after.append(new)
        return self.norm(x), self._gather(after)

    def _scatter(self, state: State) -> list[State]:
        """Split leaves ``[B, layers, ...]`` into those of each layer, ``[B, ...]``."""
        parts: list[State] = [{} for _ in self.layers]
        for name, owners in self.owners.items():
            for index, leaf in zip(owners, state[name].unbind(1), strict=True):
                parts[index][name] = leaf
        return parts

    def _gather(self, parts: list[State]) -> State:
        """Join what ``_scatter`` splits."""
        columns = {name: [parts[index][name] for index in owners] for name, owners in self.owners.items()}
        return {
            name: torch.stack(leaves, dim=1) if len(leaves) > 1 else leaves[0].unsqueeze(1)
            for name, leaves in columns.items()
        }


def _beside(starts: Tensor, leaf: Tensor) -> Tensor:
    """View ``starts [B]`` as ``[B, 1, ...]`` with as many axes as ``leaf``."""
    return starts.view(-1, *[1] * (leaf.dim() - 1))


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Make a linear layer with orthogonal weights and biases of 0."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.orthogonal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def ages(starts: Tensor, before: Tensor | int) -> Tensor:
    """Count for each step the steps of its own episode that lie before it.

    Args:
        starts: ``[T, B]`` bool.
        before: the same count for step 0 where it does not start an episode: ``[B]``, or one number for all.

    Returns:
        ``[T, B]`` int64.
    """
    step = torch.arange(len(starts), device=starts.device).unsqueeze(1)  # [T, 1]
    opened = torch.where(starts, step, -before).cummax(dim=0).values
    return step - opened
