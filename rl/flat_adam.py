"""Adam over all weights of a network as one vector, and the one step that every learner takes with it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import Adam

from rl.schema import check_entry, finite
from rl.shards import ALONE, Shards

SUDDEN = 2.0
"""A gradient that is so many times as long as gradients were is cut to that."""

TINY = 1e-3
"""No gradient of this norm is cut: next to Adam's eps it is small already."""


class FlatAdam(Adam):
    """Adam with one parameter; its fused kernel reads the two attributes, which torch only names in its AMP scaler.

    Attributes:
        grad_scale: 0-d, what the kernel divides the gradient by.
        found_inf: 0-d, 1 where the kernel is to leave weights and moments as they are.
        shards: whose gradients are averaged before a step.
    """

    grad_scale: Tensor
    found_inf: Tensor
    shards: Shards = ALONE


def flat_adam(network: nn.Module, learning_rate: float) -> FlatAdam:
    """Make Adam (Kingma and Ba, 2015) whose only parameter holds all weights of ``network`` end to end.

    Norm, clip and step are then one operation each instead of one per parameter. Every step is elementwise, so it
    computes what Adam over the separate parameters would. The parameters of ``network`` become views of the vector, so
    the network has to be on its device already and to stay there. What has taken them out of it since, ``link`` mends.
    """
    _check_learning(network)
    parameters = list(network.parameters())
    vector = nn.Parameter(parameters_to_vector(parameters).detach())
    vector_to_parameters(vector.data, parameters)
    return FlatAdam([vector], lr=learning_rate, eps=1e-5, fused=True, capturable=vector.is_cuda)


def _check_learning(network: nn.Module) -> None:
    """Check that all parameters of ``network`` take gradients, as one vector does or does not."""
    fixed = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
    if fixed:
        raise ValueError(f"{fixed[0]} of the network is a parameter that does not learn: make it a buffer")


def link(network: nn.Module, optimizer: FlatAdam) -> None:
    """Make the weights of ``network`` views of the vector of its optimiser again, where they are not.

    A deep copy has weights of its own, and so has a network whose dtype was changed and changed back, or that took
    others by ``assign=True``: all steps would be taken with a vector that no network reads.

    Raises:
        ValueError: the network has other weights than the vector has place for, or some that do not learn.
    """
    _check_learning(network)
    parameters, (vector,) = list(network.parameters()), optimizer.param_groups[0]["params"]
    *places, end = accumulate((leaf.numel() * leaf.element_size() for leaf in parameters), initial=vector.data_ptr())
    pairs = zip(parameters, places, strict=True)
    lie_there = all(leaf.data_ptr() == place or not leaf.numel() for leaf, place in pairs)
    if lie_there and end == vector.data_ptr() + vector.numel() * vector.element_size():
        return
    told = sum(leaf.numel() for leaf in parameters), {(leaf.dtype, leaf.device) for leaf in parameters}
    if told != (vector.numel(), {(vector.dtype, vector.device)}):
        raise ValueError(
            "the weights of the network are others than its optimiser was made for, in number, dtype or device: make "
            "the agent with what is to be trained"
        )
    with torch.no_grad():
        vector.copy_(parameters_to_vector(parameters))
        vector_to_parameters(vector.data, parameters)


