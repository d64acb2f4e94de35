"""Agents from checkpoints alone: the checkpoint says what constructs them."""

from collections.abc import Iterable, Mapping
from inspect import isabstract
from pathlib import Path
from typing import Any

import torch
from gymnasium import spaces

from rl.agents.construction import AGENTS, DAMAGED, arguments_from_data, import_code, path_of, takes
from rl.checkpoint import LAST, find_newest, load_checkpoint
from rl.networks.categories import EARLIER, means_brightness
from rl.schedules import translated
from rl.trust import UntrustedError, check_place
from rl.types import Agent


def load_agent(
    path: str | Path,
    device: str | torch.device = "cpu",
    num_envs: int | None = None,
    trust: Iterable[str] = (),
    **changes: Any,
) -> Agent:
    """Construct the agent that a checkpoint holds, and load it: no argument is repeated, no environment is needed.

    It plays: ``training`` is False, so it takes the likeliest actions and learns nothing. To train it on, give
    ``num_envs`` as in training, set ``agent.training = True`` and go on with ``act``, ``observe`` and ``learn``;
    optimiser, counters, generators and scales are those of the checkpoint. What concerns rollouts is checked then.

    Args:
        path: a checkpoint, the folder of a run, or its folder ``checkpoints``.
        device: where the agent lies.
        num_envs: None for the form with one environment; of a population, None for one world.
        trust: packages of your own that hold the class of the agent or its core; code from elsewhere is never run, nor
            is anything in the folder of the run, which is data.
        changes: arguments of the constructor that take the place of stored ones, such as a core that has no name.

    Returns:
        The agent, of the class that was saved.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint is damaged or from before agents could be constructed from it, or something in it
            cannot be made again; the sentence says what to do.
        rl.trust.UntrustedError: it names code that is not trusted.
    """
    agent: Agent = agent_from_file(path, device, num_envs, trust, changes, None)
    return agent


def agent_from_file(
    path: str | Path,
    device: str | torch.device,
    num_envs: int | None,
    trust: Iterable[str],
    changes: Mapping[str, Any],
    kind: type | None,
) -> Any:
    """Do what ``load_agent`` does; if ``kind`` is given, for an agent of this class.

    Raises:
        ValueError: as ``load_agent``, and for an agent of another class.
    """
    check_device(device)
    file = find_checkpoint(path)
    packages = (trust,) if isinstance(trust, str) else tuple(trust)
    for package in packages:
        check_place(package, file.parent.parent if file.parent.name == "checkpoints" else None)
    state = load_checkpoint(file)["agent"]
    try:
        return agent_from_state(state, device, num_envs, packages, changes, kind)
    except ValueError as error:
        refusal = UntrustedError if isinstance(error, UntrustedError) else ValueError
        raise refusal(f"{file}: {error}") from error


def agent_from_state(
    state: Any,
    device: str | torch.device,
    num_envs: int | None,
    trust: tuple[str, ...],
    changes: Mapping[str, Any],
    kind: type | None = None,
) -> Any:
    """Construct an agent from its ``state_dict`` and load that, see ``load_agent``."""
    construction = state.get("construction") if isinstance(state, dict) else None
    if not isinstance(construction, dict) or not {"agent", "arguments"} <= construction.keys():
        raise ValueError(
            "the checkpoint does not hold what constructs its agent, as those of earlier versions do not: construct "
            "the agent with the class and the arguments that it was trained with, and call its load(path)"
        )
    found = _find_class(construction["agent"], trust, kind)
    return found.rebuild(state, device, num_envs, trust, changes)


def _find_class(path: str, trust: tuple[str, ...], kind: type | None) -> Any:
    """Return the class that a checkpoint names.

    Args:
        path: of the class.
        trust: packages of the user.
        kind: the class that was asked for; it need not be imported if it is this one.

    Raises:
        ValueError: it is no agent, not of the kind asked for, or has no name to import it by.
    """
    if not isinstance(path, str):
        raise ValueError(f"the checkpoint holds {path!r} where the class of its agent should be")
    module, _, name = path.rpartition(".")
    if kind is not None and (path == path_of(kind) or (module == "__main__" and name == kind.__name__)):
        return kind
    if module == "__main__" or "<locals>" in path:
        raise ValueError(
            f"its class {name} was defined in {module} and cannot be imported by name: move it into a module, or call "
            f"{name}.from_checkpoint(path) where it is defined"
        )
    found: Any = import_code(path, AGENTS, trust)
    if not isinstance(found, type) or not hasattr(found, "rebuild") or isabstract(found):
        raise ValueError(f"the checkpoint names {path}, which is no class of agents")
    if kind is not None and not issubclass(found, kind):
        raise ValueError(
            f"it holds an agent of the class {name}, not {kind.__name__}: call {name}.from_checkpoint(path), or "
            "rl.load_agent(path)"
        )
    return found


def rebuild(
    kind: Any,
    state: Mapping[str, Any],
    device: str | torch.device,
    num_envs: int | None,
    trust: tuple[str, ...],
    changes: Mapping[str, Any],
) -> Any:
    """Construct an agent of one network from its ``state_dict``, load that, and let it play.

    Raises:
        ValueError: an argument cannot be made again, or the agent cannot be constructed so.
    """
    asked = {"num_envs": num_envs, "device": str(device)}
    given = {name: value for name, value in asked.items() if takes(kind, name)} | dict(changes)
    arguments = arguments_from_data(state["construction"], trust, given)
    if not takes(kind, "anneal_learning_rate"):  # as agents of earlier versions did
        arguments = translated(arguments)
    made_from_spaces = isinstance(arguments.get("observation_space"), spaces.Space)
    if made_from_spaces and takes(kind, "image_encoding") and means_brightness(state["network"]):
        arguments.setdefault("image_encoding", EARLIER)  # earlier versions did not store it
    agent = kind.__new__(kind, **arguments)
    agent.plays_only = True
    try:
        agent.__init__(**arguments)
    except DAMAGED as error:
        raise ValueError(f"{kind.__name__} cannot be constructed as the checkpoint says: {error}") from error
    if (num_envs or agent.num_envs) != agent.num_envs or torch.device(device).type != agent.device.type:
        raise ValueError(
            f"num_envs={num_envs}, device={str(device)!r}: {kind.__name__} takes no such arguments and has "
            f"num_envs={agent.num_envs}, device='{agent.device}'"
        )
    agent.load_state_dict(state)
    agent.training = False
    return agent


def find_checkpoint(path: str | Path) -> Path:
    """Return the file of a checkpoint: ``path``, or the newest in the folder of a run or in its ``checkpoints``.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: there is no whole one, see ``rl.checkpoint.find_newest``.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return path
    if (path / "checkpoints").is_dir():
        return find_newest(path)
    if path.name == "checkpoints":
        return find_newest(path.parent)
    if (path / LAST).is_file():
        return path / LAST
    raise FileNotFoundError(f"there is no checkpoint in {path}: neither checkpoints/{LAST} nor {LAST}")


def check_device(device: str | torch.device) -> None:
    """Check that torch can put tensors on ``device``.

    Raises:
        ValueError: it cannot.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device={str(device)!r}: it must be one that torch can use here ({reason})") from error
