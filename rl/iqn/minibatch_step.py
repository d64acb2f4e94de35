"""What one minibatch does to the weights, as a function of tensors that a CUDA device records as a graph."""

from typing import ClassVar, Protocol

import torch
from torch import Generator, Tensor

from rl.flat_adam import FlatAdam, guarded_step
from rl.graphs import Recorded, Tensors
from rl.iqn.sequence_replay import SequenceReplay
from rl.networks import QuantileNetwork
from rl.normalisation import ReturnScale
from rl.types import ReplayBatch


class Learner(Protocol):
    """What is read of ``rl.iqn.IQN``."""

    max_grad_norm: float
    graphs: bool
    records_loss: ClassVar[bool]

    def loss(
        self,
        network: QuantileNetwork,
        target: QuantileNetwork,
        mb: ReplayBatch,
        generator: Generator,
        return_scale: ReturnScale | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a minibatch, 0-d, and what is worth reporting."""


class MinibatchStep:
    """Reading, loss, gradient, clip, guard and Adam for one minibatch after the other.

    Args:
        iqn: gives the loss and the limit of a step.
        network: changed in place.
        target: values what follows.
        optimizer: of the network, changed in place.
        replay: is read.
        generator: draws tau.
        return_scale: divides the rewards; None leaves them.
    """

    def __init__(
        self,
        iqn: Learner,
        network: QuantileNetwork,
        target: QuantileNetwork,
        optimizer: FlatAdam,
        replay: SequenceReplay,
        generator: Generator,
        return_scale: ReturnScale | None,
    ):
        self.iqn, self.network, self.target, self.optimizer = iqn, network, target, optimizer
        self.replay, self.generator, self.return_scale = replay, generator, return_scale
        self.recorded = Recorded(self._take_named, self._anchors, [generator], iqn.graphs and iqn.records_loss)
        self.learning_rate: float | Tensor = 0.0
        self.records = False

    def serves(self, *parts: object) -> bool:
        """Say whether it was made for these, given in the order of its arguments."""
        own = self.network, self.target, self.optimizer, self.replay, self.generator, self.return_scale
        return all(one is other for one, other in zip(own, parts, strict=True))

    def begin(self, learning_rate: float) -> None:
        """Take the learning rate of an update; it becomes a tensor where a graph may see it."""
        self.learning_rate, device = learning_rate, self.replay.device
        self.parameters = list(self.network.parameters())
        self.records = self.recorded.records(device) and self.optimizer.shards.size == 1  # a graph talks to nobody
        if self.records:
            self.learning_rate = torch.tensor(learning_rate).to(device, non_blocking=True)

    def __call__(self, slots: Tensor, weights: Tensor, going_on: Tensor) -> Tensors:
        """Take the step with the sequences at ``slots [N]``, unless ``going_on``, 0-d bool, is False.

        Returns:
            What ``IQN.loss`` reports, and 0-d ``loss``, ``grad_norm`` and ``going_on``.
        """
        given = {"slots": slots, "weights": weights, "going_on": going_on}
        if self.records and isinstance(self.learning_rate, Tensor):
            return self.recorded(given | {"learning_rate": self.learning_rate})
        return self._take(self.learning_rate, **given)

    def _take_named(self, inputs: Tensors) -> Tensors:
        return self._take(**inputs)

    def _take(self, learning_rate: float | Tensor, slots: Tensor, weights: Tensor, going_on: Tensor) -> Tensors:
        mb = self.replay.read(slots, weights)
        loss, metrics = self.iqn.loss(self.network, self.target, mb, self.generator, self.return_scale)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        norm, finite = guarded_step(self.optimizer, loss, self.parameters, self.iqn.max_grad_norm, going_on)
        return metrics | {"loss": loss.detach(), "grad_norm": norm, "going_on": going_on & finite}

    def _anchors(self) -> list[Tensor]:
        (vector,) = self.optimizer.param_groups[0]["params"]
        state = self.optimizer.state.get(vector, {})  # asked for like this no empty one is made
        scale = [] if self.return_scale is None else self.return_scale.buffers()
        fixed = [*self.target.parameters(), *self.target.buffers(), *self.network.buffers(), *scale]
        return [vector, *state.values(), *fixed, *self.replay.leaves()]
