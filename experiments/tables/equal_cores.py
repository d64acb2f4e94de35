"""Give every core on a task the hidden size at which its network has as many parameters as that of another core."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from experiments.char_lm.model import SequenceModel
from experiments.char_lm.training import Training
from experiments.launch.arguments import check_keys, rewrite_overrides
from experiments.launch.build import build
from experiments.launch.check import ConfigError, choose_names, construct, to_dict
from experiments.launch.run_folder import flatten, load_flat_config, read_result
from experiments.tables.latency import SinglePlayer
from experiments.tables.runs import list_fresh_arguments, list_remaining_arguments
from rl.memory_check.play import RandomPlay
from rl.types import State


class Network(Protocol):
    """A network with a memory."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return all that is learned."""

    def initial_state(self, batch_size: int) -> State:
        """Make the state of ``batch_size`` fresh memories."""


class Contestant(SinglePlayer, Protocol):
    """A player of one environment around a core."""

    @property
    def network(self) -> Network:
        """The network that it plays with."""


@dataclass
class Entry:
    """A core on a task.

    Attributes:
        task: name of the task.
        core: name of the core.
        command: a name in ``COMMANDS``.
        arguments: what its runs are started with, beside seed and folder.
        settings: the configuration of its runs as one level, and ``parameters``.
        free: the settings that this core has for itself.
        player: plays one environment, see ``Candidates``.
        frames: what it plays with.
    """

    task: str
    core: str
    command: str
    arguments: list[str]
    settings: dict[str, Any]
    free: set[str]
    player: Contestant
    frames: list[Any]

    @property
    def hidden_size(self) -> int:
        """The size chosen for the core."""
        return self.settings[f"{COMMANDS[self.command].node}.hidden_size"]

    def count_state_bytes(self) -> int:
        """Return the size of the memory state of one environment."""
        return sum(leaf.numel() * leaf.element_size() for leaf in self.player.network.initial_state(1).values())


@dataclass
class Reader:
    """A model of characters with the calls of an agent that plays: a character in, the likeliest next one out."""

    network: SequenceModel

    def __post_init__(self) -> None:
        """Begin with a fresh memory."""
        self.network.eval()
        self.state = self.network.initial_state(1)

    @torch.inference_mode()
    def act(self, observation: Tensor) -> int:
        """Return the likeliest symbol to follow ``observation``, one symbol ``[1]``."""
        logits, self.state = self.network.step(observation, self.state)
        return int(logits.argmax())

    def observe(self, rewards: float, terminated: bool) -> None:
        """Do nothing: there is no outcome."""


@dataclass
class Candidates:
    """What a configuration would train, at any hidden size.

    Attributes:
        settings: the configuration as one level.
        frames: observations to play with.
        make: from a hidden size, or None for that of the configuration, to a player of one environment.
    """

    settings: dict[str, Any]
    frames: list[Any]
    make: Callable[[int | None], Contestant]


def prepare_agents(config: DictConfig) -> Candidates:
    """Return the agents that ``experiments.train`` would make, playing without learning, and observations."""
    with closing(build(config)) as parts:
        settings, envs = flatten(parts.config), parts.envs
        frames = watch_random_play(envs)
        spaces = {"observation_space": envs.single_observation_space, "action_space": envs.single_action_space}

    def make(size: int | None) -> Contestant:
        node = resize_core(config.agent, size)
        node.state_stride = 1  # nothing else is allowed with a single environment, and nothing is stored
        agent, _ = construct(node, "agent", num_envs=None, num_steps=settings["num_steps"], seed=1, **spaces)
        agent.training = False
        return agent

    return Candidates(settings, frames, make)


def watch_random_play(envs: VectorEnv) -> list[Any]:
    """Return at least 500 observations under random actions: samples of the space may be none that is ever shown."""
    play, opens = RandomPlay(envs, seed=1), np.ones(envs.num_envs, dtype=bool)
    obs, _ = envs.reset(seed=1)
    frames = deepcopy(list(iterate(envs.observation_space, obs)))
    while len(frames) < 500:
        obs, *_ = envs.step(play(obs, opens))
        frames += deepcopy(list(iterate(envs.observation_space, obs)))
    return frames


def prepare_readers(config: DictConfig) -> Candidates:
    """Return the models that ``experiments.char_lm`` would make as players, and 500 held-out characters."""
    training = Training(config)

    def make(size: int | None) -> Reader:
        core, _ = construct(resize_core(config, size).core, "core")
        return Reader(SequenceModel(len(training.alphabet.characters), core, training.settings.embedding_size))

    return Candidates(flatten(training.config), list(training.held_out[:500].unsqueeze(1)), make)


def resize_core(node: DictConfig, size: int | None) -> DictConfig:
    """Return a node with ``core.hidden_size=size``; as it is for None."""
    plain = to_dict(node)
    plain["core"] |= {} if size is None else {"hidden_size": size}
    return OmegaConf.create(plain)


def list_remaining_characters(target: Path, arguments: list[str]) -> list[str]:
    """Return what is left to train of a model of characters; one that was stopped begins again."""
    done = (target / "result.json").is_file() and read_result(target)["steps"] >= load_flat_config(target)["steps"]
    return [] if done else list_fresh_arguments(target, arguments)


