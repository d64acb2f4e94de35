"""Rollouts in environments that give tensors on the device of the agent: nothing leaves it, and nothing waits."""

import math
from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rl.agents.actor import PREVIOUS_ACTION, PREVIOUS_REWARD, Actor
from rl.graphs import Recorded, Tensors, flatten, split
from rl.iqn.sequence_replay import SequenceReplay
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.spaces import leaf_arrays
from rl.types import CutEpisodes, Observation, Played, State


class TensorEnvs(Protocol):
    """A vector environment in SAME_STEP mode whose arrays are tensors on ``device``; it says ``gives_tensors = True``.

    One whose steps are made of torch alone, with all that changes in tensors that stay where they are, may say
    ``can_be_recorded = True`` and show the ``generator`` of its random numbers: its rollouts become CUDA graphs.

    Its ``info["final_obs"]`` holds in every step what all rows observed after their actions, before new episodes began.
    Where there is none, what followed the last action of an episode is not known, see ``RecurrentAgent.observe``.
    """

    device: Any

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Take ``actions [B, ...]``: observations ``[B, ...]``, rewards, terminated and truncated ``[B]``, and an info.

        What it returns is valid until the next call.
        """


class TensorRollout(ABC):
    """Plays the rollouts of one agent, each as one CUDA graph where the device and the environment allow it.

    A subclass stores what is played.

    Args:
        actor: the memories of the agent.
        envs: to play in.
        num_steps: T.
        graphs: record it where the device can.

    Raises:
        ValueError: the environments lie on another kind of device.
    """

    def __init__(self, actor: Actor, envs: TensorEnvs, num_steps: int, graphs: bool):
        if torch.device(envs.device).type != actor.device.type:
            raise ValueError(
                f"the environments lie on {envs.device}: they must lie on the agent's device, {actor.device}"
            )
        self.actor, self.envs, self.num_steps = actor, envs, num_steps
        own = getattr(envs, "generator", None)
        draws = [actor.generator, *([own] if isinstance(own, torch.Generator) else [])]
        graphs = graphs and getattr(envs, "can_be_recorded", False)
        self.recorded = Recorded(self._play, self._anchors, draws, graphs)

    @torch.inference_mode()
    def __call__(self, observation: Any) -> Observation:
        """Play one rollout from what the environments show now, ``[B, ...]``; return what they show after it."""
        actor, obs = self.actor, self.inputs(observation)
        starts = torch.as_tensor(actor.starts, device=actor.device)
        given = {"state": actor.state, "previous": actor.previous if actor.feed_previous else {}, "obs": obs}
        found = self.recorded(flatten(given) | {"starts": starts})
        after = split(found, given)
        actor.state, actor.starts = after["state"], found["starts"]
        if actor.feed_previous:
            actor.previous = after["previous"]
            actor.last = split(found, {"last": actor.last})["last"]
        return after["obs"]

    def inputs(self, observation: Any) -> Observation:
        """Bring an observation into leaves of the shapes and dtypes that the network takes, ``[B, ...]``.

        Raises:
            ValueError: it holds more or fewer numbers.
        """
        actor = self.actor
        if isinstance(observation, dict) and observation.keys() == actor.formats.keys():
            leaves = observation
        else:
            leaves = leaf_arrays(actor.observation_space, observation, actor.formats)
        obs = {}
        for name, (shape, dtype) in actor.formats.items():
            leaf = torch.as_tensor(leaves[name], device=actor.device)
            if leaf.numel() != math.prod(shape):
                raise ValueError(f"observation {name!r} has shape {tuple(leaf.shape)}, but {shape} is expected")
            obs[name] = leaf.to(getattr(torch, dtype.name)).reshape(shape)
        return obs

    def cut_episodes(self, step: int, observation: Any, env_ids: np.ndarray) -> CutEpisodes:
        """Note what V needs of the future of all episodes, which the end of the rollout cuts."""
        actor = self.actor
        obs = self.inputs(observation) | (actor.last if actor.feed_previous else {})
        return CutEpisodes(step, env_ids, obs, actor.state)

    @abstractmethod
    def store_action(
        self, t: int, obs: Observation, state: State, starts: Tensor, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """Store the acting half of step ``t``; ``state`` is the one before it."""

    @abstractmethod
    def store_outcome(
        self, t: int, rewards: Tensor, terminated: Tensor, truncated: Tensor, final: Observation | None, state: State
    ) -> None:
        """Store what came of step ``t``: what all observed after it, if that is known, and the memories then."""

    @abstractmethod
    def stored(self) -> list[Tensor]:
        """List the tensors that storing reads or writes."""

    def _play(self, inputs: Tensors) -> Tensors:
        actor, network = self.actor, self.actor.network
        given = {"state": actor.state, "previous": actor.previous if actor.feed_previous else {}}
        given |= {"obs": {name: inputs[f"obs.{name}"] for name in actor.formats}}
        parts, starts = split(inputs, given), inputs["starts"]
        state, previous, obs, last = parts["state"], parts["previous"], parts["obs"], {}
        for t in range(self.num_steps):
            params, values, after = network.step(obs | previous, state, starts)
            actions = actor.noise.sample(params, starts)
            self.store_action(t, obs | previous, state, starts, params, values, actions)
            taken = network.head.to_tensor_environment(actions)
            observation, rewards, terminated, truncated, info = self.envs.step(taken)
            if actor.feed_previous:
                last = {
                    PREVIOUS_ACTION: network.head.as_previous(actions),
                    PREVIOUS_REWARD: rewards.float().unsqueeze(1),
                }
            final = self.inputs(info["final_obs"]) | last if "final_obs" in info else None
            self.store_outcome(t, rewards, terminated, truncated & ~terminated, final, after)
            starts = terminated | truncated
            previous = {name: leaf.masked_fill(starts.unsqueeze(1), 0) for name, leaf in last.items()}
            obs, state = self.inputs(observation), after
        outputs = flatten({"state": state, "previous": previous, "obs": obs, "last": last}) | {"starts": starts}
        return {name: leaf.clone() for name, leaf in outputs.items()}  # none may be a place of the environment

    def _anchors(self) -> list[Tensor]:
        return [*self.actor.network.buffers(), *self.stored()]


class BufferedRollout(TensorRollout):
    """A rollout of PPO.

    Args:
        actor: the memories of the agent.
        envs: to play in.
        buffer: takes the rollout; its outcomes lie on the device.
        graphs: record it where the device can.
    """

    def __init__(self, actor: Actor, envs: TensorEnvs, buffer: RolloutBuffer, graphs: bool):
        super().__init__(actor, envs, buffer.capacity, graphs)
        self.buffer = buffer
        self.final_values = torch.zeros_like(buffer.values)  # [T, B], V(final observation)
        self.closing: dict[int, tuple[Observation, State]] = {}  # what was observed after a step, and the memories then

    def play(self, observation: Any) -> Played:
        """Fill the buffer."""
        obs, buffer = self(observation), self.buffer
        buffer.size = buffer.capacity
        return Played(obs, buffer.rewards, buffer.terminated | buffer.truncated)

    def store_action(
        self, t: int, obs: Observation, state: State, starts: Tensor, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """Store the acting half of step ``t``."""
        self.buffer.write_tensors(t, obs, state, params, values, actions)
        self.buffer.starts[t].copy_(starts)

    def store_outcome(
        self, t: int, rewards: Tensor, terminated: Tensor, truncated: Tensor, final: Observation | None, state: State
    ) -> None:
        """Store what came of step ``t``."""
        buffer = self.buffer
        if final is None:
            self.final_values[t].copy_(buffer.values[t])
        elif buffer.stride == 1:
            self.closing[t] = {name: leaf.clone() for name, leaf in final.items()}, state  # the next step may overwrite
        else:  # the states of all steps take too much memory to be kept
            self.final_values[t].copy_(self.actor.network.step(final, state, None)[1])
        for column, outcome in (
            (buffer.rewards, rewards),
            (buffer.terminated, terminated),
            (buffer.truncated, truncated),
        ):
            column[t].copy_(outcome)

    def _play(self, inputs: Tensors) -> Tensors:
        outputs = super()._play(inputs)
        self._close()
        return outputs

    def _close(self) -> None:
        """Value all that was observed last in an episode, at once."""
        closing, self.closing = self.closing, {}
        if not closing:
            return
        observed, states = (
            {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*closing.values(), strict=True)
        )
        final_values = self.actor.network.step(observed, states, None)[1].view(len(closing), -1)
        for t, row in zip(closing, final_values, strict=True):
            self.final_values[t].copy_(row)

    def stored(self) -> list[Tensor]:
        """List the tensors of the buffer."""
        return self.buffer.leaves()


class ReplayedRollout(TensorRollout):
    """A rollout of a quantile network.

    Args:
        actor: the memories of the agent.
        envs: to play in.
        replay: takes the steps.
        num_steps: T.
        graphs: record it where the device can.

    Attributes:
        rewards: ``[T, B]``.
        starts: ``[T, B]`` bool.
        ended: ``[T, B]`` bool.
    """

    def __init__(self, actor: Actor, envs: TensorEnvs, replay: SequenceReplay, num_steps: int, graphs: bool):
        super().__init__(actor, envs, num_steps, graphs)
        self.replay = replay
        self.rewards = torch.zeros(num_steps, replay.num_envs, device=actor.device)
        self.starts, self.ended = torch.zeros(2, *self.rewards.shape, dtype=torch.bool, device=actor.device)

    def play(self, observation: Any) -> Played:
        """Add a rollout to the replay."""
        return Played(self(observation), self.rewards, self.ended)

    def store_action(
        self, t: int, obs: Observation, state: State, starts: Tensor, params: Tensor, values: Tensor, actions: Tensor
    ) -> None:
        """Store the acting half of step ``t``; other weights will replay it."""
        self.starts[t].copy_(starts)
        self.replay.write_step(obs, state, starts, actions)

    def store_outcome(
        self, t: int, rewards: Tensor, terminated: Tensor, truncated: Tensor, final: Observation | None, state: State
    ) -> None:
        """Store what came of step ``t``."""
        self.rewards[t].copy_(rewards)
        self.ended[t].copy_(terminated | truncated)
        self.replay.finish_step(self.rewards[t], terminated)
        if final is not None:
            self.replay.write_final(final, state, truncated)

    def stored(self) -> list[Tensor]:
        """List the tensors of the replay and its own."""
        return [*self.replay.leaves(), self.rewards, self.starts, self.ended]


def check_collecting(training: bool, waiting: bool) -> None:
    """Raise a ``RuntimeError`` unless an agent is in training and no action is waiting for its outcome."""
    if not training or waiting:
        raise RuntimeError("collect is for an agent in training whose last action has its outcome (observe)")
