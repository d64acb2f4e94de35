"""Read and write what a run leaves in its folder: the configuration that made it and its result."""

import inspect
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.launch.build import SETTINGS
from experiments.launch.check import ConfigError, import_path, load_yaml, to_dict
from rl.checkpoint import atomic_write


def load_run_config(folder: str | Path) -> DictConfig:
    """Read the configuration that a run folder was made with.

    Raises:
        ConfigError: it is no run folder.
    """
    path = Path(str(folder)) / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} is no run folder: it has no config.yaml")
    config = OmegaConf.load(path)
    missing = [key for key in ("agent", "env", *SETTINGS) if not isinstance(config, DictConfig) or key not in config]
    if missing or not isinstance(config, DictConfig):
        raise ConfigError(f"{path} is not the configuration of a run: it has no {', '.join(missing)}")
    return config


def load_resumed_config(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Read the configuration of the run to go on with, changed by what the command line sets beside ``resume``.

    Args:
        config: of the command line; ``resume`` is the run folder.
        overrides: the arguments of the command line.

    Raises:
        ConfigError: there is no run, or an override would make it another run.
    """
    stored = load_run_config(config.resume)
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key == "resume":
            continue
        if "/" in key or key in ("agent", "env", "experiment"):
            raise ConfigError(f"{override}: a resumed run keeps its agent and environment")
        OmegaConf.update(stored, key, OmegaConf.create(f"value: {value}").value)
    stored.resume = config.resume
    return stored


def name_env(env: DictConfig) -> str:
    """Return the name of an environment: its id (``CartPole-v1``) if it is chosen by one, else that of its class."""
    return str(env.get("id") or str(env.get("_target_", "none")).rpartition(".")[2])


def name_core(agent: DictConfig) -> str:
    """Return the name of an agent's memory; for a population the memory of each member."""
    nodes = agent.members.values() if "members" in agent else [agent]
    return ", ".join(_name_own_core(node) for node in nodes)


def _name_own_core(agent: DictConfig) -> str:
    """Return the name of the memory of one agent: the default of its class where the configuration names none."""
    if "core" in agent:
        return str(agent.core._target_.rpartition(".")[2])
    parameter = inspect.signature(import_path(agent._target_)).parameters.get("core")
    return getattr(getattr(parameter, "default", None), "__name__", "none")


def flatten(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as one level: ``agent.core.hidden_size`` and so on."""

    def walk(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        parts = ({f"{prefix}{k}": v} if not isinstance(v, dict) else walk(v, f"{prefix}{k}.") for k, v in node.items())
        return {key: value for part in parts for key, value in part.items()}

    return walk(to_dict(config))


def load_flat_config(folder: Path) -> dict[str, Any]:
    """Read ``config.yaml`` of a run of any command, as one level."""
    return flatten(load_yaml(folder / "config.yaml"))


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write ``result.json`` into a run folder, whole or not at all."""
    with atomic_write(folder / "result.json") as file:
        file.write(json.dumps(result, indent=1).encode())


def read_result(folder: Path) -> dict[str, Any]:
    """Read ``result.json`` of a run."""
    return json.loads((folder / "result.json").read_text())
