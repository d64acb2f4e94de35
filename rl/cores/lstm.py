"""Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000).

i, f, o = s(W x + U h + b), g = tanh(W x + U h + b), c' = f * c + i * g, h' = o * tanh(c')
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl.cores.kernels import use_kernels
from rl.cores.memory_span import keep_biases
from rl.cores.stack import Stack, build, initialise

SATURATE = 1e4  # large enough that the sigmoid is 0 or 1 to the last bit, in float32 and in float64


class LSTMLayer(nn.Module):
    """One layer; parameters named and shaped as in ``torch.nn.LSTMCell``.

    On a CPU ``unroll`` is always ONE call of torch's fused kernel. An episode start inside the sequence becomes an
    extra step in front of it whose only input is a flag that shuts the input and forget gates: c and h become exactly
    0, and since a saturated gate has no derivative no gradient passes. Sequences with fewer starts than others are
    filled up at the end with steps under a second flag that shuts the input gate and opens the forget gate: c is held
    exactly. For example, two sequences of four steps, a start at step 2 of the first (R: reset step, H: hold step)::

        sequence 0:   x0 x1 R x2 x3
        sequence 1:   x0 x1 x2 x3 H
    """

    leaves = ("h", "c")
    flags: Tensor  # [4H, 2], the input weights of the two flags: hold, reset

    def __init__(self, input_size: int, hidden_size: int, memory_span: float | None, forget_bias: float | None):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size))
        initialise(self, hidden_size)
        self.bias_ih.data[hidden_size : 2 * hidden_size] = keep_biases(hidden_size, memory_span, forget_bias, 1.0)
        reset, hold = torch.zeros(2, 4 * hidden_size)
        reset[: 2 * hidden_size] = -SATURATE
        hold[:hidden_size], hold[hidden_size : 2 * hidden_size] = -SATURATE, SATURATE
        self.register_buffer("flags", torch.stack([hold, reset], dim=1), persistent=False)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Take one step: ``x [B, D]``, ``(h, c)`` each ``[B, H]`` -> ``(h, c)``."""
        return torch.lstm_cell(x, state, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)

    def unroll(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run ``x [T, B, D]``, ``(h, c)`` each ``[B, H]``, ``starts [T, B]`` -> ``[T, B, H]``, ``(h, c)``."""
        if use_kernels(x, self.weight_hh.shape[1]):
            from rl.cores.kernels.lstm import UnrollLSTM

            weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
            y, c = UnrollLSTM.apply(x, *state, starts, *weights)
            return y, (y[-1], c)
        return self._unroll_fused(x, state, starts) if x.device.type == "cpu" else self._unroll_steps(x, state, starts)

    def _unroll_steps(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run ``unroll`` step after step: on any device, and nothing is asked of it."""
        y, keep = [], (~starts).to(x.dtype).unsqueeze(-1)
        for x_t, keep_t in zip(x.unbind(0), keep.unbind(0), strict=True):
            state = self.step(x_t, tuple(leaf * keep_t for leaf in state))
            y.append(state[0])
        return torch.stack(y), state

    def _unroll_fused(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run ``unroll`` in one call of torch's kernel."""
        (T, B, _), H = x.shape, self.weight_hh.shape[1]
        position, flags, length = stretch(starts)
        weight_ih: Tensor = self.weight_ih
        if length > T:
            x = _Spread.apply(x, position, flags.to(x.dtype)).view(length, B, -1)
            weight_ih = torch.cat([weight_ih, self.flags.to(x.dtype)], dim=1)
        weights = (weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        h, c = (leaf.unsqueeze(0) for leaf in state)
        y, _, c = torch.lstm(x, (h, c), weights, True, 1, 0.0, True, False, False)
        if length > T:
            y = _Collect.apply(y.reshape(length * B, H), position).view(T, B, H)
        return y, (y[-1], c[0])

    def gates(self, x: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Compute i, f and o of one step: ``x [B, D]``, ``(h, c)`` each ``[B, H]`` -> ``[B, 3 H]``."""
        of_x = nn.functional.linear(x, self.weight_ih, self.bias_ih)
        i, f, _, o = (of_x + nn.functional.linear(state[0], self.weight_hh, self.bias_hh)).chunk(4, dim=1)
        return torch.cat([i, f, o], dim=1).sigmoid()


class _Spread(torch.autograd.Function):
    """A copy of steps ``[T, B, D]`` to their stretched places, with the flags beside them: ``[M * B, D + 2]``.

    Spelt out, as is its inverse, because the derivative of ``index_select`` adds where a copy will do.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, position: Tensor, flags: Tensor) -> Tensor:
        ctx.save_for_backward(position)
        ctx.shape = x.shape
        D = x.shape[-1]
        steps = x.new_zeros(flags.shape[0], D + 2)
        steps[:, :D].index_copy_(0, position, x.reshape(-1, D))
        steps[:, D:] = flags
        return steps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (position,) = ctx.saved_tensors
        return gradient[:, : ctx.shape[-1]].index_select(0, position).view(ctx.shape), None, None


class _Collect(torch.autograd.Function):
    """A selection of the outputs ``[M * B, H]`` at the places of the steps: ``[T * B, H]``."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, position: Tensor) -> Tensor:
        ctx.save_for_backward(position)
        ctx.length = y.shape[0]
        return y.index_select(0, position)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (position,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.length, gradient.shape[-1]).index_copy_(0, position, gradient), None


def stretch(starts: Tensor) -> tuple[Tensor, Tensor, int]:
    """Find the place of each step when one extra step is put before every start.

    Args:
        starts: ``[T, B]`` bool on the CPU.

    Returns:
        position: ``[T * B]`` int64, the stretched step (``m * B + b``) of each original one.
        flags: ``[M * B, 2]`` bool: is this a hold step, is this a reset step.
        length: ``M`` = T + the largest number of starts in one sequence.
    """
    opens = starts.numpy()
    T, B = opens.shape
    shift = np.cumsum(opens, axis=0)  # extra steps up to and including t
    length = T + int(shift[-1].max(initial=0))
    position = (np.arange(T)[:, None] + shift) * B + np.arange(B)  # [T, B]
    flags = np.zeros((length * B, 2), dtype=bool)
    flags[:, 0] = True
    flags[position, 0] = False
    flags[position[opens] - B] = False, True
    return torch.from_numpy(position.ravel()), torch.from_numpy(flags), length


def lstm(
    input_size: int,
    hidden_size: int = 128,
    num_layers: int = 1,
    dropout: float = 0.0,
    memory_span: float | None = None,
    forget_bias: float | None = None,
) -> Stack:
    """Build long short-term memory. State ``{"h", "c"}``; only h reaches the heads.

    Args:
        input_size: features of the input.
        hidden_size: width of each layer.
        num_layers: number of layers.
        dropout: probability of dropping a unit between two layers.
        memory_span: steps up to which the units of a fresh memory last, see ``rl.cores.memory_span``.
        forget_bias: initial bias of the forget gate in all units, whatever the ``memory_span``. Without either it is 1:
            the memory fades slowly (Gers et al., 2000; Jozefowicz et al., 2015); with 0 it halves in every step.

    Raises:
        ValueError: a size is below 1, or ``dropout`` or ``memory_span`` is out of range.
    """
    layer = partial(LSTMLayer, memory_span=memory_span, forget_bias=forget_bias)
    return build(layer, input_size, hidden_size, num_layers, dropout)
