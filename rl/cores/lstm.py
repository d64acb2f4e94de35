"""Long short-term memory (Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000).

i, f, o = s(W x + U h + b), g = tanh(W x + U h + b), c' = f * c + i * g, h' = o * tanh(c')
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rl.cores.stack import Stack, build

SATURATE = 1e4  # large enough that the sigmoid is 0 or 1 to the last bit, in float32 and in float64


class LSTMLayer(nn.Module):
    """One layer; parameters named and shaped as in ``torch.nn.LSTMCell``.

    ``unroll`` is always ONE call of the fused kernel. An episode start inside the sequence is an extra time step in
    front of it whose only input is a flag that shuts the input and forget gates: c and h become exactly 0, and since a
    saturated gate has no slope no gradient passes. Rows with fewer starts than others are filled up at the end with
    steps under a second flag that shuts the input gate and opens the forget gate: c is held exactly. For example, two
    rows of four steps, a start before step 2 of the first (R: reset step, H: hold step)::

        row 0:   x0 x1 R x2 x3
        row 1:   x0 x1 x2 x3 H
    """

    leaves = ("h", "c")

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size))
        reset, hold = torch.zeros(2, 4 * hidden_size)
        reset[: 2 * hidden_size] = -SATURATE
        hold[:hidden_size], hold[hidden_size : 2 * hidden_size] = -SATURATE, SATURATE
        self.register_buffer("flags", torch.stack([hold, reset], dim=1), persistent=False)  # [4H, 2]

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """``x [B, D]``, ``(h, c)`` each ``[B, H]`` -> ``(h, c)``."""
        h, c = state
        H = h.shape[-1]
        gates = torch.addmm(self.bias_ih + self.bias_hh, x, self.weight_ih.t()).addmm_(h, self.weight_hh.t())
        i, f = torch.sigmoid(gates[:, : 2 * H]).chunk(2, dim=1)
        c = (f * c).addcmul(i, torch.tanh(gates[:, 2 * H : 3 * H]))
        return torch.sigmoid(gates[:, 3 * H :]) * torch.tanh(c), c

    def unroll(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """``x [T, B, D]``, ``(h, c)`` each ``[B, H]``, ``starts [T, B]`` on the CPU -> ``[T, B, H]``, ``(h, c)``."""
        (T, B, D), H = x.shape, self.weight_hh.shape[1]
        source, position, length = stretch(starts)
        weight_ih = self.weight_ih
        if length > T:
            rows = functional.pad(x.reshape(T * B, D), (0, 2, 0, 2))  # [T*B + 2, D + 2]
            rows[T * B :, D:] = torch.eye(2, dtype=x.dtype, device=x.device)  # the hold row, the reset row
            x = rows.index_select(0, source.to(x.device, non_blocking=True)).view(length, B, D + 2)
            weight_ih = torch.cat([weight_ih, self.flags.to(x.dtype)], dim=1)
        weights = [weight_ih, self.weight_hh, self.bias_ih, self.bias_hh]
        h, c = (leaf.unsqueeze(0) for leaf in state)
        y, _, c = torch.lstm(x, (h, c), weights, True, 1, 0.0, self.training, False, False)
        if length > T:
            y = y.reshape(length * B, H).index_select(0, position.to(x.device, non_blocking=True)).view(T, B, H)
        return y, (y[-1], c[0])


def stretch(starts: Tensor) -> tuple[Tensor, Tensor, int]:
    """Where each step goes when one extra step is put before every start.

    Args:
        starts: ``[T, B]`` bool on the CPU.

    Returns:
        source: ``[M * B]``, the step of the original (``t * B + b``) that each stretched step reads; ``T * B`` is the
            hold step and ``T * B + 1`` the reset step.
        position: ``[T * B]``, the stretched step (``m * B + b``) of each original one.
        length: ``M`` = T + the largest number of starts in one row.
    """
    flags = starts.numpy()
    T, B = flags.shape
    shift = np.cumsum(flags, axis=0)  # extra steps up to and including t
    length = T + int(shift[-1].max(initial=0))
    position = (np.arange(T)[:, None] + shift) * B + np.arange(B)  # [T, B]
    source = np.full(length * B, T * B)
    source[position] = np.arange(T * B).reshape(T, B)
    source[position[flags] - B] = T * B + 1
    return torch.from_numpy(source), torch.from_numpy(position.ravel()), length


def lstm(input_size: int, hidden_size: int = 128, num_layers: int = 1, dropout: float = 0.0) -> Stack:
    """Long short-term memory. State ``{"h", "c"}``; only h reaches the heads."""
    return build(LSTMLayer, input_size, hidden_size, num_layers, dropout)
