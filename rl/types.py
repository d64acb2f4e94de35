"""The conventions of this code base. They stand here and nowhere else.

Axes:
    Tensors are time-major, ``[T, B, ...]``: ``T`` time steps, ``B`` environments or sequences, ``L`` steps of one
    sequence, ``N`` sequences of one minibatch, ``D`` input features, ``H`` hidden units, ``A`` actions, ``P``
    distribution parameters. A trailing comment gives the shape wherever an axis appears, disappears or moves.

Words:
    ``obs actions log_probs logits values rewards advantages returns entropy``; the prefixes ``old_`` (under the
    behaviour weights), ``next_``, ``last_`` and ``mb_`` (one minibatch).

Flags:
    ``terminated`` (the task ended: the future is worth zero) and ``truncated`` (it was cut: the future is worth
    ``V(final observation)``) are kept apart everywhere. When both are set, termination wins.
    ``starts[t]`` says that ``obs[t]`` opens an episode: memory is cleared before that step. No ``done`` is stored.

Alignment:
    ``state[t]`` is the state **before** ``obs[t]`` and before the clearing that ``starts[t]`` asks for. So a chunk that
    begins at ``t0`` is replayed from ``state[t0]``, ``starts[t0:t0+L]``, ``obs[t0:t0+L]`` and nothing else.

Dtypes:
    Flags are bool, discrete actions int64, observations keep their own dtype until the encoder (uint8 images stay
    uint8 in the buffer), everything else is float32.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, device, nn

State = dict[str, Tensor]
"""The memory of a core: named leaves, each batch-leading ``[B, layers, ...]``; empty for a core without memory."""

Observation = dict[str, Tensor]
"""An observation as named leaves, one for each elementary space inside its space: ``[..., *leaf shape]``."""


class Core(Protocol):
    """A memory. The four members below are all that the rest of the code base knows of it.

    ``step`` and ``unroll`` compute the same function: unrolling ``T`` steps equals ``T`` calls of ``step``, in value
    and gradient, with episode starts anywhere; nothing and no gradient crosses a start. What they are given they leave
    as it is: the state before a step is stored and handed on.
    """

    output_size: int

    def initial_state(self, batch_size: int, device: device | str | None = None) -> State:
        """Make the state of ``batch_size`` fresh memories: leaves ``[B, layers, ...]``."""

    def step(self, x: Tensor, state: State, starts: Tensor | None) -> tuple[Tensor, State]:
        """Take one step: ``x [B, D]``, ``starts [B]`` bool (None: no start) -> output ``[B, H]`` and the next state."""

    def unroll(self, x: Tensor, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run a sequence: ``x [T, B, D]``, ``starts [T, B]`` bool -> outputs ``[T, B, H]``, the state after step T.

        ``starts`` lies on the device of ``x``. On a CPU a core may look at it; elsewhere that would mean to wait.
        """


@runtime_checkable
class GatedCore(Core, Protocol):
    """A memory that shows its gates, for ``diagnostics/gate_saturation`` alone: a core need not."""

    def gates(self, x: Tensor, state: State, starts: Tensor) -> Tensor:
        """Compute all gates, 0 to 1, in one step: ``x [B, D]``, ``starts [B]`` bool on its device -> ``[B, gates]``."""


class FeatureEncoder(Protocol):
    """What stands between an observation and the memory: a ``torch.nn.Module`` with the two members below.

    It is made by ``encoder(input_shapes)``, a dict of the shapes of the leaves, and is given them prepared, as float32
    ``[N, *shape]``: an image as ``(C, H, W)``, frames and channels first, scaled to 0 ... 1 and then normalised by
    channel; a Discrete or MultiDiscrete leaf one-hot, ``(D,)``; numbers and bits flattened, ``(D,)``, scaled by their
    bounds, and normalised if the agent is to. The mask of the actions is no leaf of it; the previous action and reward
    are, if they are fed.

    Each row is encoded from its own observation alone, and equally in every call: what acts and what is replayed must
    be the same function, so dropout and batch normalisation have no place in it. It reads nothing back to the host.
    """

    output_size: int

    def __call__(self, obs: Observation) -> Tensor:
        """Encode leaves ``[N, *shape]`` as features ``[N, output_size]``, float32."""


