"""Build environments and agent from a checked configuration, and evaluate the agent: what several commands share."""

from contextlib import ExitStack
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from envs.workers import close
from experiments.launch.check import ConfigError, construct, convert, to_dict
from rl.checks import positive, within
from rl.training.evaluation import Evaluation, evaluate
from rl.training.threads import check_threads
from rl.types import Agent

EVALUATION_SEED = 1_000_000  # evaluation environments are seeded far from those of training
FINAL_SEED = 1_000  # added for the evaluation at the end of a run, whose episodes were not seen before
EVALUATION_ENVS = 50  # or a few more, to make whole worlds of several agents


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
    threshold: float | None
    stop_at_threshold: bool
    checkpoint_every: int

    def get_agent_arguments(self) -> dict[str, Any]:
        """Return the arguments of an agent that are among them."""
        names = ("num_envs", "num_steps", "total_steps", "seed", "device")
        return {name: getattr(self, name) for name in names}

    def set_threads(self) -> None:
        """Give torch the threads for acting alone: ``auto`` measures updates, and acting then has one thread."""
        torch.set_num_threads(1 if isinstance(self.threads, str) else self.threads)


SETTINGS = tuple(field.name for field in fields(Settings))


def read_settings(config: DictConfig) -> Settings:
    """Read the keys at the top of a configuration in the types they must have.

    Raises:
        ConfigError, ValueError: a value is of another type or out of range.
    """
    kinds: dict[str, Any] = {field.name: field.type for field in fields(Settings)}
    kinds["threads"] = Any  # a number or a word: check_threads has one sentence for both
    settings = Settings(**{name: convert(config[name], kind, name) for name, kind in kinds.items()})
    counts = ("total_steps", "num_envs", "num_steps", "evaluate_episodes", "final_episodes", "checkpoint_every")
    positive(**{name: getattr(settings, name) for name in counts})
    within(0, 2**31, seed=settings.seed)
    if settings.evaluate_every is not None:
        positive(evaluate_every=settings.evaluate_every)
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
        evaluation_envs: to evaluate in, at least ``EVALUATION_ENVS`` of them.
        settings: the keys at the top, in the types they must have.
        config: the configuration with every default filled in.
    """

    agent: Agent
    envs: VectorEnv
    evaluation_envs: VectorEnv
    settings: Settings
    config: DictConfig

    def close(self) -> None:
        """End the environments and their worker processes."""
        close(self.envs)
        close(self.evaluation_envs)


def build(config: DictConfig) -> Parts:
    """Construct environments and agent, once every key has been checked; the caller closes what it gets.

    Raises:
        ConfigError, ValueError: a key or value cannot be, or the run has no environment.
    """
    settings = read_settings(config)
    if config.get("env") is None:
        raise ConfigError("this run has no environment: it was trained on a recording alone")
    with ExitStack() as opened:  # if a later part cannot be made, no worker process of an earlier one is left behind
        envs, env_node = construct(config.env, "env", num_envs=settings.num_envs)
        opened.callback(close, envs)
        evaluation_envs, _ = construct(config.env, "env", num_envs=fill_worlds(EVALUATION_ENVS, envs, config.agent))
        opened.callback(close, evaluation_envs)
        runtime = settings.get_agent_arguments()
        runtime |= {"observation_space": envs.single_observation_space, "action_space": envs.single_action_space}
        if "action_names" not in config.agent:
            runtime["action_names"] = getattr(envs.unwrapped, "action_names", None)
        agent, agent_node = construct(config.agent, "agent", **runtime)
        complete = OmegaConf.create(to_dict(config) | {"agent": agent_node, "env": env_node})
        parts = Parts(agent, envs, evaluation_envs, settings, complete)
        opened.pop_all()  # they are the caller's now
    return parts


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


def evaluate_agent(
    agent: Agent, envs: VectorEnv, episodes: int, seed: int, *, memory: bool = True, greedy: bool = True
) -> Evaluation:
    """Play whole episodes without learning, on seeds far from those of training.

    Args:
        agent: its weights and its own memories stay as they are.
        envs: to play in.
        episodes: at least so many.
        seed: of the evaluation; the same one plays the same episodes.
        memory: False clears the memory before every step.
        greedy: take the likeliest actions instead of sampling.
    """
    return evaluate(agent, envs, episodes, EVALUATION_SEED + seed, greedy=greedy, memory=memory)


def evaluate_memory(agent: Agent, envs: VectorEnv, episodes: int, seed: int) -> tuple[Evaluation, Evaluation]:
    """Play the same episodes greedily twice: with memory, and with the memory cleared before every step."""
    kept, zeroed = (evaluate_agent(agent, envs, episodes, seed, memory=memory) for memory in (True, False))
    return kept, zeroed


def tag_returns(kept: Evaluation, zeroed: Evaluation) -> dict[str, float]:
    """Return the mean returns of ``evaluate_memory`` by their TensorBoard tags."""
    return {
        "eval/episodic_return": kept.mean,
        "eval/episodic_return_memory_zeroed": zeroed.mean,
        "diagnostics/memory_gap": kept.mean - zeroed.mean,
    }
