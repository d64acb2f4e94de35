"""What of an agent goes into a checkpoint, and back."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from rl.agents.recurrent_ppo import RecurrentPPO


def state_of(agent: "RecurrentPPO") -> dict[str, Any]:
    """All that training needs to go on: weights, optimiser, moments, counters, generators, memories."""
    return {
        "model_name": agent.model_name,
        "network": agent.network.state_dict(),
        "optimizer": agent.optimizer.state_dict(),
        "return_scale": agent.return_scale.state_dict() if agent.return_scale else None,
        "num_envs": agent.num_envs,
        "env_steps": agent.env_steps,
        "updates": agent.updates,
        "epsilon": agent.epsilon,
        "generators": [agent.shuffle.get_state(), agent.actor.generator.get_state()],
        "memories": agent.actor.state_dict(),
    }


def restore(agent: "RecurrentPPO", state: dict[str, Any]) -> None:
    """Puts ``state`` into ``agent``; its memories and generators only if the number of environments is the same.

    Raises:
        ValueError: the state belongs to an agent of another shape; this one is unchanged.
    """
    if not isinstance(state, dict):
        raise ValueError(f"the checkpoint holds {type(state).__name__} where an agent should be")
    missing = state_of(agent).keys() - state.keys()
    if missing:
        raise ValueError(f"the checkpoint has no entry {', '.join(sorted(missing))}")
    differences = _differences(agent.network.state_dict(), state["network"])
    if differences:
        raise ValueError(f"the checkpoint is of another network: {differences}")
    if (state["return_scale"] is None) != (agent.return_scale is None):
        raise ValueError("the checkpoint was written with another setting of normalise_returns")
    same_size = state["num_envs"] == agent.num_envs
    agent.network.load_state_dict(state["network"])
    agent.optimizer.load_state_dict(state["optimizer"])
    agent.env_steps, agent.updates, agent.epsilon = state["env_steps"], state["updates"], state["epsilon"]
    if agent.return_scale is not None:
        agent.return_scale.load(state["return_scale"], same_size)
    if same_size:
        agent.shuffle.set_state(state["generators"][0].cpu())
        agent.actor.generator.set_state(state["generators"][1].cpu())
        agent.actor.load_state_dict(state["memories"])
    else:
        agent.actor.reset()


def _differences(own: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """What keeps ``other`` from being loaded into ``own``, in a few words; empty if nothing does."""
    reasons = {
        "it lacks": own.keys() - other.keys(),
        "it has besides": other.keys() - own.keys(),
        "of another shape is": {name for name in own.keys() & other.keys() if own[name].shape != other[name].shape},
    }
    return "; ".join(f"{reason} {', '.join(sorted(names)[:3])}" for reason, names in reasons.items() if names)
