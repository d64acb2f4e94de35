"""Encoders behind one contract, ``rl.types.FeatureEncoder``. Each takes ``input_shapes`` and its own options."""

from rl.encoders.auto import auto
from rl.encoders.impala import impala
from rl.encoders.mlp import mlp
from rl.encoders.nature import nature
from rl.encoders.plain import plain

__all__ = ["auto", "impala", "mlp", "nature", "plain"]
