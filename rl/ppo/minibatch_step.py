"""What one minibatch does to the weights, as a function of tensors that a CUDA device records as a graph."""

from dataclasses import fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rl.flat_adam import FlatAdam, average_gradient, take_step
from rl.graphs import Recorded, Tensors, flatten
from rl.networks import ActorCritic
from rl.ppo.losses import Coefficients, approximate_kl
from rl.ppo.teacher import Teacher
from rl.types import Sequences, State, WarmUp

ANNEALED = ("learning_rate", "clip", "entropy_coef", "teacher_kl")
"""The coefficients that change in the course of training: a graph sees them as tensors."""


class Learner(Protocol):
    """What is read of ``rl.ppo.PPO``."""

    max_grad_norm: float
    target_kl: float | None
    graphs: bool
    records_loss: ClassVar[bool]

    def loss(
        self, network: ActorCritic, mb: Sequences, now: Coefficients, teacher: Teacher | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a minibatch, 0-d, and what is worth reporting."""


class MinibatchStep:
    """Loss, gradient, clip, guard and Adam for one minibatch after the other.

    Args:
        ppo: gives the loss and the limits of a step.
        network: changed in place.
        optimizer: of the network, changed in place.
        teacher: to stay near to.
    """

    def __init__(self, ppo: Learner, network: ActorCritic, optimizer: FlatAdam, teacher: Teacher | None):
        self.ppo, self.network, self.optimizer, self.teacher = ppo, network, optimizer, teacher
        self.parameters = list(network.parameters())
        self.recorded = Recorded(self._take_named, self._anchors, enabled=ppo.graphs and ppo.records_loss)
        self.now: Coefficients | None = None
        self.records = False

    def begin(self, now: Coefficients, device: torch.device) -> None:
        """Take the coefficients of an update; those that change become tensors where a graph may see them."""
        self.now = now
        self.annealed: Tensors = {}
        self.records = self.recorded.records(device) and self.optimizer.shards.size == 1  # a graph talks to nobody
        if self.records:
            numbers = torch.tensor([getattr(now, name) for name in ANNEALED]).to(device, non_blocking=True)
            self.annealed = dict(zip(ANNEALED, numbers.unbind(), strict=True))

    def __call__(self, mb: Sequences, warm_up: WarmUp | None, going_on: Tensor) -> Tensors:
        """Take the step, unless ``going_on``, 0-d bool, is False.

        Returns:
            What ``PPO.loss`` reports, and 0-d ``loss``, ``grad_norm``, ``finite`` and ``going_on``.
        """
        assert self.now is not None  # begin was called
        if not self.records:
            return self._take(mb, warm_up, self.now, going_on)
        inputs = flatten({"mb": mb, "warm_up": warm_up}) | self.annealed | {"going_on": going_on}
        return self.recorded(inputs)

    def _take_named(self, inputs: Tensors) -> Tensors:
        assert self.now is not None
        annealed: dict[str, Any] = {name: inputs[name] for name in self.annealed}
        mb = unflatten(Sequences, "mb", inputs)
        warm_up = unflatten(WarmUp, "warm_up", inputs) if "warm_up.available" in inputs else None
        return self._take(mb, warm_up, self.now._replace(**annealed), inputs["going_on"])

    def _take(self, mb: Sequences, warm_up: WarmUp | None, now: Coefficients, going_on: Tensor) -> Tensors:
        if warm_up is not None:
            mb.state = warmed_state(self.network, mb.state, warm_up)
        loss, metrics = self.ppo.loss(self.network, mb, now, self.teacher)
        given = self.optimizer, loss, self.parameters
        if self.ppo.target_kl is None:
            gradient, mean_loss = average_gradient(*given)
        else:
            gradient, mean_loss, kl = average_gradient(*given, approximate_kl(metrics["ratio"]))
            going_on = going_on & (kl <= 1.5 * self.ppo.target_kl)
        self.optimizer.param_groups[0]["lr"] = now.learning_rate
        norm, finite = take_step(self.optimizer, gradient, mean_loss, self.ppo.max_grad_norm, going_on)
        return metrics | {"loss": loss.detach(), "grad_norm": norm, "finite": finite, "going_on": going_on & finite}

    def _anchors(self) -> list[Tensor]:
        (vector,) = self.optimizer.param_groups[0]["params"]
        state = self.optimizer.state.get(vector, {})  # asked for like this no empty one is made
        networks = [self.network, *([self.teacher.network] if self.teacher else [])]
        return [vector, *state.values(), *(leaf for network in networks for leaf in network.buffers())]


def unflatten(kind: type, prefix: str, tensors: Tensors) -> Any:
    """Put together the dataclass that ``flatten`` took apart; a field without tensors is None, or an empty dict."""
    parts: dict[str, Any] = {}
    for field in fields(kind):
        name = f"{prefix}.{field.name}"
        leaves = {key.removeprefix(f"{name}."): leaf for key, leaf in tensors.items() if key.startswith(f"{name}.")}
        parts[field.name] = tensors.get(name, leaves if field.name in ("obs", "state") else None)
    return kind(**parts)


def warmed_state(network: ActorCritic, stored: State, warm_up: WarmUp) -> State:
    """Replay the steps in front of sequences without loss; where there are none the ``stored`` state stands."""
    with torch.no_grad():
        *_, warmed = network.unroll(warm_up.obs, warm_up.state, warm_up.starts)
    available = {name: warm_up.available.view(-1, *[1] * (leaf.dim() - 1)) for name, leaf in stored.items()}
    return {name: torch.where(available[name], warmed[name], leaf) for name, leaf in stored.items()}
