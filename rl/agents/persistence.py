"""What of an agent goes into a checkpoint, and back. :class:`rl.agents.RecurrentPPO` has ``state_of`` and ``restore``
for methods; agents with more to keep build theirs from the same parts.
"""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.ppo.teacher import Teacher

if TYPE_CHECKING:
    from rl.agents.recurrent_iqn import RecurrentIQN
    from rl.agents.recurrent_ppo import RecurrentPPO


def common_state(agent: "RecurrentPPO | RecurrentIQN") -> dict[str, Any]:
    """What every agent keeps: weights, optimiser, counters, generators, memories, scale of the returns."""
    return {
        "model_name": agent.model_name,
        "network": agent.network.state_dict(),
        "optimizer": agent.optimizer.state_dict(),
        "num_envs": agent.num_envs,
        "env_steps": agent.env_steps,
        "updates": agent.updates,
        "epsilon": agent.epsilon,
        "generators": [agent.shuffle.get_state(), agent.actor.generator.get_state()],
        "memories": agent.actor.state_dict(),
        "return_scale": agent.return_scale.state_dict() if agent.return_scale else None,
    }


def check_state(agent: "RecurrentPPO | RecurrentIQN", state: Any, entries: Collection[str]) -> None:
    """``state`` has the ``entries`` of such an agent, a network of the same shape and, if asked, a scale of returns.

    Raises:
        ValueError: it has not.
    """
    if not isinstance(state, dict):
        raise ValueError(f"the checkpoint holds {type(state).__name__} where an agent should be")
    missing = set(entries) - state.keys()
    if missing:
        raise ValueError(f"the checkpoint has no entry {', '.join(sorted(missing))}")
    differences = _differences(agent.network.state_dict(), state["network"])
    if differences:
        raise ValueError(f"the checkpoint is of another network: {differences}")
    if "return_scale" in entries and (state["return_scale"] is None) != (agent.return_scale is None):
        raise ValueError("the checkpoint was written with another setting of normalise_returns")


def restore_common(agent: "RecurrentPPO | RecurrentIQN", state: dict[str, Any]) -> bool:
    """The counterpart of :func:`common_state`; memories and generators only go with as many environments.

    Returns:
        Whether there are as many.
    """
    same_size = state["num_envs"] == agent.num_envs
    agent.network.load_state_dict(state["network"])
    agent.optimizer.load_state_dict(deepcopy(state["optimizer"]))  # it would share tensors with the state
    agent.forget_rollout()  # other weights played it
    agent.env_steps, agent.updates, agent.epsilon = state["env_steps"], state["updates"], state["epsilon"]
    if same_size:
        agent.shuffle.set_state(state["generators"][0].cpu())
        agent.actor.generator.set_state(state["generators"][1].cpu())
        agent.actor.load_state_dict(state["memories"])
    else:
        agent.actor.reset()
    if agent.return_scale is not None:
        agent.return_scale.load(state["return_scale"], same_size)
    return same_size


def state_of(agent: "RecurrentPPO") -> dict[str, Any]:
    """All that training needs to go on: weights, optimiser, moments, counters, generators, memories."""
    return common_state(agent) | ({"teacher": agent.teacher.state_dict()} if agent.teacher else {})


def restore(agent: "RecurrentPPO", state: dict[str, Any]) -> None:
    """Puts ``state`` into ``agent``; its memories and generators only if the number of environments is the same.

    Raises:
        ValueError: the state belongs to an agent of another shape; this one is unchanged.
    """
    check_state(agent, state, common_state(agent))
    same_size = restore_common(agent, state)
    if agent.ppo.teacher_kl and "teacher" in state:
        agent.teacher = Teacher(agent.network, agent.num_envs, agent.device)
        agent.teacher.load_state_dict(state["teacher"], same_size)


def save(agent: "RecurrentPPO | RecurrentIQN", path: str | Path) -> None:
    """Writes a checkpoint; the folder is made if it is missing."""
    save_checkpoint({"agent": agent.state_dict()}, path)


def load(agent: "RecurrentPPO | RecurrentIQN", path: str | Path) -> None:
    """Reads what :func:`save` or the trainer wrote, onto the agent's device.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, foreign, or of an agent of another shape.
    """
    agent.load_state_dict(load_checkpoint(path, map_location=agent.device)["agent"])


def load_network(agent: "RecurrentPPO | RecurrentIQN", path: str | Path) -> None:
    """Takes the network of a checkpoint, by names that must all be the same, and nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, foreign, or of another network; the agent is unchanged.
    """
    state = load_checkpoint(path, map_location=agent.device)["agent"]
    check_state(agent, state, ("network",))
    agent.network.load_state_dict(state["network"])


def load_pupil(agent: "RecurrentPPO", path: str | Path) -> None:
    """See :func:`load_network`; with ``teacher_kl`` a frozen copy is the teacher from now on."""
    load_network(agent, path)
    agent.teacher = Teacher(agent.network, agent.num_envs, agent.device) if agent.ppo.teacher_kl else None


def _differences(own: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """What keeps ``other`` from being loaded into ``own``, in a few words; empty if nothing does."""
    reasons = {
        "it lacks": own.keys() - other.keys(),
        "it has besides": other.keys() - own.keys(),
        "of another shape is": {name for name in own.keys() & other.keys() if own[name].shape != other[name].shape},
    }
    return "; ".join(f"{reason} {', '.join(sorted(names)[:3])}" for reason, names in reasons.items() if names)
