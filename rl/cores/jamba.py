"""Layers of state space models and of attention on one stream (Lieber et al., 2024, "Jamba"; without experts)."""

from rl.cores.attention import AttentionLayer, check_window
from rl.cores.mamba import MambaLayer, check_kernel
from rl.cores.residual import Residual, check


def jamba(
    input_size: int,
    hidden_size: int = 128,
    num_layers: int = 3,
    dropout: float = 0.0,
    attention_every: int = 3,
    window_size: int = 32,
    num_heads: int = 2,
    state_size: int = 16,
    kernel_size: int = 4,
    expand: int = 2,
) -> Residual:
    """Every ``attention_every``-th layer attends, the others are mamba: by default mamba, mamba, attention.

    State ``{"conv", "ssm", "keys", "values", "age"}``: the leaves of the two kinds, each over the layers of its kind.
    Store it once for each sequence, ``state_stride`` = ``bptt``.

    Raises:
        ValueError: as :func:`rl.cores.attention.attention` and :func:`rl.cores.mamba.mamba`.
    """
    check(
        "jamba",
        dropout,
        input_size=input_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        attention_every=attention_every,
        window_size=window_size,
        num_heads=num_heads,
        state_size=state_size,
        kernel_size=kernel_size,
        expand=expand,
    )
    check_window(hidden_size, window_size, num_heads)
    check_kernel(kernel_size)
    layers = [
        AttentionLayer(hidden_size, window_size, num_heads)
        if index % attention_every == attention_every - 1
        else MambaLayer(hidden_size, state_size, kernel_size, expand)
        for index in range(num_layers)
    ]
    return Residual(input_size, hidden_size, layers)
