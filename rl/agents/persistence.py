"""What a checkpoint holds of an agent: collected, checked before anything is changed, and taken back."""

import logging
from collections.abc import Collection
from typing import Any, Protocol

from torch import Generator, Tensor, nn

from rl.agents.actor import Actor
from rl.agents.construction import in_words
from rl.flat_adam import FlatAdam, load_optimizer
from rl.networks.categories import means_brightness
from rl.normalisation import ReturnScale

log = logging.getLogger(__name__)


class Stored(Protocol):
    """What is stored of an agent, see ``rl.agents.agent.RecurrentAgent``."""

    model_name: str
    construction: dict[str, Any]
    optimizer: FlatAdam
    num_envs: int
    env_steps: int
    updates: int
    epsilon: float
    shuffle: Generator
    actor: Actor
    return_scale: ReturnScale | None
    plays_only: bool

    @property
    def network(self) -> nn.Module:
        """All that has weights."""


def collect_state(agent: Stored, undone: bool) -> dict[str, Any]:
    """Collect all that training needs to go on: weights, optimiser, counters, generators, memories, scales.

    Args:
        agent: whose state it is.
        undone: its last step waits for an outcome, so the memories are those before it.
    """
    return {
        "model_name": agent.model_name,
        "construction": agent.construction,
        "network": agent.network.state_dict(),
        "optimizer": agent.optimizer.state_dict(),
        "num_envs": agent.num_envs,
        "env_steps": agent.env_steps,
        "updates": agent.updates,
        "epsilon": agent.epsilon,
        "generators": [agent.shuffle.get_state(), agent.actor.generator.get_state()],
        "memories": agent.actor.state_dict(undone),
        "return_scale": agent.return_scale.state_dict() if agent.return_scale else None,
    }


def restore_state(agent: Stored, state: dict[str, Any]) -> None:
    """Give an agent back what ``collect_state`` gave; memories and generators only if it plays as many environments.

    A generator of another kind of device draws other numbers, so the agent's own is kept, and the log says so.
    """
    agent.network.load_state_dict(state["network"])
    load_optimizer(agent.optimizer, state["optimizer"])
    agent.env_steps, agent.updates, agent.epsilon = state["env_steps"], state["updates"], state["epsilon"]
    same_size = is_same_size(agent, state)
    if same_size:
        set_generator(agent.shuffle, state["generators"][0])
        if not set_generator(agent.actor.generator, state["generators"][1]) and not agent.plays_only:
            log.info("the checkpoint is of another kind of device: from here on other actions are drawn than there")
        agent.actor.load_state_dict(state["memories"])
    else:
        agent.actor.reset()
    if agent.return_scale is not None:
        agent.return_scale.load(state["return_scale"], same_size)


def restore_replay(agent: Stored, replay: Any, state: dict[str, Any]) -> None:
    """Give the replay of an agent back what ``state_dict`` gave; tell where it has other sizes and begins empty."""
    if state["sizes"] != replay.sizes and not agent.plays_only:
        log.warning(
            "the replay of the checkpoint is left out: environments, steps of each, length of sequences and stride of "
            "states are %s there and %s here, so learning waits until learning_starts steps are played",
            state["sizes"],
            replay.sizes,
        )
    replay.load_state_dict(state)


def is_same_size(agent: Stored, state: dict[str, Any]) -> bool:
    """Say whether a state was written with as many environments as ``agent`` plays."""
    return isinstance(state["num_envs"], int) and state["num_envs"] == agent.num_envs


def set_generator(generator: Generator, state: Tensor) -> bool:
    """Put a generator where it was; return False if the state is that of a generator of another kind of device."""
    if state.shape != generator.get_state().shape:
        return False
    generator.set_state(state.cpu())
    return True


def check_agent_state(state: Any, entries: Collection[str], agent: Stored) -> None:
    """Check that ``state`` has all ``entries`` of an agent and the weights of a network like that of ``agent``.

    Args:
        state: what a checkpoint holds.
        entries: names that it must have; the scale of the returns is checked if ``return_scale`` is among them.
        agent: is to take the state.

    Raises:
        ValueError: an entry is missing, or the network or the scale of the returns is another.
    """
    if not isinstance(state, dict):
        raise ValueError(f"the checkpoint holds {type(state).__name__} where an agent should be")
    missing = set(entries) - state.keys()
    if missing:
        raise ValueError(f"the checkpoint has no entry {', '.join(sorted(missing))}")
    if not isinstance(state["network"], dict):
        raise ValueError(f"the checkpoint holds {type(state['network']).__name__} where its entry network should be")
    differences = name_differences(agent.network.state_dict(), state["network"])
    if differences:
        theirs, own = in_words(state.get("construction")), in_words(agent.construction)
        if means_brightness(state["network"]) and not means_brightness(agent.network.state_dict()):
            differences += "; it reads images as brightness, which image_encoding=brightness does"
        told = f"it is {theirs}; this agent is {own}; " if theirs != own and theirs and own else ""
        raise ValueError(f"the checkpoint is of another network: {told}{differences}")
    if "return_scale" in entries and (state["return_scale"] is None) != (agent.return_scale is None):
        raise ValueError("the checkpoint was written with another setting of normalise_returns")


CORRECTED_SCALES = (".scale.low", ".scale.width")
"""Ends of the names of what only some networks of a kind have, see ``rl.networks.scales``."""


RECALL = "recall."
"""Beginning of the names of ``rl.networks.recall``."""


def without_corrections(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return all tensors of a network but ``CORRECTED_SCALES``."""
    return {name: leaf for name, leaf in weights.items() if not name.endswith(CORRECTED_SCALES)}


def keep_recall(state: Any, own: dict[str, Tensor]) -> None:
    """Put the recall of ``own`` weights, if there is one, in place of that of ``state``: it is no part of a policy."""
    if isinstance(state, dict) and isinstance(state.get("network"), dict):
        others = {name: leaf for name, leaf in state["network"].items() if not name.startswith(RECALL)}
        state["network"] = others | {name: leaf for name, leaf in own.items() if name.startswith(RECALL)}


def name_differences(own: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """Name what keeps ``other`` from being loaded into ``own``, in a few words; empty if nothing does."""
    own, other = without_corrections(own), without_corrections(other)
    both = own.keys() & other.keys()
    reasons = {
        "it lacks": own.keys() - other.keys(),
        "it has besides": other.keys() - own.keys(),
        "of another shape is": {name for name in both if own[name].shape != getattr(other[name], "shape", None)},
    }
    return "; ".join(f"{reason} {', '.join(sorted(names)[:3])}" for reason, names in reasons.items() if names)
