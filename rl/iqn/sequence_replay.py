"""Everything that was lately played, kept as one ring for each environment and replayed as sequences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from rl.transfer import upload
from rl.types import Observation, State

FLAGS = ("rewards", "starts", "terminated", "final")


@dataclass
class ReplayBatch:
    """A minibatch of ``N`` sequences of ``M`` rows, oldest first.

    Attributes:
        obs: leaves ``[M, N, ...]``.
        state: the stored state before the first row, leaves ``[N, ...]``.
        actions: ``[M, N, branches]``.
        rewards, starts, terminated, final: ``[M, N]`` on the CPU, see :class:`SequenceReplay`.
        slots: ``[N]``, where they were found, for their priorities.
        weights: ``[N]`` on the CPU, what corrects for drawing some more often than others.
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
    """Preallocated rings of ``size`` rows for each of B environments, written row by row like a rollout buffer.

    A row is a step, or what was observed when an episode was cut. The latter is ``final``: no action counts there, it
    only says what the step before it led to. Where nobody tells what a cut step led to, the step itself is made the
    final row, so its observation still serves the steps before it. So within an episode the row after a step always
    holds what followed, and a network that is unrolled over the rows meets every final observation under the very state
    that preceded it. For example, an episode cut after two steps, then the next one::

        obs     o0    o1    o2     o0'   ...
        starts  True  False False  True  ...
        final   False False True   False ...

    States are stored in front of every ``stride``-th row, where sequences may begin; with a stride below their length
    they overlap. A ring keeps the numbers once all the same. Observations, states and actions lie on ``device``, what
    comes from the environment on the CPU.

    Args:
        capacity: rows of all environments together; at least two sequences of each find room.
        length: M, rows of a sequence.
        stride: between the rows at which sequences may begin.
        obs, state, actions: one batched example ``[B, ...]`` of each, for shapes and dtypes.
        device: where the tensors lie.
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
        total, slots = self.size * self.num_envs, self.size // stride * self.num_envs

        def rows(example: Tensor, count: int) -> Tensor:
            return torch.zeros(count, *example.shape[1:], dtype=example.dtype, device=device)

        # Row t of environment b stands at t * B + b, the state in front of it at t / stride * B + b.
        self.obs = {name: rows(leaf, total) for name, leaf in obs.items()}
        self.state = {name: rows(leaf, slots) for name, leaf in state.items()}
        self.actions = rows(actions, total)
        self.device = self.actions.device
        self.rewards = np.zeros(total, dtype=np.float32)
        self.starts, self.terminated, self.final = np.zeros((3, total), dtype=bool)
        self.priorities = np.zeros(slots)
        self.envs = np.arange(self.num_envs)
        self.clear()

    def clear(self) -> None:
        """Forgets everything; the memory stays allocated."""
        self.written = np.zeros(self.num_envs, dtype=np.int64)  # rows of each environment since the beginning
        self.seen = self.written.copy()  # those that :meth:`new_rows` has given out
        self.cut = np.zeros(self.num_envs, dtype=bool)  # where the last step was truncated
        self.added = 0  # steps that counted since then
        self.highest = 1.0  # priority so far

    def __len__(self) -> int:
        """Steps that can be learned from, now or once what follows them is there."""
        rows = np.arange(self.size)[:, None]
        kept = (rows < self.written) & (rows != self.written % self.size)  # the next row may be half written
        return int((kept.ravel() & ~self.final).sum())

    # ----------------------------------------------------------------------------------------------------- writing

    def write_step(self, obs: Observation, state: State, starts: np.ndarray, actions: Tensor) -> None:
        """Write the acting half of a step: leaves ``[B, ...]``, the state before it, ``starts [B]``, ``actions``.

        Where it opens an episode, the row before it has to be an end; if it is none, it was not told what it led to.
        """
        places, on_device = self._write(self.envs, obs, state)
        self.actions.index_copy_(0, on_device, actions)
        self.starts[places], self.final[places] = starts, False
        before = (self.written - 1) % self.size * self.num_envs + self.envs
        self.final[before] |= starts & (self.written > 0) & ~self.terminated[before]

    def finish_step(
        self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, ignored: np.ndarray
    ) -> None:
        """The outcome of the step, each ``[B]``; it now counts, but not where it is to be ``ignored``."""
        places = self._places(self.envs)
        self.rewards[places], self.terminated[places] = rewards, terminated
        self.cut = truncated & ~ignored
        self.written += ~ignored
        self.added += self.num_envs - int(np.count_nonzero(ignored))

    def write_final(self, rows: np.ndarray, obs: Observation, state: State) -> None:
        """What the environments ``rows [K]``, which were cut in the last step, observed then: leaves ``[K, ...]``."""
        kept = np.flatnonzero(self.cut[rows])
        if len(kept) == 0:
            return
        if len(kept) < len(rows):
            index = self._upload(kept)
            obs = {name: leaf[index] for name, leaf in obs.items()}
            state, rows = {name: leaf[index] for name, leaf in state.items()}, rows[kept]
        places, _ = self._write(rows, obs, state)
        self.rewards[places], self.final[places] = 0.0, True
        self.starts[places] = self.terminated[places] = False
        self.written[rows] += 1

    def _write(self, envs: np.ndarray, obs: Observation, state: State) -> tuple[np.ndarray, Tensor]:
        """Observation and state of the next row of each of ``envs [K]``; where they stand, on both sides."""
        places = self._places(envs)
        on_device = self._upload(places)
        for name, leaf in self.obs.items():
            leaf.index_copy_(0, on_device, obs[name])
        due = np.flatnonzero(self.written[envs] % self.stride == 0)
        if len(due):
            slots = self._slots(places[due])
            self.priorities[slots] = self.highest
            slots, due = self._upload(slots), self._upload(due)
            for name, leaf in self.state.items():
                leaf.index_copy_(0, slots, state[name].index_select(0, due))
        return places, on_device

    def _places(self, envs: np.ndarray) -> np.ndarray:
        return self.written[envs] % self.size * self.num_envs + envs

    def _slots(self, places: np.ndarray) -> np.ndarray:
        return places // self.num_envs // self.stride * self.num_envs + places % self.num_envs

    def _upload(self, array: np.ndarray) -> Tensor:
        return upload(torch.from_numpy(array), self.device)

    # ----------------------------------------------------------------------------------------------------- reading

    def new_rows(self) -> Observation:
        """Observations ``[n, ...]`` written since the last call, so far as they are still there."""
        first = np.maximum(self.seen, self.written - self.size + 1)
        rows = first + np.arange((self.written - first).max())[:, None]  # [longest, B]
        places = (rows % self.size * self.num_envs + self.envs)[rows < self.written]
        self.seen = self.written.copy()
        return {name: leaf.index_select(0, self._upload(places)) for name, leaf in self.obs.items()}

    def ready(self) -> np.ndarray:
        """``[slots]`` bool: a whole sequence stands there. The row about to be written is not part of any."""
        first = np.arange(0, self.size, self.stride)[:, None]
        first = first + (self.written - 1 - first) // self.size * self.size  # since the beginning, as ``written``
        there = (first >= 0) & (first > self.written - self.size) & (first + self.length <= self.written)
        return there.ravel()

    def minibatches(
        self, count: int, sequences: int, generator: Generator, alpha: float = 0.0, beta: float = 0.0
    ) -> Iterator[ReplayBatch]:
        """``count`` times ``sequences`` random ones; none if there is no whole sequence yet.

        One is drawn with probability proportional to its priority to the power ``alpha``, and weighs
        ``(1 / (number of sequences * probability)) ** beta``, divided by the largest such weight of the minibatch
        (Schaul et al., 2016, section 3.4). Priorities set while this goes on count in the next call.
        """
        chances = self.ready() * self.priorities**alpha
        if not chances.any():
            return
        chances /= chances.sum()
        drawn = torch.multinomial(torch.from_numpy(chances), count * sequences, replacement=True, generator=generator)
        for slots in drawn.numpy().reshape(count, sequences):
            weights = chances[slots] ** -beta
            yield self._read(slots, torch.from_numpy(weights / weights.max()).float())

    def _read(self, slots: np.ndarray, weights: Tensor) -> ReplayBatch:
        first = slots // self.num_envs * self.stride
        rows = (first + np.arange(self.length)[:, None]) % self.size * self.num_envs + slots % self.num_envs  # [M, N]
        shape, places, stored = rows.shape, self._upload(rows.ravel()), self._upload(slots)
        return ReplayBatch(
            {name: leaf.index_select(0, places).unflatten(0, shape) for name, leaf in self.obs.items()},
            {name: leaf.index_select(0, stored) for name, leaf in self.state.items()},
            self.actions.index_select(0, places).unflatten(0, shape),
            *(torch.from_numpy(getattr(self, name)[rows]) for name in FLAGS),
            slots,
            weights,
        )

    def prioritise(self, slots: np.ndarray, priorities: np.ndarray) -> None:
        """New priorities above 0, each ``[n]``; of those for one sequence the last one counts."""
        self.priorities[slots] = priorities
        self.highest = max(self.highest, float(priorities.max()))

    # ------------------------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All rows that are in use, and where the rings stand."""
        rows = min(self.size, int(self.written.max(initial=0)))
        rows = -(-rows // self.stride) * self.stride
        count, slots = rows * self.num_envs, rows // self.stride * self.num_envs
        return {
            "sizes": [self.num_envs, self.size, self.length, self.stride],
            "obs": {name: leaf[:count].clone() for name, leaf in self.obs.items()},
            "state": {name: leaf[:slots].clone() for name, leaf in self.state.items()},
            "actions": self.actions[:count].clone(),
            "flags": {name: torch.from_numpy(getattr(self, name)[:count].copy()) for name in FLAGS},
            "priorities": torch.from_numpy(self.priorities[:slots].copy()),
            "written": torch.from_numpy(self.written.copy()),
            "seen": torch.from_numpy(self.seen.copy()),
            "highest": self.highest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The counterpart of :meth:`state_dict`; a state of rings of other sizes leaves this one empty."""
        self.clear()
        if state["sizes"] != [self.num_envs, self.size, self.length, self.stride]:
            return
        for own, stored in ((self.obs, state["obs"]), (self.state, state["state"])):
            for name, leaf in own.items():
                leaf[: len(stored[name])] = stored[name]
        self.actions[: len(state["actions"])] = state["actions"]
        for name, flags in state["flags"].items():
            getattr(self, name)[: len(flags)] = flags.cpu().numpy()
        self.priorities[: len(state["priorities"])] = state["priorities"].cpu().numpy()
        self.written, self.seen = (state[name].cpu().numpy().copy() for name in ("written", "seen"))
        self.highest = state["highest"]
