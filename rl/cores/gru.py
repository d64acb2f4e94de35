"""The gated recurrent unit (Cho et al., 2014), in the form of cuDNN and ``torch.nn.GRU``.

r = s(W_r x + U_r h), z = s(W_z x + U_z h), n = tanh(W_n x + r * (U_n h + c_n)), h' = (1 - z) * n + z * h
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rl.cores.gru_gradients import weight_gradients
from rl.cores.kernels import use_compiled, use_kernels
from rl.cores.memory_span import keep_biases
from rl.cores.rnn import keep_mask
from rl.cores.stack import Stack, build, initialise


class _UnrollGRU(torch.autograd.Function):
    """The whole sequence as one autograd node: only the products with the previous state are stepwise.

    On a CPU this beats ``torch.nn.GRU``, which has no fused kernel there, and its cost does not depend on the starts.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h0: Tensor,
        keep: Tensor,
        starting: list[bool],
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor,
        bias_hh: Tensor,
    ) -> Tensor:
        (T, B, D), H = x.shape, h0.shape[-1]
        gates = torch.addmm(bias_ih, x.reshape(T * B, D), weight_ih.t()).view(T, B, 3 * H)  # becomes r, z, n in place
        hidden = x.new_empty(T, B, 3 * H)  # U h + c for r, z, n
        y = x.new_empty(T, B, H)
        rz, r, z, n = (gates[..., part].unbind(0) for part in _gate_slices(H))
        hidden_rz, hidden_n = hidden[..., : 2 * H].unbind(0), hidden[..., 2 * H :].unbind(0)
        h, recurrent = h0, weight_hh.t()
        for t, (mask, all_hidden, out) in enumerate(zip(keep.unbind(0), hidden.unbind(0), y.unbind(0), strict=True)):
            before = h * mask if starting[t] else h
            torch.addmm(bias_hh, before, recurrent, out=all_hidden)
            rz[t].add_(hidden_rz[t]).sigmoid_()
            n[t].addcmul_(r[t], hidden_n[t]).tanh_()
            h = torch.lerp(n[t], before, z[t], out=out)
        ctx.save_for_backward(x, h0, y, gates, hidden, keep, weight_ih, weight_hh)
        ctx.starting = starting
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, h0, y, gates, hidden, keep, weight_ih, weight_hh = ctx.saved_tensors
        (T, B, _), H = x.shape, h0.shape[-1]
        _, r, z, n = (gates[..., part] for part in _gate_slices(H))
        before = torch.cat([h0.unsqueeze(0), y[:-1]]).mul_(keep)  # [T, B, H]
        # Every stepwise derivative is dL/dh times a factor known in advance. The order U_n, r, z, W_n makes both the
        # recurrent part (the first three) and the input part (the last three) a slice.
        factor = x.new_empty(T, B, 5, H)
        to_n = torch.mul(1.0 - z, 1.0 - n * n, out=factor[:, :, 3])
        to_hidden_n = torch.mul(to_n, r, out=factor[:, :, 0])
        torch.mul(to_hidden_n, hidden[..., 2 * H :] * (1.0 - r), out=factor[:, :, 1])
        torch.mul((before - n) * z, 1.0 - z, out=factor[:, :, 2])
        factor[:, :, 4] = z
        recurrent = torch.cat([weight_hh[2 * H :], weight_hh[: 2 * H]])  # in the order U_n, r, z

        product = torch.empty_like(factor)
        flat = product.view(T, B, 5 * H)
        to_recurrent, through = flat[..., : 3 * H].unbind(0), flat[..., 4 * H :].unbind(0)
        factors, products, dys, masks = factor.unbind(0), product.unbind(0), dy.unbind(0), keep.unbind(0)
        dh = torch.zeros_like(h0)
        for t in range(T - 1, -1, -1):
            torch.mul(dh.add_(dys[t]).unsqueeze(1), factors[t], out=products[t])
            dh = torch.addmm(through[t], to_recurrent[t], recurrent)
            if ctx.starting[t]:
                dh.mul_(masks[t])

        dx, *of_weights = weight_gradients(x, before, flat, weight_ih, ctx.needs_input_grad[0])
        return dx, dh, None, None, *of_weights


def _gate_slices(H: int) -> tuple[slice, slice, slice, slice]:
    """Return where r and z together, r, z and n lie among the gates."""
    return slice(0, 2 * H), slice(0, H), slice(H, 2 * H), slice(2 * H, 3 * H)


class GRULayer(nn.Module):
    """One layer; parameters named and shaped as in ``torch.nn.GRUCell``."""

    leaves = ("h",)

    def __init__(self, input_size: int, hidden_size: int, memory_span: float | None = None):
        super().__init__()
        self.weight_ih = nn.Parameter(torch.empty(3 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(3 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(3 * hidden_size))
        initialise(self, hidden_size)
        self.bias_ih.data[hidden_size : 2 * hidden_size] = keep_biases(hidden_size, memory_span, None, 0.0)  # of z

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Take one step: ``x [B, D]``, ``(h [B, H],)`` -> ``(h,)``."""
        return (torch.gru_cell(x, state[0], self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh),)

    def unroll(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run ``x [T, B, D]``, ``(h [B, H],)``, ``starts [T, B]`` -> ``[T, B, H]``, ``(h,)``."""
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        if use_kernels(x, self.weight_hh.shape[1]):
            from rl.cores.kernels.gru import UnrollGRU

            y = UnrollGRU.apply(x, state[0], starts, *weights)
        elif use_compiled(x):
            from rl.cores.kernels.gru_on_cpu import UnrollGRU as UnrollGRUOnCPU

            y = UnrollGRUOnCPU.apply(x, state[0], starts, *weights)
        else:
            y = _UnrollGRU.apply(x, state[0], *keep_mask(x, starts), *weights)
        return y, (y[-1],)

    def gates(self, x: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Compute r and z of one step: ``x [B, D]``, ``(h [B, H],)`` -> ``[B, 2 H]``."""
        of_x = nn.functional.linear(x, self.weight_ih, self.bias_ih)
        r, z, _ = (of_x + nn.functional.linear(state[0], self.weight_hh, self.bias_hh)).chunk(3, dim=1)
        return torch.cat([r, z], dim=1).sigmoid()


def gru(
    input_size: int,
    hidden_size: int = 128,
    num_layers: int = 1,
    dropout: float = 0.0,
    memory_span: float | None = None,
) -> Stack:
    """Build gated recurrent units. State ``{"h"}``.

    Args:
        input_size: features of the input.
        hidden_size: width of each layer.
        num_layers: number of layers.
        dropout: probability of dropping a unit between two layers.
        memory_span: steps up to which the units of a fresh memory last, see ``rl.cores.memory_span``. Without one
            all of them halve in every step.

    Raises:
        ValueError: a size is below 1, or ``dropout`` or ``memory_span`` is out of range.
    """
    return build(partial(GRULayer, memory_span=memory_span), input_size, hidden_size, num_layers, dropout)
