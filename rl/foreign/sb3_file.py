"""A saved agent of stable-baselines3 as plain data: a zip of settings (JSON) and weights (``torch.save``)."""

import ast
import base64
import binascii
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from rl.foreign.records import Record, read_records, record
from rl.trust import UntrustedError

SPACES = {
    f"{package}.spaces.{module}.{name}": name
    for package in ("gymnasium", "gym")
    for module, name in {
        "box": "Box",
        "dict": "Dict",
        "discrete": "Discrete",
        "multi_binary": "MultiBinary",
        "multi_discrete": "MultiDiscrete",
        "tuple": "Tuple",
    }.items()
}
"""Paths of the classes of spaces, of old versions, too, and their names."""

SPACE_RECORDS = {path: record(path) for path in SPACES}

POLICIES = {
    path: record(path)
    for path in (
        "sb3_contrib.common.recurrent.policies.RecurrentActorCriticPolicy",
        "sb3_contrib.common.recurrent.policies.RecurrentActorCriticCnnPolicy",
        "sb3_contrib.common.recurrent.policies.RecurrentMultiInputActorCriticPolicy",
    )
}
"""Classes of policies; their pickles name them, and hold nothing of them."""

OBS = "obs"
"""Name of an observation that has no parts, as in ``rl.spaces``."""

LARGEST = 2**31
"""Of an entry of the zip, in bytes: one that unpacks to more is refused."""

SERIALIZED = ":serialized:"
"""Where the JSON keeps the pickle of what is no JSON; beside it lie what can be read of its parts."""


class SB3File(NamedTuple):
    """What a zip holds.

    Attributes:
        path: of the zip.
        observation_space: of one environment.
        action_space: of one environment.
        policy: path of the class of the policy.
        policy_kwargs: of the policy, the names of classes in the place of classes.
        data: the settings of training by name, those alone that are JSON.
        weights: of the policy.
    """

    path: Path
    observation_space: spaces.Space
    action_space: spaces.Space
    policy: str
    policy_kwargs: dict[str, Any]
    data: dict[str, Any]
    weights: dict[str, Tensor]


