"""Layers of state space models and of attention on one stream (Lieber et al., 2024, "Jamba"; without experts)."""

from rl.checks import positive
from rl.cores.attention import AttentionLayer, check_window
from rl.cores.dropout import refuse_dropout
from rl.cores.mamba import MambaLayer, check_kernel
from rl.cores.memory_span import SLOWEST, window_of
from rl.cores.residual import Residual


def jamba(
    input_size: int,
    hidden_size: int = 128,
    num_layers: int = 3,
    dropout: float = 0.0,
    attention_every: int = 3,
    memory_span: float | None = None,
    window_size: int | None = None,
    num_heads: int = 2,
    state_size: int = 16,
    kernel_size: int = 4,
    expand: int = 2,
) -> Residual:
    """Build layers of which every ``attention_every``-th attends and the others are mamba.

    By default these are mamba, mamba, attention. State ``{"conv", "ssm", "keys", "values", "age"}``: the leaves of the
    two kinds, each over the layers of its kind. Rollouts store it once for each sequence.

    Args:
        input_size: features of the input.
        hidden_size: width of each layer.
        num_layers: number of layers of both kinds together.
        dropout: must be 0; it is an argument so that cores can be swapped.
        attention_every: 1 for attention alone, more than ``num_layers`` for mamba alone.
        memory_span: steps that a fresh mamba layer remembers, and that attention sees if ``window_size`` is not given.
        window_size: steps that an attention layer sees, the present one included; 32 if neither is given.
        num_heads: heads of an attention layer, a divisor of ``hidden_size``.
        state_size: numbers for each channel of a mamba layer.
        kernel_size: steps that the convolution of a mamba layer sees, the present one included.
        expand: channels of a mamba layer in multiples of ``hidden_size``.

    Raises:
        ValueError: as ``rl.cores.attention.attention`` and ``rl.cores.mamba.mamba``.
    """
    window = window_of(window_size, memory_span)
    positive(
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        attention_every=attention_every,
        window_size=window,
        num_heads=num_heads,
        state_size=state_size,
        kernel_size=kernel_size,
        expand=expand,
    )
    check_window(hidden_size, window, num_heads)
    check_kernel(kernel_size)
    refuse_dropout("jamba", dropout)
    layers = [
        AttentionLayer(hidden_size, window, num_heads)
        if index % attention_every == attention_every - 1
        else MambaLayer(hidden_size, state_size, kernel_size, expand, memory_span or SLOWEST)
        for index in range(num_layers)
    ]
    return Residual(input_size, hidden_size, layers)
