"""Plays one episode and notes, step by step, what the memory holds and what the policy makes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import iterate
from torch import Tensor

from rl.agents.actor import Actor
from rl.agents.population import Actors, Population
from rl.checks import positive, whole
from rl.networks.modes import evaluation_mode
from rl.networks.quantile_network import FORBIDDEN, QuantileNetwork
from rl.spaces import take_rows
from rl.training.stepping import VectorEnvAdapter
from rl.types import Agent

VALUES = {"value", "mean_q"}
"""Curves that count in rewards."""


@dataclass
class Glance:
    """What B memories hold after an observation, and what the policy makes of it.

    Attributes:
        actions: ``[B, ...]``, as a vector environment takes them.
        curves: ``[B]`` each, by name: ``value``; ``norm/LEAF``, the L2 norm of each leaf of the state after the
            observation; ``entropy/BRANCH`` in nats or, of a quantile network, which has no distribution of actions,
            ``mean_q``, the mean value of all actions that are allowed.
    """

    actions: np.ndarray
    curves: dict[str, np.ndarray]


@dataclass
class Track:
    """What one player of an episode of T steps saw, did and had in mind; NaN where it did not take part.

    Attributes:
        name: of the member of a population; empty for a single agent.
        observations: T of them, of one environment.
        actions: T of them, of one environment.
        rewards: float64 ``[T]``, as the environment paid them.
        curves: float64 ``[T]`` each, see ``Glance``; values are in units of the rewards that the agent is given, also
            where it learned from normalised ones; those of a quantile network as it scales them.
        end: "terminated", "truncated", or "cut" where it had not ended after ``max_steps``.
    """

    name: str
    observations: list[Any] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: np.ndarray = field(default_factory=lambda: np.zeros(0))
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    end: str = "cut"

    @property
    def total(self) -> float:
        """The return."""
        return float(np.nansum(self.rewards))

    def add(self, observation: Any, action: Any, reward: float, noted: dict[str, float]) -> None:
        """Note one step."""
        self.observations.append(observation)
        self.actions.append(action)
        self.rewards = np.append(self.rewards, reward)
        for name, value in noted.items():
            self.curves[name] = np.append(self.curves.get(name, np.zeros(0)), value)


@dataclass
class WatchedEpisode:
    """An episode of one world.

    Attributes:
        tracks: of the players of the world, in the order of its rows.
        pictures: what ``draw`` returned before each of the T steps, and after the last one if that is to be had: T, or
            T + 1.
    """

    tracks: list[Track]
    pictures: list[Any]

    @property
    def length(self) -> int:
        """T."""
        return len(self.tracks[0].rewards)

    @property
    def total(self) -> float:
        """The return, the mean over the players."""
        return float(np.mean([track.total for track in self.tracks]))


def check_watchable(agent: Agent) -> None:
    """Check that what an agent has in mind can be read.

    Raises:
        ValueError: its actors, or those of a member, do not show their memories.
    """
    seats = len(agent.seats) if isinstance(agent, Population) else 1
    for name, actor, _ in _list_players(agent.new_actor(seats), seats):
        if not isinstance(actor, Actor):
            who = f"{agent.model_name}, member {name}" if name else agent.model_name
            raise ValueError(f"{who}: its actor is a {type(actor).__name__}, whose memory cannot be read")


@torch.inference_mode()
def look(actor: Actor, observation: Any, greedy: bool = True) -> Glance:
    """Let an actor choose actions as ``Actor.act`` does, and note what it has in mind.

    Args:
        actor: of B environments; its memories move on.
        observation: ``[B, ...]``.
        greedy: take the likeliest actions instead of sampling.
    """
    params, values, actions = actor.step(actor.inputs(observation), greedy)
    noted: dict[str, Tensor] = {"value": values}
    for name, leaf in actor.state.items():
        if leaf.is_floating_point() and leaf.numel():
            noted[f"norm/{name}"] = leaf.flatten(1).float().norm(dim=1)
    head = actor.network.head
    if isinstance(actor.network, QuantileNetwork):
        allowed = params > FORBIDDEN
        noted["mean_q"] = params.where(allowed, 0.0).sum(1) / allowed.sum(1).clamp_min(1)
    else:
        _, entropies = actor.network.head.evaluate(params, actions)  # [B, branches]
        noted |= {f"entropy/{branch}": entropies[:, i] for i, branch in enumerate(actor.network.head.branches)}
    curves = {name: values.cpu().numpy().astype(np.float64) for name, values in noted.items()}
    return Glance(head.to_environment(actions.cpu().numpy()), curves)


def watch_episode(
    agent: Agent,
    envs: VectorEnv,
    seed: int,
    *,
    greedy: bool = True,
    zero_at: int | None = None,
    max_steps: int = 1_000,
    draw: Callable[[], Any] | None = None,
) -> WatchedEpisode:
    """Play one episode of the first world; weights, running moments and the agent's own memories stay as they are.

    The same seed and another ``zero_at`` play the same episode until that step, if the environment takes its random
    numbers from its seed alone.

    Args:
        agent: makes the player.
        envs: in SAME_STEP or NEXT_STEP autoreset mode; in the latter there is a picture of the end. Rows 0 to
            ``num_agents`` - 1, or row 0 where it has no such number, are the first world.
        seed: of the environments and of sampled actions.
        greedy: take the likeliest actions instead of sampling.
        zero_at: from this step on, 0 for the first one, the memory is cleared before every step; None for never.
        max_steps: an episode that has not ended after so many steps is cut.
        draw: draws the world as it is now.

    Raises:
        ValueError: ``zero_at`` is negative, ``max_steps`` below 1, or an actor's memory cannot be read.
    """
    positive(max_steps=max_steps)
    if zero_at is not None:
        whole(0, zero_at=zero_at)
    adapter, player = VectorEnvAdapter(envs), agent.new_actor(envs.num_envs, seed)
    players = _list_players(player, envs.num_envs)
    names = {int(row): name for name, _, rows in players for row in rows}
    sizes = _read_scales(agent)
    tracks = [Track(names[row]) for row in range(getattr(envs.unwrapped, "num_agents", 1))]
    shows_end, pictures = adapter.resets_on_next_step, []
    with evaluation_mode(agent.network):
        obs = adapter.reset(seed)
        for number in range(max_steps):
            if draw is not None:
                pictures.append(draw())
            seen = list(iterate(envs.observation_space, obs))[: len(tracks)]
            actions, noted = _act(players, sizes, envs, obs, greedy)
            step = adapter.step(actions)
            player.observe(step.rewards, step.ended | (zero_at is not None and number + 1 >= zero_at))
            for row, track in enumerate(tracks):
                _note(track, row, seen[row], actions[row], step, noted[row])
            obs = step.obs
            if all(track.end != "cut" for track in tracks):
                break
        else:
            shows_end = True
        if draw is not None and shows_end:
            pictures.append(draw())
    return WatchedEpisode(tracks, pictures)


def _note(track: Track, row: int, observation: Any, action: Any, step: Any, noted: dict[str, float]) -> None:
    """Note a step of the player in a row; nothing but NaN once its episode has ended, or while it does not live."""
    if track.end != "cut" or step.ignored[row]:
        track.add(None, None, np.nan, dict.fromkeys(noted, np.nan))
        return
    track.add(observation, action, float(step.paid[row]), noted)
    if step.terminated[row] or step.truncated[row]:
        track.end = "terminated" if step.terminated[row] else "truncated"


def _read_scales(agent: Agent) -> dict[str, float]:
    """Return, by the names of ``_list_players``, what each agent divided its rewards by."""
    members = agent.members if isinstance(agent, Population) else {"": agent}
    scales = {name: getattr(member, "return_scale", None) for name, member in members.items()}
    return {name: 1.0 if scale is None else scale.size for name, scale in scales.items()}


def _act(
    players: list[tuple[str, Any, np.ndarray]], sizes: dict[str, float], envs: VectorEnv, obs: Any, greedy: bool
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Let every player act in its rows: actions ``[B, ...]``, and what is noted of each row."""
    noted: list[dict[str, float]] = [{} for _ in range(envs.num_envs)]
    taken: list[Any] = [None] * envs.num_envs
    for name, actor, rows in players:
        own = obs if len(rows) == envs.num_envs else take_rows(envs.single_observation_space, obs, rows)
        glance = look(actor, own, greedy)
        for curve in VALUES & glance.curves.keys():
            glance.curves[curve] *= sizes[name]
        for place, row in enumerate(rows.tolist()):
            taken[row] = glance.actions[place]
            noted[row] = {curve: float(values[place]) for curve, values in glance.curves.items()}
    return np.stack(taken), noted


def _list_players(player: Any, num_envs: int) -> list[tuple[str, Any, np.ndarray]]:
    """Return name, actor and rows of each player: the members of a population, or a single one without a name."""
    if isinstance(player, Actors):
        return [(name, actor, player.rows[name]) for name, actor in player.actors.items()]
    return [("", player, np.arange(num_envs))]
