"""The minimal gated recurrent unit (Feng et al., 2024, "Were RNNs All We Needed?").

z = s(W_z x), c = W_c x, h' = (1 - z) * h + z * c. Gate and candidate see the input alone, so a sequence is a scan.
"""

from functools import partial

import torch
from torch import Tensor, nn

from rl.cores.kernels import use_kernels
from rl.cores.memory_span import keep_biases
from rl.cores.rnn import keep_mask
from rl.cores.scan import scan
from rl.cores.stack import Stack, build, initialise


class MinGRULayer(nn.Module):
    """One layer: the rows of ``weight`` and ``bias`` are those of z, then those of c."""

    leaves = ("h",)

    def __init__(self, input_size: int, hidden_size: int, memory_span: float | None, gate_bias: float | None):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2 * hidden_size, input_size))
        self.bias = nn.Parameter(torch.empty(2 * hidden_size))
        initialise(self, hidden_size)
        given = None if gate_bias is None else -gate_bias
        self.bias.data[:hidden_size] = -keep_biases(hidden_size, memory_span, given, 0.0)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Take one step: ``x [B, D]``, ``(h [B, H],)`` -> ``(h,)``."""
        gate, candidate = torch.addmm(self.bias, x, self.weight.t()).chunk(2, dim=-1)
        return (torch.lerp(state[0], candidate, gate.sigmoid()),)

    def unroll(self, x: Tensor, state: tuple[Tensor, ...], starts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run ``x [T, B, D]``, ``(h [B, H],)``, ``starts [T, B]`` -> ``[T, B, H]``, ``(h,)``."""
        gates = nn.functional.linear(x, self.weight, self.bias)
        if use_kernels(x, self.weight.shape[0] // 2):
            from rl.cores.kernels.mingru import UnrollMinGRU

            y = UnrollMinGRU.apply(gates, state[0], starts)
            return y, (y[-1],)
        gate, candidate = gates.chunk(2, dim=-1)
        write = gate.sigmoid()
        keep = 1.0 - write
        if starts.device.type != "cpu" or starts.any():
            keep = keep * keep_mask(x, starts)[0]
        y = scan(keep, write * candidate, state[0])
        return y, (y[-1],)

    def gates(self, x: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        """Compute z of one step: ``x [B, D]`` -> ``[B, H]``."""
        return nn.functional.linear(x, self.weight, self.bias).chunk(2, dim=-1)[0].sigmoid()


def mingru(
    input_size: int,
    hidden_size: int = 128,
    num_layers: int = 1,
    dropout: float = 0.0,
    memory_span: float | None = None,
    gate_bias: float | None = None,
) -> Stack:
    """Build minimal gated recurrent units. State ``{"h"}``.

    Args:
        input_size: features of the input.
        hidden_size: width of each layer.
        num_layers: number of layers.
        dropout: probability of dropping a unit between two layers.
        memory_span: steps up to which the units of a fresh memory last, see ``rl.cores.memory_span``.
        gate_bias: initial bias of z in all units, whatever the ``memory_span``. Without either it is 0: the memory
            halves in every step; below 0 it fades more slowly.

    Raises:
        ValueError: a size is below 1, or ``dropout`` or ``memory_span`` is out of range.
    """
    layer = partial(MinGRULayer, memory_span=memory_span, gate_bias=gate_bias)
    return build(layer, input_size, hidden_size, num_layers, dropout)
