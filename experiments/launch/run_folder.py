"""Read and write what a run leaves in its folder: the configuration that made it and its result."""

import inspect
import json
import logging
import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from experiments.launch.arguments import load_defaults
from experiments.launch.check import ConfigError, convert, import_path, to_dict
from experiments.launch.claim import WRITTEN, name_target
from experiments.launch.escape import escape_interpolations, to_config
from experiments.launch.stored import check_links, check_stored, read_stored, read_trust
from rl.checkpoint import BEST, find_newest, load_checkpoint, write_text
from rl.networks.categories import EARLIER
from rl.schedules import translated

COUNTS = ("env_steps", "total_steps")
"""Entries of the result of a training run that say whether it is finished."""

log = logging.getLogger(__name__)


def load_run_config(folder: str | Path, trust: Any = ()) -> DictConfig:
    """Read the configuration that a run folder was made with; keys that it lacks have their defaults.

    Args:
        folder: of the run.
        trust: what the command line trusts, see ``rl.trust``; what the folder holds in this place does not count.

    Raises:
        ConfigError: it is no run folder, names code that is not trusted, or links to files elsewhere.
    """
    path = Path(str(folder)) / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder} is no run folder: it has no config.yaml")
    check_links(path.parent, WRITTEN)
    config = read_stored(path)
    missing = [key for key in ("agent", "env") if key not in config]
    if missing:
        raise ConfigError(f"{path} is not the configuration of a run: it has no {', '.join(missing)}")
    for key, node in (("agent", config.agent), ("env", config.env)):
        if not (isinstance(node, DictConfig) and "_target_" in node) and not (key == "env" and node is None):
            raise ConfigError(f"{path} is not the configuration of a run: {key} has no _target_")
    names = read_trust(trust)
    check_stored(config, path.parent, names)
    for key in ("agent", "imitation"):
        if isinstance(config.get(key), DictConfig):
            config[key] = to_config(_in_todays_words(to_dict(config[key])))
    absent = {*map(str, defaults := load_defaults("train"))} - {*map(str, config), "defaults", "hydra", "run_dir"}
    config.merge_with({key: defaults[key] for key in absent})
    config.trust = [escape_interpolations(name) for name in names]
    return config


