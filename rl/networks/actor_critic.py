"""Encoder, memory, and what policy and value make of it, as one module with explicit state."""

import math
from collections.abc import Callable, Sequence
from typing import get_args

import torch
from gymnasium import spaces
from torch import Tensor, device, nn
from torch.nn.functional import linear

from rl.checks import one_of
from rl.encoders import auto
from rl.encoders.mlp import Activation
from rl.networks import acceleration
from rl.networks.distinct import encode_distinct
from rl.networks.encoders import Encoder, ImageEncoding, ImageLayout
from rl.networks.head_layers import HeadLayers, check_head_layers
from rl.networks.heads import CategoricalHead, make_head
from rl.networks.recall import Recall
from rl.networks.scales import log_corrections
from rl.types import Core, FeatureEncoder, Observation, State

MASK = "action_mask"
"""An observation leaf of this name is no input of the encoder: False there forbids the action (categorical heads)."""


class ActorCritic(nn.Module):
    """A policy and a value behind one memory: ``observation, state -> parameters, value, next state``.

    Each reads the memory through a tanh layer of its own, behind which it is linear, or through ``head_layers``.

    Args:
        leaves: observation leaves by name.
        action_space: see ``rl.networks.heads.make_head``.
        core: ``core(input_size) -> Core``.
        layer_size: width of the encoder, and of the layers behind the memory.
        separate_critic: give the value its own encoder and core instead of sharing those of the policy.
        normalise: running normalisation of the observations.
        image_layout: of Box leaves with three or four axes.
        image_encoding: what the numbers of images mean, see ``rl.networks.encoders.Encoder``.
        encoder: ``encoder(input_shapes) -> FeatureEncoder``, see ``rl.networks.Encoder``.
        action_names: names of the action branches.
        critic_core: of a separate critic; None for one like that of the policy.
        head_layers: widths of the layers of the policy behind the memory; None for one tanh layer of ``layer_size``.
        value_head_layers: those of the value; None for as many and as wide ones as the policy has.
        head_activation: of these layers.
        recall_length: of sequences in steps, if the memory is to learn to tell its past, see ``rl.networks.recall``.

    Raises:
        ValueError: an argument is out of range, or would do nothing beside the others.
    """

    def __init__(
        self,
        leaves: dict[str, spaces.Space],
        action_space: spaces.Space,
        core: Callable[..., Core],
        layer_size: int = 64,
        separate_critic: bool = False,
        normalise: bool = False,
        image_layout: ImageLayout = "auto",
        image_encoding: ImageEncoding = "auto",
        encoder: Callable[..., FeatureEncoder | None] = auto,
        action_names: Sequence[str] | None = None,
        critic_core: Callable[..., Core] | None = None,
        head_layers: Sequence[int] | None = None,
        value_head_layers: Sequence[int] | None = None,
        head_activation: Activation = "tanh",
        recall_length: int | None = None,
    ):
        super().__init__()
        inputs = {name: space for name, space in leaves.items() if name != MASK}
        self.input_names = tuple(leaves)
        self.head = make_head(action_space, action_names)
        self.masked = MASK in leaves
        if self.masked and not isinstance(self.head, CategoricalHead):
            raise ValueError(f"{MASK} is for Discrete and MultiDiscrete actions, not for {action_space}")
        if self.masked and leaves[MASK].shape != (self.head.num_params,):
            raise ValueError(f"{MASK} has shape {leaves[MASK].shape}, but the policy has {self.head.num_params} logits")
        given = inputs, layer_size, normalise, image_layout, image_encoding, encoder
        self.actor = Trunk(Encoder(*given), core)
        self.critic = Trunk(Encoder(*given), critic_core or core) if separate_critic else None
        if critic_core is not None and not separate_critic:
            raise ValueError("critic_core is for a critic with a memory of its own: set separate_critic, too")
        sizes = self.actor.core.output_size, (self.critic or self.actor).core.output_size
        self.recall: Recall | None = None
        if recall_length is not None:
            self.recall = Recall(sizes[0], self.actor.encoder.output_size, recall_length, layer_size)
        check_head_layers(head_layers, value_head_layers, head_activation, sizes)
        self.head_layers = None
        if head_layers is not None:
            of_value = head_layers if value_head_layers is None else value_head_layers
            self.head_layers = HeadLayers(sizes, self.head.num_params, head_layers, of_value, head_activation)
            return
        # rows of both: those of the policy, then those of the value
        self.hidden = nn.Linear(self.actor.core.output_size, 2 * layer_size)
        self.heads = nn.Linear(layer_size, self.head.num_params + 1)
        for layer, gains, sizes in (
            (self.hidden, (math.sqrt(2), math.sqrt(2)), (layer_size, layer_size)),
            (self.heads, (0.01, 1.0), (self.head.num_params, 1)),
        ):
            for rows, gain in zip(layer.weight.detach().split(sizes), gains, strict=True):
                nn.init.orthogonal_(rows, gain)
            nn.init.zeros_(layer.bias)

    def initial_state(self, batch_size: int, device: device | str | None = None) -> State:
        """Make the state of ``batch_size`` fresh memories; the leaves of a separate critic are named ``critic.*``."""
        state = self.actor.core.initial_state(batch_size, device)
        if self.critic is not None:
            state = _joined(state, self.critic.core.initial_state(batch_size, device))
        return state

    def step(self, obs: Observation, state: State, starts: Tensor | None) -> tuple[Tensor, Tensor, State]:
        """Take one step of B environments.

        Args:
            obs: leaves ``[B, ...]``.
            state: leaves ``[B, ...]``.
            starts: ``[B]`` bool, or None if no episode starts.

        Returns:
            Distribution parameters ``[B, P]``, values ``[B]``, next state.
        """
        features, after = self.actor.core.step(self.actor.features(obs), state, starts)
        of_critic = features
        if self.critic is not None:
            of_critic, own = self.critic.core.step(self.critic.features(obs), _of_critic(state), starts)
            after = _joined(after, own)
        params, values = self.decode(features, of_critic, obs)
        return params, values, after

    def unroll(self, obs: Observation, state: State, starts: Tensor) -> tuple[Tensor, Tensor, State]:
        """Run sequences of T steps; equals T calls of ``step``.

        Args:
            obs: leaves ``[T, B, ...]``.
            state: before the first step, leaves ``[B, ...]``.
            starts: ``[T, B]`` bool, on any device.

        Returns:
            Distribution parameters ``[T, B, P]``, values ``[T, B]``, state after step T.
        """
        _, features, of_critic, after = self.remember(obs, state, starts)
        params, values = self.decode(features, of_critic, obs)
        return params, values, after

    def replay(self, obs: Observation, state: State, starts: Tensor) -> tuple[Tensor, ...]:
        """Run sequences as ``unroll`` does, to learn from them.

        Returns:
            Distribution parameters ``[T, B, P]``, values ``[T, B]``, and the errors of a ``recall``, ``[T, B]``.
        """
        if self.recall is None:
            params, values, _ = self.unroll(obs, state, starts)
            return params, values
        fed, features, of_critic, _ = self.remember(obs, state, starts)
        errors = self.recall(features, fed, starts.to(fed.device, non_blocking=True))
        return *self.decode(features, of_critic, obs), errors

    def remember(self, obs: Observation, state: State, starts: Tensor) -> tuple[Tensor, Tensor, Tensor, State]:
        """Run the memories: what that of the policy is fed, its outputs, those for the value, the state after."""
        fed = self.actor.features(obs)
        starts = starts.to(fed.device, non_blocking=True)
        features, after = self.actor.core.unroll(fed, state, starts)
        of_critic = features
        if self.critic is not None:
            of_critic, own = self.critic.core.unroll(self.critic.features(obs), _of_critic(state), starts)
            after = _joined(after, own)
        return fed, features, of_critic, after

    def decode(self, features: Tensor, of_critic: Tensor, obs: Observation) -> tuple[Tensor, Tensor]:
        """Map features ``[..., H]`` of policy and critic to parameters ``[..., P]`` and values ``[...]``."""
        if self.head_layers is not None:
            params, values = self.head_layers(features, of_critic)
        else:
            params, values = self._decode(features, of_critic)
        if self.masked:
            params = params.masked_fill(~obs[MASK].bool(), -1e9)
        return params, values.squeeze(-1)

    def _decode(self, features: Tensor, of_critic: Tensor) -> tuple[Tensor, Tensor]:
        """Do what ``decode`` does where there are no ``head_layers``: two layers in one product, if features allow."""
        if self.critic is None:
            of_policy, of_value = self.hidden(features).tanh().chunk(2, dim=-1)
        else:
            pairs = zip(self.hidden.weight.chunk(2), self.hidden.bias.chunk(2), (features, of_critic), strict=True)
            of_policy, of_value = (linear(x, weight, bias).tanh() for weight, bias, x in pairs)
        params = linear(of_policy, self.heads.weight[:-1], self.heads.bias[:-1])
        return params, linear(of_value, self.heads.weight[-1:], self.heads.bias[-1:])

    def accelerate(
        self, example: Observation, compile_encoder: bool, precision: acceleration.Precision
    ) -> acceleration.Precision:
        """Set the precision, and compile encoders where that works; ``example`` is a batch of observations.

        Returns:
            The precision: float32 where bfloat16 does not work.

        Raises:
            ValueError: ``precision`` is not known.
        """
        one_of(get_args(acceleration.Precision), precision=precision)
        for trunk in (self.actor, *([self.critic] if self.critic else [])):
            trunk.autocast = precision == "bfloat16" and acceleration.supports_autocast(trunk.encoder, example)
            if compile_encoder:
                acceleration.compile_encoder(trunk.encoder, example)
        if precision == "bfloat16" and not self.actor.autocast:
            precision = "float32"
        acceleration.set_precision(next(self.parameters()).device, precision)
        return precision

    def update_moments(self, obs: Observation) -> None:
        """Take the observations of a rollout into the running normalisation."""
        self.actor.encoder.update_moments(obs)
        if self.critic is not None:
            self.critic.encoder.update_moments(obs)

    def correct_scales(self, obs: Observation) -> bool:
        """Correct scales that destroy what was observed; the log says so. Return whether there were any."""
        if self.critic is not None:
            self.critic.encoder.correct_scales(obs)
        return log_corrections(self.actor.encoder.correct_scales(obs))

    def describe(self) -> list[str]:
        """Say how observations are encoded and what the actions are, a line for each leaf."""
        mask = [f"observation {MASK!r}: the actions that are allowed"] if self.masked else []
        return [*self.actor.encoder.describe(), *mask, f"actions: {self.head.describe()}"]


