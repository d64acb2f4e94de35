"""Recurrent agents and all that they are made of. Nothing in here knows of Hydra.

``from rl import RecurrentPPOLSTM`` works for each of the names below; a name is imported when it is asked for, so that
``import rl`` alone costs nothing.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rl.agents import (
        DualHeadRecurrentPPO,
        Player,
        Population,
        RecurrentIQN,
        RecurrentPPO,
        RecurrentPPOLSTM,
        load_agent,
    )
    from rl.foreign import from_sb3
    from rl.memory_check import check_memory, check_memory_of_module, check_memory_of_sb3
    from rl.training import Evaluation, Trainer, evaluate

_HOMES = {
    "rl.agents": (
        *("DualHeadRecurrentPPO", "Population", "RecurrentIQN", "RecurrentPPO", "RecurrentPPOLSTM"),
        *("Player", "load_agent"),
    ),
    "rl.foreign": ("from_sb3",),
    "rl.memory_check": ("check_memory", "check_memory_of_module", "check_memory_of_sb3"),
    "rl.training": ("Evaluation", "Trainer", "evaluate"),
}

__all__ = [
    "DualHeadRecurrentPPO",
    "Evaluation",
    "Player",
    "Population",
    "RecurrentIQN",
    "RecurrentPPO",
    "RecurrentPPOLSTM",
    "Trainer",
    "check_memory",
    "check_memory_of_module",
    "check_memory_of_sb3",
    "evaluate",
    "from_sb3",
    "load_agent",
]


def __getattr__(name: str) -> Any:
    """Import a public name, or read the version of the installed package."""
    if name == "__version__":
        return metadata.version("recurrent-ppo")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted([*__all__, "__version__"])
