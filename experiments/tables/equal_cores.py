"""A core on a task, with the hidden size at which its whole network has as many parameters as that of another core."""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from experiments.char_lm import __main__ as char_lm
from experiments.char_lm.model import SequenceModel
from experiments.launch.build import build
from experiments.launch.check import ConfigError, chosen, construct
from experiments.launch.command import check_keys, rewritten
from experiments.tables.learning_table import remaining
from experiments.train import flat


@dataclass
class Entry:
    """A core on a task.

    Attributes:
        command: a name in ``COMMANDS``.
        arguments: what its runs are started with, beside seed and folder.
        settings: the configuration of its runs as one level, and ``parameters``.
        free: the settings that this core has for itself.
        player: plays one environment, see :func:`agents`.
        frames: what it plays with.
    """

    task: str
    core: str
    command: str
    arguments: list[str]
    settings: dict[str, Any]
    free: set[str]
    player: Any
    frames: list[Any]

    @property
    def hidden_size(self) -> int:
        """As chosen."""
        return self.settings[f"{COMMANDS[self.command].node}.hidden_size"]

    def state_bytes(self) -> int:
        """The memory state of one environment."""
        return sum(leaf.numel() * leaf.element_size() for leaf in self.player.network.initial_state(1).values())


@dataclass
class Reader:
    """A model of characters with the calls of an agent that plays: a character in, the likeliest next one out."""

    network: SequenceModel

    def __post_init__(self):
        self.network.eval()
        self.state = self.network.initial_state(1)

    @torch.inference_mode()
    def take_action(self, symbol: Tensor) -> int:
        """``symbol [1]`` -> a symbol."""
        logits, self.state = self.network.step(symbol, self.state)
        return int(logits.argmax())

    def add_memory(self, reward: float, done: bool) -> None:
        """There is no outcome."""


Players = tuple[dict[str, Any], list[Any], Callable[[int | None], Any]]


def agents(config: DictConfig) -> Players:
    """What ``experiments.train`` would make of a configuration.

    Returns:
        All settings as one level, 500 observations, and ``make``: from a hidden size (None for that of the
        configuration) to an agent that plays one environment without learning.
    """
    with closing(build(config)) as parts:
        settings, envs = flat(parts.config), parts.envs
        spaces = {"observation_space": envs.single_observation_space, "action_space": envs.single_action_space}

    def make(size: int | None) -> Any:
        node = resized(config.agent, size)
        node.state_stride = 1  # nothing else is allowed with a single environment, and nothing is stored
        agent, _ = construct(node, "agent", num_envs=None, num_steps=settings["num_steps"], seed=1, **spaces)
        agent.training = False
        return agent

    spaces["observation_space"].seed(1)
    return settings, [spaces["observation_space"].sample() for _ in range(500)], make


def readers(config: DictConfig) -> Players:
    """The same for ``experiments.char_lm``; observations are held-out characters."""
    made = char_lm.Run(config)

    def make(size: int | None) -> Reader:
        core, _ = construct(resized(config, size).core, "core")
        return Reader(SequenceModel(len(made.alphabet.characters), core, made.settings["embedding_size"]))

    return flat(made.config), list(made.held_out[:500].unsqueeze(1)), make


def resized(node: DictConfig, size: int | None) -> DictConfig:
    """``node`` with ``core.hidden_size=size``."""
    plain = OmegaConf.to_container(node, resolve=True)
    plain["core"] |= {} if size is None else {"hidden_size": size}
    return OmegaConf.create(plain)


def characters_remaining(target: Path, arguments: list[str]) -> list[str]:
    """Return what is left to train of a model of characters; one that was stopped begins again."""
    done = (target / "result.json").is_file()
    return [] if done and result_of(target)["steps"] >= settings_of(target)["steps"] else arguments


def train_outcome(result: dict[str, Any], settings: dict[str, Any]) -> tuple[float, float]:
    """Return of the final greedy evaluation, environment steps per second."""
    return result["eval_return_mean"], result["steps_per_second"]


def characters_outcome(result: dict[str, Any], settings: dict[str, Any]) -> tuple[float, float]:
    """Held-out bits per character, characters per second."""
    characters = result["steps"] * settings["batch"] * settings["block"]
    return result["bits_per_char"], characters / result["training_seconds"]


