"""What a trainer saves at a fault, and reads of its checkpoints: checked before anything is changed."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from rl.checkpoint import BEST, as_arrays, as_tensors, find_newest, load_checkpoint, naming_file
from rl.schema import check_entry, describe, like, natural
from rl.shards import Shards
from rl.training.run import checkpoint_path
from rl.training.sharing import put_own, take_own, without_own
from rl.training.stepping import Episodes, VectorEnvAdapter, find_state_keeper
from rl.training.team import RankLostError
from rl.types import Agent

log = logging.getLogger(__name__)

OF_SHARD = ("episodes", "envs", "resetting", "obs")
"""Entries of a trainer's state that differ from shard to shard; so does a part of the agent's."""


def add_others(state: dict[str, Any], shards: Shards) -> dict[str, Any]:
    """Return the state of the first shard, with what the others have of their own under ``others``; the rest is equal.

    Every shard calls it, and gets the same but for its own state.
    """
    own = {"agent": take_own(state["agent"])} | {name: state[name] for name in OF_SHARD}
    _, *others = shards.gather(own)
    return state | ({"others": others} if others else {})


def state_of_shard(content: dict[str, Any], shards: Shards) -> dict[str, Any]:
    """Return what ``add_others`` stored of one shard.

    Where it was stored with another number of shards, or at a fault, when others cannot be asked, that is weights and
    counters alone: environments, memories and generators begin anew.

    Raises:
        ValueError: an entry is missing, or of another type.
    """
    others = content.get("others", [])
    if len(others) + 1 != shards.size:
        return content | {"agent": without_own(content["agent"]), "envs": None, "obs": None}
    if shards.index == 0:
        return content
    check_entry(content, {"others": [{"agent": dict, **dict.fromkeys(OF_SHARD, object)}] * len(others)}, "")
    own = others[shards.index - 1]
    return content | own | {"agent": put_own(content["agent"], own["agent"])}


class Resumable(Protocol):
    """What is stored of a trainer, see ``rl.training.Trainer``."""

    agent: Agent
    envs: VectorEnvAdapter
    episodes: Episodes
    shards: Shards
    obs: Any
    seed: int | None
    run_dir: Path
    evaluations: list[dict[str, float]]
    best_return: float
    saved_steps: int | None
    seconds: float
    wall_seconds: float
    evaluation_seconds: float
    last_evaluation_seconds: float


def collect_state(trainer: Resumable) -> dict[str, Any]:
    """Collect all that a resumed run needs of one shard."""
    envs = None if trainer.obs is None else trainer.envs.state_dict()  # None: lent, in other episodes
    return {
        "agent": trainer.agent.state_dict(),
        "episodes": trainer.episodes.state_dict(),
        "evaluations": trainer.evaluations,
        "seconds": [trainer.seconds, trainer.wall_seconds],
        "evaluation_seconds": [trainer.evaluation_seconds, trainer.last_evaluation_seconds],
        "envs": as_tensors(envs),
        "resetting": as_tensors(trainer.envs.resetting),
        "obs": None if envs is None else as_tensors(trainer.obs),  # of other episodes it is of no use
    }


def read_newest(run_dir: Path, device: torch.device) -> tuple[Path, dict[str, Any], float]:
    """Read the newest whole checkpoint of a run, with its path, and the return of the best one.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = find_newest(run_dir)
    return path, load_checkpoint(path, device), read_best_return(path.with_name(BEST))


def restore_trainer(trainer: Resumable, path: Path, content: dict[str, Any], best_return: float) -> None:
    """Give a trainer back what ``read_newest`` found, so far as it is of its shard.

    Raises:
        ValueError: an entry is missing or wrong; the agent is as it was.
    """
    with naming_file(path, content):
        content = state_of_shard(content, trainer.shards)
        check_trainer_state(content)
        same_envs = len(content["episodes"]["returns"]) == trainer.envs.envs.num_envs
        obs = restore_envs(trainer.envs, content, trainer.seed) if same_envs else None
        trainer.agent.load_state_dict(content["agent"])
    trainer.evaluations, (trainer.seconds, trainer.wall_seconds) = content["evaluations"], content["seconds"]
    times = content.get("evaluation_seconds", [0.0, 0.0])  # checkpoints of before have none
    trainer.evaluation_seconds, trainer.last_evaluation_seconds = times
    trainer.obs, trainer.best_return = obs, best_return
    if obs is None:
        log.info("environments begin new episodes on other seeds: they have no state to go on from")
    else:
        trainer.episodes.load_state_dict(content["episodes"])
    if path == checkpoint_path(trainer.run_dir):
        trainer.saved_steps = trainer.agent.env_steps


def check_trainer_state(state: dict[str, Any]) -> None:
    """Check what ``Trainer.state_dict`` gave, but for the agent and what the environments have to agree to.

    Raises:
        ValueError: an entry is missing, or of another type or shape.
    """
    real = (int, float)
    schema = {"agent": object, "evaluations": list, "seconds": [real, real], "envs": object, "obs": object}
    schema |= {"episodes": dict.fromkeys(("returns", "lengths", "recent"), list)}
    if state.keys().isdisjoint(schema.keys() - {"agent"}):
        raise ValueError("it holds an agent without a run to go on with: begin a new run with its network, init_from")
    check_entry(state, schema, "")
    point = {"env_steps": natural, "seconds": real, "return": real, "solved": bool}
    check_entry(state["evaluations"], [point] * len(state["evaluations"]), "evaluations")
    zeroed = "memory_zeroed_return"  # not played with every evaluation
    optional = [{zeroed: real} if zeroed in each else {} for each in state["evaluations"]]
    check_entry(state["evaluations"], optional, "evaluations")
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
    stored, keeps_state = state["envs"], find_state_keeper(envs.envs) is not None
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

    Not where another rank is lost: the last checkpoint holds what all ranks need to go on exactly, this one could not.

    Args:
        save: saves it and returns a line that says so, empty if there is nothing.
    """
    try:
        yield
    except (KeyboardInterrupt, RankLostError):
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
