"""The minimal gated recurrent unit in one launch for each direction; ``rl.cores.mingru`` says its equations."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rl.cores.kernels.products import sigmoid

BLOCK = 256
"""Hidden units of one program, of any sequences: each is a recurrence of its own."""


@triton.jit
def _forward(
    gates,  # [T, B, 2H]: z before its bend, then the candidate
    y,  # [T + 1, B, H]: the first state, then the outputs
    starts,  # [T, B]
    T,
    B,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists, row, column = place < B * H, place // H, place % H
    h = tl.load(y + place, mask=exists, other=0.0)
    for t in range(T):
        at = (t * B + row).to(tl.int64)
        gate = gates + at * (2 * H) + column
        keeps = tl.load(starts + at, mask=exists, other=1) == 0
        z = sigmoid(tl.load(gate, mask=exists, other=0.0))
        h = tl.where(keeps, h, 0.0)
        h += z * (tl.load(gate + H, mask=exists, other=0.0) - h)
        tl.store(y + (at + B) * H + column, h, mask=exists)


@triton.jit
def _backward(
    dy,  # [T, B, H]
    dh,  # [B, H]: of the last state; becomes that of the first
    d_gates,  # [T, B, 2H]
    gates,
    y,
    starts,
    T,
    B,
    H: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists, row, column = place < B * H, place // H, place % H
    d = tl.load(dh + place, mask=exists, other=0.0)
    for step in range(T):
        at = ((T - 1 - step) * B + row).to(tl.int64)
        gate = at * (2 * H) + column
        keeps = tl.load(starts + at, mask=exists, other=1) == 0
        z = sigmoid(tl.load(gates + gate, mask=exists, other=0.0))
        candidate = tl.load(gates + gate + H, mask=exists, other=0.0)
        before = tl.load(y + at * H + column, mask=exists & keeps, other=0.0)
        d += tl.load(dy + at * H + column, mask=exists, other=0.0)
        tl.store(d_gates + gate, d * (candidate - before) * z * (1.0 - z), mask=exists)
        tl.store(d_gates + gate + H, d * z, mask=exists)
        d = tl.where(keeps, d * (1.0 - z), 0.0)
    tl.store(dh + place, d, mask=exists)


class UnrollMinGRU(torch.autograd.Function):
    """``gates [T, B, 2H]`` of the inputs (z, candidate), ``h0 [B, H]``, ``starts [T, B]`` -> ``[T, B, H]``."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, h0: Tensor, starts: Tensor) -> Tensor:
        """Run the sequences."""
        (T, B, _), H = gates.shape, h0.shape[-1]
        gates, starts, y = gates.contiguous(), starts.contiguous(), gates.new_empty(T + 1, B, H)
        y[0] = h0
        _forward[(triton.cdiv(B * H, BLOCK),)](gates, y, starts, T, B, H=H, BLOCK=BLOCK)
        ctx.save_for_backward(gates, y, starts)
        return y[1:]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        """Differentiate."""
        gates, y, starts = ctx.saved_tensors
        (T, B, _), H = gates.shape, y.shape[-1]
        dh, d_gates = torch.zeros_like(y[0]), torch.empty_like(gates)
        grid = (triton.cdiv(B * H, BLOCK),)
        _backward[grid](dy.contiguous(), dh, d_gates, gates, y, starts, T, B, H=H, BLOCK=BLOCK)
        return d_gates, dh, None
