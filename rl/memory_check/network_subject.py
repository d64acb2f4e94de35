"""A network of this package as what is checked."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from rl.memory_check.subject import Inputs
from rl.networks import ActorCritic, QuantileNetwork
from rl.networks.actor_critic import MASK, Trunk
from rl.types import Observation, State


class NetworkSubject:
    """A subject whose inputs are the features that encoders make; the network itself takes every step.

    Args:
        network: of an agent.
        name: in words.
    """

    def __init__(self, network: ActorCritic | QuantileNetwork, name: str):
        self.network, self.name = network, name
        self.trunks = {name: part for name, part in network.named_children() if isinstance(part, Trunk)}
        self.device = next(network.parameters()).device

    def parameters(self) -> Iterable[Tensor]:
        """Return the weights."""
        return self.network.parameters()

    def initial_state(self, batch_size: int) -> State:
        """Make the state of fresh memories."""
        return self.network.initial_state(batch_size, self.device)

    def encode(self, obs: Observation) -> Inputs:
        """Return the features of each encoder ``[..., D]``, and the mask of the actions if there is one."""
        inputs = {name: trunk.features(obs) for name, trunk in self.trunks.items()}
        return inputs | ({MASK: obs[MASK]} if self.network.masked else {})

    def step(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Take one step: parameters and value ``[B, P + 1]`` of an actor-critic, action values ``[B, A]``."""
        with self._encoded(inputs):
            params, values, after = self.network.step(inputs, state, starts.to(self.device))
        return self.join(params, values), after

    def unroll(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run sequences, with the outputs of ``step``."""
        with self._encoded(inputs):
            *results, after = self.network.unroll(inputs, state, starts)
        return self.outputs_of(results, inputs), after

    def join(self, params: Tensor, values: Tensor) -> Tensor:
        """Put what ``network.step`` gives side by side."""
        if isinstance(self.network, QuantileNetwork):
            return params  # the value is the largest of them
        return torch.cat([params, values.unsqueeze(-1)], dim=-1)

    def outputs_of(self, results: list[Tensor], obs: Observation) -> Tensor:
        """Turn what ``network.unroll`` gives, without the state, into outputs; ``obs`` is for its mask."""
        if isinstance(self.network, QuantileNetwork):
            return self.network.action_values(results[0], obs)
        params, values = results
        return self.join(params, values)

    @contextmanager
    def _encoded(self, inputs: Inputs) -> Iterator[None]:
        """While open, encoders give ``inputs``, whatever they are asked."""
        for name, trunk in self.trunks.items():
            vars(trunk)["features"] = lambda _, features=inputs[name]: features
        try:
            yield
        finally:
            for trunk in self.trunks.values():
                del vars(trunk)["features"]
