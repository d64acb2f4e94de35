"""Construction from plain sizes, with the argument names of the older social-dilemma agents."""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.checks import one_of, positive
from rl.types import Core

ONE_ENVIRONMENT = {"normalise_returns": True, "gae_lambda": 0.8}
"""Defaults of a PPO agent that is constructed from sizes: its client has one environment, so few steps to learn from,
and rewards of any size. Two foragers with rewards of -10 to 10 then gain 65 in 60 epochs of 100 steps, else nothing."""

RENAMED = {"lr": "learning_rate", "clip_param": "clip", "K_epochs": "epochs", "entropy_start": "entropy_coef"}
RENAMED_IN_IQN = {"LR": "learning_rate", "GAMMA": "gamma", "TAU": "target_share", "memory_size": "capacity"}
RENAMED_IN_IQN |= {"n_quantiles": "num_quantiles"}
DROPPED_IN_IQN = ("n_frames", "sync_freq", "model_update_freq")


def is_sizes(observation_space: Any, options: dict[str, Any]) -> bool:
    """Whether an agent is constructed from sizes instead of Gymnasium spaces."""
    return "input_size" in options or not isinstance(observation_space, spaces.Space)


def options_from_sizes(
    input_size: Any, action_space: Any, core: Callable[..., Core], options: dict[str, Any]
) -> tuple[spaces.Space, spaces.Space, Callable[..., Core], dict[str, Any]]:
    """Spaces, core and options of :class:`rl.agents.RecurrentPPO` from the older names.

    Args:
        input_size: the number of inputs, or a shape; the keyword ``input_size`` among the options goes first.
        action_space: the number of actions.
        core: the memory, which gets ``hidden_size``.
        options: translated here are, and all others are passed on: ``obs_type`` (``auto``, ``image``, ``flattened``;
            ``use_cnn=False`` means the last); ``obs_dim`` (C, H, W) of the image that the first numbers of a flat
            observation hold, the others being kept as scalars; ``hidden_size`` (256); ``lr``, ``clip_param``,
            ``K_epochs``; ``rollout_length`` (100) and ``batch_size`` (64), which give the number of minibatches;
            ``entropy_start``, ``entropy_end`` and ``entropy_decay_steps``, counted in updates;
            ``use_factored_actions`` with ``action_dims`` (``"5,3"`` or a sequence).

    Raises:
        ValueError: sizes that are no positive ints or do not fit each other.
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
        options |= {"entropy_coef_final": final, "total_steps": decay * rollout}
    return observation_space, action_space, partial(core, hidden_size=options.pop("hidden_size", 256)), options


def quantile_options_from_sizes(
    input_size: Any,
    action_space: Any,
    core: Callable[..., Core],
    layer_size: int,
    image_layout: str,
    options: dict[str, Any],
) -> tuple[spaces.Space, spaces.Space, Callable[..., Core], str, dict[str, Any]]:
    """Spaces, core and options of :class:`rl.agents.RecurrentIQN` from the older names, see :func:`options_from_sizes`.

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
    observation_space, action_space, core, translated = options_from_sizes(input_size, action_space, core, translated)
    for name in ("num_steps", "num_minibatches"):
        del translated[name]
    return observation_space, action_space, core, translated.pop("image_layout"), translated | {"batch_size": batch}


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
