"""From distribution parameters ``[..., P]`` to actions, log-probabilities and entropies, for each action space."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn
from torch.distributions.utils import clamp_probs

from rl.spaces import are_known

NOT_EXECUTED = -1
"""In place of a discrete action: this branch was sampled but had no part in what the environment executed."""


class Head(Protocol):
    """The distribution of actions. A head has one or more named branches (``move`` and ``vote``, say).

    Attributes:
        branches: their names.
        num_params: P, the distribution parameters of all branches.
        action_shape: of one action inside the network.
        action_dtype: of actions inside the network.
        previous_space: of an action that is fed as an input of the next step.
    """

    num_params: int
    branches: tuple[str, ...]
    action_shape: tuple[int, ...]
    action_dtype: torch.dtype
    previous_space: spaces.Space

    def sample(self, params: Tensor, generator: Generator) -> Tensor:
        """Draw actions ``[B, ...]`` from ``params [B, P]``."""

    def mode(self, params: Tensor) -> Tensor:
        """Choose the likeliest actions ``[B, ...]`` for ``params [B, P]``."""

    def evaluate(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-probabilities and entropies, each ``[..., branches]``; the joint log-probability is their sum."""

    def kl(self, params: Tensor, actions: Tensor, other: "Head", other_params: Tensor) -> Tensor:
        """Compute KL(this || other), ``[..., branches]``, 0 where a branch of ``actions`` was not executed.

        Raises:
            TypeError: the other head is of another kind.
        """

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Turn actions ``[B, ...]`` into what a vector environment takes."""

    def to_tensor_environment(self, actions: Tensor) -> Tensor:
        """Turn actions ``[B, ...]`` into what a vector environment of tensors takes, on the same device."""

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Invert ``to_environment``."""

    def as_previous(self, actions: Tensor) -> Tensor:
        """Turn actions into an input of the next step; zeros mean that there was none."""

    def describe(self) -> str:
        """Say in a few words what the actions are, and how they are brought into their bounds."""


MAX_LOGITS = 2**16
"""Largest number of choices of all branches: each has weights of its own."""


def make_head(space: spaces.Space, names: Sequence[str] | None = None) -> Head:
    """Make the head for an action space.

    Args:
        space: Discrete, MultiDiscrete, Box or MultiBinary.
        names: one name for each branch; default ``action`` for one branch, ``action_0`` ... for several.

    Raises:
        ValueError: the space is not supported or empty, has too many choices, or there is a wrong number of names.
    """
    head: Head
    choices = sum(space.nvec.ravel().tolist()) if isinstance(space, spaces.MultiDiscrete) else getattr(space, "n", 0)
    if np.max(choices, initial=0) > MAX_LOGITS:
        raise ValueError(f"action space {space} has {np.max(choices)} choices, more than {MAX_LOGITS}")
    if isinstance(space, spaces.Discrete):
        head = CategoricalHead([int(space.n)], [int(space.start)], flat=True)
    elif isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        head = CategoricalHead(space.nvec.tolist(), space.start.tolist(), flat=False)
    elif isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating) and np.prod(space.shape) > 0:
        head = GaussianHead(space)
    elif isinstance(space, spaces.MultiBinary):
        head = BernoulliHead(space.shape)
    else:
        raise ValueError(_unsupported(space))
    if names is not None and len(names) != len(head.branches):
        raise ValueError(f"action_names={list(names)}: {space} has {len(head.branches)} branch(es)")
    head.branches = tuple(names or head.branches)
    return head


def _unsupported(space: spaces.Space) -> str:
    """Say why a space has no head, and what to do about it."""
    allowed = "use Discrete, MultiDiscrete (one axis), float Box or MultiBinary"
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        allowed = "whole numbers have a MultiDiscrete space (one axis) with their smallest values as its start"
    elif isinstance(space, spaces.MultiDiscrete):
        allowed = f"it must have one axis: use a wrapper with MultiDiscrete({space.nvec.ravel().tolist()})"
    elif isinstance(space, (spaces.Dict, spaces.Tuple)):
        allowed = "use a wrapper that takes one MultiDiscrete, or one float Box, and takes it apart"
    return f"action space {space} is not supported: {allowed}"


