"""Several agents in one vector environment: each plays the rows of its seats, all learn side by side."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from rl.agents.interface import rows_of
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.checks import positive
from rl.spaces import take_rows


class Population:
    """Agents of any types, in the batched form that trainer and evaluation know.

    Row r of the environment is seat ``r % len(seats)``. An environment with several agents in a world numbers its rows
    world by world, so with as many seats as a world has agents, seat i is always agent i. A name that stands at several
    seats is one policy that plays them all; for separate policies give each seat a name of its own.

    Between two rollouts an entry of :attr:`members` may be replaced by another agent of as many rows.

    Args:
        observation_space, action_space: of ONE row.
        members: ``name -> member(observation_space, action_space, num_envs=..., ...)``.
        seats: names of members; each must have a seat.
        num_envs: rows of the environment, a multiple of the number of seats.
        num_steps: of each row in a rollout.
        total_steps: steps of all rows, shared out among the members by their rows; None keeps hyperparameters constant.
        device: of every member.
        seed: of the first member; the others count up from it.
        action_names: names of the action branches.

    Raises:
        ValueError: members and seats that do not fit each other or ``num_envs``.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        members: Mapping[str, Callable[..., Any]],
        seats: Sequence[str],
        *,
        num_envs: int,
        num_steps: int = 128,
        total_steps: int | None = None,
        device: str = "cpu",
        seed: int | None = None,
        action_names: Sequence[str] | None = None,
    ):
        self.seats, self.model_name = list(seats), "Population"
        unknown, idle = set(self.seats) - set(members), set(members) - set(self.seats)
        if not self.seats or unknown or idle:
            raise ValueError(f"seats={self.seats} must name every member, and no other: there are {', '.join(members)}")
        positive(num_envs=num_envs)
        self.num_envs, self.num_steps, self.device = num_envs, num_steps, torch.device(device)
        self.rows = {name: self._rows_of(name, num_envs) for name in members}
        self.members = {
            name: make(
                observation_space,
                action_space,
                num_envs=len(self.rows[name]),
                num_steps=num_steps,
                total_steps=total_steps and max(1, total_steps * len(self.rows[name]) // num_envs),
                device=device,
                seed=None if seed is None else seed + index,
                action_names=action_names,
            )
            for index, (name, make) in enumerate(members.items())
        }

    def _rows_of(self, name: str, num_envs: int) -> np.ndarray:
        """The rows that a member plays among ``num_envs``."""
        if num_envs % len(self.seats):
            raise ValueError(f"num_envs={num_envs} is no multiple of the {len(self.seats)} seats {self.seats}")
        return np.flatnonzero(np.tile([seat == name for seat in self.seats], num_envs // len(self.seats)))

    def take_action(self, state: Any) -> np.ndarray:
        """Observations ``[B, ...]`` -> actions ``[B, ...]``, see :meth:`rl.agents.RecurrentPPO.take_action`."""
        return _merged(
            (rows, self.members[name].take_action(take_rows(state, rows))) for name, rows in self.rows.items()
        )

    def add_memory_ppo(
        self, reward: Any, done: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """The outcome of the last :meth:`take_action`, each ``[B]``."""
        rewards = rows_of("reward", reward, self.num_envs, np.float32)
        given = {"done": done, "truncated": truncated, "ignored": ignored}
        flags = [rows_of(name, flag, self.num_envs, bool) for name, flag in given.items()]
        for name, rows in self.rows.items():
            final = None if final_observation is None else take_rows(final_observation, rows)
            terminated, cut, none = (flag[rows] for flag in flags)
            self.members[name].add_memory_ppo(rewards[rows], terminated, cut, final, none)

    add_memory = add_memory_ppo

    def train_step(self, next_observation: Any = None) -> np.ndarray:
        """Every member learns from its own rollout: 0-d array, the mean of their losses."""
        losses = []
        for name, rows in self.rows.items():
            following = None if next_observation is None else take_rows(next_observation, rows)
            losses.append(self.members[name].train_step(following))
        return np.array(np.mean(losses))

    @property
    def network(self) -> nn.ModuleDict:
        """The networks of the members, by name."""
        return nn.ModuleDict({name: member.network for name, member in self.members.items()})

    @property
    def num_parameters(self) -> int:
        """Of all members."""
        return sum(member.num_parameters for member in self.members.values())

    def reset(self) -> None:
        """See :meth:`rl.agents.RecurrentPPO.reset`."""
        for member in self.members.values():
            member.reset()

    @property
    def env_steps(self) -> int:
        """Steps of all members."""
        return sum(member.env_steps for member in self.members.values())

    @property
    def last_metrics(self) -> dict[str, float]:
        """Those of each member, under ``member/metric``."""
        return {
            f"{name}/{metric}": value
            for name, member in self.members.items()
            for metric, value in member.last_metrics.items()
        }

    def new_actor(self, num_envs: int, seed: int | None = None, memory: bool = True) -> "Players":
        """Who plays ``num_envs`` other rows, with the same seats."""
        rows = {name: self._rows_of(name, num_envs) for name in self.members}
        return Players({n: m.new_actor(len(rows[n]), seed, memory) for n, m in self.members.items()}, rows)

    def state_dict(self) -> dict[str, Any]:
        """What each member needs to go on, by name."""
        return {name: member.state_dict() for name, member in self.members.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The counterpart of :meth:`state_dict`.

        Raises:
            ValueError: it is of other members.
        """
        if not isinstance(state, dict) or state.keys() != self.members.keys():
            raise ValueError(f"the checkpoint is of other agents than {', '.join(self.members)}")
        for name, member in self.members.items():
            member.load_state_dict(state[name])

    def save(self, path: str | Path) -> None:
        """Writes a checkpoint; the folder is made if it is missing."""
        save_checkpoint({"agent": self.state_dict()}, path)

    def load(self, path: str | Path) -> None:
        """Reads what :meth:`save` or the trainer wrote."""
        self.load_state_dict(load_checkpoint(path, map_location=self.device)["agent"])


class Players:
    """The players of a population, see :meth:`rl.agents.actor.Actor.play`."""

    def __init__(self, players: dict[str, Any], rows: dict[str, np.ndarray]):
        self.players, self.rows = players, rows

    def play(self, observation: Any, greedy: bool = False) -> np.ndarray:
        """Observations ``[B, ...]`` -> actions ``[B, ...]``."""
        return _merged(
            (rows, self.players[name].play(take_rows(observation, rows), greedy)) for name, rows in self.rows.items()
        )

    def outcome(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """What came of the last :meth:`play`, each ``[B]``."""
        for name, rows in self.rows.items():
            self.players[name].outcome(rewards[rows], ended[rows])


def _merged(parts: Any) -> np.ndarray:
    """``(rows, actions of these rows)`` of all members -> the actions of all rows, ``[B, ...]``."""
    rows, actions = zip(*parts, strict=True)
    whole = np.empty((sum(map(len, rows)), *actions[0].shape[1:]), dtype=np.result_type(*actions))
    for where, part in zip(rows, actions, strict=True):
        whole[where] = part
    return whole
