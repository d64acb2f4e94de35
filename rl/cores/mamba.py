"""The selective state space model (Gu and Dao, 2023, "Mamba").

u, g = W x;  u = silu(conv(u));  dt = softplus(W_dt W_r u), B = W_B u, C = W_C u;
h' = exp(dt A) * h + dt u B;  y = C h' + D u;  x + W_o (y * silu(g)), with x normalised first.
"""

from math import log10
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from rl.checks import positive
from rl.cores.dropout import refuse_dropout
from rl.cores.kernels import use_kernels
from rl.cores.memory_span import SLOWEST, check_span
from rl.cores.residual import Residual, ages, linear
from rl.cores.rnn import keep_mask
from rl.types import State

QUICKEST = 10.0
"""Steps that the quickest channels of a fresh layer remember; the others are evenly spaced in the logarithm."""


class MambaLayer(nn.Module):
    """One layer of ``I = expand * hidden_size`` channels with ``N = state_size`` numbers each.

    State: ``conv [B, K - 1, I]``, the inputs of the convolution at the steps before, oldest first, and
    ``ssm [B, N, I]``. At a start both are cleared. Inside a sequence the taps of the convolution that would reach over
    the start are, and the coefficient of h is set to 0.
    """

    leaves = ("conv", "ssm")

    def __init__(self, hidden_size: int, state_size: int, kernel_size: int, expand: int, memory_span: float = SLOWEST):
        super().__init__()
        inner, self.rank = expand * hidden_size, -(-hidden_size // 16)
        self.norm = nn.LayerNorm(hidden_size)
        self.inputs = linear(hidden_size, 2 * inner, bias=False)
        self.taps = nn.Parameter(torch.empty(kernel_size, inner))  # of the convolution, oldest first
        self.taps_bias = nn.Parameter(torch.zeros(inner))
        nn.init.uniform_(self.taps, -(kernel_size**-0.5), kernel_size**-0.5)
        self.select = linear(inner, self.rank + 2 * state_size, bias=False)
        self.step_size = linear(self.rank, inner)
        dt = torch.logspace(-log10(memory_span), -log10(min(QUICKEST, memory_span)), inner)  # step sizes
        self.step_size.bias.data.copy_(dt.expm1().log())  # the inverse of softplus
        self.log_decay = nn.Parameter(torch.arange(1.0, state_size + 1).log().unsqueeze(1).repeat(1, inner))  # log -A
        self.skip = nn.Parameter(torch.ones(inner))  # D
        self.outputs = linear(inner, hidden_size, bias=False)

    def initial_state(self, batch_size: int, device: torch.device | str | None) -> State:
        """Make the state of ``batch_size`` fresh memories: zeros."""
        (K, inner), N = self.taps.shape, len(self.log_decay)
        return {
            "conv": torch.zeros(batch_size, K - 1, inner, device=device),
            "ssm": torch.zeros(batch_size, N, inner, device=device),
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Take one step: ``x [B, H]`` -> ``[B, H]``, the next leaves."""
        u, gate = self.inputs(self.norm(x)).chunk(2, dim=-1)  # [B, I]
        reach = torch.cat([state["conv"], u.unsqueeze(1)], dim=1)  # [B, K, I]
        u = silu((reach * self.taps).sum(1) + self.taps_bias)
        dt, write, read = self._selected(u)  # [B, I], [B, N], [B, N]
        decay = (dt.unsqueeze(1) * -self.log_decay.exp()).exp()  # [B, N, I]
        ssm = torch.addcmul(decay * state["ssm"], (dt * u).unsqueeze(1), write.unsqueeze(2))
        y = torch.bmm(read.unsqueeze(1), ssm).squeeze(1)
        return self._out(x, y, u, gate), {"conv": reach[:, 1:], "ssm": ssm}

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run ``x [T, B, H]``, ``starts [T, B]`` -> ``[T, B, H]``, the leaves after step T."""
        u, gate = self.inputs(self.norm(x)).chunk(2, dim=-1)  # [T, B, I]
        u, tail = self._convolve(u, state["conv"], starts)
        u = silu(u)
        dt, write, read = self._selected(u)
        inputs = dt, dt * u, write, read, -self.log_decay.exp(), state["ssm"]
        if use_kernels(x, x.shape[-1]):
            from rl.cores.kernels.mamba import SelectiveScan

            y, ssm = SelectiveScan.apply(*inputs, starts)
        else:
            keep, starting = keep_mask(x, starts)
            y, ssm = _SelectiveScan.apply(*inputs, keep.unsqueeze(-1), starting)
        return self._out(x, y, u, gate), {"conv": tail, "ssm": ssm}

    def _selected(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute dt ``[..., I]``, B and C ``[..., N]`` from ``u [..., I]``."""
        N = len(self.log_decay)
        dt, write, read = self.select(u).split((self.rank, N, N), dim=-1)
        return softplus(self.step_size(dt)), write, read

    def _out(self, x: Tensor, y: Tensor, u: Tensor, gate: Tensor) -> Tensor:
        return x + self.outputs(torch.addcmul(y, u, self.skip) * silu(gate))

    def _convolve(self, u: Tensor, tail: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve over time; nothing crosses a start.

        Args:
            u: inputs ``[T, B, I]``.
            tail: the inputs before them ``[B, K - 1, I]``, oldest first.
            starts: ``[T, B]`` bool.

        Returns:
            The outputs ``[T, B, I]``, and the tail after step T.
        """
        T, before = len(u), len(self.taps) - 1
        padded = torch.cat([tail.transpose(0, 1), u])  # [K - 1 + T, B, I]
        y, tail = torch.addcmul(self.taps_bias, u, self.taps[before]), padded[T:]
        crossed = starts.device.type != "cpu" or starts.any()  # asking a GPU would cost more
        age = ages(starts, before).unsqueeze(2) if crossed else None  # [T, B, 1]
        for tap in range(before):
            reached = padded[tap : tap + T]
            if age is not None:
                reached = reached * (age >= before - tap)
            y = torch.addcmul(y, reached, self.taps[tap])
        if age is not None:
            distance = torch.arange(before - 1, -1, -1, device=u.device)[:, None, None]  # from the last step
            tail = tail * (age[-1] >= distance)
        return y, tail.transpose(0, 1)


class _SelectiveScan(torch.autograd.Function):
    """The whole sequence as one autograd node: h' = exp(dt A) * h * keep + dtu * write, y = read h'.

    ``dt, dtu [T, B, I]``, ``write, read [T, B, N]``, ``A [N, I]``, ``h0 [B, N, I]``, ``keep [T, B, 1, 1]`` (0 at
    starts) -> ``y [T, B, I]``, the last ``h``. Tensors with N times the size of the inputs are made step by step, so
    that they stay in the caches.
    """

    @staticmethod
    def forward(
        ctx: Any,
        dt: Tensor,
        dtu: Tensor,
        write: Tensor,
        read: Tensor,
        A: Tensor,
        h0: Tensor,
        keep: Tensor,
        starting: list[bool],
    ) -> tuple[Tensor, Tensor]:
        (T, B, inner), N = dt.shape, len(A)
        decay, hidden = dt.new_empty(2, T, B, N, inner).unbind(0)
        h = h0
        steps = zip(
            decay.unbind(0), hidden.unbind(0), dt.unsqueeze(2), dtu.unsqueeze(2), write.unsqueeze(3), strict=True
        )
        for t, (a, out, dt_t, dtu_t, write_t) in enumerate(steps):
            torch.mul(dt_t, A, out=a).exp_()
            if starting[t]:
                a.mul_(keep[t])
            h = torch.mul(dtu_t, write_t, out=out).addcmul_(a, h)
        y = torch.bmm(read.reshape(T * B, 1, N), hidden.view(T * B, N, inner)).view(T, B, inner)
        ctx.save_for_backward(dt, dtu, write, read, A, h0, decay, hidden)
        return y, h.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dh: Tensor) -> tuple[Tensor | None, ...]:
        dt, dtu, write, read, A, h0, decay, hidden = ctx.saved_tensors
        g = dh.clone()  # dL/dh_t
        product, d_A = torch.empty_like(g), torch.zeros_like(g)
        d_dt, d_dtu, d_write, d_read = (torch.empty_like(part) for part in (dt, dtu, write, read))
        dys, dts, dtus, writes, reads = dy.unsqueeze(2), dt.unsqueeze(2), dtu.unsqueeze(2), write.unsqueeze(3), read
        for t in range(len(dt) - 1, -1, -1):
            torch.sum(torch.mul(hidden[t], dys[t], out=product), -1, out=d_read[t])
            g.addcmul_(dys[t], reads[t].unsqueeze(2))
            torch.sum(torch.mul(g, writes[t], out=product), 1, out=d_dtu[t])
            torch.sum(torch.mul(g, dtus[t], out=product), -1, out=d_write[t])
            g.mul_(decay[t])  # now dL/dh_{t-1}
            torch.mul(g, hidden[t - 1] if t else h0, out=product)  # dL/d(dt A)
            d_A.addcmul_(product, dts[t])
            torch.sum(product.mul_(A), 1, out=d_dt[t])
        return d_dt, d_dtu, d_write, d_read, d_A.sum(0), g, None, None


def mamba(
    input_size: int,
    hidden_size: int = 128,
    num_layers: int = 2,
    dropout: float = 0.0,
    memory_span: float = SLOWEST,
    state_size: int = 16,
    kernel_size: int = 4,
    expand: int = 2,
) -> Residual:
    """Build selective state spaces. State ``{"conv", "ssm"}``.

    The state holds ``expand * hidden_size * (state_size + kernel_size - 1)`` numbers for each layer: rollouts store it
    once for each sequence.

    Args:
        input_size: features of the input.
        hidden_size: width of each layer.
        num_layers: number of layers.
        dropout: must be 0; it is an argument so that cores can be swapped.
        memory_span: steps that the slowest channels of a fresh layer remember.
        state_size: numbers for each channel.
        kernel_size: steps that the convolution sees, the present one included.
        expand: channels of a layer in multiples of ``hidden_size``.

    Raises:
        ValueError: a size is below 1 (``kernel_size``: below 2), or ``dropout`` is not 0.
    """
    positive(
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        state_size=state_size,
        kernel_size=kernel_size,
        expand=expand,
    )
    check_kernel(kernel_size)
    refuse_dropout("mamba", dropout)
    check_span(memory_span)
    layers = [MambaLayer(hidden_size, state_size, kernel_size, expand, memory_span) for _ in range(num_layers)]
    return Residual(input_size, hidden_size, layers)


def check_kernel(kernel_size: int) -> None:
    """Check that a convolution reaches back at least one step.

    Raises:
        ValueError: ``kernel_size`` is below 2.
    """
    if kernel_size < 2:
        raise ValueError(f"kernel_size={kernel_size}: it must be at least 2, the present step and one before it")
