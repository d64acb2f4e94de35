"""The gated recurrent unit on a CPU, compiled by numba; ``rl.cores.gru`` says its equations.

Between two products with the weights lie a dozen small operations, and each call of torch costs as much as the work of
some of them. Here they are one loop.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from rl.cores.gru_gradients import weight_gradients

FEW = 4
"""Of up to so many sequences the products are compiled as well, and with them the loop over time."""

ONE, HALF, END = np.float32(1.0), np.float32(0.5), np.float32(7.9053111076354980)


def compiled(function: Callable) -> Any:
    """Compile a function when it is first called; what becomes of it is kept on the disk where that is possible."""
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz", "reassoc"}}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # neither this folder nor that of the user can be written to
        return numba.njit(function, **options)


@numba.njit(inline="always")
def tanh(x):
    """Compute tanh in float32 to 3e-7 by a quotient of polynomials, which a compiler can do for many at once.

    Source: the rational minimax approximation of Eigen, which ends where the quotient is next to 1.
    """
    y = min(max(x, -END), END)
    z = y * y
    p = z * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
    p = z * p + np.float32(-8.60467152213735e-11)
    p = z * p + np.float32(5.12229709037114e-08)
    p = z * p + np.float32(1.48572235717979e-05)
    p = z * p + np.float32(6.37261928875436e-04)
    p = z * p + np.float32(4.89352455891786e-03)
    q = z * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
    q = z * q + np.float32(2.26843463243900e-03)
    q = z * q + np.float32(4.89352518554385e-03)
    within = y * p / q
    return ONE if x > END else (-ONE if x < -END else within)  # a gate that is shut or open is so exactly


@numba.njit(inline="always")
def sigmoid(x):
    """Compute the logistic function in float32."""
    return HALF * tanh(HALF * x) + HALF


@numba.njit(inline="always")
def add_products(out, left, right):
    """Add ``left [B, K] @ right [K, N]`` to ``out [B, N]``; K a multiple of 4 is faster."""
    B, K, N = left.shape[0], right.shape[0], right.shape[1]
    for k in range(0, K - 3, 4):  # four rows at a time, so that ``out`` is read and written a quarter as often
        for b in range(B):
            of_row, first, second, third, fourth = out[b], left[b, k], left[b, k + 1], left[b, k + 2], left[b, k + 3]
            for j in range(N):
                of_row[j] += (first * right[k, j] + second * right[k + 1, j]) + (
                    third * right[k + 2, j] + fourth * right[k + 3, j]
                )
    for k in range(K // 4 * 4, K):
        for b in range(B):
            for j in range(N):
                out[b, j] += left[b, k] * right[k, j]


@compiled
def _forward(
    gates,  # [T, B, 3H]: W x + b of r, z, n; becomes r, z, n
    hidden,  # [T, B, 3H]: U h + c of the same; without ``multiplies`` they are given
    before,  # [T + 1, B, H]: the states that the steps see, cleared at starts; the first is given
    y,  # [T, B, H]: becomes the outputs
    starts,  # [T, B]
    weight,  # [H, 3H]
    bias,  # [3H]: c
    first,
    last,
    multiplies,
):
    T, B, H = y.shape
    for t in range(first, last):
        if multiplies:
            for b in range(B):
                hidden[t, b] = bias
            add_products(hidden[t], before[t], weight)
        for b in range(B):
            gate, of_state, h, out, after = gates[t, b], hidden[t, b], before[t, b], y[t, b], before[t + 1, b]
            for j in range(H):
                r = sigmoid(gate[j] + of_state[j])
                z = sigmoid(gate[H + j] + of_state[H + j])
                n = tanh(gate[2 * H + j] + r * of_state[2 * H + j])
                gate[j], gate[H + j], gate[2 * H + j] = r, z, n
                out[j] = n + z * (h[j] - n)
            if t + 1 < T and starts[t + 1, b]:
                after[:] = 0
            else:
                after[:] = out


@compiled
def _backward(
    dy,  # [T, B, H]
    dh,  # [B, H]: of the state before step ``last``; becomes that before step ``first``
    d_gates,  # [T, B, 4H]: becomes those of U_n h + c_n, r, z, W_n x + b_n
    gates,
    hidden,
    before,
    starts,
    weight,  # [3H, H], in the order n, r, z
    first,
    last,
    multiplies,
):
    T, B, H = dy.shape
    for t in range(last - 1, first - 1, -1):
        for b in range(B):
            gate, of_state, h, d_gate = gates[t, b], hidden[t, b], before[t, b], d_gates[t, b]
            carried, given = dh[b], dy[t, b]
            if t + 1 < T and starts[t + 1, b]:
                carried[:] = 0
            for j in range(H):
                r, z, n = gate[j], gate[H + j], gate[2 * H + j]
                d = carried[j] + given[j]
                d_n = d * (ONE - z) * (ONE - n * n)
                d_gate[j] = d_n * r
                d_gate[H + j] = d_n * of_state[2 * H + j] * r * (ONE - r)
                d_gate[2 * H + j] = d * (h[j] - n) * z * (ONE - z)
                d_gate[3 * H + j] = d_n
                carried[j] = d * z
        if multiplies:
            add_products(dh, d_gates[t], weight)


class UnrollGRU(torch.autograd.Function):
    """``x [T, B, D]``, ``h0 [B, H]``, ``starts [T, B]``, weights as in ``GRULayer``, in float32 -> ``[T, B, H]``."""

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
        gates = torch.addmm(bias_ih, x.reshape(T * B, D), weight_ih.t()).view(T, B, 3 * H)
        hidden, before, y = x.new_empty(T, B, 3 * H), x.new_empty(T + 1, B, H), x.new_empty(T, B, H)
        torch.mul(h0, (~starts[0]).unsqueeze(1), out=before[0])
        recurrent, starts = weight_hh.detach().t().contiguous(), starts.contiguous()  # of strides none is compiled for
        arrays = [leaf.detach().numpy() for leaf in (gates, hidden, before, y, starts, recurrent, bias_hh)]
        if B <= FEW:
            _forward(*arrays, 0, T, True)
        else:
            for t, (h, products) in enumerate(zip(before.unbind(0), hidden.unbind(0), strict=False)):
                torch.addmm(bias_hh, h, recurrent, out=products)
                _forward(*arrays, t, t + 1, False)
        ctx.save_for_backward(x, gates, hidden, before, starts, weight_ih, weight_hh)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate."""
        x, gates, hidden, before, starts, weight_ih, weight_hh = ctx.saved_tensors
        (T, B, _), H = x.shape, before.shape[-1]
        dh, d_gates = x.new_zeros(B, H), x.new_empty(T, B, 4 * H)
        recurrent = torch.cat([weight_hh[2 * H :], weight_hh[: 2 * H]])  # in the order of the gradients
        leaves = dy.contiguous(), dh, d_gates, gates, hidden, before, starts, recurrent
        arrays = [leaf.detach().numpy() for leaf in leaves]
        if B <= FEW:
            _backward(*arrays, 0, T, True)
        else:
            of_state = d_gates[..., : 3 * H].unbind(0)
            for t in range(T - 1, -1, -1):
                _backward(*arrays, t, t + 1, False)
                dh.addmm_(of_state[t], recurrent)
        dh.mul_((~starts[0]).unsqueeze(1))
        dx, *of_weights = weight_gradients(x, before[:T], d_gates, weight_ih, ctx.needs_input_grad[0])
        return dx, dh, None, *of_weights