class Trunk(nn.Module):
    """An encoder in front of a core. With ``autocast`` the encoder, but never the memory, computes in bfloat16."""

    def __init__(self, encoder: Encoder, core: Callable[..., Core]):
        super().__init__()
        self.encoder = encoder
        self.core = core(encoder.output_size)
        self.autocast = False

    def features(self, obs: Observation) -> Tensor:
        """Encode leaves ``[..., *shape]`` as features ``[..., D]``, the input of the core.

        Of sequences ``[T, B, *shape]`` of images on a CPU each distinct one is encoded once.
        """
        if not (self.encoder.sees_images and self.encoder.is_sequence(obs)):
            return self._encode(obs)
        leaves = {name: obs[name] for name in self.encoder.names}
        if any(leaf.device.type != "cpu" or leaf.requires_grad for leaf in leaves.values()):
            return self._encode(obs)
        T, B = next(iter(leaves.values())).shape[:2]
        return encode_distinct(self._encode, {name: leaf.flatten(0, 1) for name, leaf in leaves.items()}).view(T, B, -1)

    def _encode(self, obs: Observation) -> Tensor:
        if not self.autocast:
            return self.encoder(obs)
        with torch.autocast(next(iter(obs.values())).device.type, torch.bfloat16):
            return self.encoder(obs).float()


def _of_critic(state: State) -> State:
    """Pick the leaves of a separate critic, under their own names."""
    return {name.removeprefix("critic."): leaf for name, leaf in state.items() if name.startswith("critic.")}


def _joined(state: State, critic_state: State) -> State:
    """Put the leaves of a separate critic beside those of the policy."""
    return state | {f"critic.{name}": leaf for name, leaf in critic_state.items()}
