"""The selective scan of ``rl.cores.mamba`` in one launch for each direction.

Forwards the states of all steps would take N times the memory of the inputs, so only every ``CHUNK``-th is kept, and
backwards those in between are computed once more.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 8
BLOCK = 64
"""Channels of one program, of one sequence."""


@triton.jit
def next_state(h, at, keeps, dt, dtu, write, decay, columns, numbers, CHANNELS: tl.constexpr, N: tl.constexpr):
    """Compute exp(dt A) * h * keep + dtu * write of the steps ``at``."""
    dt_t = tl.load(dt + at * CHANNELS + columns, mask=columns < CHANNELS, other=0.0)
    dtu_t = tl.load(dtu + at * CHANNELS + columns, mask=columns < CHANNELS, other=0.0)
    write_t = tl.load(write + at * N + numbers, mask=numbers < N, other=0.0)
    return tl.where(keeps, tl.exp(dt_t[None, :] * decay) * h, 0.0) + dtu_t[None, :] * write_t[:, None]


@triton.jit
def _forward(
    dt,  # [T, B, I]
    dtu,  # [T, B, I]
    write,  # [T, B, N]
    read,  # [T, B, N]
    A,  # [N, I]
    state,  # [B, N, I]: the first state; becomes the last
    kept,  # [chunks, B, N, I]: becomes the state before every CHUNK-th step
    y,  # [T, B, I]
    starts,  # [T, B]
    T,
    B,
    CHANNELS: tl.constexpr,
    N: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    columns, numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, BLOCK_N)
    exists = (numbers < N)[:, None] & (columns < CHANNELS)[None, :]
    place = numbers[:, None] * CHANNELS + columns[None, :]
    decay = tl.load(A + place, mask=exists, other=0.0)
    h = tl.load(state + b * N * CHANNELS + place, mask=exists, other=0.0)
    for t in range(T):
        at = t * B + b
        if t % CHUNK == 0:
            tl.store(kept + (t // CHUNK * B + b) * N * CHANNELS + place, h, mask=exists)
        keeps = tl.load(starts + at) == 0
        h = next_state(h, at, keeps, dt, dtu, write, decay, columns, numbers, CHANNELS, N)
        read_t = tl.load(read + at * N + numbers, mask=numbers < N, other=0.0)
        tl.store(y + at * CHANNELS + columns, tl.sum(h * read_t[:, None], axis=0), mask=columns < CHANNELS)
    tl.store(state + b * N * CHANNELS + place, h, mask=exists)


@triton.jit
def _backward(
    dy,  # [T, B, I]
    dh,  # [B, N, I]: of the last state; becomes that of the first
    d_dt,  # [T, B, I]
    d_dtu,  # [T, B, I]
    d_write,  # [T, B, programs, N]: the part of each block of channels
    d_read,  # [T, B, programs, N]: likewise
    d_A,  # [B, N, I]: the part of each sequence
    befores,  # [CHUNK, B, N, I]: room for the states of one chunk
    dt,
    dtu,
    write,
    read,
    A,
    kept,
    starts,
    T,
    B,
    programs,
    CHANNELS: tl.constexpr,
    N: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    columns, numbers = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, BLOCK_N)
    exists = (numbers < N)[:, None] & (columns < CHANNELS)[None, :]
    place = numbers[:, None] * CHANNELS + columns[None, :]
    own = b * N * CHANNELS + place
    decay = tl.load(A + place, mask=exists, other=0.0)
    d = tl.load(dh + own, mask=exists, other=0.0)
    d_decay = tl.zeros((BLOCK_N, BLOCK), dtype=dy.dtype.element_ty)
    chunks = (T + CHUNK - 1) // CHUNK
    for chunk in range(chunks):
        first = (chunks - 1 - chunk) * CHUNK
        steps = tl.minimum(T - first, CHUNK)
        h = tl.load(kept + (first // CHUNK * B + b) * N * CHANNELS + place, mask=exists, other=0.0)
        for step in range(steps):
            at = (first + step) * B + b
            tl.store(befores + (step * B + b) * N * CHANNELS + place, h, mask=exists)
            keeps = tl.load(starts + at) == 0
            h = next_state(h, at, keeps, dt, dtu, write, decay, columns, numbers, CHANNELS, N)
        tl.debug_barrier()
        for back in range(steps):
            step = steps - 1 - back
            at = (first + step) * B + b
            keeps = tl.load(starts + at) == 0
            before = tl.load(befores + (step * B + b) * N * CHANNELS + place, mask=exists, other=0.0)
            h = next_state(before, at, keeps, dt, dtu, write, decay, columns, numbers, CHANNELS, N)
            dy_t = tl.load(dy + at * CHANNELS + columns, mask=columns < CHANNELS, other=0.0)
            dt_t = tl.load(dt + at * CHANNELS + columns, mask=columns < CHANNELS, other=0.0)
            dtu_t = tl.load(dtu + at * CHANNELS + columns, mask=columns < CHANNELS, other=0.0)
            write_t = tl.load(write + at * N + numbers, mask=numbers < N, other=0.0)
            read_t = tl.load(read + at * N + numbers, mask=numbers < N, other=0.0)
            part = (at * programs + tl.program_id(1)) * N + numbers
            tl.store(d_read + part, tl.sum(h * dy_t[None, :], axis=1), mask=numbers < N)
            d += dy_t[None, :] * read_t[:, None]
            tl.store(d_dtu + at * CHANNELS + columns, tl.sum(d * write_t[:, None], axis=0), mask=columns < CHANNELS)
            tl.store(d_write + part, tl.sum(d * dtu_t[None, :], axis=1), mask=numbers < N)
            d *= tl.where(keeps, tl.exp(dt_t[None, :] * decay), 0.0)  # now of the state before
            of_exponent = d * before
            d_decay += of_exponent * dt_t[None, :]
            tl.store(d_dt + at * CHANNELS + columns, tl.sum(of_exponent * decay, axis=0), mask=columns < CHANNELS)
        tl.debug_barrier()
    tl.store(d_A + own, d_decay, mask=exists)
    tl.store(dh + own, d, mask=exists)


class SelectiveScan(torch.autograd.Function):
    """``dt, dtu [T, B, I]``, ``write, read [T, B, N]``, ``A [N, I]``, ``h0 [B, N, I]``, ``starts [T, B]`` -> y, last h.

    The function of ``rl.cores.mamba._SelectiveScan``.
    """

    @staticmethod
    def forward(
        ctx: Any, dt: Tensor, dtu: Tensor, write: Tensor, read: Tensor, A: Tensor, h0: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the sequences."""
        dt, dtu, write, read, A, starts = (leaf.contiguous() for leaf in (dt, dtu, write, read, A, starts))
        (T, B, inner), N = dt.shape, len(A)
        state = h0.clone(memory_format=torch.contiguous_format)
        kept, y = dt.new_empty(triton.cdiv(T, CHUNK), B, N, inner), torch.empty_like(dt)
        grid, blocks = choose_blocks(B, inner, N)
        _forward[grid](dt, dtu, write, read, A, state, kept, y, starts, T, B, **blocks)
        ctx.save_for_backward(dt, dtu, write, read, A, kept, starts)
        return y, state

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate."""
        dt, dtu, write, read, A, kept, starts = ctx.saved_tensors
        (T, B, inner), N = dt.shape, len(A)
        grid, blocks = choose_blocks(B, inner, N)
        dh = dh.clone(memory_format=torch.contiguous_format)
        d_dt, d_dtu = dt.new_empty(2, T, B, inner).unbind(0)
        d_write, d_read = dt.new_empty(2, T, B, grid[1], N).unbind(0)
        d_A, befores = dt.new_empty(B, N, inner), dt.new_empty(min(CHUNK, T), B, N, inner)
        found = dh, d_dt, d_dtu, d_write, d_read, d_A, befores
        given = dt, dtu, write, read, A, kept, starts
        _backward[grid](dy.contiguous(), *found, *given, T, B, grid[1], **blocks)
        return d_dt, d_dtu, d_write.sum(2), d_read.sum(2), d_A.sum(0), dh, None


def choose_blocks(B: int, inner: int, N: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Choose the grid and the sizes of the blocks for B sequences of I channels with N numbers each."""
    block = min(BLOCK, triton.next_power_of_2(inner))
    blocks = {"CHANNELS": inner, "N": N, "BLOCK_N": triton.next_power_of_2(N), "BLOCK": block, "CHUNK": CHUNK}
    return (B, triton.cdiv(inner, block)), blocks
