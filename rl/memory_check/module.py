"""Any module with explicit state as what is checked: ``model(obs, state, start) -> (output, state)``."""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.memory_check.check import check_model
from rl.memory_check.comparing import BOUND, draw_sequences, measure_difference
from rl.memory_check.generators import own_draws
from rl.memory_check.nesting import describe, flatten, rebuild
from rl.memory_check.subject import Inputs
from rl.memory_check.verdicts import Verdict
from rl.types import Observation, State

SAMPLES = 256
"""So many observations are drawn from a space."""

ROWS, STEPS = 5, 3
OBS = "obs"
"""Name of an observation that is a single tensor."""

Call = Callable[[Any, Any, Tensor], tuple[Any, Any]]


def check_memory_of_module(
    model: Call,
    observations: spaces.Space | Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    initial_state: Callable[[int], Any] | None = None,
    unroll: Call | None = None,
    *,
    batch_first: bool = False,
    start_dtype: torch.dtype = torch.bool,
    bptt: int | None = None,
    seed: int = 0,
) -> list[Verdict]:
    """Check the memory of any module: resets, gradients, rows on their own, sequences against single steps.

    A copy of the module is called, in the mode (``train`` or ``eval``) that it is in. A plain function cannot be
    copied, so what it keeps elsewhere may change. Nothing needs to be said about the axes of the state: states of 2 and
    of 3 rows show which of them is the batch.

    Args:
        model: called as ``model(obs [B, ...], state, start [B])`` for one step of B rows; returns the output and the
            next state. The output: a tensor ``[B, ...]``, or tuples or dicts of them. ``start`` says which rows begin
            an episode, so that their memory is cleared before this step.
        observations: a space (Box, Discrete, MultiBinary, MultiDiscrete, or a Dict of them), or real observations
            ``[n, ...]``, n >= 2: a tensor, or a dict of tensors if the module takes a dict.
        initial_state: ``initial_state(B)`` makes the state of fresh memories: a tensor, or tuples or dicts of tensors,
            each with B rows on one of its axes. None: ``model.initial_state``.
        unroll: the same for a whole sequence, ``unroll(obs [T, B, ...], state, start [T, B])``, to be compared with
            single steps; ``model`` itself if it takes both. None: there is none.
        batch_first: ``unroll`` takes and returns ``[B, T, ...]``.
        start_dtype: of ``start``: ``torch.float32`` for modules that compute ``state * (1 - start)``.
        bptt: steps of the sequences that it is to be trained on, for the advice; None for any.
        seed: of the draws.

    Returns:
        What was found about the interface, then the verdicts of ``rl.memory_check.check_model``.

    Raises:
        ValueError: the module does not fit; the message says what it was called with and what is allowed.
    """
    if not callable(model):
        raise ValueError(f"model={model!r}: it must be callable as model(obs, state, start)")
    initial_state = initial_state or getattr(model, "initial_state", None)
    if initial_state is None:
        raise ValueError("initial_state=None: it must be a function of the batch size, for the model has none")
    device = next((leaf.device for leaf in model.parameters()), None) if isinstance(model, nn.Module) else None
    samples = read_observations(observations, seed, device)
    with own_draws(seed):
        try:
            model, initial_state, unroll = deepcopy((model, initial_state, unroll))
        except (TypeError, RuntimeError) as error:
            raise ValueError(f"model={type(model).__name__}: it must be one that can be copied ({error})") from error
        subject = ModuleSubject(model, initial_state, unroll, [*samples] == [OBS], batch_first, start_dtype)
        verdicts = [subject.check_fit(samples), *check_model(subject, samples, bptt, seed)]
    if unroll is None:
        what = "not judged: without `unroll` sequences are their single steps"
        verdicts = [Verdict(*v[:1], None, what, "", {}) if v.check == "unroll_equals_step" else v for v in verdicts]
    return verdicts


