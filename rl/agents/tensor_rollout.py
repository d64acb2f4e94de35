"""Rollouts in environments that give tensors on the device of the agent: nothing leaves it, and nothing waits."""

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from rl.agents.actor import PREVIOUS_ACTION, PREVIOUS_REWARD, Actor
from rl.graphs import Recorded, Tensors, flatten, split
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.spaces import leaf_arrays
from rl.types import CutEpisodes, Observation, Played, State


class TensorEnvs(Protocol):
    """A vector environment in SAME_STEP mode whose arrays are tensors on ``device``; it says ``gives_tensors = True``.

    One whose steps are made of torch alone, with all that changes in tensors that stay where they are, may say
    ``can_be_recorded = True`` and show the ``generator`` of its random numbers: its rollouts become CUDA graphs.

    Its ``info["final_obs"]`` holds in every step what all rows observed after their actions, before new episodes began.
    Where there is none, V of the last observation acted on stands in for that of an episode's last one.
    """

    device: Any

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Take ``actions [B, ...]``: observations ``[B, ...]``, rewards, terminated and truncated ``[B]``, and an info.

        What it returns is valid until the next call.
        """


class TensorRollout:
    """Plays the rollouts of one agent, each as one CUDA graph where the device and the environment allow it.

    Args:
        actor: the memories of the agent.
        envs: to play in.
        buffer: takes the rollout; its outcomes lie on the device.
        graphs: record it where the device can.

    Raises:
        ValueError: the environments lie on another kind of device.
    """

    def __init__(self, actor: Actor, envs: TensorEnvs, buffer: RolloutBuffer, graphs: bool):
        if torch.device(envs.device).type != actor.device.type:
            raise ValueError(
                f"the environments lie on {envs.device}: they must lie on the agent's device, {actor.device}"
            )
        self.actor, self.envs, self.buffer = actor, envs, buffer
        self.network: Any = actor.network  # of PPO
        self.final_values = torch.zeros_like(buffer.values)  # [T, B], V(final observation)
        own = getattr(envs, "generator", None)
        draws = [actor.generator, *([own] if isinstance(own, torch.Generator) else [])]
        graphs = graphs and getattr(envs, "can_be_recorded", False)
        self.recorded = Recorded(self._play, self._anchors, draws, graphs)

    @torch.inference_mode()
    def __call__(self, observation: Any) -> Played:
        """Play one rollout from what the environments show now, ``[B, ...]``."""
        actor, obs = self.actor, self.inputs(observation)
        starts = torch.as_tensor(actor.starts, device=actor.device)
        given = {"state": actor.state, "previous": actor.previous if actor.feed_previous else {}, "obs": obs}
        found = self.recorded(flatten(given) | {"starts": starts})
        after = split(found, given)
        actor.state, actor.starts = after["state"], found["starts"]
        if actor.feed_previous:
            actor.previous = after["previous"]
            actor.last = split(found, {"last": actor.last})["last"]
        buffer = self.buffer
        buffer.size = buffer.capacity
        return Played(after["obs"], buffer.rewards, buffer.terminated | buffer.truncated)

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

    def _play(self, inputs: Tensors) -> Tensors:
        actor, buffer, network = self.actor, self.buffer, self.network
        head = network.head
        given = {"state": actor.state, "previous": actor.previous if actor.feed_previous else {}}
        given |= {"obs": {name: inputs[f"obs.{name}"] for name in actor.formats}}
        parts, starts = split(inputs, given), inputs["starts"]
        state, previous, obs, last = parts["state"], parts["previous"], parts["obs"], {}
        closing: dict[int, tuple[Observation, State]] = {}  # what was observed after a step, and the memories then
        for t in range(buffer.capacity):
            params, values, after = network.step(obs | previous, state, starts)
            actions = actor.noise.sample(params, starts)
            buffer.write_tensors(t, obs | previous, state, params, values, actions)
            buffer.starts[t].copy_(starts)
            observation, rewards, terminated, truncated, info = self.envs.step(head.to_tensor_environment(actions))
            if actor.feed_previous:
                last = {PREVIOUS_ACTION: head.as_previous(actions), PREVIOUS_REWARD: rewards.float().unsqueeze(1)}
            if "final_obs" not in info:
                self.final_values[t].copy_(values)
            elif buffer.stride == 1:
                seen = self.inputs(info["final_obs"]) | last  # which the next step may overwrite
                closing[t] = {name: leaf.clone() for name, leaf in seen.items()}, after
            else:  # the states of all steps take too much memory to be kept
                self.final_values[t].copy_(network.step(self.inputs(info["final_obs"]) | last, after, None)[1])
            buffer.rewards[t].copy_(rewards)
            buffer.terminated[t].copy_(terminated)
            starts = terminated | truncated
            buffer.truncated[t].copy_(starts & ~terminated)
            previous = {name: leaf.masked_fill(starts.unsqueeze(1), 0) for name, leaf in last.items()}
            obs, state = self.inputs(observation), after
        if closing:
            observed, states = (
                {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
                for parts in zip(*closing.values(), strict=True)
            )
            final_values = network.step(observed, states, None)[1].view(len(closing), -1)
            for t, row in zip(closing, final_values, strict=True):
                self.final_values[t].copy_(row)
        outputs = flatten({"state": state, "previous": previous, "obs": obs, "last": last}) | {"starts": starts}
        return {name: leaf.clone() for name, leaf in outputs.items()}  # none may be a place of the environment

    def _anchors(self) -> list[Tensor]:
        return [*self.actor.network.buffers(), *self.buffer.leaves()]
