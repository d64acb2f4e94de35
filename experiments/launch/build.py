"""Build environments and agent from a checked configuration: what several commands share."""

import math
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig

from envs.guests import probe_in_worker, shows_mask
from envs.workers import close, step_seconds
from experiments.launch.check import ConfigError, construct, convert, to_dict
from experiments.launch.escape import to_config
from rl.checks import positive, whole, within
from rl.shards import ALONE, Shards
from rl.training.observers import Observer
from rl.training.run import make_shard_seed
from rl.training.stopping import EarlyStop, check_grounds
from rl.training.threads import check_threads
from rl.training.watchdog import Watchdog
from rl.types import Agent

EVALUATION_ENVS = 50  # at most, or a few more, to make whole worlds of several agents


@dataclass(frozen=True)
class Settings:
    """The keys at the top of ``train.yaml``, which says what they mean."""

    seed: int
    total_steps: int
    num_envs: int
    num_steps: int
    device: str
    threads: int | Literal["auto"]
    evaluate_every: int | None
    evaluate_episodes: int
    final_episodes: int
    evaluation_envs: int | None
    evaluation_max_steps: int | None
    evaluation_share: float | None
    evaluate_memory_zeroed: bool
    threshold: float | None
    stop_at_threshold: bool
    patience: int | None
    min_delta: float
    max_seconds: float | None
    checkpoint_every: int
    env_timeout: float | None
    shards: int | None = None
    rank_timeout: float = 120.0

    def of_shard(self, shards: Shards) -> "Settings":
        """Return the settings of one shard: its share of the environments, a seed of its own.

        Raises:
            ConfigError: the environments cannot be shared out evenly.
        """
        if shards.size == 1:
            return replace(self, shards=1)
        shares: dict[str, Any] = {"seed": make_shard_seed(self.seed, shards.index)}
        for name in ("num_envs", "evaluation_envs"):
            number = getattr(self, name)
            if number is not None and number % shards.size:
                raise ConfigError(f"{name}={number}: it must be a multiple of the {shards.size} shards")
            shares[name] = number if number is None else number // shards.size
        return replace(self, shards=shards.size, **shares)

    def get_agent_arguments(self) -> dict[str, Any]:
        """Return the arguments of an agent that are among them."""
        names = ("num_envs", "num_steps", "total_steps", "seed", "device")
        return {name: getattr(self, name) for name in names}

    def set_threads(self) -> None:
        """Give torch the threads for acting, one for ``auto``: initial weights hang on their number, too."""
        torch.set_num_threads(1 if isinstance(self.threads, str) else self.threads)


SETTINGS = tuple(each.name for each in fields(Settings))


def read_settings(config: DictConfig) -> Settings:
    """Read the keys at the top of a configuration in the types they must have.

    Raises:
        ConfigError, ValueError: a value is of another type or out of range.
    """
    kinds: dict[str, Any] = {each.name: each.type for each in fields(Settings)}
    kinds["threads"] = Any  # a number or a word: check_threads has one sentence for both
    settings = Settings(**{name: convert(config[name], kind, name) for name, kind in kinds.items()})
    counts = ("total_steps", "num_envs", "num_steps", "evaluate_episodes", "checkpoint_every")
    positive(**{name: getattr(settings, name) for name in counts})
    optional = {name: getattr(settings, name) for name in ("evaluate_every", "evaluation_max_steps")}
    positive(**{name: value for name, value in optional.items() if value is not None})
    whole(0, final_episodes=settings.final_episodes, evaluation_envs=settings.evaluation_envs or 0)
    if settings.evaluation_share is not None:
        within(0.0, 1.0, evaluation_share=settings.evaluation_share)
    EarlyStop(None, settings.patience, settings.min_delta, settings.max_seconds)
    # whether a threshold can be reached is for a trainer to ask: a run of before may still be played
    check_grounds(settings.evaluate_every, settings.threshold, stop=False, patience=settings.patience)
    within(0, 2**31, seed=settings.seed)
    if settings.env_timeout is not None:
        within(1e-3, math.inf, env_timeout=settings.env_timeout)
    if settings.shards is not None:
        positive(shards=settings.shards)
    within(1.0, math.inf, rank_timeout=settings.rank_timeout)
    check_threads(settings.threads)
    check_device(settings.device)
    return settings


