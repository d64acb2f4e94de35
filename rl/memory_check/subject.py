"""What is checked: any memory with explicit state (``Subject``), and one that also learns (``Learner``).

An adapter brings a model or an agent into this form; the checks know nothing else of it. All flags (``starts``,
``terminated``, ``truncated``) lie on the CPU; everything else lies on the device of the parameters.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from rl.types import CutEpisodes, Observation, State

Inputs = dict[str, Tensor]
"""What the memory reads of observations, by name: leaves ``[..., D]``; gradients are taken by those that are floats."""


class Subject(Protocol):
    """A memory behind an encoder and in front of heads.

    Attributes:
        name: in words, for sentences.
    """

    name: str

    def parameters(self) -> Iterable[Tensor]:
        """Return all that is learned."""

    def initial_state(self, batch_size: int) -> State:
        """Make the state of fresh memories, leaves ``[B, ...]``; empty for a model without memory."""

    def encode(self, obs: Observation) -> Inputs:
        """Turn observations, leaves ``[..., *shape]``, into what the memory reads; the identity without an encoder."""

    def step(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Take one step as in acting: leaves ``[B, D]``, ``starts [B]`` bool -> outputs ``[B, P]``, the next state."""

    def unroll(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run sequences as in learning: leaves ``[T, B, D]``, ``starts [T, B]`` bool -> ``[T, B, P]``, the last state.

        The outputs are all that the heads give, side by side. Those of a learner end with the value, if it has one.
        """


@dataclass
class Trace:
    """A rollout of T steps in B environments: what was really played, and what the learner made of it.

    Steps that are no transitions (``ignored``) are left out, so that each of the T steps is one.

    Attributes:
        obs: leaves ``[T, B, ...]``.
        inputs: what ``encode`` made of them when the agent acted, leaves ``[T, B, D]``.
        outputs: ``[T, B, P]`` when the agent acted.
        states: of the memories when the agent acted: before step 0, ``stride``, 2 ``stride``, ... and before the
            clearing that a start asks for; leaves ``[ceil(T / stride), B, ...]``.
        stride: steps between two of them; sequences begin at such steps alone.
        opens: ``[T, B]`` bool, whether the observation opens an episode, as the environments told.
        starts: ``[T, B]`` bool, the same as the learner has stored it.
        rewards: ``[T, B]`` as the environments paid them, divided by the learner's scale of rewards if it has one.
        terminated: ``[T, B]`` bool, as the environments told.
        truncated: ``[T, B]`` bool, as the environments told; False where ``terminated``.
        cuts: truncated episodes, each with the observation that the environment really closed it with, under the state
            that followed its last step.
        last: all environments after the last step: the next observation under the state then.
        values: ``[T, B]``, V when the agent acted; None for a learner without V.
        returns: ``[T, B]``, what the learner fits V to; None for a learner without V.
        advantages: ``[T, B]`` of the learner, moved and scaled or not; None for one without V.
        gamma: discount.
        gae_lambda: lambda of the advantages.
        n_step: rewards that a learner of action values adds before the value of what follows; None for any other.
    """

    obs: Observation
    inputs: Inputs
    outputs: Tensor
    states: State
    stride: int
    opens: Tensor
    starts: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    cuts: list[CutEpisodes]
    last: CutEpisodes
    values: Tensor | None = None
    returns: Tensor | None = None
    advantages: Tensor | None = None
    gamma: float = 0.99
    gae_lambda: float = 0.95
    n_step: int | None = None


@dataclass
class Replayed:
    """A minibatch of N sequences of L steps, as an update with unchanged weights replays it.

    Attributes:
        index: ``[L, N]`` int64, ``t * B + b`` of each step in the trace; -1 where a step only fills up.
        state: from which the sequences were unrolled, as it entered the network, leaves ``[N, ...]``.
        starts: ``[L, N]`` bool, as they entered the network.
        outputs: ``[L, N, P]`` of the network.
        ratio: ``[L, N]``, the probability of the action by now over that when it was taken; None where none is used.
        inputs: what the memory read, leaves ``[L, N, D]``, to tell an encoder that has changed; None if not known.
        rewards: ``[L, N]``, the discounted rewards of n steps, of a learner with ``n_step``.
        factors: ``[L, N]``, what the value of what follows them counts with, of a learner with ``n_step``.
    """

    index: Tensor
    state: State
    starts: Tensor
    outputs: Tensor
    ratio: Tensor | None = None
    inputs: Inputs | None = None
    rewards: Tensor | None = None
    factors: Tensor | None = None


class Learner(Subject, Protocol):
    """An agent that collects, replays and learns. It is a copy, which checks may use up.

    Attributes:
        bptt: steps of a replayed sequence at most, so of the gradient through time; None for the whole rollout.
        every_step_once: whether an epoch replays every step exactly once; False where sequences are drawn at random.
    """

    bptt: int | None
    every_step_once: bool

    def collect(self) -> Trace:
        """Play a rollout and compute what would be learned from it, without learning."""

    def replay(self, seed: int) -> list[Replayed]:
        """Go through the minibatches of one epoch as the update does, in the order of ``seed``; weights stay."""

    def update(self) -> None:
        """Learn from the rollout, as in training."""
