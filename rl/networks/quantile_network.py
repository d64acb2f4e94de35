"""Encoder, memory and the quantiles of every action's return as one module with explicit state."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, device, nn

from rl.checks import positive
from rl.encoders import auto
from rl.networks.actor_critic import MASK, Trunk
from rl.networks.encoders import Encoder, ImageEncoding, ImageLayout
from rl.networks.heads import CategoricalHead, make_head
from rl.networks.scales import log_corrections
from rl.types import Core, FeatureEncoder, Observation, State

FORBIDDEN = -1e9
"""The value of an action that the mask forbids."""

MAX_ACTIONS = 2**16
"""Largest number of codes of a MultiDiscrete space: each has an output of its own."""


class QuantileNetwork(nn.Module):
    """An implicit quantile network: ``observation, state, tau -> the tau-quantile of every action's return``.

    Z_tau(o, a) = f(psi(o) * phi(tau))_a with phi(tau) = relu(W cos(pi i tau) + b), i = 0 ... n - 1 (Dabney et al.,
    2018, equation 4). psi is an encoder with a memory behind it; f has one hidden layer.

    The value of an action is the mean over ``num_action_quantiles`` (K) fixed tau, the midpoints (k + 1/2) / K: the
    best estimate of the mean from K quantiles, and a greedy policy that plays the same twice.

    Args:
        leaves: observation leaves by name.
        action_space: Discrete or MultiDiscrete.
        core: ``core(input_size) -> Core``.
        layer_size: width of the encoder and of the hidden layer of f.
        normalise: running normalisation of the observations.
        image_layout: of Box leaves with three or four axes.
        image_encoding: what the numbers of images mean, see ``rl.networks.encoders.Encoder``.
        encoder: ``encoder(input_shapes) -> FeatureEncoder``, see ``rl.networks.Encoder``.
        action_names: names of the action branches.
        num_cosines: n.
        num_action_quantiles: K.
        dueling: f gives a value and an advantage of each action (Wang et al., 2016).

    Raises:
        ValueError: the action space is another, or a size is below 1.
    """

    frequencies: Tensor
    midpoints: Tensor

    def __init__(
        self,
        leaves: dict[str, spaces.Space],
        action_space: spaces.Space,
        core: Callable[..., Core],
        layer_size: int = 64,
        normalise: bool = False,
        image_layout: ImageLayout = "auto",
        image_encoding: ImageEncoding = "auto",
        encoder: Callable[..., FeatureEncoder | None] = auto,
        action_names: Sequence[str] | None = None,
        num_cosines: int = 64,
        num_action_quantiles: int = 8,
        dueling: bool = False,
    ):
        super().__init__()
        positive(num_cosines=num_cosines, num_action_quantiles=num_action_quantiles)
        self.head = EpsilonGreedyHead(action_space, action_names)
        self.masked = MASK in leaves
        if self.masked and leaves[MASK].shape != (sum(self.head.sizes),):
            raise ValueError(f"{MASK} has shape {leaves[MASK].shape}, but there are {sum(self.head.sizes)} choices")
        inputs = {name: space for name, space in leaves.items() if name != MASK}
        self.input_names = tuple(leaves)
        given = inputs, layer_size, normalise, image_layout, image_encoding, encoder
        self.trunk = Trunk(Encoder(*given), core)
        size = self.trunk.core.output_size
        self.embedding = nn.Linear(num_cosines, size)
        self.hidden = nn.Linear(size, layer_size)
        self.output = nn.Linear(layer_size, self.head.num_params + dueling)  # the value of a dueling network is last
        self.dueling = dueling
        for layer, gain in ((self.embedding, math.sqrt(2)), (self.hidden, math.sqrt(2)), (self.output, 0.01)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        frequencies = math.pi * torch.arange(num_cosines, dtype=torch.float32)
        midpoints = (torch.arange(num_action_quantiles) + 0.5) / num_action_quantiles
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.register_buffer("midpoints", midpoints, persistent=False)

    def initial_state(self, batch_size: int, device: device | str | None = None) -> State:
        """Make the state of ``batch_size`` fresh memories."""
        return self.trunk.core.initial_state(batch_size, device)

    def step(self, obs: Observation, state: State, starts: Tensor | None) -> tuple[Tensor, Tensor, State]:
        """Take one step from leaves ``[B, ...]``: action values ``[B, A]``, the best ``[B]``, next state."""
        features, state = self.trunk.core.step(self.trunk.features(obs), state, starts)
        values = self.action_values(features, obs)
        return values, values.amax(-1), state

    def unroll(self, obs: Observation, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run sequences: leaves ``[T, B, ...]``, ``starts [T, B]`` on any device -> psi ``[T, B, H]``, last state."""
        features = self.trunk.features(obs)
        return self.trunk.core.unroll(features, state, starts.to(features.device, non_blocking=True))

    def quantiles(self, features: Tensor, taus: Tensor) -> Tensor:
        """Map psi ``[..., H]`` and ``taus [..., N]``, whose leading axes broadcast, to quantiles ``[..., N, A]``."""
        return self._outputs(self._hidden(features, taus))

    def action_values(self, features: Tensor, obs: Observation) -> Tensor:
        """Map psi ``[..., H]`` to action values ``[..., A]``, means over the midpoints; ``obs`` is for its mask."""
        values = self._outputs(self._hidden(features, self.midpoints).mean(-2))  # the last layer is linear
        if self.masked:
            values = values.masked_fill(~self.head.allowed(obs[MASK]), FORBIDDEN)
        return values

    def _hidden(self, features: Tensor, taus: Tensor) -> Tensor:
        """Map ``[..., H]`` and ``[..., N]`` to ``[..., N, layer_size]``."""
        embedded = torch.relu(self.embedding(torch.cos(taus.unsqueeze(-1) * self.frequencies)))  # [..., N, H]
        return torch.relu(self.hidden(features.unsqueeze(-2) * embedded))

    def _outputs(self, hidden: Tensor) -> Tensor:
        outputs = self.output(hidden)
        if not self.dueling:
            return outputs
        advantages = outputs[..., :-1]
        return outputs[..., -1:] + advantages - advantages.mean(-1, keepdim=True)

    @property
    def normalises(self) -> bool:
        """Whether running moments of observations are kept."""
        return self.trunk.encoder.normalises

    def update_moments(self, obs: Observation) -> None:
        """Take observations ``[..., *shape]`` into the running normalisation."""
        self.trunk.encoder.update_moments(obs)

    def correct_scales(self, obs: Observation) -> bool:
        """Correct scales that destroy what was observed; the log says so. Return whether there were any."""
        return log_corrections(self.trunk.encoder.correct_scales(obs))

    def describe(self) -> list[str]:
        """Say how observations are encoded and what the actions are, a line for each leaf."""
        mask = [f"observation {MASK!r}: the actions that are allowed"] if self.masked else []
        return [*self.trunk.encoder.describe(), *mask, f"actions: {self.head.describe()}"]


