"""What the kernels of RNN, GRU and LSTM share: products with the state inside the loop over time.

One program takes ``BLOCK_B`` sequences through all steps. Products with the input stand outside of the kernels, as one
product over all steps; here are those with the state, whose weights come out of the device's cache at every step. What
a program writes in one step it reads in the next: ``tl.debug_barrier`` stands between.
"""

from typing import Any

import torch
import triton
import triton.language as tl

BLOCK_B = 16
"""Sequences of one program: the fewest rows that tensor cores multiply."""


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """Tanh by a sigmoid: it does not overflow."""
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def kept_rows(starts, at, rows, B):
    """Tell which ``rows`` are sequences that no episode opens at the steps ``at`` of ``starts``."""
    return (rows < B) & (tl.load(starts + at, mask=rows < B, other=1) == 0)


@triton.jit
def state_product(
    state,
    at,
    keeps,
    weight,
    columns,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply the rows ``at`` of ``state [., H]``, 0 where not ``keeps``, by the rows ``columns`` of ``weight``."""
    total = tl.zeros((BLOCK_B, BLOCK_H), dtype=state.dtype.element_ty)
    for begin in range(0, H, BLOCK_K):
        inner = begin + tl.arange(0, BLOCK_K)
        inside = inner < H
        h = tl.load(state + at[:, None] * H + inner[None, :], mask=keeps[:, None] & inside[None, :], other=0.0)
        there = inside[:, None] & (columns[None, :] < H)
        part = tl.load(weight + columns[None, :] * H + inner[:, None], mask=there, other=0.0)
        total += tl.dot(h, part, input_precision=PRECISION, out_dtype=total.dtype)
    return total


# One function for this and the one above, with a flag, makes the compiler spill six times the registers in the LSTM.
@triton.jit
def gradient_product(
    gradient,
    at,
    exists,
    weight,
    columns,
    WIDTH: tl.constexpr,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Multiply the first H numbers of the rows ``at`` of ``gradient [., WIDTH]`` by the ``columns`` of ``weight``."""
    total = tl.zeros((BLOCK_B, BLOCK_H), dtype=gradient.dtype.element_ty)
    for begin in range(0, H, BLOCK_K):
        inner = begin + tl.arange(0, BLOCK_K)
        inside = inner < H
        d = tl.load(gradient + at[:, None] * WIDTH + inner[None, :], mask=exists[:, None] & inside[None, :], other=0.0)
        there = inside[:, None] & (columns[None, :] < H)
        part = tl.load(weight + inner[:, None] * H + columns[None, :], mask=there, other=0.0)
        total += tl.dot(d, part, input_precision=PRECISION, out_dtype=total.dtype)
    return total


@triton.jit
def pass_back(
    dh,
    d_gates,
    at,
    rows,
    keeps,
    weight,
    B,
    GATES: tl.constexpr,
    FIRST: tl.constexpr,
    WIDTH: tl.constexpr,
    ADDS: tl.constexpr,
    H: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write into ``dh [B, H]`` what the gates of the steps ``at`` say of the state before, 0 where not ``keeps``.

    The gradients of the gates stand side by side in ``d_gates [., WIDTH]``; the weights of the first of them are those
    of number FIRST in ``weight [GATES * H, H]``. With ADDS it comes to what ``dh`` holds.
    """
    for begin in range(0, H, BLOCK_H):
        columns = begin + tl.arange(0, BLOCK_H)
        exists = (rows < B)[:, None] & (columns < H)[None, :]
        carried = dh + rows[:, None] * H + columns[None, :]
        zeros = tl.zeros((BLOCK_B, BLOCK_H), dtype=dh.dtype.element_ty)
        d = tl.load(carried, mask=exists, other=0.0) if ADDS else zeros
        for part in tl.static_range(GATES):
            own = weight + (part + FIRST) % GATES * H * H
            given = d_gates + part * H
            d += gradient_product(given, at, rows < B, own, columns, WIDTH, H, BLOCK_B, BLOCK_H, BLOCK_K, PRECISION)
        tl.store(carried, tl.where(keeps[:, None], d, 0.0), mask=exists)


def choose_blocks(B: int, H: int) -> tuple[tuple[int], dict[str, Any]]:
    """Choose the grid and the sizes of the blocks for B sequences of H hidden units.

    Products are those of float32 to its last bits (``tf32x3``), unless torch is allowed to round them.
    """
    block = min(128, max(16, triton.next_power_of_2(H)))
    return (triton.cdiv(B, BLOCK_B),), {
        "H": H,
        "BLOCK_B": BLOCK_B,
        "BLOCK_H": block,
        "BLOCK_K": 64 if block < H else block,  # more do not fit into the registers
        "PRECISION": "tf32" if rounds_products() else "tf32x3",
        "num_warps": 8 if block == 128 else 4,
        "num_stages": 1,  # a later step must not be read ahead: this one writes it
    }


def rounds_products() -> bool:
    """Tell whether torch may round float32 to 10 bits in products on CUDA, see ``rl.networks.acceleration``."""
    matmul: Any = torch.backends.cuda.matmul  # what of it there is depends on the version of torch
    precision = getattr(matmul, "fp32_precision", None)  # from torch 2.9 on, where it goes before the older flag
    return bool(matmul.allow_tf32) if precision is None else precision == "tf32"
