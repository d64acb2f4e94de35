"""How much memory tensors take, in words."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

NAMED = 3
"""So many of the largest tensors are named."""


def describe_sizes(what: str, groups: Mapping[str, Mapping[str, Tensor | np.ndarray]]) -> str:
    """Say how many bytes tensors take together, and which of them most: ``what: 12 MB (state 'h' 8.4 MB, ...)``.

    Args:
        what: they are parts of.
        groups: tensors by name; the name of a group, unless it is empty, stands in front of theirs.
    """
    sizes = {
        f"{group} {name!r}" if group else name: tensor.nbytes
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
    }
    largest = sorted(sizes, key=lambda name: -sizes[name])[:NAMED]
    told = ", ".join(f"{name} {in_words(sizes[name])}" for name in largest)
    return f"{what}: {in_words(sum(sizes.values()))} ({told})"


def in_words(size: float) -> str:
    """Write a number of bytes with the unit that leaves it between 1 and 1,000."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