def check_device(name: str) -> None:
    """Check that torch can use a device here.

    Raises:
        ConfigError: it cannot.
    """
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={name} cannot be used here: {str(error).splitlines()[0]}") from error


@dataclass
class Parts:
    """What a configuration stands for.

    Attributes:
        agent: as ``config.agent`` describes it.
        envs: to train in, ``settings.num_envs`` of them.
        evaluation_envs: to evaluate in; ``envs`` themselves where evaluations have none of their own.
        settings: the keys at the top, in the types they must have.
        config: the configuration with every default filled in.
        observers: who watches the training, by name; nobody before ``add_observers``.
    """

    agent: Agent
    envs: VectorEnv
    evaluation_envs: VectorEnv
    settings: Settings
    config: DictConfig
    observers: dict[str, Observer] = field(default_factory=dict)

    @property
    def lends_envs(self) -> bool:
        """Say whether evaluations play in the environments of training."""
        return self.evaluation_envs is self.envs

    def add_observers(self) -> None:
        """Construct those whom the configuration names, and fill in their defaults there.

        Raises:
            ConfigError: a key or value cannot be, or one is no observer.
            ImportError: the package of an extra is missing.
        """
        nodes = {}
        for name, node in self.config.observers.items():
            self.observers[name], nodes[name] = construct(node, f"observers.{name}")
            if not isinstance(self.observers[name], Observer):
                raise ConfigError(
                    f"observers.{name}._target_={node._target_} has not begin, report and end: see Observer"
                )
        self.config = to_config(to_dict(self.config) | {"observers": nodes})

    def close(self) -> None:
        """End the environments and their worker processes."""
        close(self.envs)
        if not self.lends_envs:
            close(self.evaluation_envs)


def build(config: DictConfig, playing: bool = False, at_most: int | None = None, shards: Shards = ALONE) -> Parts:
    """Construct environments and agent, once every key has been checked; the caller closes what it gets.

    Args:
        config: of a run.
        playing: there is no training: construct environments to evaluate in alone, which are ``envs`` then, too.
        at_most: so many of them, or a few more to make whole worlds; None for as many as the run evaluates in.
        shards: whose environments and agent they are to be, of a run that trains in several.

    Raises:
        ConfigError, ValueError: a key or value cannot be, or the run has no environment.
    """
    settings = read_settings(config).of_shard(shards)
    if config.get("env") is None:
        raise ConfigError("this run has no environment: it was made of a recording, or of an agent of sb3, alone")
    # if a later part cannot be made, no worker process of an earlier one is left behind
    with Watchdog(settings.env_timeout, step_seconds, shows_mask, probe_in_worker), ExitStack() as opened:
        if playing:
            envs, env_node = open_envs_to_play(config, settings, opened, at_most)
            evaluation_envs = envs
        else:
            envs, evaluation_envs, env_node = open_envs_to_train(config, settings, opened)
        runtime = settings.get_agent_arguments()
        runtime |= {"observation_space": envs.single_observation_space, "action_space": envs.single_action_space}
        if "action_names" not in config.agent:
            runtime["action_names"] = getattr(envs.unwrapped, "action_names", None)
        settings.set_threads()
        agent, agent_node = construct(config.agent, "agent", **runtime)
        complete = to_config(to_dict(config) | {"agent": agent_node, "env": env_node})
        parts = Parts(agent, envs, evaluation_envs, settings, complete)
        opened.pop_all()  # they are the caller's now
    return parts


def build_envs(config: DictConfig, at_most: int | None = None) -> VectorEnv:
    """Construct environments to play in alone, as ``build`` with ``playing`` does; the caller closes them.

    Args:
        config: of a run.
        at_most: see ``build``.

    Raises:
        ConfigError, ValueError: a key or value cannot be.
    """
    settings = read_settings(config)
    with Watchdog(settings.env_timeout, step_seconds, shows_mask, probe_in_worker), ExitStack() as opened:
        envs, _ = open_envs_to_play(config, settings, opened, at_most)
        opened.pop_all()
    return envs