class Actor(Protocol):
    """Plays B environments with weights that stay as they are and with memories of its own."""

    def act(self, observation: Any, greedy: bool = False) -> np.ndarray:
        """Choose actions ``[B, ...]``, as a vector environment takes them, for an observation ``[B, ...]``."""

    def observe(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """Take in what came of the last ``act``: ``rewards [B]``, and where episodes ``ended [B]``."""

    def reset(self) -> None:
        """Begin an episode in every environment; without ``observe`` the memories go on until then."""


class Agent(Protocol):
    """A learner in the batched form. This is all that trainer, evaluation, recordings and export know of it.

    One iteration of training is ``num_steps`` times ``act``, a step of the environments, ``observe``; then ``learn``.
    """

    num_envs: int
    num_steps: int
    device: device
    model_name: str

    @property
    def training(self) -> bool:
        """False plays without storing or learning."""

    @training.setter
    def training(self, value: bool) -> None: ...

    @property
    def network(self) -> nn.Module:
        """All that has weights: one network, or those of a population by name."""

    @property
    def num_parameters(self) -> int:
        """Numbers that are learned."""

    @property
    def env_steps(self) -> int:
        """Steps of all environments learned from so far."""

    @property
    def last_metrics(self) -> dict[str, float]:
        """Results of the last update by metric name."""

    def act(self, observation: Any) -> Any:
        """Choose actions ``[B, ...]``, as a vector environment takes them; the step waits for ``observe``."""

    def observe(
        self, rewards: Any, terminated: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """Take in what came of the last ``act``, ``[B]`` each; final observations are read where ``truncated``."""

    def learn(self, next_observation: Any = None) -> float:
        """Learn from what was collected, if there is enough; return the mean loss, 0 if there was not."""

    def reset(self) -> None:
        """Close unfinished episodes as truncations and clear the memories."""

    def new_actor(self, num_envs: int, seed: int | None = None, memory: bool = True) -> Actor:
        """Make an actor in ``num_envs`` other environments with the same weights."""

    def describe(self) -> list[str]:
        """Say how each leaf of an observation is encoded and what the actions are, a line for each."""

    def state_dict(self) -> dict[str, Any]:
        """Collect all that training needs to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave."""

    def save(self, path: str | Path) -> None:
        """Write a checkpoint."""

    def load(self, path: str | Path) -> None:
        """Read a checkpoint."""


@dataclass
class Played:
    """A rollout as a trainer sees it.

    Attributes:
        obs: what the environments show now, leaves ``[B, ...]``.
        rewards: ``[T, B]`` on the device.
        ended: ``[T, B]`` bool on the device, where an episode was over after the step.
    """

    obs: Observation
    rewards: Tensor
    ended: Tensor


@runtime_checkable
class TensorAgent(Protocol):
    """An agent that plays whole rollouts in environments of tensors on its device."""

    def collect(self, envs: Any, observation: Any) -> Played:
        """Play a rollout from an ``observation [B, ...]``."""


@dataclass
class Sequences:
    """A minibatch of ``N`` sequences of ``L`` steps, cut from a rollout.

    Attributes:
        obs: leaves ``[L, N, ...]``.
        state: the stored state before the first step, leaves ``[N, ...]``.
        starts: ``[L, N]`` bool.
        actions: ``[L, N, ...]``.
        old_log_probs: ``[L, N, branches]`` under the behaviour weights.
        old_values: ``[L, N]`` under the behaviour weights.
        advantages: ``[L, N]``.
        returns: ``[L, N]``.
        teacher_params: ``[L, N, P]`` distribution parameters of a teacher; None without one.
    """

    obs: Observation
    state: State
    starts: Tensor
    actions: Tensor
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    teacher_params: Tensor | None = None


@dataclass
class ReplayBatch:
    """A minibatch of ``N`` sequences of ``M`` entries of a replay, oldest first.

    Attributes:
        obs: leaves ``[M, N, ...]``.
        state: the stored state before the first entry, leaves ``[N, ...]``.
        actions: ``[M, N, branches]``.
        rewards: ``[M, N]``.
        starts: ``[M, N]`` bool: the entry opens an episode.
        terminated: ``[M, N]`` bool: the episode terminated in this step.
        final: ``[M, N]`` bool: the entry is no step, only what was observed when its episode was cut.
        slots: ``[N]``, where the sequences stand, for their priorities.
        weights: ``[N]``, which correct for drawing some sequences more often than others.
    """

    obs: Observation
    state: State
    actions: Tensor
    rewards: Tensor
    starts: Tensor
    terminated: Tensor
    final: Tensor
    slots: Tensor
    weights: Tensor


@dataclass
class Targets:
    """The numbers of a rollout that its losses compare with.

    Attributes:
        old_log_probs: ``[T, B, branches]`` under the behaviour weights.
        old_values: ``[T, B]`` under the behaviour weights.
        advantages: ``[T, B]``.
        returns: ``[T, B]``.
        teacher_params: ``[T, B, P]``, the distribution parameters of a teacher; None without one.
    """

    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    teacher_params: Tensor | None = None


@dataclass
class WarmUp:
    """Steps to replay without loss in front of sequences, to warm their state with the current weights (burn-in).

    Attributes:
        obs: leaves ``[k, N, ...]`` of the k steps before.
        state: before the first of them, leaves ``[N, ...]``.
        starts: ``[k, N]`` bool.
        available: ``[N]`` bool; False for sequences that open the rollout, which have nothing in front of them.
    """

    obs: Observation
    state: State
    starts: Tensor
    available: Tensor


@dataclass
class CutEpisodes:
    """Episodes that were cut in mid-play, and what V of their future needs.

    Attributes:
        step: of the rollout, after which they were cut.
        env_ids: ``[K]``, the environments that played them.
        obs: what followed the last action, leaves ``[K, ...]``.
        state: of the memories then, leaves ``[K, ...]``.
    """

    step: int
    env_ids: np.ndarray
    obs: Observation
    state: State
