"""What a ``RecurrentPPO`` of sb3-contrib is in the words of this project: the arguments of an agent of ours."""

import re
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.cores import lstm, mlp
from rl.encoders import nature, plain
from rl.encoders.mlp import ACTIVATIONS
from rl.foreign.sb3_file import OBS, SB3File
from rl.foreign.vec_normalize import Normaliser

LAYERS = "stable_baselines3.common.torch_layers."
EXTRACTORS = {f"{LAYERS}{name}": name for name in ("FlattenExtractor", "NatureCNN", "CombinedExtractor")}
BY_POLICY = {
    "RecurrentActorCriticPolicy": "FlattenExtractor",
    "RecurrentActorCriticCnnPolicy": "NatureCNN",
    "RecurrentMultiInputActorCriticPolicy": "CombinedExtractor",
}
"""The extractor that a policy has by default."""


def list_leaves(file: SB3File) -> dict[str, spaces.Space]:
    """List the parts of an observation by name, in their order."""
    space = file.observation_space
    return dict(space.spaces) if isinstance(space, spaces.Dict) else {OBS: space}


def is_image(space: spaces.Space) -> bool:
    """Say whether sb3 takes a part of an observation for an image: bytes 0 ... 255 with three axes."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 3 or space.dtype != np.uint8:
        return False
    return bool((space.low == 0).all() and (space.high == 255).all())


def list_images(file: SB3File) -> list[str]:
    """List the parts of an observation that go through a CNN."""
    if _name_extractor(file) == "FlattenExtractor":
        return []
    return [name for name, space in list_leaves(file).items() if is_image(space)]


def check_policy(file: SB3File) -> None:
    """Check that an agent of ours can be the same function.

    Raises:
        ValueError: it cannot; the sentence names what does not fit.
    """
    kwargs = file.policy_kwargs
    if file.data.get("use_sde") or kwargs.get("use_sde") or kwargs.get("squash_output"):
        raise ValueError("use_sde=True: state-dependent exploration and squashed actions do not exist here")
    if unknown := sorted((kwargs.get("lstm_kwargs") or {}).keys() - {"dropout"}):
        raise ValueError(f"lstm_kwargs has {unknown[0]}: an LSTM of ours has no such option, only dropout")
    if isinstance(file.action_space, spaces.Discrete) and file.action_space.start:
        raise ValueError(f"the action space {file.action_space} does not start at 0, which sb3 does not heed")
    extractor, images = _name_extractor(file), list_images(file)
    if extractor == "NatureCNN" and not images:
        raise ValueError(f"NatureCNN reads {file.observation_space}: it must be bytes 0 ... 255 with three axes")
    if images and kwargs.get("normalize_images") is False:
        raise ValueError("normalize_images=False: images of bytes are divided by 255 here")
    for name, space in list_leaves(file).items():
        if images and isinstance(space, spaces.Box) and len(space.shape) > 1 and name not in images:
            raise ValueError(f"observation {name!r} has {len(space.shape)} axes and is no image: flatten it")
    _name_activation(file)


def _name_extractor(file: SB3File) -> str:
    given = file.policy_kwargs.get("features_extractor_class")
    found = EXTRACTORS.get(given) if given else BY_POLICY[file.policy.rpartition(".")[2]]
    if found is None:
        raise ValueError(
            f"features_extractor_class={given}: it must be one of {', '.join(EXTRACTORS.values())}, others are code"
        )
    return found


def _name_activation(file: SB3File) -> str:
    given = file.policy_kwargs.get("activation_fn", "torch.nn.modules.activation.Tanh")
    for name, kind in ACTIVATIONS.items():
        if given in (f"{kind.__module__}.{kind.__name__}", f"torch.nn.{kind.__name__}"):
            return name
    raise ValueError(f"activation_fn={given}: it must be one of {', '.join(k.__name__ for k in ACTIVATIONS.values())}")


def agent_arguments(file: SB3File, normaliser: Normaliser | None, num_envs: int | None) -> dict[str, Any]:
    """Return the arguments of ``rl.agents.RecurrentPPOLSTM`` that make an agent of the same shape and settings."""
    images, widths = list_images(file), {name: _widths(file, name) for name in ("policy_net", "value_net")}
    size, layers = file.weights["lstm_actor.weight_hh_l0"].shape[1], _count_layers(file)
    dropout = float((file.policy_kwargs.get("lstm_kwargs") or {}).get("dropout", 0.0))
    has_linear_critic = "critic.weight" in file.weights
    arguments: dict[str, Any] = {
        "observation_space": file.observation_space,
        "action_space": file.action_space,
        "core": partial(lstm, hidden_size=size, num_layers=layers, dropout=dropout if layers > 1 else 0.0),
        "encoder": partial(nature, features=_count_image_features(file)) if images else partial(plain),
        "image_layout": "channels_first" if images else "flat",
        "image_encoding": "brightness",
        "separate_critic": has_linear_critic or "lstm_critic.weight_ih_l0" in file.weights,
        "head_layers": widths["policy_net"],
        "value_head_layers": widths["value_net"],
        "head_activation": _name_activation(file),
        "normalise_observations": bool(normaliser and normaliser.obs),
        "normalise_returns": bool(normaliser and normaliser.returns),
        "num_envs": num_envs,
    }
    if has_linear_critic:  # its linear layer and the next one are one linear layer, which the value's layers begin with
        arguments["critic_core"] = partial(mlp, num_layers=0)
    return arguments | training_arguments(file, num_envs or 1)


def training_arguments(file: SB3File, num_envs: int) -> dict[str, Any]:
    """Return the arguments that training goes on with: those that are constant, for ``num_envs`` environments."""
    data = file.data
    names = {
        "learning_rate": "learning_rate",
        "n_epochs": "epochs",
        "gamma": "gamma",
        "gae_lambda": "gae_lambda",
        "clip_range": "clip",
        "clip_range_vf": "value_clip",
        "ent_coef": "entropy_coef",
        "max_grad_norm": "max_grad_norm",
        "target_kl": "target_kl",
        "normalize_advantage": "normalise_advantages",
    }
    found = {ours: data[theirs] for theirs, ours in names.items() if isinstance(data.get(theirs), (bool, int, float))}
    steps = int(data.get("n_steps", 128))
    found |= {"num_steps": steps, "value_coef": 2.0 * float(data.get("vf_coef", 0.5))}  # ours is of half the error
    minibatches = max(1, steps * num_envs // int(data.get("batch_size", 128)))
    whole = (steps // parts for parts in range(1, steps + 1) if steps % parts == 0 and num_envs * parts >= minibatches)
    return found | {"num_minibatches": minibatches, "bptt": next(whole)}


def _count_layers(file: SB3File) -> int:
    return sum(name.startswith("lstm_actor.weight_hh_l") for name in file.weights)


def _widths(file: SB3File, net: str) -> list[int]:
    """Return the widths of the layers that the weights of ``mlp_extractor`` have, from the first to the last."""
    pattern = re.compile(rf"mlp_extractor\.{net}\.(\d+)\.weight")
    found = {int(match[1]): len(leaf) for name, leaf in file.weights.items() if (match := pattern.fullmatch(name))}
    return [found[index] for index in sorted(found)]


def _count_image_features(file: SB3File) -> int:
    pattern = re.compile(r"features_extractor\.(extractors\..+\.)?linear\.0\.weight")
    return next((len(leaf) for name, leaf in file.weights.items() if pattern.fullmatch(name)), 0)
