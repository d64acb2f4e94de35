"""A device that is not there: tensors that claim to lie on ``shadow:0``, whose numbers a CPU computes.

Like a GPU it refuses an operation on tensors of two devices, and its generators have states of another size than those
of a CPU. So it shows every mix of devices on a machine without one. It notes what is read back to the host, which is
what a GPU would have to be waited for. It is slow, and it knows nothing of the kernels of a GPU.

Claim the device before the first backward pass of a process: torch decides then how many threads it starts.
"""

import sys
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.library import Library
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map

from experiments.benchmark.host_reads import HostReads

aten = torch.ops.aten
HOST = torch.device("cpu")
ON_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
COPIES = ("copy_", "_copy_from", "_copy_from_and_resize", "_to_copy", "set_")

is_possible = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


class ShadowDevice:
    """The device, and what it noted.

    Attributes:
        device: ``shadow:0``.
        reads: the operations that gave numbers to the host, by name.
        uploads: the shapes of what came from the host.
        tape: gets every operation while a ``tests.tape.Tape`` records; None else.
    """

    def __init__(self) -> None:
        backend_registration._setup_privateuseone_for_python_backend("shadow")
        self.device = torch.device("shadow:0")
        self.reads: list[str] = []
        self.uploads: list[tuple[int, ...]] = []
        self.tape: list[tuple[Any, ...]] | None = None
        # by address: the storage that claims to lie here, and the one on the CPU
        self.storages: dict[int, tuple[Any, Any]] = {}
        self.fallback = Library("_", "IMPL")
        self.fallback.fallback(self.run, "PrivateUse1")
        self.cells = Library("aten", "IMPL")  # what torch has for GPUs alone
        self.cells.impl("_thnn_fused_gru_cell", gru_cell, "CPU")
        self.cells.impl("_thnn_fused_gru_cell_backward", gru_cell_backward, "CPU")
        self.cells.impl("_thnn_fused_lstm_cell", lstm_cell, "CPU")
        self.cells.impl("_thnn_fused_lstm_cell_backward_impl", lstm_cell_backward, "CPU")
        self.convolutions = Library("aten", "IMPL")
        self.convolutions.impl("convolution_overrideable", partial(self.run, aten.convolution.default), "PrivateUse1")
        self.convolutions.impl("convolution_backward_overrideable", self.convolution_backward, "PrivateUse1")
        for module in [*sys.modules.values()]:  # torch has no other way to give a device of Python generators
            if vars(module).get("Generator") is Generator and module.__name__ != __name__:
                module.Generator = ShadowGenerator
        self.deepcopy, self.storage_to = Tensor.__deepcopy__, torch.UntypedStorage.to
        Tensor.__deepcopy__ = lambda tensor, memo: self.copy_deeply(tensor, memo)
        torch.UntypedStorage.to = lambda storage, *args, **options: self.move_storage(storage, *args, **options)

    def run(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute one operation of torch on the CPU, with tensors that share the memory of those given."""
        name = operation.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        ours = [leaf for leaf in tensors if leaf.device.type == "shadow"]
        if name in ("copy_", "_copy_from"):
            source, to = args[:2] if name == "_copy_from" else args[1::-1]
            return self.copy(source, to, name)
        if name not in COPIES and ours and any(leaf.device.type != "shadow" and leaf.dim() for leaf in tensors):
            raise RuntimeError(
                f"{operation}: tensors on two devices: {[(*leaf.shape, leaf.device) for leaf in tensors]}"
            )
        indices = tree_leaves(args[1]) if name.startswith("index") else []  # values may be bool, too
        by_mask = any(isinstance(leaf, Tensor) and leaf.dtype == torch.bool and leaf.dim() for leaf in indices)
        if name in HostReads.OPERATIONS or by_mask:
            self.note(self.reads, name)
        if name == "set_" and not isinstance(args[1], Tensor):
            return operation.redispatch(ON_CPU, *args)
        wanted = kwargs.get("device")
        stays = bool(ours) if wanted is None else torch.device(wanted).type == "shadow"
        if wanted is not None:
            kwargs = {**kwargs, "device": HOST}
        given: dict[int, tuple[Tensor, Tensor]] = {}  # by identity of the tensor on the CPU: the one given, and itself

        def lower(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or leaf.device.type != "shadow":
                return leaf
            low = self.on_host(leaf)
            given[id(low)] = leaf, low
            return low

        def lift(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return given[id(leaf)][0] if id(leaf) in given else self.claim(leaf) if stays else leaf

        args, kwargs = tree_map(lower, (args, kwargs))
        args = with_tensors(operation, args)
        result = operation(*args, **kwargs)
        if self.tape is not None:
            self.tape.append((operation, args, kwargs, result))
        for claimed, low in given.values():  # an argument that takes the result may have grown
            if low.shape != claimed.shape or (low.numel() and low.data_ptr() != claimed.data_ptr()):
                self.point(claimed, low)
        return tree_map(lift, result)

    def copy(self, source: Tensor, to: Tensor, name: str) -> Tensor:
        """Copy between devices, or on this one."""
        if to.device.type == "cpu":
            self.note(self.reads, name)
        elif source.device.type == "cpu":
            self.note(self.uploads, tuple(source.shape))
        pair = self.on_host(to), self.on_host(source)
        aten.copy_.default(*pair)
        if self.tape is not None:
            self.tape.append((aten.copy_.default, pair, {}, pair[0]))
        return to

    def note(self, notes: list[Any], value: Any) -> None:
        """Note what passes between host and device, which a recording cannot hold."""
        if self.tape is not None:
            raise RuntimeError(f"{value} passes between host and device while a graph is recorded")
        notes.append(value)

    def convolution_backward(self, by_y: Tensor, x: Tensor, weight: Tensor, *options: Any) -> tuple[Tensor, ...]:
        """Go back through a convolution with a bias."""
        return self.run(aten.convolution_backward.default, by_y, x, weight, [weight.shape[0]], *options)

    def copy_deeply(self, tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        """Do what torch does by asking the device for a storage, which this one cannot give."""
        if tensor.device.type != "shadow":
            return self.deepcopy(tensor, memo)
        if id(tensor) not in memo:
            made = (
                torch.nn.Parameter(tensor.detach().clone())
                if isinstance(tensor, torch.nn.Parameter)
                else tensor.clone()
            )
            memo[id(tensor)] = made.requires_grad_(tensor.requires_grad)
        return memo[id(tensor)]

    def move_storage(self, storage: Any, device: Any, *args: Any, **options: Any) -> Any:
        """Do the same where a file is read onto this device."""
        if torch.device(device).type != "shadow":
            return self.storage_to(storage, device, *args, **options)
        return torch.empty(0, dtype=torch.uint8).set_(storage).to(self.device).untyped_storage()

    def on_host(self, tensor: Tensor) -> Tensor:
        """Return a tensor on the CPU with the memory of this one."""
        if tensor.device.type == "cpu":
            return tensor
        storage = tensor.untyped_storage()
        host = self.storages[storage.data_ptr()][1] if storage.nbytes() else torch.UntypedStorage(0)
        return torch.empty(0, dtype=tensor.dtype).set_(host, tensor.storage_offset(), tensor.shape, tensor.stride())

    def claim(self, tensor: Tensor) -> Tensor:
        """Return a tensor of this device with the memory of one on the CPU."""
        with torch.inference_mode(False):
            if not tensor.untyped_storage().nbytes():
                return torch._C._acc.create_empty_tensor(tuple(tensor.shape), tensor.dtype)
            made = torch._C._acc.create_empty_tensor((0,), tensor.dtype)
            self.point(made, tensor)
            return made

    def point(self, claimed: Tensor, tensor: Tensor) -> None:
        """Make ``claimed``, of this device, a view of the memory of a tensor on the CPU."""
        host = tensor.untyped_storage()
        address = host.data_ptr()
        known = self.storages.get(address)
        if known is None or known[1].data_ptr() != address:  # one that grew has moved away
            ours = torch._C._construct_storage_from_data_pointer(address, self.device, host.nbytes())
            self.storages[address] = ours, host  # kept, so that no address is used twice
        view = tensor.storage_offset(), tensor.shape, tensor.stride()
        aten.set_.source_Storage_storage_offset.redispatch(ON_CPU, claimed, self.storages[address][0], *view)


def with_tensors(operation: Any, args: tuple[Any, ...]) -> list[Any]:
    """Turn numbers back into the tensors that ``operation`` takes; torch made numbers of those that it had made."""
    kinds = [str(argument.type) for argument in operation._schema.arguments]
    pairs = zip(args, kinds, strict=False)
    return [
        torch.tensor(value) if kind == "Tensor" and isinstance(value, (int, float)) else value for value, kind in pairs
    ]


class ShadowGenerator(Generator):
    """A generator of any device. Those of this one draw as a CPU does, but their states have 16 bytes, as on a GPU."""

    states: ClassVar[list[Tensor]] = []

    def __new__(cls, device: Any = "cpu") -> "ShadowGenerator":
        made = super().__new__(cls, "cpu")
        made.claimed = torch.device(device)
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return self.claimed

    def get_state(self) -> Tensor:
        """Return its state, on the CPU like that of any generator."""
        state = super().get_state()
        if self.claimed.type != "shadow":
            return state
        self.states.append(state)
        return torch.tensor([len(self.states) - 1, 0]).view(torch.uint8)

    def set_state(self, state: Tensor) -> "ShadowGenerator":
        """Take a state back; one of another device has another size."""
        if self.claimed.type == "shadow":
            if state.shape != (16,):
                raise RuntimeError(f"RNG state is wrong size: {tuple(state.shape)}")
            state = self.states[int(state.view(torch.int64)[0])]
        return super().set_state(state)


def gru_cell(of_x: Tensor, of_h: Tensor, h: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> tuple[Tensor, Tensor]:
    """Take the step of ``torch.gru_cell`` after its two products; the second result is for a backward pass."""
    (r_x, z_x, n_x), (r_h, z_h, n_h) = (of_x + bias_ih).chunk(3, 1), (of_h + bias_hh).chunk(3, 1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return n + z * (h - n), torch.cat([r, z, n, h, n_h], 1)


def gru_cell_backward(by_h: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor, ...]:
    """Go back through ``gru_cell``: the gradients of both products, of h and of the biases."""
    r, z, n, h, n_h = kept.chunk(5, 1)
    of_n = by_h * (1 - z) * (1 - n**2)
    of_r, of_z = of_n * n_h * r * (1 - r), by_h * (h - n) * z * (1 - z)
    of_x, of_h = torch.cat([of_r, of_z, of_n], 1), torch.cat([of_r, of_z, of_n * r], 1)
    biases = (of_x.sum(0), of_h.sum(0)) if has_bias else (of_x.new_zeros(0), of_x.new_zeros(0))
    return of_x, of_h, by_h * z, *biases


def lstm_cell(
    of_x: Tensor, of_h: Tensor, c: Tensor, bias_ih: Tensor | None = None, bias_hh: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the step of ``torch.lstm_cell`` after its two products; the third result is for the backward pass."""
    gates = of_x + of_h if bias_ih is None else of_x + of_h + bias_ih + bias_hh
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    after = f * c + i * g
    return o * after.tanh(), after, torch.cat([i, f, g, o], 1)


def lstm_cell_backward(
    by_h: Tensor | None, by_c: Tensor | None, c: Tensor, after: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Go back through ``lstm_cell``: the gradients of the gates, of c and of the biases."""
    i, f, g, o = gates.chunk(4, 1)
    squashed = after.tanh()
    by_h = torch.zeros_like(after) if by_h is None else by_h
    total = by_h * o * (1 - squashed**2) + (0 if by_c is None else by_c)
    parts = total * g * i * (1 - i), total * c * f * (1 - f), total * i * (1 - g**2), by_h * squashed * o * (1 - o)
    of_gates = torch.cat(parts, 1)
    return of_gates, total * f, of_gates.sum(0) if has_bias else of_gates.new_zeros(0)
