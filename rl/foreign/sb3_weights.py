"""The weights of a ``RecurrentPPO`` of sb3-contrib in the places that they have in an agent of ours.

Where ours sees an observation on another scale, or chooses an action on another scale, a linear map lies between the
two; it is multiplied into the weights next to it, in float64. So both are the same function but for rounding.
"""

from typing import NamedTuple

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.foreign.sb3_file import SB3File
from rl.foreign.sb3_policy import is_image, list_images, list_leaves
from rl.foreign.vec_normalize import CLIP, EPSILON, Normaliser
from rl.networks import ActorCritic
from rl.networks.encoders import Encoder, VectorEncoder
from rl.networks.heads import GaussianHead
from rl.networks.images import ImageEncoder

SETTLED = 1e30
"""Samples that moments have seen which no further ones shall change."""

EXTRACTORS = ("features_extractor.", "pi_features_extractor.", "vf_features_extractor.")
CNN_LAYERS = {"cnn.0": 0, "cnn.2": 2, "cnn.4": 4, "linear.0": 7}
"""The layers of ``NatureCNN`` and their places in ``rl.encoders.nature``."""


class Inputs(NamedTuple):
    """What the memory of sb3 reads, in terms of ours: its column ``order[i]`` is our i, ``* width + low``."""

    order: Tensor
    width: Tensor
    low: Tensor


def convert_weights(file: SB3File, normaliser: Normaliser | None, network: ActorCritic) -> dict[str, Tensor]:
    """Return all weights and moments of ``network`` that make it the policy of a file.

    Raises:
        ValueError: the file lacks a weight, has another one besides, or one of another shape; the sentence names it.
    """
    left = {name: leaf.double() for name, leaf in file.weights.items()}
    found: dict[str, Tensor] = {}
    inputs = _compare_inputs(file, normaliser, network.actor.encoder)
    for trunk, prefix in ((network.actor, "pi_"), (network.critic, "vf_")):
        if trunk is not None:
            name = "actor" if prefix == "pi_" else "critic"
            found |= {f"{name}.encoder.{key}": leaf for key, leaf in _moments(file, normaliser, trunk.encoder).items()}
            found |= {f"{name}.encoder.chosen.{key}": leaf for key, leaf in _take_cnns(file, left, prefix).items()}
    for name in [name for name in left if name.startswith(EXTRACTORS)]:
        del left[name]  # the same weights under another name
    found |= _take_lstm(left, "lstm_actor", "actor", inputs)
    if "lstm_critic.weight_ih_l0" in left:
        found |= _take_lstm(left, "lstm_critic", "critic", inputs)
    found |= _take_layers(left, "policy_net", "action_net", "policy", None)
    critic = (_pop(left, "critic.weight"), _pop(left, "critic.bias")) if "critic.weight" in left else None
    found |= _take_layers(left, "value_net", "value_net", "value", None if critic is None else _mapped(*critic, inputs))
    if isinstance(network.head, GaussianHead):
        found["head.log_std"] = _pop(left, "log_std")
        _scale_actions(found, network.head)
    if left:
        raise ValueError(f"its policy has weights that belong nowhere here: {', '.join(sorted(left)[:3])}")
    return _checked(found, network)


def _pop(left: dict[str, Tensor], name: str) -> Tensor:
    if name not in left:
        raise ValueError(f"it is damaged: its policy has no {name}")
    return left.pop(name)


