"""The Elman network: h = tanh(W x + b + U h + c)."""

from typing import Any

import torch
from torch import Tensor, nn

from rl.cores.kernels import use_kernels
from rl.cores.stack import Stack, build, initialise


class _UnrollRNN(torch.autograd.Function):
    """The whole sequence as one node: input and weight gradients are single matrix products, only U h is stepwise."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        keep: Tensor,
        starting: list[bool],
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias: Tensor,
    ) -> Tensor:
        (T, B, D), H = x.shape, h0.shape[-1]
        y = torch.addmm(bias, x.reshape(T * B, D), weight_ih.t()).view(T, B, H)
        h, recurrent = h0, weight_hh.t()
        for t, (out, mask) in enumerate(zip(y.unbind(0), keep.unbind(0), strict=True)):
            before = h * mask if starting[t] else h
            h = out.addmm_(before, recurrent).tanh_()
        ctx.save_for_backward(x, h0, y, keep, weight_ih, weight_hh)
        ctx.starting = starting
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, h0, y, keep, weight_ih, weight_hh = ctx.saved_tensors
        (T, B, D), H = x.shape, h0.shape[-1]
        derivative = (1.0 - y * y).unbind(0)  # of tanh
        dgates = torch.empty_like(y)
        dg, dys, masks = dgates.unbind(0), dy.unbind(0), keep.unbind(0)
        dh = torch.zeros_like(h0)
        for t in range(T - 1, -1, -1):
            torch.mul(dh.add_(dys[t]), derivative[t], out=dg[t])
            dh = torch.mm(dg[t], weight_hh)
            if ctx.starting[t]:
                dh.mul_(masks[t])
        dgates = dgates.view(T * B, H)
        before = torch.cat([h0.unsqueeze(0), y[:-1]]).mul_(keep).view(T * B, H)
        dx = (dgates @ weight_ih).view(T, B, D) if ctx.needs_input_grad[0] else None
        return dx, dh, None, None, dgates.t() @ x.reshape(T * B, D), dgates.t() @ before, dgates.sum(0)


class RNNLayer(nn.Module):
    """One layer; parameters named and shaped as in ``torch.nn.RNNCell``."""

    leaves = ("h",)

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(hidden_size))
        initialise(self, hidden_size)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Take one step: ``x [B, D]``, ``(h [B, H],)`` -> ``(h,)``."""
        return (torch.rnn_tanh_cell(x, state[0], self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh),)

    def unroll(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run ``x [T, B, D]``, ``(h [B, H],)``, ``starts [T, B]`` -> ``[T, B, H]``, ``(h,)``."""
        weights = self.weight_ih, self.weight_hh, self.bias_ih + self.bias_hh
        if use_kernels(x, self.weight_hh.shape[1]):
            from rl.cores.kernels.rnn import UnrollRNN

            y = UnrollRNN.apply(x, state[0], starts, *weights)
        else:
            y = _UnrollRNN.apply(x, state[0], *keep_mask(x, starts), *weights)
        return y, (y[-1],)


def keep_mask(x: Tensor, starts: Tensor) -> tuple[Tensor, list[bool]]:
    """Turn the starts of episodes into a factor that clears memories.

    Args:
        x: gives the dtype.
        starts: ``[T, B]`` bool on the device of ``x``.

    Returns:
        keep: ``[T, B, 1]``, 0 at starts and 1 elsewhere.
        starting: for each step whether any memory starts there, so that a step without starts can skip the product;
            only a CPU is asked.
    """
    keep = (~starts).to(x.dtype).unsqueeze(-1)
    return keep, starts.any(dim=1).tolist() if starts.device.type == "cpu" else [True] * len(starts)


def rnn(input_size: int, hidden_size: int = 128, num_layers: int = 1, dropout: float = 0.0) -> Stack:
    """Build Elman layers: a memory that forgets fast, cheap and plain. State ``{"h"}``.

    Args:
        input_size: features of the input.
        hidden_size: width of each layer.
        num_layers: number of layers.
        dropout: probability of dropping a unit between two layers.

    Raises:
        ValueError: a size is below 1 or ``dropout`` is out of range.
    """
    return build(RNNLayer, input_size, hidden_size, num_layers, dropout)
