"""The running moments of ``VecNormalize`` of stable-baselines3, read from the pickle that its ``save`` writes."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rl.foreign.records import Record, read_records, record
from rl.foreign.sb3_file import OBS, SPACE_RECORDS
from rl.trust import UntrustedError

NORMALISER = "stable_baselines3.common.vec_env.vec_normalize.VecNormalize"
MOMENTS = "stable_baselines3.common.running_mean_std.RunningMeanStd"
KNOWN = SPACE_RECORDS | {NORMALISER: record(NORMALISER), MOMENTS: record(MOMENTS)}

CLIP, EPSILON = 10.0, 1e-8
"""What ``rl.normalisation`` has, and by default ``VecNormalize``."""


class Moments(NamedTuple):
    """Mean and variance of so many samples, float64."""

    mean: np.ndarray
    var: np.ndarray
    samples: float


class Normaliser(NamedTuple):
    """What a file holds.

    Attributes:
        obs: moments of the observation by leaf; empty if it is not normalised.
        returns: of the discounted return; None if rewards are not normalised.
        gamma: the discount of that return.
    """

    obs: dict[str, Moments]
    returns: Moments | None
    gamma: float


def read_vec_normalize(path: str | Path) -> Normaliser:
    """Read a file that ``VecNormalize.save`` has written; never execute what is inside.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or something else, or normalises in a way that does not exist here.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return _interpret(read_records(path.read_bytes(), KNOWN))
    except UntrustedError as error:
        advice = "remove such values from the infos of the environments, or save it anew after a reset"
        raise UntrustedError(f"{path}: {error}; {advice}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _interpret(found: Any) -> Normaliser:
    if not isinstance(found, Record) or found.path != NORMALISER:
        raise ValueError("it is no VecNormalize of stable-baselines3")
    has = found.attributes
    for name, allowed in (("clip_obs", CLIP), ("clip_reward", CLIP), ("epsilon", EPSILON)):
        if has.get(name) != allowed:
            raise ValueError(f"{name}={has.get(name)} of VecNormalize: it must be {allowed}, as it is by default")
    moments = {}
    if has.get("norm_obs"):
        parts = found.get("obs_rms")
        moments = {str(key): _read(part) for key, part in (parts if isinstance(parts, dict) else {OBS: parts}).items()}
    returns = _read(found.get("ret_rms")) if has.get("norm_reward") else None
    return Normaliser(moments, returns, float(has.get("gamma", 0.99)))


def _read(found: Record) -> Moments:
    mean, var = (np.asarray(found.get(name), dtype=np.float64) for name in ("mean", "var"))
    if mean.shape != var.shape or not (np.isfinite(mean).all() and np.isfinite(var).all() and (var >= 0).all()):
        raise ValueError("it is damaged: its mean and variance must be finite and of one shape")
    return Moments(mean, var, float(found.get("count")))
