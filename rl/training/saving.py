"""What a trainer saves at a fault, and reads of its checkpoints: checked before anything is changed."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rl.checkpoint import as_arrays, as_tensors, load_checkpoint, naming_file
from rl.schema import check_entry, describe, like, natural
from rl.training.stepping import VectorEnvAdapter

log = logging.getLogger(__name__)


def check_trainer_state(state: dict[str, Any]) -> None:
    """Check what ``Trainer.state_dict`` gave, but for the agent and what the environments have to agree to.

    Raises:
        ValueError: an entry is missing, or of another type or shape.
    """
    real = (int, float)
    schema = {"agent": object, "evaluations": list, "seconds": [real, real], "envs": object, "obs": object}
    check_entry(state, schema | {"episodes": dict.fromkeys(("returns", "lengths", "recent"), list)}, "")
    point = {"env_steps": natural, "seconds": real, "return": real, "solved": bool}
    check_entry(state["evaluations"], [point] * len(state["evaluations"]), "evaluations")
    episodes = state["episodes"]
    num_envs, recent = len(episodes["returns"]), len(episodes["recent"])
    lists = {"returns": [real] * num_envs, "lengths": [natural] * num_envs, "recent": [real] * recent}
    check_entry(episodes, lists, "episodes")
    if state["format"] or "evaluation_seconds" in state:
        check_entry(state, {"evaluation_seconds": [real, real]}, "")
    if state["format"] or "resetting" in state:  # the first checkpoints had no such entry
        check_entry(state, {"resetting": torch.zeros(num_envs, dtype=torch.bool)}, "")


def restore_envs(envs: VectorEnvAdapter, state: dict[str, Any], seed: int | None) -> Any:
    """Put environments back where they were.

    Args:
        envs: as many as there were.
        state: from ``Trainer.state_dict``, checked.
        seed: of the environments.

    Returns:
        What they show; None if there is nothing to put back, so that they have to begin new episodes.

    Raises:
        ValueError: what is stored is not of these environments.
    """
    stored, keeps_state = state["envs"], hasattr(envs.envs.unwrapped, "state_dict")
    if stored is None and (state["obs"] is None or not keeps_state):
        return None
    obs = envs.reset(seed) if keeps_state else None
    own = envs.state_dict()
    if type(stored) is not type(own):
        raise ValueError(f"the entry envs of the checkpoint is {describe(stored)}: it must be {describe(own)}")
    shown = as_tensors(obs)
    if envs.tensors is not None and isinstance(state["obs"], dict):  # without the leaves that the agent does not see
        shown = {name: leaf for name, leaf in shown.items() if name in state["obs"]}
    check_entry(state["obs"], like(shown), "obs")
    resetting = as_arrays(state["resetting"]) if "resetting" in state else envs.resetting
    try:
        envs.load_state_dict(as_arrays(stored), resetting)
    except Exception as error:  # of whatever environment
        reason = " ".join([f"{type(error).__name__}:", *str(error).split()])
        raise ValueError(f"the entry envs of the checkpoint cannot be put back: {reason}") from error
    return as_arrays(state["obs"])


@contextmanager
def saved_at_a_fault(save: Callable[[], str]) -> Iterator[None]:
    """Save what was learned if the block raises anything, and note on the exception how to go on.

    Args:
        save: saves it and returns a line that says so, empty if there is nothing.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        try:
            if saved := save():
                error.add_note(saved)
        except Exception as failure:  # it must not hide the fault
            if not (isinstance(error, FloatingPointError) and isinstance(failure, FloatingPointError)):
                error.add_note(f"nothing could be saved: {failure}")
        raise


def read_best_return(path: Path) -> float:
    """Read what the agent of a checkpoint was worth in its last evaluation; minus infinity without a whole file."""
    try:
        best = load_checkpoint(path, "meta")
        with naming_file(path, best):
            check_trainer_state(best)
            check_entry(best["evaluations"][-1:], [dict], "evaluations")
        return float(best["evaluations"][-1]["return"])
    except FileNotFoundError:
        return -math.inf
    except (ValueError, OSError) as error:
        log.warning("%s: the next evaluation replaces it", error)
        return -math.inf
