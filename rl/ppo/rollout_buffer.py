"""Storage of a rollout on the training device, and its cutting into sequences."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Generator, Tensor

from rl.transfer import upload
from rl.types import Observation, Sequences, State

PLAIN = ("actions", "params", "values", "rewards", "starts", "terminated", "truncated", "ignored")


@dataclass
class Targets:
    """What the losses compare with, each ``[T, B]`` but ``old_log_probs [T, B, branches]``.

    ``teacher_params [T, B, P]`` are the distribution parameters of a teacher, None if there is none.
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
        obs, state, starts: as in :class:`rl.types.Sequences`, for the k steps before.
        available: ``[N]`` bool; False for sequences that open the rollout, which have nothing in front of them.
    """

    obs: Observation
    state: State
    starts: Tensor
    available: Tensor


class RolloutBuffer:
    """Preallocated ``[T, B, ...]`` storage, one tensor for each observation leaf, state leaf, and so on.

    It knows nothing of cores: a state leaf is one more key. Leaves are stored at every ``state_stride``-th step, where
    sequences may begin. Flags and rewards, which come from the environment, lie on the CPU until training; all else
    lies on ``device``. A buffer that is full grows, so that a client may collect as long as it likes.

    Args:
        num_steps: T to begin with.
        obs, state, actions, params: one batched example ``[B, ...]`` of each, for shapes and dtypes.
        state_stride: distance of the stored states in steps.
        device: where the tensors lie.
    """

    def __init__(
        self,
        num_steps: int,
        obs: Observation,
        state: State,
        actions: Tensor,
        params: Tensor,
        state_stride: int = 1,
        device: torch.device | str = "cpu",
    ):
        self.num_envs = actions.shape[0]
        self.stride = state_stride
        self.capacity = num_steps
        self.size = 0  # steps collected

        def rows(example: Tensor, count: int = num_steps, device: torch.device | str = device) -> Tensor:
            return torch.zeros(count, *example.shape, dtype=example.dtype, device=device)

        self.obs = {name: rows(leaf) for name, leaf in obs.items()}
        self.state = {name: rows(leaf, -(-num_steps // state_stride)) for name, leaf in state.items()}
        self.actions, self.params = rows(actions), rows(params)
        self.values = torch.zeros(num_steps, self.num_envs, device=device)
        self.rewards = torch.zeros(num_steps, self.num_envs)
        flags = torch.zeros(4, num_steps, self.num_envs, dtype=torch.bool)
        self.starts, self.terminated, self.truncated, self.ignored = flags
        self._bind()

    def _bind(self) -> None:
        """Makes the rows that :meth:`write_step` copies to: a view made once costs half of indexing at every step."""
        written = (*self.obs.values(), self.params, self.values, self.actions)
        self._rows = list(zip(*(leaf.unbind(0) for leaf in written), strict=True))
        self._state_rows = [list(leaf.unbind(0)) for leaf in self.state.values()]

    def write_step(
        self, obs: Observation, state: State, starts: np.ndarray, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """The acting half of step ``size``: leaves ``[B, ...]``, the state **before** the step, ``starts [B]``."""
        t = self.size
        if t == self.capacity:
            self._grow()
        for row, leaf in zip(self._rows[t], (*(obs[name] for name in self.obs), params, values, actions), strict=True):
            row.copy_(leaf)
        if t % self.stride == 0:
            for rows, name in zip(self._state_rows, self.state, strict=True):
                rows[t // self.stride].copy_(state[name])
        self.starts.numpy()[t] = starts  # these lie on the CPU, where numpy writes a row faster than torch

    def finish_step(
        self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, ignored: np.ndarray | bool = False
    ) -> None:
        """The outcome of step ``size``, each ``[B]``; the step now counts, but not where it is to be ``ignored``."""
        t = self.size
        self.rewards.numpy()[t] = rewards
        self.terminated.numpy()[t] = terminated
        self.truncated.numpy()[t] = truncated
        self.ignored.numpy()[t] = ignored
        self.size = t + 1

    def observations(self) -> Observation:
        """Leaves ``[size, B, ...]``."""
        return {name: leaf[: self.size] for name, leaf in self.obs.items()}

    def leaves(self) -> list[Tensor]:
        """Every stored tensor."""
        return [*self.obs.values(), *self.state.values(), *(getattr(self, name) for name in PLAIN)]

    def clear(self) -> None:
        """Forgets the rollout; the memory stays allocated."""
        self.size = 0

    def _grow(self) -> None:
        """Doubles the number of steps."""
        self.capacity *= 2
        for group in (self.obs, self.state):
            for name, leaf in group.items():
                group[name] = torch.cat([leaf, torch.zeros_like(leaf)])
        for name in PLAIN:
            leaf = getattr(self, name)
            setattr(self, name, torch.cat([leaf, torch.zeros_like(leaf)]))
        self._bind()

    def has_empty_row(self) -> bool:
        """Whether some environment has no transition yet, only ignored steps."""
        return bool(self.ignored[: self.size].all(dim=0).any())

    def drop_ignored(self, last_values: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
        """Closes the gaps that ignored steps left, so that every row is a transition.

        Environments with fewer gaps than others then have steps too many at the end; these are dropped.

        Args:
            last_values: ``[B]``, V of the observation after the last step.
            columns: ``[size, B, ...]`` each, what else belongs to the steps.

        Returns:
            The same for the new, smaller size.

        Raises:
            ValueError: states are not stored at every step.
        """
        if self.stride > 1:
            raise ValueError(f"state_stride={self.stride}: environments in NEXT_STEP autoreset mode need 1")
        ignored = self.ignored[: self.size]
        order = torch.argsort(ignored.byte(), dim=0, stable=True)  # [size, B]: the steps that count, then the others
        counts = (~ignored).sum(0)  # [B]
        size, env = int(counts.min()), torch.arange(self.num_envs)
        kept = order[:size]
        following = self.values[order[min(size, self.size - 1)], env]  # V of the first step dropped
        last_values = torch.where((counts > size).to(last_values.device), following, last_values)
        for group in (self.obs, self.state):
            for leaf in group.values():
                leaf[:size] = leaf[kept, env]
        for name in PLAIN:
            leaf = getattr(self, name)
            leaf[:size] = leaf[kept, env]
        self.size = size
        return last_values, *(column[kept, env] for column in columns)

    def chunks(self, bptt: int | None) -> list[tuple[int, int]]:
        """(first step, length) of the pieces of the rollout: as few as ``bptt`` allows, all of one length.

        Only a rollout that ``bptt`` does not divide, which a client may end at any step, has two lengths, one apart.
        """
        pieces = -(-self.size // (bptt or self.size))
        bounds = [self.size * i // pieces for i in range(pieces + 1)]
        if any(begin % self.stride for begin in bounds[:-1]):
            raise ValueError(f"state_stride={self.stride} does not fit a rollout of {self.size} steps cut at {bounds}")
        return [(begin, end - begin) for begin, end in pairwise(bounds)]

    def sequences(
        self, targets: Targets, num_minibatches: int, bptt: int | None, generator: Generator, burn_in: int = 0
    ) -> Iterator[tuple[Sequences, WarmUp | None]]:
        """One epoch of minibatches: every transition exactly once, nothing padded.

        The unit of shuffling is a sequence, a (chunk, environment) pair; the order is drawn anew in each call.

        Args:
            targets: what belongs to each step.
            num_minibatches: how many, or as many as there are sequences if those are fewer.
            bptt: length of the sequences; None for the whole rollout.
            generator: draws the order, on the CPU.
            burn_in: steps of warm-up in front of each sequence, at most ``bptt``.

        Yields:
            A minibatch and its warm-up (None without ``burn_in``).
        """
        chunks = self.chunks(bptt)
        total = len(chunks) * self.num_envs
        for length in sorted({length for _, length in chunks}):
            begins = torch.tensor([begin for begin, chunk_length in chunks if chunk_length == length])
            order = torch.randperm(len(begins) * self.num_envs, generator=generator)
            pieces = min(len(order), max(1, round(num_minibatches * len(order) / total)))
            yield from self._cut(
                begins[order // self.num_envs], order % self.num_envs, length, pieces, targets, burn_in
            )

    def _cut(
        self, first: Tensor, env: Tensor, length: int, pieces: int, targets: Targets, burn_in: int
    ) -> Iterator[tuple[Sequences, WarmUp | None]]:
        """The sequences of ``length`` steps that begin at ``first [n]`` in ``env [n]``, in ``pieces`` minibatches.

        Observations, which may be large, are gathered for each minibatch; everything else once, for all of them.
        """
        rows = (first + torch.arange(length).unsqueeze(1)) * self.num_envs + env  # [L, n], each t * B + b
        order = _alike(_pick(self.starts, rows.flatten()).view(rows.shape).sum(0), pieces)
        first, env, rows = first[order], env[order], rows[:, order]
        rows = [part.flatten() for part in rows.tensor_split(pieces, dim=1)]
        sizes, every = [len(part) for part in rows], torch.cat(rows)
        on_device = upload(every, self.values.device)
        numbers = [
            torch.stack([targets.old_values, targets.advantages, targets.returns], dim=-1),
            targets.old_log_probs,
        ]
        numbers += [] if targets.teacher_params is None else [targets.teacher_params]
        widths = [column.shape[-1] for column in numbers]
        numbers = torch.cat(numbers, dim=-1)  # [T, B, 3 + branches + P, without P if there is no teacher]
        columns = zip(
            on_device.split(sizes),
            _pick(self.starts, every).split(sizes),
            _pick(self.actions, on_device).split(sizes),
            _pick(numbers, on_device).split(sizes),
            first.tensor_split(pieces),
            env.tensor_split(pieces),
            _split(self._state_at(first, env), pieces),
            strict=True,
        )
        for steps, starts, actions, rest, begins, envs, state in columns:
            shape = length, len(envs)
            plain, old_log_probs, *teacher_params = rest.view(*shape, -1).split(widths, dim=-1)
            old_values, advantages, returns = plain.unbind(-1)
            minibatch = Sequences(
                obs={name: _pick(leaf, steps).unflatten(0, shape) for name, leaf in self.obs.items()},
                state=state,
                starts=starts.view(shape),
                actions=actions.unflatten(0, shape),
                old_log_probs=old_log_probs,
                old_values=old_values,
                advantages=advantages,
                returns=returns,
                teacher_params=teacher_params[0] if teacher_params else None,
            )
            yield minibatch, self._warm_up(begins, envs, burn_in) if burn_in else None

    def _state_at(self, first: Tensor, env: Tensor) -> State:
        """State leaves ``[N, ...]`` before the steps ``first [N]`` of ``env [N]``."""
        rows = upload(first // self.stride * self.num_envs + env, self.values.device)
        return {name: _pick(leaf, rows) for name, leaf in self.state.items()}

    def _warm_up(self, first: Tensor, env: Tensor, burn_in: int) -> WarmUp:
        begin = (first - burn_in).clamp_min(0)
        steps = (begin + torch.arange(burn_in).unsqueeze(1)).clamp_max(self.size - 1)
        rows = steps * self.num_envs + env
        on_device = upload(rows, self.values.device)
        obs = {name: _pick(leaf, on_device.flatten()).unflatten(0, rows.shape) for name, leaf in self.obs.items()}
        available = upload(first >= burn_in, self.values.device)
        return WarmUp(obs, self._state_at(begin, env), _pick(self.starts, rows.flatten()).view(rows.shape), available)

    def refresh(self, unroll, bptt: int | None) -> None:
        """Recomputes the stored state at the start of every chunk but the first with the current weights.

        Args:
            unroll: ``unroll(obs, state, starts) -> (..., state)``.
            bptt: as in :meth:`sequences`.
        """
        chunks = self.chunks(bptt)
        state = {name: leaf[0] for name, leaf in self.state.items()}
        for (begin, length), (following, _) in pairwise(chunks):
            steps = slice(begin, begin + length)
            *_, state = unroll({name: leaf[steps] for name, leaf in self.obs.items()}, state, self.starts[steps])
            for name, leaf in state.items():
                self.state[name][following // self.stride] = leaf


def _pick(data: Tensor, rows: Tensor) -> Tensor:
    """Rows ``[n]`` of ``data [T, B, ...]`` by ``t * B + b``: one gather, ``[n, ...]``."""
    return data.flatten(0, 1).index_select(0, rows)


def _alike(starts: Tensor, pieces: int) -> Tensor:
    """An order of sequences with ``starts [n]`` that keeps the ``pieces`` apart and sorts each by the number of starts.

    A core that unrolls a block of them at a time then has fewer steps to add for the one with most starts.
    """
    return torch.cat([part[starts[part].argsort()] for part in torch.arange(len(starts)).tensor_split(pieces)])


def _split(state: State, pieces: int) -> list[State]:
    """State leaves ``[n, ...]`` cut into ``pieces``."""
    parts = {name: leaf.tensor_split(pieces) for name, leaf in state.items()}
    return [{name: leaves[i] for name, leaves in parts.items()} for i in range(pieces)]
