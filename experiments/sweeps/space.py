"""The settings that a search varies, as ``conf/search`` names them: read, checked, and drawn for a trial."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from experiments.launch.build import SETTINGS
from experiments.launch.check import ConfigError, convert, suggest, to_dict
from experiments.launch.paths import quote

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RANGE, CHOICES = ("low", "high", "log", "step"), ("choices",)
PLAIN = (bool, int, float, str, type(None))
OF_ROLLOUTS = ("num_envs", "num_steps")
"""Of the keys at the top of a training run, those that may be varied: with another a trial would be another task."""


@dataclass(frozen=True)
class Parameter:
    """One setting that is varied.

    Attributes:
        key: of the command line: ``agent.learning_rate``.
        values: those that are tried to see whether the key takes them: the two ends, or all choices.
        distribution: as Optuna has it.
    """

    key: str
    values: list[Any]
    distribution: "BaseDistribution"

    def holds(self, value: Any) -> bool:
        """Tell whether a value, which another process may have written down, is one of those to draw."""
        try:
            return bool(self.distribution._contains(self.distribution.to_internal_repr(value)))
        except (ValueError, TypeError):
            return False


def read_space(search: DictConfig | None) -> list[Parameter]:
    """Read what a search varies.

    Args:
        search: nested keys, with ``low`` and ``high`` or with ``choices`` at their ends; a key that is null is left
            out.

    Raises:
        ConfigError: there is nothing to vary, or a range cannot be.
    """
    found = list[Parameter]()
    if search is not None:
        _collect(to_dict(search), "", found)
    if not found:
        raise ConfigError("search: there is nothing to vary: choose search=NAME, or give search.KEY.low and .high")
    for parameter in found:
        if parameter.key in SETTINGS and parameter.key not in OF_ROLLOUTS:
            allowed = "the keys of agent and env, " + " and ".join(OF_ROLLOUTS)
            raise ConfigError(f"search.{parameter.key}: it is the same in all trials; what can be varied is {allowed}")
    return found


def _collect(node: dict[str, Any], where: str, found: list[Parameter]) -> None:
    """Append the parameters inside a node."""
    for name, part in node.items():
        key = f"{where}.{name}" if where else name
        if part is None:
            continue
        if not isinstance(part, dict):
            raise ConfigError(f"search.{key}={part!r}: it must have low and high, or choices, or be null")
        if part.keys() & {*RANGE, *CHOICES}:
            found.append(_read_parameter(key, part))
        else:
            _collect(part, key, found)


def _read_parameter(key: str, part: dict[str, Any]) -> Parameter:
    """Read the range of one setting.

    Raises:
        ConfigError: it cannot be.
    """
    from optuna.distributions import CategoricalDistribution

    allowed = CHOICES if "choices" in part else RANGE
    unknown = [name for name in part if name not in allowed]
    if unknown:
        kind = "a list of choices" if allowed == CHOICES else "a range"
        raise ConfigError(f"search.{key}: {unknown[0]} does not belong to {kind}{suggest('', allowed)}")
    if "choices" not in part:
        return _read_range(key, part)
    choices = part["choices"]
    if not isinstance(choices, list) or not choices or not all(isinstance(each, PLAIN) for each in choices):
        raise ConfigError(f"search.{key}.choices={choices!r}: it must be a list of one or more plain values")
    return Parameter(key, choices, CategoricalDistribution(choices))


def _read_range(key: str, part: dict[str, Any]) -> Parameter:
    """Read ``low`` and ``high``: whole numbers if both are.

    Raises:
        ConfigError: they cannot be.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

    for name in ("low", "high"):
        value = part.get(name)
        if value is None:  # so it is where a mistyped key was to change one end of a range
            raise ConfigError(f"search.{key}.{name} is missing: a range that {key} has not yet needs low and high")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"search.{key}.{name}={value!r}: it must be a number")
    low, high, step = part["low"], part["high"], part.get("step")
    log = convert(part.get("log", False), bool, f"search.{key}.log")
    whole = isinstance(low, int) and isinstance(high, int)
    convert(step, int | None if whole else float | None, f"search.{key}.step")
    if not low < high:
        raise ConfigError(f"search.{key}.low={low}: it must be below high={high}")
    if log and low <= 0:
        raise ConfigError(f"search.{key}.low={low}: it must be above 0 with log=true")
    if step is not None and (log or not 0 < step <= high - low):
        limits = "left out with log=true" if log else f"above 0 and at most {high - low:g}"
        raise ConfigError(f"search.{key}.step={step}: it must be {limits}")
    if step is not None and not math.isclose((high - low) / step, round((high - low) / step), rel_tol=1e-9):
        raise ConfigError(f"search.{key}.step={step}: it must lead from low={low} to high={high}")
    if whole:
        return Parameter(key, [low, high], IntDistribution(low, high, log=log, step=step or 1))
    return Parameter(key, [float(low), float(high)], FloatDistribution(low, high, log=log, step=step))


def write_override(key: str, value: Any) -> str:
    """Write a setting as it stands on a command line, however Hydra would read its text."""
    if value is None or isinstance(value, bool):
        return f"{key}={'null' if value is None else str(value).lower()}"
    return f"{key}={value if '/' in key or not isinstance(value, str) else quote(value)}"


def list_corners(space: list[Parameter]) -> list[list[str]]:
    """Return command lines in which every value to be tried occurs once at least."""
    most = max(len(parameter.values) for parameter in space)
    return [[write_override(each.key, each.values[turn % len(each.values)]) for each in space] for turn in range(most)]
