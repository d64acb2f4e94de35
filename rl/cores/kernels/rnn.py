"""The Elman network in one launch for each direction; ``rl.cores.rnn`` says its equation."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rl.cores.kernels.products import choose_blocks, kept_rows, pass_back, state_product, tanh


@triton.jit
def _forward(
    inputs,  # [T, B, H]: W x + b + c
    y,  # [T + 1, B, H]: the first state, then the outputs
    starts,  # [T, B]
    weight,  # [H, H]
    T,
    B,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    for t in range(T):
        at = (t * B + rows).to(tl.int64)
        keeps = kept_rows(starts, at, rows, B)
        for begin in range(0, H, BLOCK_H):
            columns = begin + tl.arange(0, BLOCK_H)
            exists = (rows < B)[:, None] & (columns < H)[None, :]
            out = at[:, None] * H + columns[None, :]
            h = state_product(y, at, keeps, weight, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            tl.store(y + B * H + out, tanh(h + tl.load(inputs + out, mask=exists, other=0.0)), mask=exists)
        tl.debug_barrier()


@triton.jit
def _backward(
    dy,  # [T, B, H]
    dh,  # [B, H]: of the last state; becomes that of the first
    d_inputs,  # [T, B, H]: becomes those of the inputs
    y,
    starts,
    weight,
    T,
    B,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    rows = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    for step in range(T):
        at = ((T - 1 - step) * B + rows).to(tl.int64)
        keeps = kept_rows(starts, at, rows, B)
        for begin in range(0, H, BLOCK_H):
            columns = begin + tl.arange(0, BLOCK_H)
            exists = (rows < B)[:, None] & (columns < H)[None, :]
            out = at[:, None] * H + columns[None, :]
            h = tl.load(y + B * H + out, mask=exists, other=0.0)
            d = tl.load(dh + rows[:, None] * H + columns[None, :], mask=exists, other=0.0)
            d += tl.load(dy + out, mask=exists, other=0.0)
            tl.store(d_inputs + out, d * (1.0 - h * h), mask=exists)
        tl.debug_barrier()
        pass_back(dh, d_inputs, at, rows, keeps, weight, B, 1, 0, H, False, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
        tl.debug_barrier()


class UnrollRNN(torch.autograd.Function):
    """``x [T, B, D]``, ``h0 [B, H]``, ``starts [T, B]``, weights of ``RNNLayer`` and one bias -> ``[T, B, H]``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h0: Tensor, starts: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
    ) -> Tensor:
        """Run the sequences."""
        (T, B, D), H = x.shape, h0.shape[-1]
        inputs = torch.addmm(bias, x.reshape(T * B, D), weight_ih.t())
        y = x.new_empty(T + 1, B, H)
        y[0] = h0
        grid, blocks = choose_blocks(B, H)
        starts, weight_hh = starts.contiguous(), weight_hh.contiguous()
        _forward[grid](inputs, y, starts, weight_hh, T, B, **blocks)
        ctx.save_for_backward(x, y, starts, weight_ih, weight_hh)
        return y[1:]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate."""
        x, y, starts, weight_ih, weight_hh = ctx.saved_tensors
        (T, B, D), H = x.shape, y.shape[-1]
        dh, d_inputs = torch.zeros_like(y[0]), x.new_empty(T * B, H)
        grid, blocks = choose_blocks(B, H)
        _backward[grid](dy.contiguous(), dh, d_inputs, y, starts, weight_hh, T, B, **blocks)
        before = y[:-1].masked_fill(starts.unsqueeze(-1), 0.0).view(T * B, H)
        dx = (d_inputs @ weight_ih).view(T, B, D) if ctx.needs_input_grad[0] else None
        return dx, dh, None, d_inputs.t() @ x.reshape(T * B, D), d_inputs.t() @ before, d_inputs.sum(0)
