"""From a checked configuration to environments and agent: what training and evaluation share."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.workers import close
from experiments.launch.check import ConfigError, construct, converted
from rl.checks import positive, within
from rl.training.evaluation import Evaluation, evaluate
from rl.training.threads import check_threads

EVALUATION_SEED = 1_000_000  # evaluation environments are seeded far from those of training
EVALUATION_ENVS = 50  # or a few more, to make whole worlds of several agents
SETTINGS = {
    "seed": int,
    "total_steps": int,
    "num_envs": int,
    "num_steps": int,
    "device": str,
    "threads": Any,  # a whole number or auto: checked below, in one sentence for both
    "evaluate_every": int | None,
    "evaluate_episodes": int,
    "final_episodes": int,
    "threshold": float | None,
    "stop_at_threshold": bool,
    "checkpoint_every": int,
}


def read_settings(config: DictConfig) -> dict[str, Any]:
    """The keys at the top of ``train.yaml`` in the types they must have.

    Raises:
        ConfigError, ValueError: a value of another type or out of range.
    """
    settings = {name: converted(config[name], kind, name) for name, kind in SETTINGS.items()}
    counts = (
        "total_steps",
        "num_envs",
        "num_steps",
        "evaluate_episodes",
        "final_episodes",
        "checkpoint_every",
    )
    positive(**{name: settings[name] for name in counts})
    within(0, 2**31, seed=settings["seed"])
    if settings["evaluate_every"] is not None:
        positive(evaluate_every=settings["evaluate_every"])
    check_threads(settings["threads"])
    check_device(settings["device"])
    return settings


def check_device(name: str) -> None:
    """The device exists.

    Raises:
        ConfigError: it does not.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name} cannot be used here: {str(error).splitlines()[0]}") from error


@dataclass
class Parts:
    """What a configuration stands for.

    Attributes:
        agent, envs, evaluation_envs: as their names say.
        settings: the keys at the top, in the types they must have.
        config: the configuration with every default filled in.
    """

    agent: Any
    envs: VectorEnv
    evaluation_envs: VectorEnv
    settings: dict[str, Any]
    config: DictConfig

    def close(self) -> None:
        """Ends the environments with their worker processes."""
        close(self.envs)
        close(self.evaluation_envs)


def build(config: DictConfig) -> Parts:
    """Constructs everything, after every key has been checked. What it returns is to be closed."""
    settings = read_settings(config)
    if config.get("env") is None:
        raise ConfigError("this run has no environment: it was trained on a recording alone")
    with ExitStack() as opened:  # if a later part cannot be made, no worker process of an earlier one is left behind
        envs, env_node = construct(config.env, "env", num_envs=settings["num_envs"])
        opened.callback(close, envs)
        unit = unit_of_rows(envs, config.agent)
        evaluation_envs, _ = construct(config.env, "env", num_envs=-(-EVALUATION_ENVS // unit) * unit)
        opened.callback(close, evaluation_envs)
        runtime = {name: settings[name] for name in ("num_envs", "num_steps", "total_steps", "seed", "device")}
        runtime |= {"observation_space": envs.single_observation_space, "action_space": envs.single_action_space}
        if "action_names" not in config.agent:
            runtime["action_names"] = getattr(envs.unwrapped, "action_names", None)
        agent, agent_node = construct(config.agent, "agent", **runtime)
        completed = OmegaConf.to_container(config, resolve=True) | {"agent": agent_node, "env": env_node}
        parts = Parts(agent, envs, evaluation_envs, settings, OmegaConf.create(completed))
        opened.pop_all()  # they are the caller's now
    return parts


def unit_of_rows(envs: VectorEnv, agent: DictConfig) -> int:
    """Any number of rows must be a multiple of this: whole worlds, and the seats of a population in each.

    Raises:
        ConfigError: the seats do not fit the agents of a world.
    """
    agents = getattr(envs.unwrapped, "num_agents", 1)
    if "seats" not in agent:
        return agents
    seats = len(agent.seats)
    if seats % agents or seats == 0:
        raise ConfigError(f"agent.seats has {seats} names, but a world of this environment has {agents} agents")
    return seats


def play(agent: Any, envs: VectorEnv, episodes: int, seed: int, memory: bool = True, greedy: bool = True) -> Evaluation:
    """Evaluates on seeds of its own."""
    return evaluate(agent, envs, episodes, EVALUATION_SEED + seed, greedy, memory)


def core_of(agent: DictConfig) -> str:
    """Name of the memory; of a population the memory of each member."""
    nodes = agent.members.values() if "members" in agent else [agent]
    return ", ".join(node.core._target_.rpartition(".")[2] for node in nodes)


def load_run_config(folder: str | int) -> DictConfig:
    """The configuration that a run folder was made with.

    Raises:
        ConfigError: it is no run folder.
    """
    path = Path(str(folder)) / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} is no run folder: it has no config.yaml")
    config = OmegaConf.load(path)
    missing = [key for key in ("agent", "env", *SETTINGS) if not isinstance(config, DictConfig) or key not in config]
    if missing:
        raise ConfigError(f"{path} is not the configuration of a run: it has no {', '.join(missing)}")
    return config


def resumed(config: DictConfig, overrides: list[str]) -> DictConfig:
    """The configuration of the run to go on with, changed by what the command line sets beside ``resume``.

    Raises:
        ConfigError: no run there, or an override that would make it another run.
    """
    stored = load_run_config(config.resume)
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key == "resume":
            continue
        if "/" in key or key in ("agent", "env", "experiment"):
            raise ConfigError(f"{override}: a resumed run keeps its agent and environment")
        OmegaConf.update(stored, key, OmegaConf.create(f"value: {value}").value, force_add=True)
    stored.resume = config.resume
    return stored