def _compare_inputs(file: SB3File, normaliser: Normaliser | None, encoder: Encoder) -> Inputs:
    """Compare what the two memories read: order of the columns and, of numbers that are not normalised, their scale."""
    images, leaves = list_images(file), list_leaves(file)
    parts = dict(zip(encoder.names, encoder.parts, strict=True))
    columns: dict[str, tuple[Tensor, Tensor]] = {}  # width and low of each number, by leaf
    for name, part in parts.items():
        size = _count_features(file, encoder) if name in images else part.output_size
        width, low = torch.ones(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
        if isinstance(part, VectorEncoder) and part.moments is None and part.scale.declared_width is not None:
            bottom, span = part.scale.declared_low, part.scale.declared_width
            width, low = (torch.as_tensor(side).double().expand(size).clone() for side in (span, bottom))
            if is_image(leaves[name]):  # sb3 divides its bytes by 255
                width, low = width / 255.0, low / 255.0
        columns[name] = width, low
    begins, at = {}, 0
    for name in leaves:  # sb3 puts all parts behind one another in their order
        begins[name], at = at, at + len(columns[name][0])
    ours = [*images, *(name for name in leaves if name not in images)]  # ours begins with the images
    order = torch.cat([torch.arange(begins[name], begins[name] + len(columns[name][0])) for name in ours])
    width, low = (torch.cat([columns[name][side] for name in ours]) for side in (0, 1))
    return Inputs(order, width, low)


def _count_features(file: SB3File, encoder: Encoder) -> int:
    """Return the features of each image."""
    images = list_images(file)
    others = sum(p.output_size for n, p in zip(encoder.names, encoder.parts, strict=True) if n not in images)
    return (encoder.output_size - others) // len(images)


def _mapped(weight: Tensor, bias: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return a layer that makes of our inputs what ``weight``, ``bias`` make of theirs.

    Raises:
        ValueError: the layer has another number of inputs.
    """
    if weight.shape[1] != len(inputs.order):
        raise ValueError(f"its memory reads {weight.shape[1]} numbers, but its observations are {len(inputs.order)}")
    weight = weight[:, inputs.order]
    return weight * inputs.width, bias + weight @ inputs.low


def _take_lstm(left: dict[str, Tensor], theirs: str, ours: str, inputs: Inputs) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    layer = 0
    while f"{theirs}.weight_hh_l{layer}" in left:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        own = {name: _pop(left, f"{theirs}.{name}_l{layer}") for name in names}
        if layer == 0:
            own["weight_ih"], own["bias_ih"] = _mapped(own["weight_ih"], own["bias_ih"], inputs)
        found |= {f"{ours}.core.layers.{layer}.{name}": leaf for name, leaf in own.items()}
        layer += 1
    return found


def _take_layers(
    left: dict[str, Tensor], net: str, last: str, ours: str, first: tuple[Tensor, Tensor] | None
) -> dict[str, Tensor]:
    """Take the layers behind a memory; a linear layer in front of them (``first``) becomes a part of the first one."""
    places: list[str] = []
    index = 0
    while f"mlp_extractor.{net}.{index}.weight" in left:
        places.append(f"mlp_extractor.{net}.{index}")
        index += 2  # an activation stands between two layers
    found: dict[str, Tensor] = {}
    for at, place in enumerate([*places, last]):
        weight, bias = _pop(left, f"{place}.weight"), _pop(left, f"{place}.bias")
        if first is not None and at == 0:
            weight, bias = weight @ first[0], bias + weight @ first[1]
        found |= {f"head_layers.{ours}.{2 * at}.weight": weight, f"head_layers.{ours}.{2 * at}.bias": bias}
    return found


def _take_cnns(file: SB3File, left: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Copy the CNN of each image; an extractor that policy and value share stands under both names."""
    alone = not isinstance(file.observation_space, spaces.Dict)
    found: dict[str, Tensor] = {}
    for index, name in enumerate(list_images(file)):
        inside = "" if alone else f"extractors.{name}."
        for theirs, ours in CNN_LAYERS.items():
            for kind in ("weight", "bias"):
                key = f"{prefix}features_extractor.{inside}{theirs}.{kind}"
                found[f"cnns.{index}.{ours}.{kind}"] = _pop(left, key)
    return found


def _scale_actions(found: dict[str, Tensor], head: GaussianHead) -> None:
    """Give the last layer the scale of ours, in which -1 ... 1 spans the bounds of an action."""
    last = max(int(name.split(".")[2]) for name in found if name.startswith("head_layers.policy."))
    centre, half_width = (torch.from_numpy(side) for side in (head.centre, head.half_width))
    weight, bias = (f"head_layers.policy.{last}.{kind}" for kind in ("weight", "bias"))
    found[weight] = found[weight] / half_width.unsqueeze(1)
    found[bias] = (found[bias] - centre) / half_width
    found["head.log_std"] = found["head.log_std"] - half_width.log()


def _moments(file: SB3File, normaliser: Normaliser | None, encoder: Encoder) -> dict[str, Tensor]:
    """Return the moments of an encoder: those of ``VecNormalize``; of images, which sb3 has none of, settled ones.

    Raises:
        ValueError: ``VecNormalize`` normalises other parts of the observation, or of another shape.
    """
    known = dict(normaliser.obs) if normaliser else {}
    found: dict[str, Tensor] = {}
    for index, (name, part) in enumerate(zip(encoder.names, encoder.parts, strict=True)):
        key = f"parts.{index}.moments"
        if isinstance(part, ImageEncoder):
            found[f"{key}.count"] = torch.tensor(SETTLED)
        elif isinstance(part, VectorEncoder) and part.moments is not None:
            if name not in known:
                raise ValueError(f"VecNormalize does not normalise observation {name!r}: it must normalise every Box")
            moments = known.pop(name)
            mean, var = (torch.from_numpy(side.copy()).flatten() for side in (moments.mean, moments.var))
            low, width = part.scale.declared_low, part.scale.declared_width
            if width is not None and low is not None:  # ours normalises what is scaled by its bounds already
                mean, var = (mean - low) / width, (var + EPSILON) / torch.as_tensor(width).double() ** 2 - EPSILON
            found |= {f"{key}.mean": mean, f"{key}.var": var, f"{key}.count": torch.tensor(moments.samples)}
            assert part.moments.clip == CLIP  # as was checked of theirs
    if known:
        raise ValueError(f"VecNormalize normalises observation {min(known)!r}, which is no Box of numbers here")
    return found


def _checked(found: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return the whole state of a network with ``found`` in it, once all of it is known to fit.

    Raises:
        ValueError: a weight is missing, there is one besides, or it is of another shape or not finite.
    """
    own = network.state_dict()
    missing = {name for name, _ in network.named_parameters()} - found.keys()
    if missing or (besides := found.keys() - own.keys()):
        raise ValueError(f"its policy is of another shape than its settings say: {min(missing or besides)} differs")
    for name, leaf in found.items():
        if leaf.shape != own[name].shape:
            told = f"{list(leaf.shape)} where {list(own[name].shape)} is expected"
            raise ValueError(f"its policy is of another shape than its settings say: {name} is {told}")
        if not bool(torch.isfinite(leaf).all()):
            raise ValueError(f"its policy holds numbers that are not finite, in what becomes {name}")
    return own | {name: leaf.to(own[name]) for name, leaf in found.items()}
