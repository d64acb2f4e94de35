"""Another environment than the one that a run was trained in: merged from overrides, and checked to fit the agent."""

from gymnasium import Space
from omegaconf import DictConfig, OmegaConf

from envs.workers import close
from experiments.launch.build import build_envs
from experiments.launch.check import ConfigError, to_dict
from experiments.launch.escape import to_config
from experiments.launch.run_folder import flatten

Spaces = tuple[Space, Space]
"""Of observations and of actions, of one environment."""


def list_overrides(given: DictConfig | None) -> list[str]:
    """Return what a command line sets of the environment, as ``env.KEY=VALUE``; nothing if it sets nothing.

    Raises:
        ConfigError: it sets a value where keys belong.
    """
    if given is None:
        return []
    if not isinstance(given, DictConfig):
        raise ConfigError(f"env={given!r}: set its keys, env.KEY=VALUE, or choose another one by name, env=NAME")
    return [f"env.{key}={_write(value)}" for key, value in flatten(given).items()]


def _write(value: object) -> str:
    """Write a value as it stands on a command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def override_env(stored: DictConfig, given: DictConfig) -> DictConfig:
    """Return the configuration of a run with its environment changed.

    Args:
        stored: of the run; it stays as it is.
        given: keys of the environment; with a ``_target_`` they are those of another environment.

    Raises:
        ConfigError: the run has no environment.
    """
    if stored.env is None:
        raise ConfigError("this run has no environment: it was made of a recording, or of an agent of sb3, alone")
    changed, node = stored.copy(), to_config(to_dict(given))
    OmegaConf.set_struct(changed, False)
    changed.env = node if "_target_" in given else OmegaConf.merge(changed.env, node)
    return changed


def read_spaces(config: DictConfig) -> Spaces:
    """Construct the environments of a run, return their spaces, and close them.

    Args:
        config: of a run.

    Raises:
        ConfigError, ValueError: a key or value cannot be.
    """
    envs = build_envs(config)
    close(envs)
    return envs.single_observation_space, envs.single_action_space


def check_spaces(spaces: Spaces, own: Spaces, overrides: list[str]) -> None:
    """Check that an agent can play in other environments.

    Args:
        spaces: of the other environments.
        own: of those that the agent was made for.
        overrides: what makes the others, for the message.

    Raises:
        ConfigError: it cannot, for a space differs.
    """
    for what, there, here in zip(("observations", "actions"), spaces, own, strict=True):
        if there != here:
            words = [" ".join(str(space).split()) for space in (there, here)]
            raise ConfigError(f"{', '.join(overrides)}: the {what} there are {words[0]}, those of the agent {words[1]}")