def read_observations(
    observations: spaces.Space | Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    seed: int,
    device: torch.device | None,
) -> Inputs:
    """Return samples, leaves ``[n, ...]``; a single tensor is named ``obs``.

    Args:
        observations: a space, a batch or a dict of batches.
        seed: of the draws from a space.
        device: of the samples; None for where they are.

    Raises:
        ValueError: they are none of these, or too few.
    """
    if isinstance(observations, spaces.Space):
        space = deepcopy(observations)
        space.seed(seed)
        drawn = [space.sample() for _ in range(SAMPLES)]
        observations = _stack(space, drawn)
    named = observations if isinstance(observations, Mapping) else {OBS: observations}
    leaves = {}
    for name, leaf in named.items():
        if not isinstance(leaf, (Tensor, np.ndarray)):
            raise ValueError(f"observations: {name} is {type(leaf).__name__}: it must be a tensor, an array or a space")
        tensor = torch.as_tensor(leaf).detach()
        leaves[name] = tensor.to(device or tensor.device)
    counts = {name: len(leaf) if leaf.dim() else 0 for name, leaf in leaves.items()}
    if min(counts.values(), default=0) < 2 or len({*counts.values()}) > 1:
        raise ValueError(f"observations of {counts} rows: they must be at least 2, and as many in each leaf")
    return leaves


def _stack(space: spaces.Space, drawn: list[Any]) -> Any:
    """Stack samples of a space; floats become float32."""
    if isinstance(space, spaces.Dict):
        return {name: _stack(part, [sample[name] for sample in drawn]) for name, part in space.items()}
    if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)):
        raise ValueError(f"observations={space}: they must be Box, Discrete, MultiBinary or MultiDiscrete, or a Dict")
    stacked = np.stack(drawn)
    return stacked.astype(np.float32) if stacked.dtype == np.float64 else stacked