class EpsilonGreedyHead(nn.Module):
    """A head that takes the best action, or a random one with probability epsilon: ``[B, A]`` -> ``[B, branches]``.

    ``A`` counts all combinations of the branches: action ``a`` is the mixed-radix number of its branches, the first one
    weighing most.

    Attributes:
        epsilon: of ``sample``; a graph sees it change, for it lies in a tensor, too.
    """

    digits: Tensor
    weights: Tensor
    columns: Tensor
    starts: Tensor  # [branches], the least actions of the space
    chance: Tensor  # [], epsilon

    def __init__(self, space: spaces.Space, names: Sequence[str] | None = None):
        super().__init__()
        if not isinstance(space, spaces.Discrete) and not (
            isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1
        ):
            raise ValueError(
                f"action space {space} is not supported by quantile networks: use Discrete or MultiDiscrete (one axis)"
            )
        branches = make_head(space, names)
        assert isinstance(branches, CategoricalHead)  # the spaces above have no other
        self.sizes, self.branches = branches.sizes, branches.branches
        self.num_params = math.prod(self.sizes)
        if self.num_params > MAX_ACTIONS:
            raise ValueError(f"action space {space} has {self.num_params} combinations, more than {MAX_ACTIONS}")
        self.action_shape, self.action_dtype = branches.action_shape, branches.action_dtype
        self.previous_space, self.describe = branches.previous_space, branches.describe
        self.to_environment, self.as_previous = branches.to_environment, branches.as_previous
        self.flat = branches.flat
        digits = np.stack(np.unravel_index(np.arange(self.num_params), self.sizes), axis=-1)  # [A, branches]
        weights = np.cumprod([1, *self.sizes[:0:-1]])[::-1]
        columns = digits + np.cumsum([0, *self.sizes[:-1]])
        tables = {"digits": digits, "weights": weights, "columns": columns, "starts": branches.starts}
        for name, table in tables.items():
            self.register_buffer(name, torch.from_numpy(table.copy()), persistent=False)
        self.register_buffer("chance", torch.zeros(()), persistent=False)
        self.epsilon = 0.0

    @property
    def epsilon(self) -> float:
        """Probability of a random action."""
        return self._epsilon

    @epsilon.setter
    def epsilon(self, value: float) -> None:
        self._epsilon = value
        self.chance.fill_(value)

    def sample(self, params: Tensor, generator: Generator) -> Tensor:
        """Draw actions ``[B, branches]``; random ones come from those that the mask allows."""
        draws = torch.empty(len(params), self.num_params + 1, device=params.device).uniform_(generator=generator)
        random = draws[:, 1:].masked_fill(params <= FORBIDDEN, -1.0)
        return self.mode(torch.where(draws[:, :1] < self.chance, random, params))

    def mode(self, params: Tensor) -> Tensor:
        """Choose the best actions ``[B, branches]``."""
        return self.digits[params.argmax(-1)]

    def to_tensor_environment(self, actions: Tensor) -> Tensor:
        """Turn ``[B, branches]`` into ``[B]`` for a Discrete space, else ``[B, branches]``."""
        actions = actions + self.starts
        return actions[:, 0] if self.flat else actions

    def codes(self, actions: Tensor) -> Tensor:
        """Encode branches ``[..., branches]`` as actions ``[...]``."""
        return (actions * self.weights).sum(-1)

    def allowed(self, mask: Tensor) -> Tensor:
        """Say which actions ``[..., A]`` a mask of the choices of all branches, ``[..., sum of sizes]``, allows."""
        return mask.bool()[..., self.columns].all(-1)
