"""Frames that are seen again and again are encoded once."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rl.types import Observation

MAX_BYTES = 4096
"""The most bytes of an observation that is looked up: larger frames, of games and cameras, hardly ever repeat."""

MAX_SHARE = 0.75
"""The largest share of distinct observations with which looking them up pays."""


def encode_distinct(encode: Callable[[Observation], Tensor], obs: Observation) -> Tensor:
    """Encode a batch of observations, each distinct one once.

    In a grid world most frames of a minibatch are equal to others of it, to the bit, and a convolution costs hundreds
    of times what it takes to find that out. The features are those of ``encode(obs)``; in the backward pass the
    gradients of equal frames are added up before the encoder sees them.

    Args:
        encode: leaves ``[N, ...]`` -> features ``[N, D]``, each row from its own observation alone.
        obs: leaves ``[N, ...]`` on the CPU.

    Returns:
        Features ``[N, D]``.
    """
    rows = [np.ascontiguousarray(leaf.numpy()).reshape(len(leaf), -1).view(np.uint8) for leaf in obs.values()]
    table = np.concatenate(rows, axis=1) if len(rows) > 1 else rows[0]  # [N, bytes]
    if table.shape[1] > MAX_BYTES:
        return encode(obs)
    codes = table.view(f"V{table.shape[1]}").ravel()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    if len(first) > MAX_SHARE * len(codes):
        return encode(obs)
    chosen = torch.from_numpy(first)
    features = encode({name: leaf.index_select(0, chosen) for name, leaf in obs.items()})
    return features.index_select(0, torch.from_numpy(inverse))