def _in_todays_words(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node of an agent, or of what teaches it, as this version would have stored it."""
    parts = {key: _in_todays_words(value) if isinstance(value, dict) else value for key, value in node.items()}
    if "_target_" not in parts:
        return parts
    try:
        own = inspect.signature(import_path(str(parts["_target_"]))).parameters
    except (ImportError, AttributeError, ValueError):  # whoever constructs it says so
        return parts
    if "image_encoding" in own:
        parts.setdefault("image_encoding", EARLIER)
    return parts if "anneal_learning_rate" in own else translated(parts)


def choose_checkpoint(config: DictConfig) -> Path | None:
    """Return the path of the whole checkpoint that a command names by ``run`` and ``checkpoint``; None without a run.

    Args:
        config: of the command; ``checkpoint`` is ``last`` for the newest, ``best`` for that of the best evaluation, or
            the path of a file.

    Raises:
        ConfigError, FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, or was written by a newer version.
    """
    run, name = config.run, convert(config.checkpoint, str, "checkpoint")
    if run is None and name != "last":
        raise ConfigError(f"checkpoint={name} is of a run: give run=RUN_DIR, too")
    if run is None or name == "last":
        return None if run is None else find_newest(run)
    path = Path(run, "checkpoints", BEST) if name == "best" else Path(name)
    if not path.is_file():
        unevaluated = f"{path} is not there, as where a run was not evaluated during its training"
        reason = unevaluated if name == "best" else "there is no such file"
        raise ConfigError(f"checkpoint={name}: {reason}; it must be last, best or the path of a checkpoint")
    load_checkpoint(path, "meta")
    return path


def load_resumed_config(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Read the configuration of the run to go on with, changed by what the command line sets beside ``resume``.

    Args:
        config: of the command line; ``resume`` is the run folder.
        overrides: the arguments of the command line.

    Raises:
        ConfigError: there is no run, or an override would make it another run.
    """
    stored = load_run_config(config.resume, config.get("trust", ()))
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.key_or_group
        if "/" in key or override.package is not None or key in ("agent", "env", "experiment"):
            raise ConfigError(f"{override.input_line}: a resumed run keeps its agent and environment")
        if override.is_delete():
            raise ConfigError(f"{override.input_line}: a resumed run keeps its keys, give another value instead")
        if key == "observers":  # by name: composed already
            stored.observers = config.observers
        elif key not in ("resume", "trust", "run_dir"):
            asked, before = str(override.input_line).lstrip("+"), OmegaConf.select(stored, key)
            if override.value() != before and (kept := _find_kept(key)):
                raise ConfigError(f"{asked}: a resumed run goes on with the {kept} that it has")
            if override.value() != before and key.startswith("env."):
                log.warning("%s: the run goes on in another environment than it had, with %s=%s", asked, key, before)
            OmegaConf.update(stored, key, override.value())
    folder = escape_interpolations(str(config.resume))
    stored.resume, stored.run_dir = folder, folder
    return stored


def _find_kept(key: str) -> str | None:
    """Name what a fresh run gets from a key, which a resumed run has in its checkpoint; None if that is nothing."""
    part, _, name = key.rpartition(".")
    of_weights = part.startswith("agent") and name in ("memory_span", "forget_bias", "gate_bias")
    return "seed" if key == "seed" else "weights" if key == "init_from" or of_weights else None


def name_env(env: DictConfig) -> str:
    """Return the name of an environment: its id where it has one, without the module in front, else that of its class.

    See ``name_folder`` for one that can stand in a path.
    """
    named = env.get("id")
    return str(named).rpartition(":")[2] if named else str(env.get("_target_", "none")).rpartition(".")[2]


def name_folder(name: str) -> str:
    """Return a name that can be that of a folder: ``ALE/Pong-v5`` becomes ``ALE-Pong-v5``."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "unnamed"


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


def name_encoder(agent: DictConfig) -> str:
    """Return the name of an agent's encoder; for a population the encoder of each member."""
    return ", ".join(_list_encoders(agent))


def name_agent(agent: DictConfig | None) -> str:
    """Return the name of an agent's class, and of the encoders that were chosen for it, if any were."""
    chosen = [] if agent is None else [name for name in dict.fromkeys(_list_encoders(agent)) if name != "auto"]
    return "-".join([name_target(agent), *chosen])


def _list_encoders(agent: DictConfig) -> list[str]:
    """Return the names of the encoders of an agent, or of the members of a population; without one it is ``auto``."""
    nodes = agent.members.values() if "members" in agent else [agent]
    return [name_target(node.encoder) if "encoder" in node else "auto" for node in nodes]


def flatten(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as one level: ``agent.core.hidden_size`` and so on."""

    def walk(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        parts = ({f"{prefix}{k}": v} if not isinstance(v, dict) else walk(v, f"{prefix}{k}.") for k, v in node.items())
        return {key: value for part in parts for key, value in part.items()}

    return walk(to_dict(config))


def load_flat_config(folder: Path) -> dict[str, Any]:
    """Read ``config.yaml`` of a run of any command, as one level."""
    return flatten(read_stored(folder / "config.yaml"))


def write_config(folder: Path, config: DictConfig) -> None:
    """Write ``config.yaml`` into a run folder, whole or not at all."""
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config))


def write_result(folder: Path, result: dict[str, Any], config: DictConfig | None = None) -> None:
    """Write ``result.json`` into a run folder, whole or not at all.

    Args:
        folder: of the run.
        result: what the run came to.
        config: of the run; it is written once more if someone has removed the folder meanwhile.
    """
    if config is not None and not (folder / "config.yaml").is_file():
        write_config(folder, config)
        log.warning("%s was removed while the run went on: its curves are lost, its last checkpoint is there", folder)
    write_text(folder / "result.json", json.dumps(result, indent=1))


def read_result(folder: Path) -> dict[str, Any]:
    """Read ``result.json`` of a run.

    Raises:
        ConfigError: it is damaged.
        OSError: it cannot be read.
    """
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged: {error}") from error
    if not isinstance(result, dict):
        raise ConfigError(f"{path} is damaged: it holds no entries by name")
    counts = [result[name] for name in COUNTS if name in result]
    if len(counts) == 1 or not all(isinstance(count, int) and not isinstance(count, bool) for count in counts):
        raise ConfigError(f"{path} is damaged: {' and '.join(COUNTS)} must be whole numbers")
    return result
