"""Replay buffer: one ring of recent steps per environment, sampled as sequences."""

from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from rl.graphs import flatten
from rl.schema import check_entry, finite, natural
from rl.types import Observation, ReplayBatch, State

FLAGS = "rewards", "starts", "terminated", "final"
PLAIN = ("actions", *FLAGS, "priorities", "highest", "written", "given_out", "added")

Column = np.ndarray | Tensor
"""A number or a flag for each of B environments, on the host or on the device."""


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
    they overlap. Each number is stored once all the same.

    All of it lies on ``device``, in tensors that are changed in place: writing, drawing and reading sequences wait for
    nothing. The entry that is written next belongs to no sequence, so it may hold anything until it counts.

    Args:
        capacity: entries of all environments together; at least two sequences of each find room.
        length: M, entries of a sequence.
        stride: between the entries at which sequences may begin.
        obs: one batched example ``[B, ...]`` of each leaf, for shapes and dtypes.
        state: one batched example ``[B, ...]`` of each leaf.
        actions: one batched example ``[B, branches]``.
        device: where the tensors lie.

    Attributes:
        written: ``[B]``, entries of each environment since the replay was empty.
        added: 0-d, steps of all environments that were ever written.
        priorities: ``[slots]``, for ``draw``.
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
        self.rewards = torch.zeros(total, device=device)
        self.starts, self.terminated, self.final = torch.zeros(3, total, dtype=torch.bool, device=device)
        self.priorities = torch.zeros(slots, dtype=torch.float64, device=device)
        self.highest = torch.ones((), dtype=torch.float64, device=device)  # priority so far
        self.written, self.given_out = torch.zeros(2, self.num_envs, dtype=torch.int64, device=device)
        self.added = torch.zeros((), dtype=torch.int64, device=device)
        self.env_ids = torch.arange(self.num_envs, device=device)
        self.steps = torch.arange(length, device=device).unsqueeze(1)  # [M, 1]

    def clear(self) -> None:
        """Forget everything; the memory stays allocated."""
        self.written.zero_()
        self.given_out.zero_()
        self.highest.fill_(1.0)

    def __len__(self) -> int:
        """Wait for ``count``."""
        return int(self.count())

    def count(self) -> Tensor:
        """Count the steps that can be learned from, now or once what follows them is there, 0-d."""
        return (self._kept() & ~self.final).sum()

    def write_step(self, obs: Observation, state: State, starts: Column, actions: Tensor) -> None:
        """Write the acting half of a step.

        Where it opens an episode, the entry before it has to be an end; if it is none, it becomes the final entry.

        Args:
            obs: leaves ``[B, ...]``.
            state: before the step, leaves ``[B, ...]``.
            starts: ``[B]`` bool.
            actions: ``[B, branches]``.
        """
        places, on_device = self._write(obs, state)
        self.actions.index_copy_(0, on_device, actions)
        opens, final, terminated = (self._array(column) for column in (starts, self.final, self.terminated))
        self._array(self.starts)[places] = opens
        final[places] = False
        before = self._places(self._array(self.written) - 1)
        final[before] |= opens & ~terminated[before]  # of an empty ring this is never read

    def finish_step(self, rewards: Column, terminated: Column, ignored: Column | None = None) -> None:
        """Write what came of the step, which counts from now on.

        Args:
            rewards: ``[B]``.
            terminated: ``[B]`` bool.
            ignored: ``[B]`` bool: it was no step and does not count; None for nowhere.
        """
        written, added = self._array(self.written), self._array(self.added)
        places = self._places(written)
        self._array(self.rewards)[places] = self._array(rewards)
        self._array(self.terminated)[places] = self._array(terminated)
        if ignored is None:
            written += 1
            added += self.num_envs
        else:
            counted = ~self._array(ignored)
            written += counted
            added += counted.sum()

    def write_final(self, obs: Observation, state: State, cut: Column) -> None:
        """Write what was observed after the last step, where that step counts and cut an episode.

        Args:
            obs: leaves ``[B, ...]``.
            state: after the last step, leaves ``[B, ...]``.
            cut: ``[B]`` bool; other environments are left out.
        """
        places, _ = self._write(obs, state)
        self._array(self.final)[places] = True
        for column in (self.rewards, self.starts, self.terminated):
            self._array(column)[places] = 0
        written = self._array(self.written)
        written += self._array(cut)

    def _write(self, obs: Observation, state: State) -> tuple[Any, Tensor]:
        """Write observation and state of the next entry of every environment; return its places ``[B]``, twice."""
        written = self._array(self.written)
        places = self._places(written)
        on_device = torch.as_tensor(places)
        for name, leaf in self.obs.items():
            leaf.index_copy_(0, on_device, obs[name])
        self._write_states(state, places, written % self.stride == 0)
        return places, on_device

    def _write_states(self, state: State, places: Any, due: Any) -> None:
        """Write the states in front of the entries at ``places [B]``, where they are ``due [B]``."""
        if not isinstance(due, Tensor):
            rows = np.flatnonzero(due)
            if len(rows):
                slots = self._slots(places[rows])
                self.priorities.numpy()[slots] = self.highest
                to, of = torch.from_numpy(slots), torch.from_numpy(rows)
                for name, leaf in self.state.items():
                    leaf.index_copy_(0, to, state[name].index_select(0, of))
            return
        slots = self._slots(places)  # to look which are due would mean to wait
        self.priorities[slots] = torch.where(due, self.highest, self.priorities[slots])
        for name, leaf in self.state.items():
            wide = due.view(-1, *[1] * (leaf.dim() - 1))
            leaf[slots] = torch.where(wide, state[name], leaf[slots])

    def _slots(self, places: Any) -> Any:
        return places // (self.num_envs * self.stride) * self.num_envs + places % self.num_envs

    def _array(self, column: Column) -> Any:
        """Return a tensor on the device; on the CPU an array with its memory, which numpy writes faster than torch."""
        if self.device.type == "cpu":
            return column.numpy() if isinstance(column, Tensor) else column
        return column if isinstance(column, Tensor) else torch.tensor(column).to(self.device, non_blocking=True)

    def _places(self, entries: Any) -> Any:
        """Return where ``entries [..., B]``, counted since the replay was empty, stand in the rings."""
        env_ids: Any = self.env_ids if isinstance(entries, Tensor) else self.env_ids.numpy()
        return entries % self.size * self.num_envs + env_ids

    def _kept(self) -> Tensor:
        """Say which places hold an entry that counts, ``[size * B]`` bool; the one written next is half written."""
        entries = torch.arange(self.size, device=self.device).unsqueeze(1)
        return ((entries < self.written) & (entries != self.written % self.size)).flatten()

    def new_observations(self) -> Observation:
        """Return the observations ``[n, ...]`` written since the last call, so far as they are still there."""
        first = torch.maximum(self.given_out, self.written - self.size + 1)
        longest = int((self.written - first).max())
        entries = first + torch.arange(longest, device=self.device).unsqueeze(1)  # [longest, B]
        places = self._places(entries)[entries < self.written]
        self.given_out.copy_(self.written)
        return {name: leaf.index_select(0, places) for name, leaf in self.obs.items()}

    def observations(self) -> Observation:
        """Return all observations of whole steps that are still there, ``[n, ...]``."""
        places = self._kept().nonzero().squeeze(1)
        return {name: leaf.index_select(0, places) for name, leaf in self.obs.items()}

    def ready(self) -> Tensor:
        """Say where a whole sequence stands, ``[slots]`` bool; the entry about to be written is not part of any."""
        first = torch.arange(0, self.size, self.stride, device=self.device).unsqueeze(1)
        first = first + (self.written - 1 - first) // self.size * self.size  # since the beginning, as ``written``
        there = (first >= 0) & (first > self.written - self.size) & (first + self.length <= self.written)
        return there.flatten()

    def draw(
        self, count: int, sequences: int, shuffle: Generator, alpha: float = 0.0, beta: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Draw minibatches with replacement; there has to be a whole sequence.

        A sequence is drawn with probability proportional to its priority to the power ``alpha``, and weighs
        ``(1 / (number of sequences * probability)) ** beta``, divided by the largest such weight of the minibatch
        (Schaul et al., 2016, section 3.4).

        Args:
            count: minibatches.
            sequences: N of each.
            shuffle: draws them, on the CPU: wherever the replay lies, they are the same.
            alpha: the priority exponent; 0 draws all alike.
            beta: the importance-sampling exponent; 0 weighs all alike.

        Returns:
            Slots and weights for ``read``, each ``[count, N]``.
        """
        chances = self.ready() * self.priorities**alpha
        chances /= chances.sum()
        bounds = chances.cumsum(0)
        uniform = torch.rand(count, sequences, dtype=torch.float64, generator=shuffle)
        slots = torch.searchsorted(bounds / bounds[-1], uniform.to(self.device, non_blocking=True), right=True)
        weights = chances[slots] ** -beta
        return slots, (weights / weights.amax(1, keepdim=True)).float()

    def read(self, slots: Tensor, weights: Tensor) -> ReplayBatch:
        """Read the sequences that begin at ``slots [N]``; ``weights [N]`` are passed on."""
        entries = (slots // self.num_envs * self.stride + self.steps) % self.size  # [M, N]
        places = entries * self.num_envs + slots % self.num_envs

        def gather(leaf: Tensor) -> Tensor:
            return leaf.index_select(0, places.view(-1)).unflatten(0, places.shape)

        return ReplayBatch(
            obs={name: gather(leaf) for name, leaf in self.obs.items()},
            state={name: leaf.index_select(0, slots) for name, leaf in self.state.items()},
            slots=slots,
            weights=weights,
            **{name: gather(getattr(self, name)) for name in ("actions", *FLAGS)},
        )

    def prioritise(self, slots: Tensor, priorities: Tensor) -> None:
        """Set priorities above 0, each ``[n]``; of several for one sequence the last one counts."""
        order = torch.arange(len(slots), device=self.device)
        last = torch.full(self.priorities.shape, -1, device=self.device).scatter_reduce_(0, slots, order, "amax")
        given = priorities.to(self.priorities.dtype)
        self.priorities.copy_(torch.where(last >= 0, given[last.clamp_min(0)], self.priorities))
        torch.maximum(self.highest, given.max(), out=self.highest)

    def leaves(self) -> list[Tensor]:
        """List every stored tensor."""
        return [*self.obs.values(), *self.state.values(), *(getattr(self, name) for name in PLAIN)]

    def state_dict(self) -> dict[str, Any]:
        """Collect all entries that are in use, and where the rings stand."""
        cloned = {
            name: part.clone() if isinstance(part, Tensor) else {key: leaf.clone() for key, leaf in part.items()}
            for name, part in self._columns(self.written).items()
        }
        return {"sizes": self.sizes, **cloned, "highest": self.highest.item()}

    def _columns(self, written: Tensor) -> dict[str, Any]:
        """Return views of what is stored where the rings stand at ``written [B]``."""
        used = min(self.size, int(written.max()))
        used = -(-used // self.stride) * self.stride
        count, slots = used * self.num_envs, used // self.stride * self.num_envs
        return {
            "obs": {name: leaf[:count] for name, leaf in self.obs.items()},
            "state": {name: leaf[:slots] for name, leaf in self.state.items()},
            "actions": self.actions[:count],
            "flags": {name: getattr(self, name)[:count] for name in FLAGS},
            "priorities": self.priorities[:slots],
            "written": self.written,
            "seen": self.given_out,
        }

    def check_state(self, state: Any, name: str) -> None:
        """Check what ``load_state_dict`` is going to take; ``name`` is for the message.

        Raises:
            ValueError: an entry is missing, or of another type or shape.
        """
        check_entry(state, {"sizes": [natural] * 4}, name)
        if state["sizes"] == self.sizes:
            check_entry(state, {"written": self.written, "highest": finite}, name)
            check_entry(state, self._columns(state["written"].clamp_min(0)), name)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave; a state of rings of other sizes leaves this replay empty."""
        self.clear()
        if state["sizes"] != self.sizes:
            return
        columns = self._columns(state["written"])
        stored = flatten({name: state[name] for name in columns})
        for name, leaf in flatten(columns).items():
            leaf.copy_(stored[name])
        self.highest.fill_(state["highest"])
