"""An agent as one of several shards of a run: what it shares with the others, and what is its own."""

import hashlib
import logging
from typing import Any

import torch
from torch import nn

from rl.flat_adam import load_optimizer
from rl.shards import Shards

log = logging.getLogger(__name__)

OWN = ("generators", "memories", "return_scale", "replay", "granted", "teacher")
"""Entries of an agent's ``state_dict`` that differ from shard to shard; all others are the same in each."""


OF_ROWS = ("running",)
"""Entries of a part's ``state_dict`` that have a number for each environment, see ``rl.normalisation.ReturnScale``."""


def join(agent: Any, shards: Shards) -> None:
    """Let an agent learn from now on together with those of the other shards, from the networks of the first.

    Every part of it that has ``shards`` gets them: the optimiser, the update, scales and moments.

    A population does so for each of its members.

    Raises:
        ValueError: the agent is not of this package and knows of no shards.
    """
    for member in getattr(agent, "members", {}).values():
        join(member, shards)
    if hasattr(agent, "members"):
        return
    if not hasattr(agent, "shards"):
        raise ValueError(f"{type(agent).__name__} cannot learn in several shards: it has no attribute shards")
    for part in (agent, *vars(agent).values()):
        for one in part.modules() if isinstance(part, nn.Module) else [part]:
            if hasattr(one, "shards"):
                one.shards = shards
    _take_first(agent, shards)


def keep_equal(agent: Any, shards: Shards) -> None:
    """Check that an agent has the same weights and moments in all shards; if not, those of the first are taken.

    Processors of several kinds may round a step differently, and nothing else would ever bring the copies together.
    """
    if shards.size == 1:
        return
    for member in getattr(agent, "members", {}).values():
        keep_equal(member, shards)
    if hasattr(agent, "members"):
        return
    (vector,) = agent.optimizer.param_groups[0]["params"]
    numbers = [vector.detach(), *agent.optimizer.state.get(vector, {}).values(), *agent.network.buffers()]
    digest = hashlib.sha256(b"".join(leaf.cpu().numpy().tobytes() for leaf in numbers)).hexdigest()
    if len(set(shards.gather(digest))) == 1:
        return
    log.warning(
        "the weights of %s have become different from shard to shard: those of the first are taken", agent.model_name
    )
    _take_first(agent, shards)
    state = shards.gather(agent.optimizer.state_dict() if shards.index == 0 else None)[0]
    load_optimizer(agent.optimizer, state)


def _take_first(agent: Any, shards: Shards) -> None:
    """Take over what the networks and scales of the first shard hold, but for what is counted for each environment."""
    for part in vars(agent).values():
        if isinstance(part, nn.Module):
            own = part.state_dict()
            kept = {name: leaf for name, leaf in own.items() if name in OF_ROWS}
            part.load_state_dict(shards.gather(own if shards.index == 0 else None)[0] | kept)


def take_own(state: dict[str, Any]) -> dict[str, Any]:
    """Take out of an agent's ``state_dict`` what other shards do not have; of a population, for each member."""
    if "network" in state:
        return {name: state[name] for name in OWN if name in state}
    return {name: take_own(part) for name, part in state.items() if isinstance(part, dict) and "network" in part}


def put_own(state: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the ``state_dict`` of one shard with what ``take_own`` took of another in its place."""
    if "network" in state:
        return state | own
    return state | {name: put_own(state[name], part) for name, part in own.items()}


def without_own(state: dict[str, Any]) -> dict[str, Any]:
    """Return a ``state_dict`` from which an agent takes weights and counters, but no generators or memories."""
    if "network" in state:
        memories = state.get("memories")
        emptied = memories | {"starts": torch.zeros(0, dtype=torch.bool)} if isinstance(memories, dict) else memories
        return state | {"num_envs": 0, "memories": emptied}
    return {
        name: without_own(part) if isinstance(part, dict) and "network" in part else part
        for name, part in state.items()
    }
