"""The gated recurrent unit in one launch for each direction; ``rl.cores.gru`` says its equations."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from rl.cores.gru_gradients import weight_gradients
from rl.cores.kernels.products import choose_blocks, kept_rows, pass_back, sigmoid, state_product, tanh


@triton.jit
def _forward(
    gates,  # [T, B, 3H]: W x + b of r, z, n; becomes r, z, n
    of_state,  # [T, B, H]: becomes U_n h + c_n
    y,  # [T + 1, B, H]: the first state, then the outputs
    starts,  # [T, B]
    weight,  # [3H, H]
    bias,  # [H]: c_n
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
            gate = gates + at[:, None] * (3 * H) + columns[None, :]
            out = at[:, None] * H + columns[None, :]
            r = state_product(y, at, keeps, weight, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            r = sigmoid(r + tl.load(gate, mask=exists, other=0.0))
            z = state_product(y, at, keeps, weight + H * H, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            z = sigmoid(z + tl.load(gate + H, mask=exists, other=0.0))
            hidden = state_product(y, at, keeps, weight + 2 * H * H, columns, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
            hidden += tl.load(bias + columns, mask=columns < H, other=0.0)[None, :]
            n = tanh(tl.load(gate + 2 * H, mask=exists, other=0.0) + r * hidden)
            before = tl.load(y + out, mask=exists & keeps[:, None], other=0.0)
            tl.store(y + B * H + out, n + z * (before - n), mask=exists)
            tl.store(gate, r, mask=exists)
            tl.store(gate + H, z, mask=exists)
            tl.store(gate + 2 * H, n, mask=exists)
            tl.store(of_state + out, hidden, mask=exists)
        tl.debug_barrier()


@triton.jit
def _backward(
    dy,  # [T, B, H]
    dh,  # [B, H]: of the last state; becomes that of the first
    d_gates,  # [T, B, 4H]: becomes those of U_n h + c_n, r, z, W_n x + b_n
    gates,
    of_state,
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
            gate = gates + at[:, None] * (3 * H) + columns[None, :]
            d_gate = d_gates + at[:, None] * (4 * H) + columns[None, :]
            carried = dh + rows[:, None] * H + columns[None, :]
            out = at[:, None] * H + columns[None, :]
            r = tl.load(gate, mask=exists, other=0.0)
            z = tl.load(gate + H, mask=exists, other=0.0)
            n = tl.load(gate + 2 * H, mask=exists, other=0.0)
            hidden = tl.load(of_state + out, mask=exists, other=0.0)
            before = tl.load(y + out, mask=exists & keeps[:, None], other=0.0)
            d = tl.load(carried, mask=exists, other=0.0) + tl.load(dy + out, mask=exists, other=0.0)
            d_n = d * (1.0 - z) * (1.0 - n * n)
            tl.store(d_gate, d_n * r, mask=exists)
            tl.store(d_gate + H, d_n * hidden * r * (1.0 - r), mask=exists)
            tl.store(d_gate + 2 * H, d * (before - n) * z * (1.0 - z), mask=exists)
            tl.store(d_gate + 3 * H, d_n, mask=exists)
            tl.store(carried, d * z, mask=exists)
        tl.debug_barrier()
        # the gradients lie in the order n, r, z, the weights in the order r, z, n
        pass_back(dh, d_gates, at, rows, keeps, weight, B, 3, 2, 4 * H, True, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
        tl.debug_barrier()


class UnrollGRU(torch.autograd.Function):
    """``x [T, B, D]``, ``h0 [B, H]``, ``starts [T, B]`` on one device, weights as in ``GRULayer`` -> ``[T, B, H]``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        starts: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> Tensor:
        """Run the sequences."""
        (T, B, D), H = x.shape, h0.shape[-1]
        bias = torch.cat([bias_ih[: 2 * H] + bias_hh[: 2 * H], bias_ih[2 * H :]])
        gates = torch.addmm(bias, x.reshape(T * B, D), weight_ih.t()).view(T, B, 3 * H)
        of_state, y = x.new_empty(T, B, H), x.new_empty(T + 1, B, H)
        y[0] = h0
        grid, blocks = choose_blocks(B, H)
        starts, weight_hh = starts.contiguous(), weight_hh.contiguous()
        _forward[grid](gates, of_state, y, starts, weight_hh, bias_hh[2 * H :], T, B, **blocks)
        ctx.save_for_backward(x, y, gates, of_state, starts, weight_ih, weight_hh)
        return y[1:]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate."""
        x, y, gates, of_state, starts, weight_ih, weight_hh = ctx.saved_tensors
        (T, B, _), H = x.shape, y.shape[-1]
        dh, d_gates = torch.zeros_like(y[0]), x.new_empty(T, B, 4 * H)
        grid, blocks = choose_blocks(B, H)
        _backward[grid](dy.contiguous(), dh, d_gates, gates, of_state, y, starts, weight_hh, T, B, **blocks)
        before = y[:-1].masked_fill(starts.unsqueeze(-1), 0.0)
        dx, *of_weights = weight_gradients(x, before, d_gates, weight_ih, ctx.needs_input_grad[0])
        return dx, dh, None, *of_weights
