"""Start from the weights of another run: with its alphabet and core and, unless others are given, with its text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.launch.check import ConfigError, check_node, to_dict
from experiments.launch.escape import to_config
from experiments.launch.run_folder import flatten
from experiments.launch.stored import read_stored
from rl.checkpoint import find_newest, load_checkpoint
from rl.trust import UntrustedError, import_trusted

MODEL = ("core", "embedding_size")  # what the weights belong to: always as the run has it
DATA = ("text", "batch", "block", "carry")  # as the run has it, unless the command line says otherwise


def adopt_run(config: DictConfig, overrides: list[str]) -> DictConfig:
    """Return a configuration with the model and the data of the run whose ``weights`` it names.

    Args:
        config: of the command.
        overrides: the arguments of the command line.

    Raises:
        ConfigError: there is no such run, or the command line asks for another model.
    """
    if config.weights is None:
        return config
    stored = read_run(str(config.weights))
    given = [override.lstrip("+~").partition("=")[0] for override in overrides]
    asked = check_node(to_dict(config.core), "core", given=("input_size",))
    check_targets(stored["core"], str(asked["_target_"]), str(config.weights))
    own = {"core": check_node(stored["core"], "core", given=("input_size",)), "embedding_size": stored[MODEL[1]]}
    mine, theirs = (flatten(to_config(part)) for part in (to_dict(config) | {"core": asked}, own))
    for key in given:
        full = "core._target_" if key == "core" else key
        if key.partition(".")[0] in MODEL and mine.get(full) != theirs.get(full):
            value, kept = mine.get(full), theirs.get(full)
            raise ConfigError(f"{full}={value}: weights={config.weights} was trained with {kept}; leave it out")
    return to_config(to_dict(config) | own | {key: stored[key] for key in DATA if key not in given})


def read_run(folder: str) -> dict[str, Any]:
    """Read the configuration of a run of this command.

    Raises:
        ConfigError, FileNotFoundError, ValueError: there is no such folder, or it is that of another command.
    """
    load_weights(folder)
    path = Path(folder).expanduser() / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"weights={folder} has no config.yaml")
    stored = to_dict(read_stored(path))
    missing = [key for key in (*MODEL, *DATA) if key not in stored]
    if missing or not isinstance(stored["core"], dict):
        raise ConfigError(
            f"weights={folder}: config.yaml is not of char_lm: it has no {missing[0] if missing else 'core'}"
        )
    return stored


def check_targets(core: dict[str, Any], trusted: str, folder: str) -> None:
    """Check that a stored core runs nothing but this project's code and ``trusted``, which the command line names.

    Raises:
        ConfigError: it would.
    """
    for target in _list_targets(core):
        try:
            if target != trusted:
                import_trusted(target)
        except (UntrustedError, ImportError, AttributeError) as error:
            hint = f"; if you trust it, give core._target_={target}" if isinstance(error, UntrustedError) else ""
            raise ConfigError(f"weights={folder}: the core {target} is not one of this project{hint}") from error


def _list_targets(node: Any) -> Iterator[str]:
    """List every ``_target_`` inside a node."""
    if isinstance(node, dict):
        yield from ([str(node["_target_"])] if "_target_" in node else [])
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _list_targets(part)


def load_weights(folder: str | None) -> dict[str, Any] | None:
    """Read what ``Training.save`` left in a run folder; None without one.

    Raises:
        ConfigError, FileNotFoundError, ValueError: there is no such folder, or it is that of another command.
    """
    if folder is None:
        return None
    content = load_checkpoint(find_newest(Path(folder).expanduser()))["agent"]
    if not isinstance(content, dict) or "alphabet" not in content:
        raise ConfigError(f"weights={folder} is no run folder of char_lm")
    return content
