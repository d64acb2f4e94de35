"""Checks of what a checkpoint holds of an agent, before anything is changed."""

from collections.abc import Collection
from typing import Any

from torch import Tensor, nn


def check_agent_state(state: Any, entries: Collection[str], network: nn.Module, scales_returns: bool) -> None:
    """Check that ``state`` has all ``entries`` of an agent and the weights of a network like ``network``.

    Args:
        state: what a checkpoint holds.
        entries: names that it must have; the scale of the returns is checked if ``return_scale`` is among them.
        network: of the agent that is to take the state.
        scales_returns: whether that agent has a scale of the returns.

    Raises:
        ValueError: an entry is missing, or the network or the scale of the returns is another.
    """
    if not isinstance(state, dict):
        raise ValueError(f"the checkpoint holds {type(state).__name__} where an agent should be")
    missing = set(entries) - state.keys()
    if missing:
        raise ValueError(f"the checkpoint has no entry {', '.join(sorted(missing))}")
    differences = name_differences(network.state_dict(), state["network"])
    if differences:
        raise ValueError(f"the checkpoint is of another network: {differences}")
    if "return_scale" in entries and (state["return_scale"] is not None) != scales_returns:
        raise ValueError("the checkpoint was written with another setting of normalise_returns")


CORRECTED_SCALES = (".scale.low", ".scale.width")
"""Ends of the names of what only some networks of a kind have, see ``rl.networks.scales``."""


def name_differences(own: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """Name what keeps ``other`` from being loaded into ``own``, in a few words; empty if nothing does."""
    own, other = (
        {name: leaf for name, leaf in state.items() if not name.endswith(CORRECTED_SCALES)} for state in (own, other)
    )
    reasons = {
        "it lacks": own.keys() - other.keys(),
        "it has besides": other.keys() - own.keys(),
        "of another shape is": {name for name in own.keys() & other.keys() if own[name].shape != other[name].shape},
    }
    return "; ".join(f"{reason} {', '.join(sorted(names)[:3])}" for reason, names in reasons.items() if names)
