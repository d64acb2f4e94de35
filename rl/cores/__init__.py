"""Memories behind one contract, ``rl.types.Core``. Each constructor takes ``input_size`` and its own options."""

from rl.cores.attention import attention
from rl.cores.gru import gru
from rl.cores.jamba import jamba
from rl.cores.lstm import lstm
from rl.cores.mamba import mamba
from rl.cores.mingru import mingru
from rl.cores.mlp import mlp
from rl.cores.rnn import rnn

__all__ = ["attention", "gru", "jamba", "lstm", "mamba", "mingru", "mlp", "rnn"]