class CategoricalHead(nn.Module):
    """Independent categorical branches; ``params`` are their logits side by side; actions int64 ``[..., branches]``."""

    start_tensor: Tensor
    branches: tuple[str, ...]
    action_shape: tuple[int, ...]
    previous_space: spaces.Space

    def __init__(self, sizes: Sequence[int], starts: Sequence[int], flat: bool):
        super().__init__()
        self.sizes = [int(n) for n in sizes]
        self.starts = np.asarray(starts)
        self.register_buffer("start_tensor", torch.as_tensor(self.starts), persistent=False)
        self.flat = flat
        self.num_params = sum(self.sizes)
        self.branches = ("action",) if len(self.sizes) == 1 else tuple(f"action_{i}" for i in range(len(self.sizes)))
        self.action_shape, self.action_dtype = (len(self.sizes),), torch.int64
        self.previous_space = spaces.MultiDiscrete([n + 1 for n in self.sizes])

    def sample(self, params: Tensor, generator: Generator) -> Tensor:
        """Draw actions ``[B, branches]`` by the Gumbel-max trick: an arg max costs a tenth of a ``Categorical``."""
        noise = torch.empty_like(params).exponential_(generator=generator).log_()
        return self.mode(params - noise)

    def mode(self, params: Tensor) -> Tensor:
        """Choose the likeliest actions, ``[B, branches]``."""
        if len(self.sizes) == 1:
            return params.argmax(dim=-1, keepdim=True)
        return torch.stack([logits.argmax(dim=-1) for logits in params.split(self.sizes, dim=-1)], dim=-1)

    def evaluate(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-probabilities, 0 where ``NOT_EXECUTED``, and entropies, each ``[..., branches]``."""
        columns = []
        for logits, action in zip(params.split(self.sizes, -1), actions.split(1, -1), strict=True):
            logs = logits.log_softmax(dim=-1)
            log_prob = logs.gather(-1, action.clamp_min(0)).masked_fill(action == NOT_EXECUTED, 0.0)
            columns.append((log_prob, -(logs.exp() * logs).sum(-1, keepdim=True)))
        if len(columns) == 1:
            return columns[0]
        log_probs, entropies = zip(*columns, strict=True)
        return torch.cat(log_probs, dim=-1), torch.cat(entropies, dim=-1)

    def kl(self, params: Tensor, actions: Tensor, other: Head, other_params: Tensor) -> Tensor:
        """Compute KL(this || other) ``[..., branches]``, 0 where ``NOT_EXECUTED``."""
        pairs = zip(params.split(self.sizes, -1), other_params.split(self.sizes, -1), strict=True)
        logs = [(logits.log_softmax(-1), others.log_softmax(-1)) for logits, others in pairs]
        columns = [(own.exp() * (own - theirs)).sum(-1) for own, theirs in logs]
        return torch.stack(columns, dim=-1).masked_fill(actions == NOT_EXECUTED, 0.0)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Turn ``[B, branches]`` into ``[B]`` for a Discrete space, else ``[B, branches]``."""
        actions = actions + self.starts
        return actions[:, 0] if self.flat else actions

    def to_tensor_environment(self, actions: Tensor) -> Tensor:
        """Turn ``[B, branches]`` into ``[B]`` for a Discrete space, else ``[B, branches]``."""
        actions = actions + self.start_tensor
        return actions[:, 0] if self.flat else actions

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Invert ``to_environment``."""
        return (actions.reshape(len(actions), -1) - self.starts).astype(np.int64)

    def as_previous(self, actions: Tensor) -> Tensor:
        """Shift actions by one; 0 means that there was none."""
        return actions + 1

    def describe(self) -> str:
        """Say how many choices there are."""
        counts = ", ".join(map(str, self.sizes[:4])) + (", ..." if len(self.sizes) > 4 else "")
        return f"one of {counts}" if len(self.sizes) == 1 else f"{len(self.sizes)} choices of {counts}"


class GaussianHead(nn.Module):
    """Independent normal distributions with a learned, state-independent standard deviation; one branch.

    A dimension with known bounds is spanned by -1 ... 1: actions are clipped to that and scaled to the bounds on their
    way to the environment, so the network sees the same scale whatever the bounds. Where a bound is infinite or a
    placeholder (``rl.spaces.PLACEHOLDER``), actions are clipped to it, but not scaled. Actions are stored unclipped.
    """

    bounds: Tensor  # [4, P]: lowest, highest, centre, half of the width
    branches: tuple[str, ...]
    action_shape: tuple[int, ...]
    previous_space: spaces.Space

    def __init__(self, space: spaces.Box):
        super().__init__()
        self.branches, self.shape = ("action",), space.shape
        self.num_params = size = int(np.prod(space.shape))
        low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
        self.low, self.high, self.bounded, self.dtype = low, high, are_known(low, high), space.dtype
        bottom, top = np.where(self.bounded, low, -1.0), np.where(self.bounded, high, 1.0)
        self.centre, self.half_width = (bottom + top) / 2, (top - bottom) / 2
        bounds = np.stack([low, high, self.centre, self.half_width])
        self.register_buffer("bounds", torch.from_numpy(bounds).float(), persistent=False)
        self.action_shape, self.action_dtype = (size,), torch.float32
        self.previous_space = spaces.Box(-np.inf, np.inf, (size,))
        self.log_std = nn.Parameter(torch.zeros(size))

    def sample(self, params: Tensor, generator: Generator) -> Tensor:
        """Draw actions ``[B, P]``."""
        return self.displace(params, torch.empty_like(params).normal_(generator=generator))

    def displace(self, params: Tensor, noise: Tensor) -> Tensor:
        """Turn standard normal ``noise [B, P]`` into actions ``[B, P]``."""
        return torch.addcmul(params, noise, self.log_std.exp())

    def mode(self, params: Tensor) -> Tensor:
        """Choose the means, ``[B, P]``."""
        return params

    def evaluate(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-probabilities and entropies, each ``[..., 1]``."""
        z = (actions - params) * torch.exp(-self.log_std)
        constant = self.log_std + 0.5 * np.log(2 * np.pi)
        entropy = (constant + 0.5).sum()
        return -(0.5 * z * z + constant).sum(-1, keepdim=True), entropy.expand(*params.shape[:-1], 1)

    def kl(self, params: Tensor, actions: Tensor, other: Head, other_params: Tensor) -> Tensor:
        """Compute KL(this || other) ``[..., 1]``, whatever the actions."""
        if not isinstance(other, GaussianHead):
            raise TypeError(f"other={other}: it must be a GaussianHead, too")
        wider = self.log_std - other.log_std
        z = (params - other_params) * torch.exp(-other.log_std)
        return (0.5 * (torch.exp(2 * wider) + z * z - 1) - wider).sum(-1, keepdim=True)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Turn ``[B, P]`` into ``[B, *shape]`` within the bounds."""
        scaled = actions * self.half_width + self.centre
        return np.clip(scaled, self.low, self.high).astype(self.dtype).reshape(-1, *self.shape)

    def to_tensor_environment(self, actions: Tensor) -> Tensor:
        """Turn ``[B, P]`` into float32 ``[B, *shape]`` within the bounds."""
        low, high, centre, half_width = self.bounds
        return torch.clamp(torch.addcmul(centre, actions, half_width), low, high).view(-1, *self.shape)

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Invert ``to_environment`` within the bounds."""
        return ((actions.reshape(len(actions), -1) - self.centre) / self.half_width).astype(np.float32)

    def as_previous(self, actions: Tensor) -> Tensor:
        """Return the actions as they are; zeros mean that there was none."""
        return actions

    def describe(self) -> str:
        """Say how many numbers there are, and which of them are scaled to their bounds."""
        scaled, free = "-1 to 1 is scaled to the bounds", "as they are, clipped where there is a bound"
        count, bounded = len(self.bounded), int(self.bounded.sum())
        if bounded in (0, count):
            return f"{count} numbers, {scaled if bounded else free}"
        return f"{count} numbers: of {bounded} {scaled}, the others {free}"


class BernoulliHead(nn.Module):
    """Independent bits; ``params`` are their logits; actions int64 ``[..., bits]``; one branch."""

    branches: tuple[str, ...]
    action_shape: tuple[int, ...]
    previous_space: spaces.Space

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.branches, self.shape = ("action",), shape
        self.num_params = int(np.prod(shape))
        self.action_shape, self.action_dtype = (self.num_params,), torch.int64
        self.previous_space = spaces.MultiDiscrete([3] * self.num_params)

    def sample(self, params: Tensor, generator: Generator) -> Tensor:
        """Draw bits ``[B, P]`` by inverting the logistic distribution."""
        uniform = clamp_probs(torch.empty_like(params).uniform_(generator=generator))
        return (params + uniform.logit() > 0).long()

    def mode(self, params: Tensor) -> Tensor:
        """Choose the likelier value of each bit, ``[B, P]``."""
        return (params > 0).long()

    def evaluate(self, params: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Compute log-probabilities and entropies, each ``[..., 1]``."""
        log_probs = nn.functional.logsigmoid(params * (2 * actions - 1))
        entropies = nn.functional.softplus(params) - params.sigmoid() * params
        return log_probs.sum(-1, keepdim=True), entropies.sum(-1, keepdim=True)

    def kl(self, params: Tensor, actions: Tensor, other: Head, other_params: Tensor) -> Tensor:
        """Compute KL(this || other) ``[..., 1]``, whatever the actions."""
        log_of = nn.functional.logsigmoid
        bits = [log_of(sign * params).exp() * (log_of(sign * params) - log_of(sign * other_params)) for sign in (1, -1)]
        return (bits[0] + bits[1]).sum(-1, keepdim=True)

    def to_environment(self, actions: np.ndarray) -> np.ndarray:
        """Turn ``[B, P]`` into int8 ``[B, *shape]``."""
        return actions.astype(np.int8).reshape(-1, *self.shape)

    def to_tensor_environment(self, actions: Tensor) -> Tensor:
        """Turn ``[B, P]`` into int8 ``[B, *shape]``."""
        return actions.to(torch.int8).view(-1, *self.shape)

    def from_environment(self, actions: np.ndarray) -> np.ndarray:
        """Invert ``to_environment``."""
        return actions.reshape(len(actions), -1).astype(np.int64)

    def as_previous(self, actions: Tensor) -> Tensor:
        """Shift bits by one; 0 means that there was none."""
        return actions + 1

    def describe(self) -> str:
        """Say how many bits there are."""
        return f"{self.num_params} bits"
