"""A recurrent policy of sb3-contrib as what is checked."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.memory_check.our_learner import patched
from rl.memory_check.subject import Inputs
from rl.spaces import get_shape
from rl.types import Observation, State

OBS = "obs"
"""Name of an observation that is a single tensor."""

HEADS = ("action_net", "value_net")


class Heard:
    """What modules of a policy gave since they are listened to: of each head, and of each LSTM."""

    def __init__(self) -> None:
        self.results: dict[str, list[Any]] = {}

    def note(self, name: str, module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        """Note what a module gave."""
        self.results.setdefault(name, []).append(result)

    def outputs(self) -> Tensor:
        """Return what both heads gave, side by side: ``[n, P]``, the value last.

        Raises:
            ValueError: a head was not called, or more than once.
        """
        counts = {name: len(self.results.get(name, [])) for name in HEADS}
        if counts != dict.fromkeys(HEADS, 1):
            raise ValueError(f"policy: forward and evaluate_actions must call each head once, but they did {counts}")
        return torch.cat([self.results[name][0].flatten(1) for name in HEADS], dim=1)


class PolicySubject:
    """A subject whose inputs are the features of a policy; ``forward`` takes steps, ``evaluate_actions`` sequences.

    Args:
        policy: of a ``RecurrentPPO``.
    """

    def __init__(self, policy: Any):
        self.policy, self.name, self.device = policy, type(policy).__name__, policy.device
        lstms = {"actor": policy.lstm_actor, "critic": policy.lstm_critic}
        self.lstms: dict[str, nn.LSTM] = {name: lstm for name, lstm in lstms.items() if lstm is not None}

    def parameters(self) -> Iterable[Tensor]:
        """Return the weights."""
        return self.policy.parameters()

    def initial_state(self, batch_size: int) -> State:
        """Make the state of fresh memories: hidden and cell states ``[B, layers, H]`` of each LSTM."""
        return {
            f"{name} {part}": torch.zeros(batch_size, lstm.num_layers, lstm.hidden_size, device=self.device)
            for name, lstm in self.lstms.items()
            for part in ("hidden", "cell")
        }

    def encode(self, obs: Observation) -> Inputs:
        """Return the features ``[..., D]``, or those of the actor and those of the critic."""
        space = self.policy.observation_space
        parts = space.spaces if isinstance(space, spaces.Dict) else {OBS: space}
        shapes = {name: get_shape(part) for name, part in parts.items()}
        first, leaf = next(iter(obs.items()))
        lead = leaf.shape[: leaf.dim() - len(shapes[first])]
        flat = {name: part.reshape(-1, *shapes[name]) for name, part in obs.items()}
        features = self.name_features(self.policy.extract_features(self.form_obs(flat)))
        return {name: part.unflatten(0, lead) for name, part in features.items()}

    def step(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Take one step as in a rollout: what action net and value net give, ``[B, P]``."""
        flags = starts.to(self.device, torch.float32)
        with self._encoded(inputs), self.listening() as heard:
            *_, after = self.policy.forward(next(iter(inputs.values())), self.form_state(state), flags)
        return heard.outputs(), self.name_state(after)

    def unroll(self, inputs: Inputs, state: State, starts: Tensor) -> tuple[Tensor, State]:
        """Run sequences as in an update, but without dropout."""
        steps, rows = starts.shape
        flat = {name: leaf.transpose(0, 1).flatten(0, 1) for name, leaf in inputs.items()}  # [B * T, D]
        flags = starts.t().flatten().to(self.device, torch.float32)
        count, space = steps * rows, self.policy.action_space
        size = () if isinstance(space, spaces.Discrete) else (spaces.flatdim(spaces.Box(0, 1, space.shape)),)
        actions = torch.zeros(count, *size, device=self.device)  # any will do
        with self._encoded(flat), self.listening() as heard:
            self.policy.evaluate_actions(next(iter(flat.values())), actions, self.form_state(state), flags)
        return heard.outputs().unflatten(0, (rows, steps)).transpose(0, 1), self._last_state(heard)

    def _last_state(self, heard: Heard) -> State:
        """Return the states that the last call of each LSTM gave; ``evaluate_actions`` throws them away."""
        missing = [name for name in self.lstms if name not in heard.results]
        if missing:
            raise ValueError(f"policy: evaluate_actions must call the LSTM of the {missing[0]}, or it has no memory")
        after = {name: heard.results[name][-1][1] for name in self.lstms}
        return {
            f"{name} {part}": leaf.transpose(0, 1).contiguous()
            for name, pair in after.items()
            for part, leaf in zip(("hidden", "cell"), pair, strict=True)
        }

    @contextmanager
    def listening(self) -> Iterator[Heard]:
        """While open, note what the heads and the LSTMs give."""
        heard = Heard()
        modules = {name: getattr(self.policy, name) for name in HEADS} | self.lstms
        handles = [module.register_forward_hook(partial(heard.note, name)) for name, module in modules.items()]
        try:
            yield heard
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _encoded(self, inputs: Inputs) -> Iterator[None]:
        """While open, the encoder gives ``inputs``, whatever it is asked."""
        features: Any = tuple(inputs.values()) if len(inputs) > 1 else next(iter(inputs.values()))
        with patched(self.policy, extract_features=lambda *arguments: features):
            yield

    @staticmethod
    def name_features(features: Tensor | tuple[Tensor, Tensor]) -> Inputs:
        """Name what ``extract_features`` gives."""
        if isinstance(features, Tensor):
            return {"features": features}
        return dict(zip(("actor features", "critic features"), features, strict=True))

    @staticmethod
    def name_obs(obs: Any) -> Observation:
        """Copy an observation as leaves."""
        parts = {OBS: obs} if isinstance(obs, Tensor) else obs
        return {name: leaf.detach().clone() for name, leaf in parts.items()}

    @staticmethod
    def form_obs(obs: Observation) -> Any:
        """Bring leaves into the form that the policy takes."""
        return obs[OBS] if [*obs] == [OBS] else obs

    def name_state(self, states: Any) -> State:
        """Copy ``RNNStates``, ``[layers, B, H]``, as leaves ``[B, layers, H]``; a critic without LSTM has none."""
        pairs = {"actor": states.pi, "critic": states.vf}
        return {
            f"{name} {part}": leaf.transpose(0, 1).clone(memory_format=torch.contiguous_format)
            for name in self.lstms
            for part, leaf in zip(("hidden", "cell"), pairs[name], strict=True)
        }

    def form_state(self, state: State) -> Any:
        """Bring leaves into the form that the policy takes; a critic without LSTM has the states of the actor."""
        from sb3_contrib.common.recurrent.type_aliases import RNNStates

        own = {name: leaf.transpose(0, 1).contiguous() for name, leaf in state.items()}
        pairs = {name: (own[f"{name} hidden"], own[f"{name} cell"]) for name in self.lstms}
        return RNNStates(pairs["actor"], pairs.get("critic", pairs["actor"]))
