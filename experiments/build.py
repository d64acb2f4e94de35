"""From a checked configuration to environments and agent: what training and evaluation share."""

import difflib
from pathlib import Path
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig, OmegaConf

from experiments.config import ConfigError, construct, converted
from rl.checks import positive, within
from rl.evaluation import Evaluation, evaluate

EVALUATION_SEED = 1_000_000  # evaluation environments are seeded far from those of training
EVALUATION_ENVS = 50
SETTINGS = {
    "seed": int,
    "total_steps": int,
    "num_envs": int,
    "num_steps": int,
    "device": str,
    "threads": int,
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
        "threads",
        "evaluate_episodes",
        "final_episodes",
        "checkpoint_every",
    )
    positive(**{name: settings[name] for name in counts})
    within(0, 2**31, seed=settings["seed"])
    if settings["evaluate_every"] is not None:
        positive(evaluate_every=settings["evaluate_every"])
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


def make_envs(config: DictConfig, num_envs: int) -> Any:
    """``num_envs`` copies of the configured environment."""
    return construct(config.env, "env", num_envs=num_envs)


def build(config: DictConfig) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Agent, training environments, evaluation environments and settings."""
    settings = read_settings(config)
    made = make_envs(config, settings["num_envs"])
    agent = construct(
        config.agent,
        "agent",
        observation_space=made.single_observation_space,
        action_space=made.single_action_space,
        action_names=getattr(made.unwrapped, "action_names", None),
        **{name: settings[name] for name in ("num_envs", "num_steps", "total_steps", "seed", "device")},
    )
    return agent, made, make_envs(config, EVALUATION_ENVS), settings


def play(agent: Any, envs: VectorEnv, episodes: int, seed: int, memory: bool = True, greedy: bool = True) -> Evaluation:
    """Evaluates on seeds of its own."""
    return evaluate(agent, envs, episodes, EVALUATION_SEED + seed, greedy, memory)


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
        if "." not in key and key not in stored:
            close = difflib.get_close_matches(key, list(stored), n=1)
            raise ConfigError(f"there is no key {key!r}" + (f"; did you mean {close[0]}?" if close else ""))
        OmegaConf.update(stored, key, OmegaConf.create(f"value: {value}").value, force_add=True)
    stored.resume = config.resume
    return stored