def guarded_step(
    optimizer: FlatAdam, loss: Tensor, parameters: Sequence[nn.Parameter], max_grad_norm: float, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one step down the gradient of ``loss``, unless it is not allowed or not finite: see ``take_step``.

    Args:
        optimizer: from ``flat_adam``.
        loss: 0-d.
        parameters: all those of the network, in its order.
        max_grad_norm: a longer gradient is scaled down to this norm.
        allowed: 0-d bool; False takes no step.

    Returns:
        The norm of the gradient before clipping, and whether norm and loss are finite, both 0-d.
    """
    gradient, mean_loss = average_gradient(optimizer, loss, parameters)
    return take_step(optimizer, gradient, mean_loss, max_grad_norm, allowed)


def average_gradient(
    optimizer: FlatAdam, loss: Tensor, parameters: Sequence[nn.Parameter], *others: Tensor
) -> tuple[Tensor, ...]:
    """Compute the gradient of ``loss``, averaged over the shards of the run.

    Args:
        optimizer: from ``flat_adam``; knows the shards.
        loss: 0-d.
        parameters: all those of the network, in its order.
        others: 0-d each, averaged in the same transfer.

    Returns:
        The gradient ``[P]`` of all parameters end to end, the loss, and the ``others``, averaged and without gradients.
    """
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    parts = [part.reshape(-1) for part in (*gradients, loss, *others)]
    vector = torch.cat(parts).detach()  # torch 2.8 lets unused gradients require one
    shards = optimizer.shards
    if shards.size > 1:
        vector = shards.sum(vector).div_(shards.size)
    gradient, *numbers = vector.split([vector.numel() - len(others) - 1, *[1] * (len(others) + 1)])
    return gradient, *(number.squeeze(0) for number in numbers)


def take_step(
    optimizer: FlatAdam, gradient: Tensor, loss: Tensor, max_grad_norm: float, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one step down ``gradient [P]``, unless it is not allowed, or gradient or loss is not finite.

    Adam divides by the size that gradients had, so where they were small for long, as once a task is solved, one that
    is not undoes what was learned. Hence a gradient longer than ``SUDDEN`` times the root mean square of the norms
    before it, which the second moments know, is scaled down to that.

    The decision is made on the device, so nothing waits for the host: the fused kernel leaves weights and moments as
    they are where ``found_inf`` is 1, and divides the gradient by ``grad_scale``, which clips it without another pass.

    Returns:
        See ``guarded_step``.
    """
    norm = torch.linalg.vector_norm(gradient)
    finite = torch.isfinite(norm + loss)
    (vector,) = optimizer.param_groups[0]["params"]
    vector.grad = gradient
    longest = torch.full_like(norm, max_grad_norm)
    if state := optimizer.state.get(vector):  # asked for like this no empty one is made
        taken = state["step"]  # 0 if all gradients so far were refused
        usual = (state["exp_avg_sq"].sum() / (1.0 - optimizer.param_groups[0]["betas"][1] ** taken)).sqrt()
        longest = torch.where(taken > 0, torch.minimum(longest, SUDDEN * usual + TINY), longest)
    optimizer.grad_scale = (norm / longest).clamp_(min=1.0)
    optimizer.found_inf = (~(finite & allowed)).float()
    optimizer.step()
    return norm, finite


def is_usable(optimizer: FlatAdam) -> Tensor:
    """Say whether weights and second moments can be gone on with, 0-d bool, without waiting for the host.

    Both can be ruined by a step whose loss and gradient were finite: a weight beyond 1e19 has a square that is not, and
    under a second moment that is infinite all further steps would be 0.
    """
    (vector,) = optimizer.param_groups[0]["params"]
    largest = torch.linalg.vector_norm(vector.detach())
    state = optimizer.state.get(vector)  # asked for like this no empty one is made
    return torch.isfinite(largest + state["exp_avg_sq"].amax()) if state else torch.isfinite(largest)


def optimizer_schema(optimizer: FlatAdam) -> dict[str, Any]:
    """Say what ``state_dict`` of an optimiser holds, for ``rl.schema``."""
    (vector,) = optimizer.param_groups[0]["params"]
    moments = {"step": torch.zeros(()), "exp_avg": vector, "exp_avg_sq": vector}

    def check_state(value: Any, name: str) -> None:
        """Check the moments, which there are none of before the first step."""
        is_empty = isinstance(value, dict) and (not value or value.get(0) == {})
        check_entry(value, {} if is_empty else {0: moments}, name)

    return {"state": check_state, "param_groups": [{"lr": finite}]}


def load_optimizer(optimizer: FlatAdam, state: dict[str, Any]) -> None:
    """Take moments and learning rate of what ``state_dict`` gave; nothing is shared with it."""
    groups = [
        own | {"lr": stored["lr"]}
        for own, stored in zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": deepcopy(state["state"]), "param_groups": groups})


@contextmanager
def undone_on_failure(network: nn.Module, optimizer: FlatAdam, others: Iterable[Tensor] = ()) -> Iterator[None]:
    """Put weights, moments and learning rate, and the ``others``, back as they were if the block raises anything.

    So nothing is left of an update in which some minibatches were good and a later one was not, or in which code of the
    user failed. The weights are those that the optimiser steps: see ``link``.
    """
    link(network, optimizer)
    group = optimizer.param_groups[0]
    (vector,), rate = group["params"], group["lr"]
    state = optimizer.state[vector]
    kept = [vector, *state.values(), *others]
    copies = [leaf.detach().clone() for leaf in kept]
    is_first = not state
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for leaf, copy in zip(kept, copies, strict=True):
                leaf.copy_(copy)
        group["lr"] = rate
        if is_first:
            optimizer.state.clear()
        raise
