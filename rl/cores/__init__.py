"""Memories behind one contract, :class:`rl.types.Core`. Each constructor takes ``input_size`` and its own options."""

from rl.cores.gru import gru
from rl.cores.lstm import lstm
from rl.cores.mlp import mlp
from rl.cores.rnn import rnn

__all__ = ["gru", "lstm", "mlp", "rnn"]
