"""Checks of what an agent has learned and remembers: on its way into a checkpoint, and on its way back."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn

from rl.agents.persistence import name_differences, without_corrections
from rl.flat_adam import FlatAdam, optimizer_schema
from rl.networks import ActorCritic, QuantileNetwork
from rl.networks.modes import evaluation_mode
from rl.normalisation import ReturnScale, RunningMoments
from rl.schema import check_entry, finite, natural
from rl.types import Observation, State

OTHER_GENERATORS = (16, 5056)  # bytes of the state of a generator of CUDA, of the CPU


def check_entries(state: dict[str, Any], schema: dict[str, Any], network: nn.Module) -> None:
    """Check that the entries of an agent's ``state_dict`` are of the right types and shapes, and all numbers finite.

    Args:
        state: has all entries; ``network`` fits.
        schema: of the entries, see ``agent_schema``.
        network: of the agent that is to take the state.

    Raises:
        ValueError: an entry is not.
    """
    if "target" in schema:
        check_weights(state["target"], network, "agent.target")
    others = {name: part for name, part in schema.items() if part is not None}
    check_entry({name: state[name] for name in others}, others, "agent")
    if "memories" in schema:
        starts = torch.zeros(state["num_envs"], dtype=torch.bool, device="meta")
        check_entry(state["memories"], {"starts": starts}, "agent.memories")
    if "optimizer" in schema and state["updates"] and not state["optimizer"]["state"]:
        raise ValueError("the entry agent.optimizer.state of the checkpoint is empty, but there were updates")
    try:
        check_finite({name: state[name] for name in schema}, network)
    except FloatingPointError as error:
        raise ValueError(str(error)) from error


def agent_schema(
    network: nn.Module,
    optimizer: FlatAdam,
    generators: Iterable[Generator],
    memories: dict[str, Any] | None,
    return_scale: ReturnScale | None,
) -> dict[str, Any]:
    """Say what ``RecurrentAgent.state_dict`` holds, for ``rl.schema``.

    Args:
        network: of the agent.
        optimizer: of the network.
        generators: in their order.
        memories: those of the agent; None where stored ones are not taken.
        return_scale: of the agent; its running sums are part of the memories.
    """
    scale = None
    if return_scale is not None:
        own = return_scale.state_dict()
        scale = {name: leaf for name, leaf in own.items() if memories is not None or name != "running"}
    return {
        "model_name": str,
        "network": without_corrections(network.state_dict()),
        "optimizer": optimizer_schema(optimizer),
        "num_envs": natural,
        "env_steps": natural,
        "updates": natural,
        "epsilon": finite,
        "generators": [generator_schema(generator) for generator in generators],
        "memories": dict if memories is None else memories,
        "return_scale": scale,
    }


def check_weights(weights: Any, network: nn.Module, name: str) -> None:
    """Check that ``weights`` are tensors by name, those of a network like ``network``; ``name`` is that of the entry.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(weights, dict) or not all(isinstance(leaf, Tensor) for leaf in weights.values()):
        check_entry(weights, without_corrections(network.state_dict()), name)
    differences = name_differences(network.state_dict(), weights)
    if differences:
        raise ValueError(f"the entry {name} of the checkpoint is of another network: {differences}")


def check_teacher_entry(entry: Any, network: ActorCritic, num_envs: int | None) -> None:
    """Check what a checkpoint holds of a teacher of ``network``; ``num_envs``: of its memories, None to leave them out.

    Raises:
        ValueError: it is not that.
    """
    memories = {} if num_envs is None else network.initial_state(num_envs)
    check_entry(entry, {"network": without_corrections(network.state_dict()), "state": memories}, "agent.teacher")


def generator_schema(generator: Generator) -> Any:
    """Make the schema of the state of a generator: one of its kind, or one of another device, which is left alone."""
    own = generator.get_state()

    def check_generator(value: Any, name: str) -> None:
        """Check the state; one of this kind is tried, for not every row of bytes is one."""
        is_bytes = isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1
        if is_bytes and len(value) != len(own) and len(value) in OTHER_GENERATORS:
            return
        check_entry(value, own, name)
        try:
            Generator(generator.device).set_state(value.cpu())
        except RuntimeError as error:
            raise ValueError(f"the entry {name} of the checkpoint is no state of a generator: {error}") from error

    return check_generator


def check_finite(state: dict[str, Any], network: nn.Module) -> None:
    """Check that all that an agent has learned and remembers is finite.

    Constants of a network may hold what they want: a mask of minus infinity, say. So may observations in a replay.

    Args:
        state: entries of an agent's ``state_dict``; those with the weights of a network are ``network`` and ``target``.
        network: says which of its tensors are constants.

    Raises:
        FloatingPointError: a number is not finite; the message names its tensor.
    """
    moments = [name for name, module in network.named_modules() if isinstance(module, RunningMoments)]
    learned = {name for name, _ in network.named_parameters()}
    constants = {
        f"{entry}.{name}"
        for entry in ("network", "target")
        for name in network.state_dict()
        if name not in learned and name.rpartition(".")[0] not in moments
    }
    leaves = {
        name: leaf
        for name, leaf in _float_leaves(state, "")
        if name not in constants and not name.startswith("replay.obs.")
    }
    if not leaves:
        return
    finite = torch.stack([torch.isfinite(leaf).all().cpu() for leaf in leaves.values()])
    if not bool(finite.all()):
        name = list(leaves)[int(finite.int().argmin())]
        raise FloatingPointError(
            f"agent.{name} holds a number that is not finite: look for extreme rewards or observations, or lower "
            "learning_rate"
        )


def check_sound(
    state: dict[str, Any], network: ActorCritic | QuantileNetwork, obs: Observation, memories: State
) -> None:
    """Check that all in an agent's ``state`` is finite, and all that its network makes of ``obs`` and ``memories``.

    Raises:
        FloatingPointError: it is not.
    """
    check_finite(state, network)
    check_outputs(network, obs, memories)


@torch.no_grad()
def check_outputs(network: ActorCritic | QuantileNetwork, obs: Observation, state: State) -> None:
    """Check that a network makes finite numbers of an observation: its weights may be finite and yet too large.

    Args:
        network: takes one step, whose state is dropped.
        obs: leaves ``[B, ...]``.
        state: before the step, leaves ``[B, ...]``.

    Raises:
        FloatingPointError: it does not.
    """
    with evaluation_mode(network):  # nothing is drawn
        params, values, _ = network.step(obs, state, None)
    if not bool(torch.isfinite(params.sum() + values.square().sum())):
        raise FloatingPointError(
            "the weights in agent.network have become so large that its outputs are not finite: look for extreme "
            "rewards or observations, or lower learning_rate"
        )


def _float_leaves(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of floating point inside dicts and lists, with their dotted names."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, (dict, list, tuple)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _float_leaves(part, f"{name}.{key}" if name else str(key))
