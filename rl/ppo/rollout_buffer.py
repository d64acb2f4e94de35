"""The rollout buffer: stores a rollout on the training device and cuts it into sequences."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from rl.networks.heads import NOT_EXECUTED
from rl.ppo.indexing import close_gaps, gather
from rl.sizes import describe_sizes
from rl.types import Observation, Sequences, State, Targets, WarmUp

Forward = Callable[[Observation, State, Tensor], tuple[Tensor, Tensor, State]]
"""What ``ActorCritic.step`` and ``unroll`` do."""

PLAIN = ("actions", "params", "values", "rewards", "starts", "terminated", "truncated", "ignored")


class RolloutBuffer:
    """A buffer of preallocated tensors ``[T, B, ...]``, one for each observation leaf, state leaf, and so on.

    It knows nothing of cores: a state leaf is one more key. Leaves are stored at every ``state_stride``-th step, where
    sequences may begin. Flags and rewards lie where the environment gives them: on the CPU until training, or on
    ``device``, where all else lies. A buffer that is full grows, so that a client may collect as long as it likes.

    Args:
        num_steps: T to begin with.
        obs: an example, leaves ``[B, ...]``, for shapes and dtypes.
        state: likewise.
        actions: likewise, ``[B, ...]``.
        params: likewise, ``[B, P]``.
        state_stride: distance of the stored states in steps.
        device: where the tensors lie.
        told_on: where flags and rewards lie.
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
        told_on: torch.device | str = "cpu",
    ):
        self.num_envs = actions.shape[0]
        self.stride = state_stride
        self.capacity = num_steps
        self.size, self.has_gaps = 0, False  # steps collected; whether some of them are ignored

        def zeros(example: Tensor, count: int = num_steps) -> Tensor:
            return torch.zeros(count, *example.shape, dtype=example.dtype, device=device)

        self.obs = {name: zeros(leaf) for name, leaf in obs.items()}
        self.state = {name: zeros(leaf, -(-num_steps // state_stride)) for name, leaf in state.items()}
        self.actions, self.params = zeros(actions), zeros(params)
        self.values = torch.zeros(num_steps, self.num_envs, device=device)
        self.rewards = torch.zeros(num_steps, self.num_envs, device=told_on)
        flags = torch.zeros(4, num_steps, self.num_envs, dtype=torch.bool, device=told_on)
        self.starts, self.terminated, self.truncated, self.ignored = flags
        self._make_views()

    def _make_views(self) -> None:
        """Cache one view per step; copying into it is twice as fast as indexing each time."""
        written = (*self.obs.values(), self.params, self.values, self.actions)
        self._step_views = list(zip(*(leaf.unbind(0) for leaf in written), strict=True))
        self._state_views = [list(leaf.unbind(0)) for leaf in self.state.values()]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the views, each of which would be pickled as a tensor of its own."""
        return {name: value for name, value in vars(self).items() if not name.endswith("_views")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make them anew."""
        vars(self).update(state)
        self._make_views()

    def write_step(
        self, obs: Observation, state: State, starts: np.ndarray, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """Write the acting half of step ``size``: leaves ``[B, ...]``, starts and values ``[B]``, params ``[B, P]``.

        The state is that **before** the step and before the clearing that ``starts`` asks for.
        """
        t = self.size
        if t == self.capacity:
            self._grow()
        self.write_tensors(t, obs, state, params, values, actions)
        self.starts.numpy()[t] = starts  # these lie on the CPU, where numpy writes a row faster than torch

    def write_tensors(
        self, t: int, obs: Observation, state: State, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """Write the same of step ``t``, but for the starts."""
        written = (*[obs[name] for name in self.obs], params, values, actions)
        for view, leaf in zip(self._step_views[t], written, strict=True):
            view.copy_(leaf)
        if t % self.stride == 0:
            for views, name in zip(self._state_views, self.state, strict=True):
                views[t // self.stride].copy_(state[name])

    def finish_step(
        self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, ignored: np.ndarray | bool = False
    ) -> None:
        """Write what came of step ``size``, ``[B]`` each; the step now counts, but not where it is ``ignored``."""
        t = self.size
        self.rewards.numpy()[t] = rewards
        self.terminated.numpy()[t] = terminated
        self.truncated.numpy()[t] = truncated
        self.ignored.numpy()[t] = ignored
        self.size = t + 1

    @property
    def has_empty_row(self) -> bool:
        """Whether some environment has no transition yet."""
        return self.has_gaps and bool(self.ignored[: self.size].all(dim=0).any())

    @property
    def whole_steps(self) -> int:
        """How many steps the rollout has once gaps are closed: the transitions of the environment with the fewest."""
        return int((~self.ignored[: self.size]).sum(0).min()) if self.has_gaps else self.size

    def forget(self) -> None:
        """Forget the rollout; its memory stays."""
        self.size, self.has_gaps = 0, False

    def hide_branch(self, branch: int) -> None:
        """Mark an action branch of the last step as not executed: it is not trained."""
        self.actions[self.size - 1, :, branch] = NOT_EXECUTED

    def truncate(self) -> None:
        """Mark unfinished episodes as truncated after the last step."""
        if self.size:
            last = self.size - 1
            self.truncated[last] |= ~(self.terminated[last] | self.truncated[last])

    def observations(self) -> Observation:
        """Return the observations of the rollout, leaves ``[size, B, ...]``."""
        return {name: leaf[: self.size] for name, leaf in self.obs.items()}

    def leaves(self) -> list[Tensor]:
        """List every stored tensor."""
        return [*self.obs.values(), *self.state.values(), *(getattr(self, name) for name in PLAIN)]

    def describe(self) -> str:
        """Say how many bytes a rollout takes, and which leaves most of them."""
        plain = {name: getattr(self, name) for name in PLAIN}
        return describe_sizes("rollout", {"observation": self.obs, "state": self.state, "": plain})

    @torch.no_grad()
    def store_every_state(self, step: Forward) -> None:
        """Fill in the states between those that are stored, up to the step that was written last.

        Args:
            step: of the network that played the rollout.
        """
        if self.stride == 1:
            return
        sparse, stride, device = self.state, self.stride, self.values.device
        self.state = {name: leaf.new_zeros(self.capacity, *leaf.shape[1:]) for name, leaf in sparse.items()}
        for t in range(min(self.size + 1, self.capacity)):
            if t % stride == 0:
                state = {name: leaf[t // stride] for name, leaf in sparse.items()}
            for name, leaf in state.items():
                self.state[name][t] = leaf
            *_, state = step({name: leaf[t] for name, leaf in self.obs.items()}, state, self.starts[t].to(device))
        self.stride = 1
        self._make_views()

    def _grow(self) -> None:
        """Double the number of steps."""
        self.capacity *= 2
        for group in (self.obs, self.state):
            for name, leaf in group.items():
                group[name] = torch.cat([leaf, torch.zeros_like(leaf)])
        for name in PLAIN:
            leaf = getattr(self, name)
            setattr(self, name, torch.cat([leaf, torch.zeros_like(leaf)]))
        self._make_views()

    def drop_ignored(self, size: int, last_values: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
        """Close the gaps that ignored steps left, so that every step is a transition; drop those too many at the end.

        Args:
            size: of the rollout then, at most ``whole_steps``.
            last_values: ``[B]``, V of the observation after the last step.
            columns: ``[size, B, ...]`` each, what else belongs to the steps.

        Returns:
            The same for the new, smaller size.
        """
        assert self.stride == 1  # see store_every_state
        steps, last_values = close_gaps(self.ignored[: self.size], self.values, last_values, size)
        index = steps * self.num_envs + torch.arange(self.num_envs)  # [size, B], each t * B + b
        on_device = index.to(self.values.device)

        def close(leaf: Tensor) -> Tensor:
            return gather(leaf, index if leaf.device == index.device else on_device)

        for leaf in self.leaves():
            leaf[:size] = close(leaf)
        self.size, self.has_gaps = size, False
        return last_values, *(close(column) for column in columns)

    def chunks(self, bptt: int | None) -> list[tuple[int, int]]:
        """Cut the rollout into as few pieces as ``bptt`` allows, all of one length: ``(first step, length)`` each.

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
        """Yield one epoch of minibatches: every transition exactly once, nothing padded.

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
        chunks, device = self.chunks(bptt), self.values.device
        columns = [self.starts.to(device, non_blocking=True), self.actions, targets.old_log_probs]
        columns += [targets.old_values, targets.advantages, targets.returns]
        columns += [] if targets.teacher_params is None else [targets.teacher_params]
        for length in sorted({length for _, length in chunks}):
            begins = torch.tensor([begin for begin, chunk_length in chunks if chunk_length == length])
            order = torch.randperm(len(begins) * self.num_envs, generator=generator)
            count = min(len(order), max(1, round(num_minibatches * len(begins) / len(chunks))))
            if device.type == "cpu":  # sorted by episode starts, so that what is unrolled together needs less padding
                num_starts = self.starts[begins + torch.arange(length).unsqueeze(1)].sum(0).flatten()  # [n]
                order = torch.cat([part[num_starts[part].argsort()] for part in order.tensor_split(count)])
            first, env = begins[order // self.num_envs], order % self.num_envs  # [n] each
            steps = torch.arange(0, length * self.num_envs, self.num_envs, device=device).unsqueeze(1)
            index = steps + (first * self.num_envs + env).to(device, non_blocking=True)  # [L, n], each t * B + b
            # all that is small is gathered at once for all minibatches, observations for each
            gathered = [gather(column, index) for column in columns]
            state = {name: leaf.tensor_split(count) for name, leaf in self._state_at(first, env).items()}
            splits = [column.tensor_split(count, dim=1) for column in (index, *gathered)]
            for i, (at, *parts) in enumerate(zip(*splits, strict=True)):
                obs = {name: gather(leaf, at.contiguous()) for name, leaf in self.obs.items()}
                mb = Sequences(obs, {name: leaves[i] for name, leaves in state.items()}, *parts)
                if burn_in:
                    yield mb, self._warm_up(first.tensor_split(count)[i], env.tensor_split(count)[i], burn_in)
                else:
                    yield mb, None

    def _state_at(self, first: Tensor, env: Tensor) -> State:
        """Gather the state leaves ``[N, ...]`` before the steps ``first [N]`` of ``env [N]``."""
        index = (first // self.stride * self.num_envs + env).to(self.values.device, non_blocking=True)
        return {name: gather(leaf, index) for name, leaf in self.state.items()}

    def _warm_up(self, first: Tensor, env: Tensor, burn_in: int) -> WarmUp:
        begin = (first - burn_in).clamp_min(0)
        index = (begin + torch.arange(burn_in).unsqueeze(1)).clamp_max(self.size - 1) * self.num_envs + env
        on_device = index.to(self.values.device, non_blocking=True)
        obs = {name: gather(leaf, on_device) for name, leaf in self.obs.items()}
        available = (first >= burn_in).to(self.values.device, non_blocking=True)
        starts = gather(self.starts, index.to(self.starts.device, non_blocking=True))
        return WarmUp(obs, self._state_at(begin, env), starts, available)

    def refresh(self, unroll: Forward, bptt: int | None) -> None:
        """Recompute the stored state at the start of every chunk but the first with the current weights.

        Args:
            unroll: of the network.
            bptt: as in ``sequences``.
        """
        for begin, state in self.recompute(unroll, bptt):
            for name, leaf in state.items():
                self.state[name][begin // self.stride] = leaf

    def recompute(
        self, unroll: Forward, bptt: int | None, rows: slice = slice(None), to_the_end: bool = False
    ) -> Iterator[tuple[int, State]]:
        """Yield where every chunk but the first begins, and the state there that comes of the first one and ``unroll``.

        Args:
            unroll: of the network.
            bptt: as in ``sequences``.
            rows: environments.
            to_the_end: yield the state after the last step, too.
        """
        chunks, state = self.chunks(bptt), self.state_before(0, rows)
        for begin, length in chunks if to_the_end else chunks[:-1]:
            steps = slice(begin, begin + length)
            obs = {name: leaf[steps, rows] for name, leaf in self.obs.items()}
            *_, state = unroll(obs, state, self.starts[steps, rows])
            yield steps.stop, state

    def state_before(self, step: int, rows: slice = slice(None)) -> State:
        """Return the stored state before a step of some environments, leaves ``[rows, ...]``."""
        return {name: leaf[step // self.stride, rows].contiguous() for name, leaf in self.state.items()}

    def read(self, targets: Targets, first: Tensor, env: Tensor, length: int) -> Sequences:
        """Read the sequences that begin at ``first [N]`` of ``env [N]``, with starts on the CPU, without a teacher."""
        index = (first + torch.arange(length).unsqueeze(1)) * self.num_envs + env  # [L, N], each t * B + b
        on_device = index.to(self.values.device, non_blocking=True)
        columns = self.actions, targets.old_log_probs, targets.old_values, targets.advantages, targets.returns
        obs = {name: gather(leaf, on_device) for name, leaf in self.obs.items()}
        parts = (gather(column, on_device) for column in columns)
        starts = gather(self.starts, index.to(self.starts.device)).cpu()
        return Sequences(obs, self._state_at(first, env), starts, *parts)
