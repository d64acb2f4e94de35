"""The linear recurrence h_t = a_t * h_{t-1} + b_t over a whole sequence, in plain space.

A coefficient of 0 forgets exactly, in value and in gradient, which the form in log space cannot express.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """Compute ``h_t = a_t * h_{t-1} + b_t``.

    Args:
        a: coefficients, ``[T, B, ...]``.
        b: terms, ``[T, B, ...]``.
        h0: ``h`` before the first step, ``[B, ...]``.

    Returns:
        ``h``, ``[T, B, ...]``.
    """
    return _Scan.apply(a, b, h0)


class _Scan(torch.autograd.Function):
    """One autograd node. The derivative is the same recurrence backwards: g_t = dh_t + a_{t+1} * g_{t+1}."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        h = _recurrence(a)(a, b, h0)
        ctx.save_for_backward(a, h, h0)
        return h

    @staticmethod
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, h, h0 = ctx.saved_tensors
        following = torch.cat([a[1:], torch.zeros_like(a[:1])])  # a_{t+1}
        g = _recurrence(a)(following.flip(0), dh.flip(0), torch.zeros_like(h0)).flip(0)
        before = torch.cat([h0.unsqueeze(0), h[:-1]])
        return g * before, g, g[0] * a[0]


def _recurrence(a: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Choose by device: T steps of a loop are the least work, log2 T passes over everything the fewest GPU kernels."""
    return loop if a.device.type == "cpu" else doubling


def loop(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """Compute ``scan`` without gradient, step after step."""
    h, before = torch.empty_like(b), h0
    for factor, term, out in zip(a.unbind(0), b.unbind(0), h.unbind(0), strict=True):
        before = torch.addcmul(term, factor, before, out=out)
    return h


def doubling(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """Compute ``scan`` without gradient, by doubling (Hillis and Steele, 1986).

    After the pass with distance d every ``h_t`` holds the terms of the last 2 d steps, every ``a_t`` their product.
    """
    h = b.clone()
    h[0].addcmul_(a[0], h0)
    distance = 1
    while distance < len(h):
        h = torch.cat([h[:distance], torch.addcmul(h[distance:], a[distance:], h[:-distance])])
        a = torch.cat([a[:distance], a[distance:] * a[:-distance]])
        distance *= 2
    return h