def open_envs_to_train(
    config: DictConfig, settings: Settings, opened: ExitStack
) -> tuple[VectorEnv, VectorEnv, dict[str, Any]]:
    """Construct environments to train in and, unless evaluations borrow those, environments to evaluate in.

    Args:
        config: of a run.
        settings: those of ``config``.
        opened: closes them.

    Returns:
        Both, and the node of the environment with all defaults filled in.
    """
    envs, node = construct(config.env, "env", num_envs=settings.num_envs)
    opened.callback(close, envs)
    number = count_evaluation_envs(settings, envs, config.agent)
    if number == 0 or (settings.evaluate_every is None and settings.final_episodes == 0):
        return envs, envs, node
    evaluation_envs, _ = construct(config.env, "env", num_envs=number)
    opened.callback(close, evaluation_envs)
    return envs, evaluation_envs, node


def open_envs_to_play(
    config: DictConfig, settings: Settings, opened: ExitStack, at_most: int | None
) -> tuple[VectorEnv, dict[str, Any]]:
    """Construct as many environments as ``config`` evaluates in; there are never two vectors of them at a time.

    Args:
        config: of a run.
        settings: those of ``config``.
        opened: closes them.
        at_most: see ``build``.

    Returns:
        The environments, and their node with all defaults filled in.
    """
    number = settings.evaluation_envs or settings.num_envs
    envs, node = construct(config.env, "env", num_envs=number)
    with ExitStack() as first:
        first.callback(close, envs)
        fewer = count_evaluation_envs(settings, envs, config.agent) or number
        if at_most is not None:
            fewer = min(fewer, fill_worlds(at_most, envs, config.agent))
        if fewer == number:
            opened.push(first.pop_all())
    if fewer != number:
        envs, node = construct(config.env, "env", num_envs=fewer)
        opened.callback(close, envs)
    return envs, node


def count_evaluation_envs(settings: Settings, envs: VectorEnv, agent: DictConfig) -> int:
    """Return how many environments of their own evaluations have; 0 where they borrow those of training.

    They borrow a single world that Gymnasium or PettingZoo made: it may hold a port or a device, so that there cannot
    be two. An environment whose state can be read is a computation alone.

    Args:
        settings: of the run.
        envs: some of the environments.
        agent: the node of the agent.

    Raises:
        ConfigError: ``evaluation_envs`` does not make whole worlds, or the seats of the agent do not fit one.
    """
    unit = fill_worlds(1, envs, agent)
    if settings.evaluation_envs is not None:
        if settings.evaluation_envs % unit:
            allowed = f"a multiple of {unit}, for whole worlds and all seats"
            raise ConfigError(f"evaluation_envs={settings.evaluation_envs}: it must be {allowed}")
        return settings.evaluation_envs
    worlds = settings.num_envs / getattr(envs.unwrapped, "num_agents", 1)
    at_most = -(-EVALUATION_ENVS // (settings.shards or 1))
    if hasattr(envs.unwrapped, "state_dict"):  # of ours: fifty copies cost little more than one
        return fill_worlds(at_most, envs, agent)
    return 0 if worlds <= 1 else fill_worlds(min(settings.num_envs, at_most), envs, agent)


def fill_worlds(at_least: int, envs: VectorEnv, agent: DictConfig) -> int:
    """Return the smallest number of environments that makes whole worlds and has whole populations in each.

    Args:
        at_least: so many environments.
        envs: some of them already; their ``num_agents`` play in one world.
        agent: the node of the agent; ``seats`` are those of a population.

    Raises:
        ConfigError: the seats do not fit the agents of a world.
    """
    agents = getattr(envs.unwrapped, "num_agents", 1)
    unit = len(agent.seats) if "seats" in agent else agents
    if unit % agents or unit == 0:
        raise ConfigError(f"agent.seats has {unit} names, but a world of this environment has {agents} agents")
    return -(-at_least // unit) * unit
