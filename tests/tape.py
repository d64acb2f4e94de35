"""A recording of the operations on the device that is not there, as a CUDA graph is one of those on a GPU.

Like a graph it works on the same memory each time, and all numbers of Python are those of the recording; reading a
number back or sending one ends it.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class Tape:
    """In place of ``rl.graphs.Recording``.

    Attributes:
        shadow: the device; set it first.
        made: all of them, oldest first.
        replays: how often any was replayed.
    """

    shadow: ClassVar[Any] = None
    made: ClassVar[list["Tape"]] = []
    replays: ClassVar[int] = 0

    def __init__(self, function: Any, inputs: dict[str, Tensor], generators: Any):
        self.inputs = {name: leaf.clone() for name, leaf in inputs.items()}
        self.shadow.tape = tape = []
        try:
            self.outputs = function(self.inputs)  # unlike CUDA this computes them, so the first replay does not
        finally:
            self.shadow.tape = None
        self.steps = tape
        self.is_fresh = True
        self.made.append(self)

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replay it."""
        for name, leaf in inputs.items():
            self.inputs[name].copy_(leaf)
        with torch.no_grad():
            for operation, args, kwargs, result in [] if self.is_fresh else self.steps:
                again = operation(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)
        Tape.replays += not self.is_fresh
        self.is_fresh = False
        return {name: leaf.clone() for name, leaf in self.outputs.items()}