@dataclass(frozen=True)
class Command:
    """What differs between the commands that train.

    Attributes:
        group: the override that chooses the core.
        node: where the core stands in the configuration.
        players: see :func:`agents`.
        remaining: see :func:`experiments.tables.learning_table.remaining`.
        outcome: ``result.json`` and the settings of a run -> what it learned, its speed.
        equal: settings that no core may have for itself: the batches and the encoder.
    """

    group: str
    node: str
    players: Callable[[DictConfig], Players]
    remaining: Callable[[Path, list[str]], list[str]]
    outcome: Callable[[dict[str, Any], dict[str, Any]], tuple[float, float]]
    equal: tuple[str, ...]


UPDATE = tuple(f"agent.{name}" for name in ("bptt", "num_minibatches", "epochs", "learning_rate", "layer_size"))
ROLLOUT = ("num_envs", "num_steps", "total_steps")
ANY_SIZE = 64  # that every core can have: heads divide it
BLOCKS = ("batch", "block", "steps", "carry", "embedding_size")
COMMANDS = {
    "train": Command("agent/core", "agent.core", agents, remaining, train_outcome, ROLLOUT + UPDATE),
    "char_lm": Command("core", "core", readers, characters_remaining, characters_outcome, BLOCKS),
}


def entries(config: DictConfig, task: str, row: dict[str, Any], cores: list[str]) -> Iterator[Entry]:
    """All ``cores`` on a task, each with as many parameters as the reference has there.

    Raises:
        ConfigError: no hidden size comes near enough.
    """
    (name,) = chosen(row.get("command", "train"), COMMANDS, f"table.{task}.command", "command")
    command = COMMANDS[name]
    own = OmegaConf.to_container(config.core_overrides, resolve=True)[name]
    begin = [f"experiment={row['experiment']}"] if "experiment" in row else []

    def arguments(core: str) -> list[str]:
        return [*begin, *row.get("overrides", ()), *own.get(core, ()), f"{command.group}={core}"]

    def players(core: str, *more: str) -> Players:
        composed = compose(name, list(rewritten([*arguments(core), *more, f"run_dir={config.output}"])))
        check_keys(composed, name)
        return command.players(composed)

    target = parameters(players(config.reference)[2](None))
    for core in cores:
        settings, frames, make = players(core, f"{command.node}.hidden_size={ANY_SIZE}")
        size = nearest_size(make, target, settings.get(f"{command.node}.num_heads", 1))
        player = make(size)
        count = parameters(player)
        if abs(count - target) > config.tolerance * target:
            raise ConfigError(
                f"{task}: {core} comes nearest to the {target} parameters of {config.reference} with {count} "
                f"(hidden_size={size}), which is not within {config.tolerance:.0%}"
            )
        settings |= {f"{command.node}.hidden_size": size, "parameters": count}
        free = {override.partition("=")[0] for override in own.get(core, ())} - set(command.equal)
        sized = [*arguments(core), f"{command.node}.hidden_size={size}"]
        yield Entry(task, core, name, sized, settings, free, player, frames)


def parameters(player: Any) -> int:
    """Of the whole network: encoder, core, heads."""
    return sum(parameter.numel() for parameter in player.network.parameters())


def nearest_size(make: Callable[[int], Any], target: int, unit: int) -> int:
    """The multiple of ``unit`` with which ``make`` comes nearest to ``target`` parameters; they grow with the size."""
    count = cache(lambda units: parameters(make(units * unit)))
    top = 1
    while count(top) < target:
        top *= 2
    above = bisect_left(range(top + 1), target, lo=max(1, top // 2), key=count)
    return unit * min((units for units in (above - 1, above) if units), key=lambda units: abs(count(units) - target))


def result_of(target: Path) -> dict[str, Any]:
    """``result.json`` of a run."""
    return json.loads((target / "result.json").read_text())


def settings_of(target: Path) -> dict[str, Any]:
    """``config.yaml`` of a run as one level."""
    return flat(OmegaConf.load(target / "config.yaml"))