def read_train_outcome(result: dict[str, Any], settings: dict[str, Any]) -> tuple[float, float]:
    """Return the return of the final greedy evaluation, and environment steps per second.

    Raises:
        ConfigError: there was no such evaluation.
    """
    if result["eval_return_mean"] is None:
        raise ConfigError("final_episodes=0: it must be at least 1, for the cores are compared by that evaluation")
    return result["eval_return_mean"], result["steps_per_second"]


def read_characters_outcome(result: dict[str, Any], settings: dict[str, Any]) -> tuple[float, float]:
    """Return held-out bits per character, and characters per second."""
    characters = result["steps"] * settings["batch"] * settings["block"]
    return result["bits_per_char"], characters / result["training_seconds"]


@dataclass(frozen=True)
class Command:
    """What differs between the commands that train.

    Attributes:
        group: the override that chooses the core.
        node: where the core stands in the configuration.
        prepare: from a configuration to what it would train.
        list_remaining: see ``experiments.tables.runs.list_remaining_arguments``.
        read_outcome: ``result.json`` and the settings of a run -> what it learned, its speed.
        equal: settings that no core may have for itself: the batches and the encoder.
    """

    group: str
    node: str
    prepare: Callable[[DictConfig], Candidates]
    list_remaining: Callable[[Path, list[str]], list[str]]
    read_outcome: Callable[[dict[str, Any], dict[str, Any]], tuple[float, float]]
    equal: tuple[str, ...]


UPDATE = tuple(f"agent.{name}" for name in ("bptt", "num_minibatches", "epochs", "learning_rate", "layer_size"))
ROLLOUT = ("num_envs", "num_steps", "total_steps")
ANY_SIZE = 64  # that every core can have: heads divide it
BLOCKS = ("batch", "block", "steps", "carry", "embedding_size")
COMMANDS = {
    "train": Command(
        "agent/core", "agent.core", prepare_agents, list_remaining_arguments, read_train_outcome, ROLLOUT + UPDATE
    ),
    "char_lm": Command("core", "core", prepare_readers, list_remaining_characters, read_characters_outcome, BLOCKS),
}


def make_entries(config: DictConfig, task: str, row: dict[str, Any], cores: list[str]) -> Iterator[Entry]:
    """Yield all cores on a task, each with as many parameters as the reference core has there.

    Args:
        config: of the comparison: ``reference``, ``tolerance``, ``core_overrides``, ``output``.
        task: name of the task.
        row: its configuration: ``command``, ``experiment``, ``overrides``.
        cores: names of the cores.

    Raises:
        ConfigError: no hidden size comes near enough.
    """
    (name,) = choose_names(row.get("command", "train"), COMMANDS, f"table.{task}.command", "command")
    command = COMMANDS[name]
    own = to_dict(config.core_overrides)[name]
    begin = [f"experiment={row['experiment']}"] if "experiment" in row else []

    def list_arguments(core: str) -> list[str]:
        return [*begin, *row.get("overrides", ()), *own.get(core, ()), f"{command.group}={core}"]

    def prepare(core: str, *more: str) -> Candidates:
        overrides = [*list_arguments(core), *more, f"run_dir={config.output}"]
        composed = compose(name, list(rewrite_overrides(overrides)))
        check_keys(composed, name)
        return command.prepare(composed)

    target = count_parameters(prepare(config.reference).make(None))
    for core in cores:
        found = prepare(core, f"{command.node}.hidden_size={ANY_SIZE}")
        settings = found.settings
        size = find_nearest_size(found.make, target, settings.get(f"{command.node}.num_heads", 1))
        player = found.make(size)
        count = count_parameters(player)
        if abs(count - target) > config.tolerance * target:
            raise ConfigError(
                f"{task}: {core} comes nearest to the {target} parameters of {config.reference} with {count} "
                f"(hidden_size={size}), which is not within {config.tolerance:.0%}"
            )
        settings |= {f"{command.node}.hidden_size": size, "parameters": count}
        free = {override.partition("=")[0] for override in own.get(core, ())} - set(command.equal)
        arguments = [*list_arguments(core), f"{command.node}.hidden_size={size}"]
        yield Entry(task, core, name, arguments, settings, free, player, found.frames)


def count_parameters(player: Contestant) -> int:
    """Return the parameters of a whole network: encoder, core, heads."""
    return sum(parameter.numel() for parameter in player.network.parameters())


def find_nearest_size(make: Callable[[int], Contestant], target: int, unit: int) -> int:
    """Return the hidden size with which a network comes nearest to a number of parameters.

    Args:
        make: from a hidden size to something with a network, whose parameters grow with the size.
        target: number of parameters.
        unit: the size must be a multiple of it.
    """
    count = cache(lambda units: count_parameters(make(units * unit)))
    top = 1
    while count(top) < target:
        top *= 2
    above = bisect_left(range(top + 1), target, lo=max(1, top // 2), key=count)
    return unit * min((units for units in (above - 1, above) if units), key=lambda units: abs(count(units) - target))
