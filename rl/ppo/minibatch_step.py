"""What one minibatch does to the weights, as a function of tensors that a CUDA device records as a graph."""

from dataclasses import fields
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from rl.flat_adam import FlatAdam, average_gradient, take_step
from rl.graphs import Recorded, Tensors, flatten
from rl.networks import ActorCritic
from rl.ppo.losses import Coefficients, approximate_kl
from rl.ppo.options import SCHEDULED
from rl.ppo.teacher import Teacher
from rl.types import Sequences, State, WarmUp


class Learner(Protocol):
    """What is read of ``rl.ppo.PPO``."""

    max_grad_norm: float
    target_kl: float | None
    graphs: bool
    records_loss: ClassVar[bool]

    @property
    def adapts(self) -> bool:
        """Say whether the divergence of the policy sets the learning rate."""

    def adapted(self, rate: Tensor, kl: Tensor) -> Tensor:
        """Compute the learning rate of a step, 0-d, from that of the last one and the KL before it, both 0-d."""

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
        self.recorded = Recorded(self._take_named, self._anchors, enabled=ppo.graphs and ppo.records_loss)
        self.now: Coefficients | None = None
        self.records = False

    def begin(self, now: Coefficients, device: torch.device) -> None:
        """Take the coefficients of an update; those that change become tensors where a graph may see them."""
        self.now = now
        self.parameters = list(self.network.parameters())
        self.scheduled: Tensors = {}
        self.records = self.recorded.records(device) and self.optimizer.shards.size == 1  # a graph talks to nobody
        names = SCHEDULED if self.records else SCHEDULED[:1] if self.ppo.adapts else ()
        if names:
            numbers = torch.tensor([getattr(now, name) for name in names]).to(device, non_blocking=True)
            self.scheduled = dict(zip(names, numbers.unbind(), strict=True))
        # before its first step an update has nothing to adapt to: the divergence is that of rounding
        self.moved: Tensors = {"moved": torch.zeros((), dtype=torch.bool, device=device)} if self.ppo.adapts else {}

    @property
    def rate(self) -> Tensor:
        """The adaptive learning rate of the last step, 0-d."""
        return self.scheduled["learning_rate"]

    def __call__(self, mb: Sequences, warm_up: WarmUp | None, going_on: Tensor) -> Tensors:
        """Take the step, unless ``going_on``, 0-d bool, is False.

        Returns:
            What ``PPO.loss`` reports, and 0-d ``loss``, ``grad_norm``, ``finite`` and ``going_on``.
        """
        assert self.now is not None  # begin was called
        if self.records:
            inputs = flatten({"mb": mb, "warm_up": warm_up}) | self.scheduled | self.moved | {"going_on": going_on}
            outputs = self.recorded(inputs)
        else:
            changing: dict[str, Any] = {**self.scheduled}
            outputs = self._take(mb, warm_up, self.now._replace(**changing), going_on, self.moved.get("moved"))
        if self.ppo.adapts:
            self.scheduled["learning_rate"] = outputs.pop("learning_rate")
            self.moved["moved"] = outputs.pop("moved")
        return outputs

    def _take_named(self, inputs: Tensors) -> Tensors:
        assert self.now is not None
        changing: dict[str, Any] = {name: inputs[name] for name in self.scheduled}
        mb = unflatten(Sequences, "mb", inputs)
        warm_up = unflatten(WarmUp, "warm_up", inputs) if "warm_up.available" in inputs else None
        return self._take(mb, warm_up, self.now._replace(**changing), inputs["going_on"], inputs.get("moved"))

    def _take(
        self, mb: Sequences, warm_up: WarmUp | None, now: Coefficients, going_on: Tensor, moved: Tensor | None
    ) -> Tensors:
        if warm_up is not None:
            mb.state = warmed_state(self.network, mb.state, warm_up)
        loss, metrics = self.ppo.loss(self.network, mb, now, self.teacher)
        measured = () if self.ppo.target_kl is None and moved is None else (approximate_kl(metrics["ratio"]),)
        gradient, mean_loss, *kl = average_gradient(self.optimizer, loss, self.parameters, *measured)
        if self.ppo.target_kl is not None:
            going_on = going_on & (kl[0] <= 1.5 * self.ppo.target_kl)
        rate, adapted = now.learning_rate, {}
        if moved is not None and isinstance(rate, Tensor):
            rate = torch.where(going_on & moved, self.ppo.adapted(rate, kl[0]), rate)
            adapted = {"learning_rate": rate, "moved": torch.ones_like(moved)}
        self.optimizer.param_groups[0]["lr"] = rate
        norm, finite = take_step(self.optimizer, gradient, mean_loss, self.ppo.max_grad_norm, going_on)
        told = {"loss": loss.detach(), "grad_norm": norm, "finite": finite, "going_on": going_on & finite}
        return metrics | told | adapted

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