def read_sb3(path: str | Path) -> SB3File:
    """Read a zip that ``save`` of stable-baselines3 has written; never execute what is inside.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or something else, or holds what cannot be read; the sentence names it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        data, weights = _unpack(path)
        if "lstm_actor.weight_ih_l0" not in weights:
            raise ValueError("its policy has no LSTM: it is no RecurrentPPO of sb3-contrib")
        kwargs = data.get("policy_kwargs") or {}
        return SB3File(
            path,
            _read(data, "observation_space", SPACE_RECORDS, make_space),
            _read(data, "action_space", SPACE_RECORDS, make_space),
            _read(data, "policy_class", POLICIES, name_class),
            {name: _literal(value) for name, value in kwargs.items() if not name.startswith(":")},
            {name: _literal(value) for name, value in data.items() if not isinstance(value, dict)} | _rates(data),
            weights,
        )
    except ValueError as error:
        refusal = UntrustedError if isinstance(error, UntrustedError) else ValueError
        raise refusal(f"{path}: {error}") from error


def _unpack(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return settings and weights of a zip.

    Raises:
        ValueError: it is none of stable-baselines3, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            sizes = {entry.filename: entry.file_size for entry in file.infolist()}
            if missing := [name for name in ("data", "policy.pth") if name not in sizes]:
                raise ValueError(f"it is no zip of stable-baselines3: it has no entry {missing[0]}")
            if max(sizes["data"], sizes["policy.pth"]) > LARGEST:
                raise ValueError(f"it unpacks to more than {LARGEST} bytes")
            text, stored = file.read("data"), file.read("policy.pth")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
        raise ValueError(f"it is damaged or no zip of stable-baselines3 ({error})") from error
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is damaged: its entry data is no JSON ({error})") from error
    try:
        weights = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # what a damaged archive makes the unpickler raise has no common base
        raise ValueError(f"it is damaged: policy.pth holds no plain tensors ({type(error).__name__})") from error
    if not isinstance(data, dict) or not isinstance(weights, dict):
        raise ValueError("it is damaged: its entries data and policy.pth must hold values by name")
    if not all(isinstance(name, str) and isinstance(leaf, Tensor) for name, leaf in weights.items()):
        raise ValueError("it is damaged: policy.pth holds something else than tensors by name")
    return data, weights


def name_class(found: Any) -> str:
    """Return the path of a class that a pickle named.

    Raises:
        ValueError: it is no class.
    """
    if not (isinstance(found, type) and issubclass(found, Record)):
        raise ValueError("it is damaged: it must be a class")
    return found.path


def _pickle_of(data: Mapping[str, Any], name: str) -> bytes:
    """Return the pickle of what is no JSON.

    Raises:
        ValueError: there is none.
    """
    entry = data.get(name)
    text = entry.get(SERIALIZED) if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"it is damaged or no agent: it has no {name}")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{name}: it is damaged ({error})") from error


def _read(data: Mapping[str, Any], name: str, known: Mapping[str, Any], make: Callable[[Any], Any]) -> Any:
    """Make something of a pickle.

    Args:
        data: the settings.
        name: of the entry.
        known: what the pickle may name, see ``rl.foreign.records``.
        make: makes it of what was read.

    Raises:
        ValueError: it cannot be read or made; the sentence names the entry.
    """
    try:
        return make(read_records(_pickle_of(data, name), known))
    except UntrustedError as error:
        raise UntrustedError(f"{name}: {error}") from error
    except (ValueError, TypeError, AttributeError, AssertionError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from error


def make_space(found: Any) -> spaces.Space:
    """Make a space of its record.

    Raises:
        ValueError: it is none, damaged, or has spaces inside spaces inside.
    """
    kind = SPACES.get(found.path) if isinstance(found, Record) else None
    if kind == "Dict":
        parts = found.get("spaces")
        return spaces.Dict(
            [(str(key), _make_elementary(part)) for key, part in parts.items()]
        )  # a list keeps its order
    return _make_elementary(found)


def _make_elementary(found: Any) -> spaces.Space:
    kind = SPACES.get(found.path) if isinstance(found, Record) else None
    if kind == "Box":
        low, high = (np.asarray(found.get(name)) for name in ("low", "high"))
        return spaces.Box(low, high, low.shape, found.get("dtype").type)
    if kind == "Discrete":
        return spaces.Discrete(int(found.get("n")), start=int(found.attributes.get("start", 0)))
    if kind == "MultiDiscrete":
        start = found.get("start") if "start" in found.attributes else None
        return spaces.MultiDiscrete(found.get("nvec"), start=start)
    if kind == "MultiBinary":
        size = found.get("n")
        return spaces.MultiBinary(size if isinstance(size, int) else [int(n) for n in size])
    allowed = "it must be a Box, Discrete, MultiDiscrete or MultiBinary, or for observations a Dict of these"
    raise ValueError(f"{kind or type(found).__name__} is not supported: {allowed}")


def _literal(value: Any) -> Any:
    """Return what a text says that the JSON has in the place of a number, a list or a dict."""
    if not isinstance(value, str):
        return value
    if match := re.fullmatch(r"<class '([\w.]+)'>", value):
        return match[1]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _rates(data: Mapping[str, Any]) -> dict[str, float]:
    """Return what is constant of the settings that may be schedules."""
    found = {}
    for name in ("learning_rate", "clip_range", "clip_range_vf"):
        entry = data.get(name)
        schedule = entry.get("value_schedule") if isinstance(entry, dict) else None
        match = re.fullmatch(r"ConstantSchedule\(val=([\d.e+-]+)\)", schedule) if isinstance(schedule, str) else None
        if match:
            found[name] = float(match[1])
    return found
