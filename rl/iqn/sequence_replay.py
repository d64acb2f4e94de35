"""Replay buffer: one ring of recent steps per environment, sampled as sequences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from rl.schema import check_entry, finite, natural
from rl.types import Observation, State


@dataclass
class ReplayBatch:
    """A minibatch of ``N`` sequences of ``M`` entries of a ``SequenceReplay``, oldest first.

    Attributes:
        obs: leaves ``[M, N, ...]``.
        state: the stored state before the first entry, leaves ``[N, ...]``.
        actions: ``[M, N, branches]``.
        rewards: ``[M, N]``, on the CPU as all flags.
        starts: ``[M, N]`` bool: the entry opens an episode.
        terminated: ``[M, N]`` bool: the episode terminated in this step.
        final: ``[M, N]`` bool: the entry is no step, only what was observed when its episode was cut.
        slots: ``[N]``, where the sequences stand, for their priorities.
        weights: ``[N]`` on the CPU, which correct for drawing some sequences more often than others.
    """

    obs: Observation
    state: State
    actions: Tensor
    rewards: Tensor
    starts: Tensor
    terminated: Tensor
    final: Tensor
    slots: np.ndarray
    weights: Tensor


class SequenceReplay:
    """A replay buffer: rings of ``size`` entries, one for each of B environments, allocated once.

    An entry is a step, or what was observed when an episode was cut. The latter is ``final``: no action counts there,
    it only says what the step before it led to. Where it is not known what a cut step led to, the step itself becomes
    the final entry, so its observation still serves the steps before it. So within an episode the entry after a step
    always holds what followed, and a network that is unrolled over the entries meets every final observation under the
    very state that preceded it. For example, an episode cut after two steps, then the next one::

        obs     o0    o1    o2     o0'   ...
        starts  True  False False  True  ...
        final   False False True   False ...

    States are stored in front of every ``stride``-th entry, where sequences may begin; with a stride below their length
    they overlap. Each number is stored once all the same. Observations, states and actions lie on ``device``, what
    comes from the environment on the CPU.

    Args:
        capacity: entries of all environments together; at least two sequences of each find room.
        length: M, entries of a sequence.
        stride: between the entries at which sequences may begin.
        obs: one batched example ``[B, ...]`` of each leaf, for shapes and dtypes.
        state: one batched example ``[B, ...]`` of each leaf.
        actions: one batched example ``[B, branches]``.
        device: where the tensors lie.

    Attributes:
        written: ``[B]``, entries of each environment since the beginning.
        added: steps of all environments since the beginning.
        priorities: ``[slots]``, for ``minibatches``.
    """

    def __init__(
        self,
        capacity: int,
        length: int,
        stride: int,
        obs: Observation,
        state: State,
        actions: Tensor,
        device: torch.device | str = "cpu",
    ):
        self.num_envs = actions.shape[0]
        self.length, self.stride = length, stride
        self.size = -(-max(capacity // self.num_envs, 2 * length) // stride) * stride
        self.sizes = [self.num_envs, self.size, length, stride]  # a state of rings of others is of no use
        total, slots = self.size * self.num_envs, self.size // stride * self.num_envs

        def allocate(example: Tensor, count: int) -> Tensor:
            return torch.zeros(count, *example.shape[1:], dtype=example.dtype, device=device)

        # Entry t of environment b stands at t * B + b, the state in front of it at slot t / stride * B + b.
        self.obs = {name: allocate(leaf, total) for name, leaf in obs.items()}
        self.state = {name: allocate(leaf, slots) for name, leaf in state.items()}
        self.actions = allocate(actions, total)
        self.device = self.actions.device
        self.rewards = np.zeros(total, dtype=np.float32)
        self.starts, self.terminated, self.final = np.zeros((3, total), dtype=bool)
        self.priorities = np.zeros(slots)
        self.env_ids = np.arange(self.num_envs)
        self.clear()

    def clear(self) -> None:
        """Forget everything; the memory stays allocated."""
        self.written = np.zeros(self.num_envs, dtype=np.int64)
        self.given_out = self.written.copy()  # entries that ``new_observations`` has returned
        self.truncated = np.zeros(self.num_envs, dtype=bool)  # where the last step cut an episode
        self.added = 0
        self.highest = 1.0  # priority so far

    def __len__(self) -> int:
        """Count the steps that can be learned from, now or once what follows them is there."""
        entries = np.arange(self.size)[:, None]
        kept = (entries < self.written) & (entries != self.written % self.size)  # the next one may be half written
        return int((kept.ravel() & ~self.final).sum())

    def write_step(self, obs: Observation, state: State, starts: np.ndarray, actions: Tensor) -> None:
        """Write the acting half of a step.

        Where it opens an episode, the entry before it has to be an end; if it is none, it becomes the final entry.

        Args:
            obs: leaves ``[B, ...]``.
            state: before the step, leaves ``[B, ...]``.
            starts: ``[B]`` bool.
            actions: ``[B, branches]``.
        """
        places, on_device = self._write(self.env_ids, obs, state)
        self.actions.index_copy_(0, on_device, actions)
        self.starts[places], self.final[places] = starts, False
        before = (self.written - 1) % self.size * self.num_envs + self.env_ids
        self.final[before] |= starts & ~self.terminated[before]  # of an empty ring this is never read

    def finish_step(
        self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, ignored: np.ndarray
    ) -> None:
        """Write what came of the step, which counts from now on.

        Args:
            rewards: ``[B]``.
            terminated: ``[B]`` bool.
            truncated: ``[B]`` bool.
            ignored: ``[B]`` bool: it was no step and does not count.
        """
        places = self._places(self.env_ids)
        self.rewards[places], self.terminated[places] = rewards, terminated
        self.truncated = truncated & ~ignored
        self.written += ~ignored
        self.added += self.num_envs - int(np.count_nonzero(ignored))

    def write_final(self, env_ids: np.ndarray, obs: Observation, state: State) -> None:
        """Write what was observed where the last step cut an episode; other environments are left out.

        Args:
            env_ids: ``[K]``, environments.
            obs: leaves ``[K, ...]``.
            state: after the last step, leaves ``[K, ...]``.
        """
        kept = np.flatnonzero(self.truncated[env_ids])
        if len(kept) == 0:
            return
        if len(kept) < len(env_ids):
            index = self._upload(kept)
            obs = {name: leaf[index] for name, leaf in obs.items()}
            state, env_ids = {name: leaf[index] for name, leaf in state.items()}, env_ids[kept]
        places, _ = self._write(env_ids, obs, state)
        self.rewards[places], self.final[places] = 0.0, True
        self.starts[places] = self.terminated[places] = False
        self.written[env_ids] += 1

    def _write(self, env_ids: np.ndarray, obs: Observation, state: State) -> tuple[np.ndarray, Tensor]:
        """Write observation and state of the next entry of ``env_ids [K]``; return its places, on CPU and device."""
        places = self._places(env_ids)
        on_device = self._upload(places)
        for name, leaf in self.obs.items():
            leaf.index_copy_(0, on_device, obs[name])
        due = np.flatnonzero(self.written[env_ids] % self.stride == 0)
        if len(due):
            slots = places[due] // self.num_envs // self.stride * self.num_envs + env_ids[due]
            self.priorities[slots] = self.highest
            slots_on_device, due_on_device = self._upload(slots), self._upload(due)
            for name, leaf in self.state.items():
                leaf.index_copy_(0, slots_on_device, state[name].index_select(0, due_on_device))
        return places, on_device

    def _places(self, env_ids: np.ndarray) -> np.ndarray:
        """Return where the next entries of ``env_ids`` go."""
        return self.written[env_ids] % self.size * self.num_envs + env_ids

    def _upload(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def new_observations(self) -> Observation:
        """Return the observations ``[n, ...]`` written since the last call, so far as they are still there."""
        first = np.maximum(self.given_out, self.written - self.size + 1)
        entries = first + np.arange((self.written - first).max())[:, None]  # [longest, B]
        places = (entries % self.size * self.num_envs + self.env_ids)[entries < self.written]
        self.given_out = self.written.copy()
        return {name: leaf.index_select(0, self._upload(places)) for name, leaf in self.obs.items()}

    def observations(self) -> Observation:
        """Return all observations of whole steps that are still there, ``[n, ...]``."""
        entries = np.arange(self.size)[:, None]
        places = np.flatnonzero((entries < self.written) & (entries != self.written % self.size))
        return {name: leaf.index_select(0, self._upload(places)) for name, leaf in self.obs.items()}

    def ready(self) -> np.ndarray:
        """Say where a whole sequence stands, ``[slots]`` bool; the entry about to be written is not part of any."""
        first = np.arange(0, self.size, self.stride)[:, None]
        first = first + (self.written - 1 - first) // self.size * self.size  # since the beginning, as ``written``
        there = (first >= 0) & (first > self.written - self.size) & (first + self.length <= self.written)
        return there.ravel()

    def minibatches(
        self, count: int, sequences: int, shuffle: Generator, alpha: float = 0.0, beta: float = 0.0
    ) -> Iterator[ReplayBatch]:
        """Draw minibatches with replacement; none if there is no whole sequence yet.

        A sequence is drawn with probability proportional to its priority to the power ``alpha``, and weighs
        ``(1 / (number of sequences * probability)) ** beta``, divided by the largest such weight of the minibatch
        (Schaul et al., 2016, section 3.4). Priorities set while this goes on count in the next call.

        Args:
            count: minibatches.
            sequences: N of each.
            shuffle: draws them, on the CPU.
            alpha: the priority exponent; 0 draws all alike.
            beta: the importance-sampling exponent; 0 weighs all alike.

        Yields:
            The minibatches.
        """
        chances = self.ready() * self.priorities**alpha
        if not chances.any():
            return
        chances /= chances.sum()
        drawn = torch.multinomial(torch.from_numpy(chances), count * sequences, replacement=True, generator=shuffle)
        for slots in drawn.numpy().reshape(count, sequences):
            weights = chances[slots] ** -beta
            yield self.read(slots, torch.from_numpy(weights / weights.max()).float())

    def read(self, slots: np.ndarray, weights: Tensor) -> ReplayBatch:
        """Read the sequences that begin at ``slots [N]``; ``weights [N]`` are passed on."""
        first = slots // self.num_envs * self.stride
        entries = (first + np.arange(self.length)[:, None]) % self.size  # [M, N]
        places = entries * self.num_envs + slots % self.num_envs
        shape, on_device, stored = places.shape, self._upload(places.ravel()), self._upload(slots)
        return ReplayBatch(
            obs={name: leaf.index_select(0, on_device).unflatten(0, shape) for name, leaf in self.obs.items()},
            state={name: leaf.index_select(0, stored) for name, leaf in self.state.items()},
            actions=self.actions.index_select(0, on_device).unflatten(0, shape),
            rewards=torch.from_numpy(self.rewards[places]),
            starts=torch.from_numpy(self.starts[places]),
            terminated=torch.from_numpy(self.terminated[places]),
            final=torch.from_numpy(self.final[places]),
            slots=slots,
            weights=weights,
        )

    def prioritise(self, slots: np.ndarray, priorities: np.ndarray) -> None:
        """Set priorities above 0, each ``[n]``; of several for one sequence the last one counts."""
        self.priorities[slots] = priorities
        self.highest = max(self.highest, float(priorities.max()))

    def state_dict(self) -> dict[str, Any]:
        """Collect all entries that are in use, and where the rings stand."""
        cloned = {
            name: part.clone() if isinstance(part, Tensor) else {key: leaf.clone() for key, leaf in part.items()}
            for name, part in self._columns(self.written).items()
        }
        return {"sizes": self.sizes, **cloned, "highest": self.highest}

    def _columns(self, written: np.ndarray) -> dict[str, Any]:
        """Return views of what is stored where the rings stand at ``written [B]``."""
        used = min(self.size, int(written.max(initial=0)))
        used = -(-used // self.stride) * self.stride
        count, slots = used * self.num_envs, used // self.stride * self.num_envs
        return {
            "obs": {name: leaf[:count] for name, leaf in self.obs.items()},
            "state": {name: leaf[:slots] for name, leaf in self.state.items()},
            "actions": self.actions[:count],
            "flags": {name: torch.from_numpy(column[:count]) for name, column in self._flags().items()},
            "priorities": torch.from_numpy(self.priorities[:slots]),
            "written": torch.from_numpy(self.written),
            "seen": torch.from_numpy(self.given_out),
        }

    def check_state(self, state: Any, name: str) -> None:
        """Check what ``load_state_dict`` is going to take; ``name`` is for the message.

        Raises:
            ValueError: an entry is missing, or of another type or shape.
        """
        check_entry(state, {"sizes": [natural] * 4}, name)
        if state["sizes"] == self.sizes:
            check_entry(state, {"written": torch.from_numpy(self.written), "highest": finite}, name)
            check_entry(state, self._columns(state["written"].clamp_min(0).cpu().numpy()), name)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave; a state of rings of other sizes leaves this replay empty."""
        self.clear()
        if state["sizes"] != self.sizes:
            return
        for own, stored in ((self.obs, state["obs"]), (self.state, state["state"])):
            for name, leaf in own.items():
                leaf[: len(stored[name])] = stored[name]
        self.actions[: len(state["actions"])] = state["actions"]
        for name, column in self._flags().items():
            column[: len(state["flags"][name])] = state["flags"][name].cpu().numpy()
        self.priorities[: len(state["priorities"])] = state["priorities"].cpu().numpy()
        self.written, self.given_out = (state[name].cpu().numpy().copy() for name in ("written", "seen"))
        self.highest = state["highest"]

    def _flags(self) -> dict[str, np.ndarray]:
        """Return what comes from the environment, ``[size * B]`` each, by name."""
        return {"rewards": self.rewards, "starts": self.starts, "terminated": self.terminated, "final": self.final}