class ModuleSubject:
    """A bare module as a subject; its inputs are the observations themselves.

    Args:
        model: takes one step.
        initial_state: of the batch size.
        unroll: takes sequences; None: they are taken step by step.
        single: the observation is one tensor, no dict.
        batch_first: ``unroll`` has the batch in front of the time.
        start_dtype: of ``start``.

    Attributes:
        axes: of the batch, in each leaf of the state.
    """

    name = "the module"

    def __init__(
        self,
        model: Call,
        initial_state: Callable[[int], Any],
        unroll: Call | None,
        single: bool,
        batch_first: bool,
        start_dtype: torch.dtype,
    ):
        self.model, self.make_state, self.unroll_model = model, initial_state, unroll
        self.single, self.batch_first, self.start_dtype = single, batch_first, start_dtype
        self.template = initial_state(2)
        self.axes = find_batch_axes(flatten(self.template, "state"), flatten(initial_state(3), "state"))

    def parameters(self) -> Iterable[Tensor]:
        """Return the weights, if it is a module."""
        return self.model.parameters() if isinstance(self.model, nn.Module) else []

    def initial_state(self, batch_size: int) -> State:
        """Make the state of fresh memories, the batch in front."""
        return self._bring_forward(flatten(self.make_state(batch_size), "state"))

    def encode(self, obs: Observation) -> Inputs:
        """Return the observations."""
        return obs

    def step(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Take one step; all that the module gives stands side by side in the outputs."""
        return self._call(self.model, "model", inputs, state, starts)

    def unroll(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run sequences, by single steps if the module has nothing else."""
        if self.unroll_model is not None:
            return self._call(self.unroll_model, "unroll", inputs, state, starts)
        outputs = []
        for t in range(len(starts)):
            output, state = self.step({name: leaf[t] for name, leaf in inputs.items()}, state, starts[t])
            outputs.append(output)
        return torch.stack(outputs), state

    def _call(self, function: Call, name: str, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Call the module in its own form; ``starts [B]`` or ``[T, B]``."""
        swap = self.batch_first and starts.dim() == 2
        lead = [*starts.shape]
        leaves = [*inputs.values()]
        device = leaves[0].device
        inputs, starts = {key: turn(leaf, swap) for key, leaf in inputs.items()}, turn(starts, swap)
        obs: Any = inputs[OBS] if self.single else inputs
        own = rebuild(self.template, (leaf.movedim(0, self.axes[key]) for key, leaf in state.items()))
        flags = starts.to(device, self.start_dtype)
        called = f"{name}(obs {describe(obs)}, state {describe(own)}, start {describe(flags)} {flags.dtype})"
        try:
            result = function(obs, own, flags)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{called} must work, but raises {type(error).__name__}: {reason}") from error
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(f"{called} returns {describe(result)}: it must return (output, state)")
        after = flatten(result[1], "state")
        if {key: leaf.shape for key, leaf in after.items()} != {
            key: leaf.shape for key, leaf in flatten(own, "state").items()
        }:
            raise ValueError(f"{called} returns a state {describe(result[1])}: it must have the form that it was given")
        columns = []
        for leaf in flatten(result[0], "output").values():
            whole = turn(leaf, swap)
            if [*whole.shape[: len(lead)]] != lead:
                raise ValueError(f"{called} returns an output {describe(leaf)}: it must begin with {[*starts.shape]}")
            columns.append(whole.reshape(*lead, -1).float())
        return torch.cat(columns, dim=-1), self._bring_forward(after)

    def _bring_forward(self, state: State) -> State:
        return {name: leaf.movedim(self.axes[name], 0).contiguous() for name, leaf in state.items()}

    @torch.no_grad()
    def check_fit(self, samples: Inputs) -> Verdict:
        """Call the module twice, and report how it was understood.

        Raises:
            ValueError: it does not fit, or gives two answers to the same question.
        """
        inputs, starts = draw_sequences(samples, STEPS, ROWS, torch.Generator()), torch.zeros(STEPS, ROWS) > 0
        state = self.initial_state(ROWS)
        outputs, after = self.unroll(inputs, state, starts)
        if outputs.isnan().any():
            raise ValueError("model: its output must be numbers, but some are NaN")
        again, _ = self.unroll(inputs, self.initial_state(ROWS), starts)
        if not measure_difference(again, outputs) <= BOUND:
            raise ValueError("model: it must give the same output for the same inputs; dropout is off after eval()")
        axes = [*self.axes.values()]
        size = sum(leaf[0].numel() for leaf in after.values())
        what = f"{len(axes)} tensor(s) of {size} numbers a row, the batch on axis {', '.join(map(str, axes))}"
        finding = f"the state is {what if axes else 'empty'}; an output has {outputs.shape[-1]} numbers"
        numbers = {"batch_axes": axes, "state": size, "output": outputs.shape[-1]}
        return Verdict("model_fits", True, finding, "", numbers)


def turn(leaf: Tensor, swap: bool) -> Tensor:
    """Swap the first two axes, or do not."""
    return leaf.transpose(0, 1) if swap else leaf


def find_batch_axes(two: State, three: State) -> dict[str, int]:
    """Find the axis of the batch in each leaf, by states of 2 and of 3 rows.

    Raises:
        ValueError: a leaf has no such axis, or more than one.
    """
    if two.keys() != three.keys():
        raise ValueError(f"initial_state: its parts must be the same for every batch, not {[*two]} and {[*three]}")
    axes = {}
    for name, leaf in two.items():
        shapes = [*leaf.shape], [*three[name].shape]
        found = [axis for axis, sizes in enumerate(zip(*shapes, strict=False)) if sizes == (2, 3)]
        if len(found) != 1 or leaf.dim() != three[name].dim():
            allowed = "one axis must be the batch"
            raise ValueError(f"initial_state: {name} is {shapes[0]} for 2 rows and {shapes[1]} for 3: {allowed}")
        axes[name] = found[0]
    return axes
