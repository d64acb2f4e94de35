"""Long short-term memory in one launch for each direction; ``rl.cores.lstm`` says its equations."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rl.cores.kernels.products import choose_blocks, kept_rows, pass_back, sigmoid, state_product, tanh


@triton.jit
def _forward(
    gates,  # [T, B, 4H]: W x + b + c of i, f, g, o; becomes i, f, g, o
    y,  # [T + 1, B, H]: the first state, then the outputs
    cells,  # [T + 1, B, H]: likewise
    starts,  # [T, B]
    weight,  # [4H, H]
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
            gate = gates + at[:, None] * (4 * H) + columns[None, :]
            out = at[:, None] * H + columns[None, :]
            i = state_product(y, at, keeps, weight, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            i = sigmoid(i + tl.load(gate, mask=exists, other=0.0))
            f = state_product(y, at, keeps, weight + H * H, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            f = sigmoid(f + tl.load(gate + H, mask=exists, other=0.0))
            g = state_product(y, at, keeps, weight + 2 * H * H, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            g = tanh(g + tl.load(gate + 2 * H, mask=exists, other=0.0))
            o = state_product(y, at, keeps, weight + 3 * H * H, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            o = sigmoid(o + tl.load(gate + 3 * H, mask=exists, other=0.0))
            c = f * tl.load(cells + out, mask=exists & keeps[:, None], other=0.0) + i * g
            tl.store(cells + B * H + out, c, mask=exists)
            tl.store(y + B * H + out, o * tanh(c), mask=exists)
            tl.store(gate, i, mask=exists)
            tl.store(gate + H, f, mask=exists)
            tl.store(gate + 2 * H, g, mask=exists)
            tl.store(gate + 3 * H, o, mask=exists)
        tl.debug_barrier()


@triton.jit
def _backward(
    dy,  # [T, B, H]
    dh,  # [B, H]: of the last state; becomes that of the first
    dc,  # [B, H]: likewise
    d_gates,  # [T, B, 4H]: becomes those of the gates before their bends
    gates,
    cells,
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
            gate = gates + at[:, None] * (4 * H) + columns[None, :]
            d_gate = d_gates + at[:, None] * (4 * H) + columns[None, :]
            carried = rows[:, None] * H + columns[None, :]
            out = at[:, None] * H + columns[None, :]
            i = tl.load(gate, mask=exists, other=0.0)
            f = tl.load(gate + H, mask=exists, other=0.0)
            g = tl.load(gate + 2 * H, mask=exists, other=0.0)
            o = tl.load(gate + 3 * H, mask=exists, other=0.0)
            before = tl.load(cells + out, mask=exists & keeps[:, None], other=0.0)
            bent = tanh(tl.load(cells + B * H + out, mask=exists, other=0.0))
            d = tl.load(dh + carried, mask=exists, other=0.0) + tl.load(dy + out, mask=exists, other=0.0)
            d_c = tl.load(dc + carried, mask=exists, other=0.0) + d * o * (1.0 - bent * bent)
            tl.store(d_gate, d_c * g * i * (1.0 - i), mask=exists)
            tl.store(d_gate + H, d_c * before * f * (1.0 - f), mask=exists)
            tl.store(d_gate + 2 * H, d_c * i * (1.0 - g * g), mask=exists)
            tl.store(d_gate + 3 * H, d * bent * o * (1.0 - o), mask=exists)
            tl.store(dc + carried, tl.where(keeps[:, None], d_c * f, 0.0), mask=exists)
        tl.debug_barrier()
        pass_back(dh, d_gates, at, rows, keeps, weight, B, 4, 0, 4 * H, False, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
        tl.debug_barrier()


class UnrollLSTM(torch.autograd.Function):
    """``x [T, B, D]``, ``h0, c0 [B, H]``, ``starts [T, B]``, weights as in ``LSTMLayer`` -> ``[T, B, H]``, last c."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        c0: Tensor,
        starts: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Run the sequences."""
        (T, B, D), H = x.shape, h0.shape[-1]
        gates = torch.addmm(bias_ih + bias_hh, x.reshape(T * B, D), weight_ih.t()).view(T, B, 4 * H)
        y, cells = x.new_empty(2, T + 1, B, H).unbind(0)
        y[0], cells[0] = h0, c0
        grid, blocks = choose_blocks(B, H)
        starts, weight_hh = starts.contiguous(), weight_hh.contiguous()
        _forward[grid](gates, y, cells, starts, weight_hh, T, B, **blocks)
        ctx.save_for_backward(x, y, cells, gates, starts, weight_ih, weight_hh)
        return y[1:], cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate."""
        x, y, cells, gates, starts, weight_ih, weight_hh = ctx.saved_tensors
        (T, B, D), H = x.shape, y.shape[-1]
        dh, dc, d_gates = (
            torch.zeros_like(y[0]),
            dc.clone(memory_format=torch.contiguous_format),
            torch.empty_like(gates),
        )
        grid, blocks = choose_blocks(B, H)
        _backward[grid](dy.contiguous(), dh, dc, d_gates, gates, cells, starts, weight_hh, T, B, **blocks)
        flat, sums = d_gates.view(T * B, 4 * H), d_gates.sum((0, 1))
        before = y[:-1].masked_fill(starts.unsqueeze(-1), 0.0).view(T * B, H)
        dx = (flat @ weight_ih).view(T, B, D) if ctx.needs_input_grad[0] else None
        return dx, dh, dc, None, flat.t() @ x.reshape(T * B, D), flat.t() @ before, sums, sums
