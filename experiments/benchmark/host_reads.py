"""Count what an update reads from its device, on any machine."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rl.cores import kernels
from rl.networks import actor_critic


class HostReads(TorchDispatchMode):
    """A dispatch mode that counts reads to the host of tensors that would lie on the accelerator.

    On a CPU every tensor looks alike, so the mode follows where the numbers come from: the given ``sources`` (weights,
    stored tensors, targets) and everything computed from them belong to the device. What comes from the starts alone,
    or from the order of the sequences, which is drawn on the CPU, does not; reading that is free.

    Args:
        sources: tensors of the device; None stands for nothing.

    Attributes:
        reads: the calls that read from the device, by name.
        others: the calls that read what lies on the CPU.
    """

    OPERATIONS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim")
    METHODS = ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__", "__index__", "__array__")

    def __init__(self, sources: Iterable[Tensor | None]):
        super().__init__()
        self.kept = [tensor for tensor in sources if tensor is not None]  # alive, so that no storage is used twice
        self.storages = {self._storage(tensor) for tensor in self.kept}
        self.reads: list[str] = []
        self.others: list[str] = []
        self.patches = ExitStack()

    def __enter__(self) -> "HostReads":
        """Begin to count; the ways that are for a CPU alone, where reading is free, are shut."""
        self.patches.enter_context(patch.object(kernels, "has_numba", lambda: False))
        self.patches.enter_context(patch.object(actor_critic, "encode_distinct", lambda encode, obs: encode(obs)))
        for name in self.METHODS:
            self.patches.enter_context(patch.object(Tensor, name, self._spy(name, getattr(Tensor, name))))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """End counting, and give torch its own methods back."""
        super().__exit__(*error)
        self.patches.close()

    def _spy(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def read(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            (self.reads if self._storage(tensor) in self.storages else self.others).append(name)
            return method(tensor, *arguments, **options)

        return read

    @staticmethod
    def _storage(tensor: Tensor) -> int:
        return tensor.untyped_storage().data_ptr()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        """Follow one operation of torch: what reads, and what comes from the device."""
        inputs = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)]
        on_device = any(self._storage(tensor) in self.storages for tensor in inputs)
        name = operation.overloadpacket.__name__
        by_mask = name.startswith("index") and any(i.dtype == torch.bool and i.dim() for i in inputs[1:])
        if name in self.OPERATIONS or by_mask:
            (self.reads if on_device else self.others).append(name)
        result = operation(*arguments, **(options or {}))
        if on_device:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and leaf.numel()]
            self.kept += outputs
            self.storages |= {self._storage(tensor) for tensor in outputs}
        return result
