"""Constructor arguments of IQN-style clients: plain sizes in place of spaces, and the older names of options."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, TypedDict

import numpy as np
from gymnasium import spaces

from rl.agents.recurrent_ppo_options import RecurrentPPOOptions
from rl.checks import one_of, positive
from rl.iqn.options import IQNOptions
from rl.networks.encoders import ImageLayout
from rl.types import Core

log = logging.getLogger(__name__)

SINGLE_ENV_DEFAULTS: dict[str, Any] = {"normalise_returns": True, "gae_lambda": 0.8}
"""Defaults of a PPO agent that is constructed from sizes: its client has one environment, so few steps to learn from,
and rewards of any size. Two foragers with rewards of -10 to 10 then gain 65 in 60 epochs of 100 steps, else nothing."""


class OlderNames(TypedDict, total=False):
    """Options of the older social-dilemma agents; ``translate_options`` says what they mean."""

    input_size: int | tuple[int, ...]
    obs_type: str
    obs_dim: tuple[int, int, int]
    use_cnn: bool
    use_factored_actions: bool
    action_dims: str | Sequence[int]
    hidden_size: int
    lr: float
    clip_param: float
    K_epochs: int
    rollout_length: int
    entropy_start: float
    entropy_end: float
    entropy_decay_steps: int


class ClientOptions(RecurrentPPOOptions, OlderNames, total=False):
    """Options of ``rl.agents.RecurrentPPO`` under their own or their older names."""

    batch_size: int


class DualHeadOptions(ClientOptions, total=False):
    """Options of ``rl.agents.DualHeadRecurrentPPO``."""

    use_dual_head: bool
    use_composite_actions: bool
    n_move_actions: int
    n_vote_actions: int


class QuantileOptions(IQNOptions, OlderNames, total=False):
    """Options of ``rl.agents.RecurrentIQN`` beside those that its constructor names."""

    LR: float
    GAMMA: float
    TAU: float
    memory_size: int
    n_quantiles: int
    n_frames: int
    sync_freq: int
    model_update_freq: int


RENAMED = {"lr": "learning_rate", "clip_param": "clip", "K_epochs": "epochs", "entropy_start": "entropy_coef"}
RENAMED_IN_IQN = {"LR": "learning_rate", "GAMMA": "gamma", "TAU": "target_share", "memory_size": "capacity"}
RENAMED_IN_IQN |= {"n_quantiles": "num_quantiles"}
DROPPED_IN_IQN = ("n_frames", "sync_freq", "model_update_freq")


def uses_client_options(observation_space: Any, options: dict[str, Any]) -> bool:
    """Say whether an agent is constructed from sizes instead of Gymnasium spaces."""
    return "input_size" in options or not isinstance(observation_space, spaces.Space)


def translate_options(
    input_size: Any, action_space: Any, core: Callable[..., Core], options: dict[str, Any]
) -> tuple[spaces.Space, spaces.Space, Callable[..., Core], dict[str, Any]]:
    """Translate the older names into spaces, core and options of ``rl.agents.RecurrentPPO``.

    Args:
        input_size: the number of inputs, or a shape; the keyword ``input_size`` among the options goes first.
        action_space: the number of actions.
        core: the memory, which gets ``hidden_size``.
        options: these are translated, all others pass through: ``obs_type`` (``auto``, ``image``, ``flattened``;
            ``use_cnn=False`` means the last); ``obs_dim`` (C, H, W) of the image that the first numbers of a flat
            observation hold, the others being kept as scalars; ``hidden_size`` (256); ``lr``, ``clip_param``,
            ``K_epochs``; ``rollout_length`` (100) and ``batch_size`` (64), which give the number of minibatches;
            ``entropy_start``, ``entropy_end`` and ``entropy_decay_steps``, counted in updates;
            ``use_factored_actions`` with ``action_dims`` (``"5,3"`` or a sequence).

    Raises:
        ValueError: a size is no positive int, or sizes do not fit each other.
    """
    options = {"image_layout": "channels_first"} | options
    obs_type = options.pop("obs_type", "auto")
    if options.pop("use_cnn", None) is False:
        obs_type = "flattened"
    observation_space = _observation_space(
        options.pop("input_size", input_size), options.pop("obs_dim", None), obs_type
    )
    dims = options.pop("action_dims", None)
    if options.pop("use_factored_actions", False):
        sizes = [str(n).strip() for n in (dims.split(",") if isinstance(dims, str) else dims or ())]
        if not sizes or not all(size.isdecimal() and int(size) for size in sizes):
            raise ValueError(
                f"action_dims=[{', '.join(sizes)}]: factored actions need the size of each factor, such as '5,3'"
            )
        dims = [int(size) for size in sizes]
        if action_space != prod(dims):
            raise ValueError(f"action_dims={dims} make {prod(dims)} codes, but action_space={action_space}")
        action_space = spaces.MultiDiscrete(dims)
    else:
        positive(action_space=action_space)
        action_space = spaces.Discrete(action_space)
    for old, new in RENAMED.items():
        if old in options:
            options[new] = options.pop(old)
    rollout, batch = options.pop("rollout_length", 100), options.pop("batch_size", 64)
    positive(rollout_length=rollout, batch_size=batch)
    options.setdefault("num_steps", rollout)
    options.setdefault("num_minibatches", max(1, round(rollout / batch)))
    final, decay = options.pop("entropy_end", None), options.pop("entropy_decay_steps", 0)
    if final is not None and decay:
        falling = {"entropy_coef_schedule": "linear", "entropy_coef_final": final}
        given, total = options.get("total_steps"), decay * options["num_steps"]
        if given not in (None, total):
            log.warning(
                "total_steps=%s: schedules end after entropy_decay_steps, %s updates, at step %s", given, decay, total
            )
        options |= falling | {"total_steps": total}
    return observation_space, action_space, partial(core, hidden_size=options.pop("hidden_size", 256)), options


def translate_quantile_options(
    input_size: Any,
    action_space: Any,
    core: Callable[..., Core],
    layer_size: int,
    image_layout: ImageLayout,
    options: dict[str, Any],
) -> tuple[spaces.Space, spaces.Space, Callable[..., Core], ImageLayout, dict[str, Any]]:
    """Translate the older names into arguments of ``rl.agents.RecurrentIQN``, see ``translate_options``.

    Besides, ``LR``, ``GAMMA``, ``TAU`` (of a target network that moves with every minibatch), ``memory_size`` and
    ``n_quantiles`` of older quantile networks are translated.
    ``hidden_size`` is ``layer_size`` unless given, ``batch_size`` 64, and training starts with as many transitions.
    ``n_frames``, ``sync_freq`` and ``model_update_freq`` are dropped: the memory stands in for stacked frames, and
    ``target_interval`` and ``replay_ratio`` say when to learn.
    """
    moving = {"target_interval": 1} if "TAU" in options else {}
    kept = {name: value for name, value in options.items() if name not in DROPPED_IN_IQN}
    options = moving | {RENAMED_IN_IQN.get(name, name): value for name, value in kept.items()}
    batch = options.setdefault("batch_size", 64)
    translated = {"image_layout": image_layout if image_layout != "auto" else "channels_first"}
    translated = {"hidden_size": layer_size, "learning_starts": batch} | translated | options
    observation_space, action_space, core, translated = translate_options(input_size, action_space, core, translated)
    for name in ("num_steps", "num_minibatches"):
        del translated[name]
    return observation_space, action_space, core, translated.pop("image_layout"), translated | {"batch_size": batch}


def as_spaces(observation_space: object, action_space: object) -> tuple[spaces.Space, spaces.Space]:
    """Return both arguments, which have to be Gymnasium spaces by now.

    Raises:
        ValueError: one of them is not.
    """
    if not isinstance(observation_space, spaces.Space) or not isinstance(action_space, spaces.Space):
        raise ValueError(f"action_space={action_space!r}: it must be a Gymnasium space beside {observation_space}")
    return observation_space, action_space


def _observation_space(input_size: Any, obs_dim: Any, obs_type: str) -> spaces.Space:
    one_of(("auto", "image", "flattened"), obs_type=obs_type)
    shape = tuple(input_size) if isinstance(input_size, (tuple, list)) else (input_size,)
    if shape in ((), (None,)):
        raise ValueError("input_size is missing: give the number of inputs, or Gymnasium spaces instead")
    positive(**{f"input_size[{axis}]": size for axis, size in enumerate(shape)})
    total = prod(shape)
    if obs_type == "flattened":
        return _box(total)
    if obs_dim is None:
        if len(shape) == 3 and shape[-1] > 1 and shape[-2] > 1:
            return _box(*shape)
        if obs_type == "image":
            raise ValueError(f"obs_type='image' with input_size={input_size}: give obs_dim=(channels, height, width)")
        return _box(total)
    scalars = total - prod(obs_dim)
    if scalars < 0:
        raise ValueError(
            f"obs_dim={tuple(obs_dim)} holds {prod(obs_dim)} numbers, but input_size={input_size} only {total}"
        )
    if scalars == 0:
        return _box(*obs_dim)
    return spaces.Dict({"image": _box(*obs_dim), "scalars": _box(scalars)})


def _box(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape)
