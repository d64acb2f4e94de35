"""Functions of tensors that are recorded as CUDA graphs, so that a device gets all their kernels in one call."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Generator, Tensor

log = logging.getLogger(__name__)

Tensors = dict[str, Tensor]

MOST = 8
"""Graphs of one function, each for one set of shapes; with more of them it runs plainly."""


class Recorded:
    """A function that, on a CUDA device, is recorded at its second call with the same shapes and replayed from then on.

    What it computes is the same either way, but a replay sees only tensors: the numbers and branches of Python in the
    function are those of the recording. So whatever changes from call to call has to be one of the inputs, or one of
    the ``anchors``.

    The first call runs plainly, which is also how kernels are compiled and libraries made ready. Where a function
    cannot be recorded (it reads a number back, say), the log says so once and it goes on plainly.

    Args:
        function: takes and gives tensors by name; of what it returns no tensor may be one of its inputs.
        anchors: lists what it reads or writes besides its inputs and may be replaced by other tensors: with those the
            recordings do not hold any more.
        generators: that it draws from.
        enabled: False for always plainly.
    """

    def __init__(
        self,
        function: Callable[[Tensors], Tensors],
        anchors: Callable[[], Sequence[Tensor]] = list,
        generators: Sequence[Generator] = (),
        enabled: bool = True,
    ):
        self.function, self.anchors, self.generators, self.enabled = function, anchors, generators, enabled
        self.held: list[Tensor] = []  # the anchors of the recordings
        self.seen: set[tuple] = set()
        self.recordings: dict[tuple, Recording] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the recordings: they hold the places of this function's tensors, and a copy has others."""
        return vars(self) | {"held": [], "seen": set(), "recordings": {}}

    def records(self, device: torch.device) -> bool:
        """Tell whether it would be recorded on ``device``; if not, its caller may as well do without names."""
        return self.enabled and can_record(device)

    def __call__(self, inputs: Tensors) -> Tensors:
        """Compute the function; the outputs are the caller's own."""
        if not self.enabled or not any(can_record(leaf.device) for leaf in inputs.values()):
            return self.function(inputs)
        key = tuple((name, leaf.shape, leaf.dtype) for name, leaf in inputs.items())
        anchors = list(self.anchors())
        if len(anchors) != len(self.held) or any(
            one is not other for one, other in zip(anchors, self.held, strict=True)
        ):
            self.held, self.seen, self.recordings = anchors, set(), {}
        if key not in self.seen:
            self.seen.add(key)
            outputs = self.function(inputs)
            self.held = list(self.anchors())  # the first call may make some
            return outputs
        if key not in self.recordings:
            if len(self.recordings) == MOST:
                return self.function(inputs)
            try:
                self.recordings[key] = Recording(self.function, inputs, self.generators)
            except RuntimeError as error:
                self.enabled = False
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                log.warning("graphs: this cannot be recorded as a CUDA graph, so it runs plainly (%s)", reason)
                return self.function(inputs)
        return self.recordings[key](inputs)


def can_record(device: torch.device) -> bool:
    """Tell whether functions of tensors on ``device`` can be recorded."""
    return device.type == "cuda"


class Recording:
    """A CUDA graph of a function for one set of shapes, with the places of its inputs and outputs."""

    def __init__(self, function: Callable[[Tensors], Tensors], inputs: Tensors, generators: Sequence[Generator]):
        self.inputs = {name: leaf.clone() for name, leaf in inputs.items()}
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.outputs = function(self.inputs)

    def __call__(self, inputs: Tensors) -> Tensors:
        """Replay it."""
        torch._foreach_copy_(list(self.inputs.values()), list(inputs.values()))
        self.graph.replay()
        return {name: leaf.clone() for name, leaf in self.outputs.items()}


def flatten(value: Any, prefix: str = "") -> Tensors:
    """Name all tensors inside dicts and dataclasses: ``part.leaf``; what is None has none."""
    if value is None:
        return {}
    if isinstance(value, Tensor):
        return {prefix: value}
    parts = value if isinstance(value, dict) else {field.name: getattr(value, field.name) for field in fields(value)}
    before = f"{prefix}." if prefix else ""
    return {name: leaf for key, part in parts.items() for name, leaf in flatten(part, f"{before}{key}").items()}


def split(tensors: Tensors, parts: dict[str, Any]) -> dict[str, Any]:
    """Take apart what ``flatten`` named, into the parts and leaves that are asked for."""
    return {part: {name: tensors[f"{part}.{name}"] for name in leaves} for part, leaves in parts.items()}
