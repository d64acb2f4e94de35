"""Several agents in one vector environment: each plays the rows of its seats, all learn side by side."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from rl.agents.actor import check_outcome
from rl.agents.agent import RecurrentAgent
from rl.agents.client import ClientLoop
from rl.agents.construction import arguments_from_data, describe
from rl.agents.loading import agent_from_state
from rl.agents.signature import forwarded_signature
from rl.checks import positive
from rl.spaces import take_rows
from rl.types import Actor, Agent

CONSTRUCTION = "construction"
"""Entry of a checkpoint beside the members."""


class Population(ClientLoop):
    """Agents of any types, in the batched form that trainer and evaluation know.

    Row r of the environment is seat ``r % len(seats)``. An environment with several agents in a world numbers its rows
    world by world, so with as many seats as a world has agents, seat i is always agent i. A name that stands at several
    seats is one policy that plays them all; for separate policies give each seat a name of its own.

    Between two rollouts an entry of ``members`` may be replaced by another agent of as many rows.

    Args:
        observation_space: of ONE row.
        action_space: of ONE row.
        members: ``name -> member(observation_space, action_space, num_envs=..., ...)``.
        seats: names of members; each must have a seat.
        num_envs: rows of the environment, a multiple of the number of seats.
        num_steps: of each row in a rollout.
        total_steps: steps of all rows, shared out among the members by their rows; None keeps hyperparameters constant.
        device: of every member.
        seed: each member draws its own from this one and its place, see ``member_seed``.
        action_names: names of the action branches.

    Raises:
        ValueError: members and seats do not fit each other or ``num_envs``.
    """

    construction: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note what constructs the population, for its checkpoints; each member notes what constructs itself."""
        population = super().__new__(cls)
        population.construction = describe(cls, args, kwargs, left_out=("members",))
        return population

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        members: Mapping[str, Callable[..., Agent]],
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
        if CONSTRUCTION in members:
            raise ValueError(f"members={list(members)}: {CONSTRUCTION!r} must be no name, checkpoints use it")
        positive(num_envs=num_envs)
        self.num_envs, self.num_steps, self.device = num_envs, num_steps, torch.device(device)
        self.observation_space = observation_space
        self.rows = {name: self._rows_of(name, num_envs) for name in members}
        self.members = {
            name: make(
                observation_space,
                action_space,
                num_envs=len(self.rows[name]),
                num_steps=num_steps,
                total_steps=total_steps and max(1, total_steps * len(self.rows[name]) // num_envs),
                device=device,
                seed=None if seed is None else member_seed(seed, index),
                action_names=action_names,
            )
            for index, (name, make) in enumerate(members.items())
        }
        for name, member in self.members.items():
            if isinstance(member, RecurrentAgent):
                member.advisor.place = f"{name}/"

    __signature__ = forwarded_signature(__init__)  # of the class it would be that of ``__new__``

    def _rows_of(self, name: str, num_envs: int) -> np.ndarray:
        """Return the rows that a member plays among ``num_envs``."""
        if num_envs % len(self.seats):
            raise ValueError(f"num_envs={num_envs} is no multiple of the {len(self.seats)} seats {self.seats}")
        return np.flatnonzero(np.tile([seat == name for seat in self.seats], num_envs // len(self.seats)))

    def act(self, observation: Any) -> np.ndarray:
        """Choose actions ``[B, ...]`` for observations ``[B, ...]``, see ``rl.types.Agent.act``."""
        return _merged(
            (rows, self.members[name].act(take_rows(self.observation_space, observation, rows)))
            for name, rows in self.rows.items()
        )

    def observe(
        self, rewards: Any, terminated: Any, truncated: Any = False, final_observation: Any = None, ignored: Any = False
    ) -> None:
        """Take in what came of the last ``act``, each ``[B]``."""
        outcome = check_outcome(self.num_envs, rewards, terminated, truncated, ignored)
        for name, rows in self.rows.items():
            final = None if final_observation is None else take_rows(self.observation_space, final_observation, rows)
            member = self.members[name]
            member.observe(
                outcome.rewards[rows], outcome.terminated[rows], outcome.truncated[rows], final, outcome.ignored[rows]
            )

    def learn(self, next_observation: Any = None) -> float:
        """Let every member learn from its own rollout; return the mean of their losses."""
        losses = []
        for name, rows in self.rows.items():
            following = None if next_observation is None else take_rows(self.observation_space, next_observation, rows)
            losses.append(self.members[name].learn(following))
        return float(np.mean(losses))

    @property
    def network(self) -> nn.ModuleDict:
        """The networks of the members, by name."""
        return nn.ModuleDict({name: member.network for name, member in self.members.items()})

    @property
    def training(self) -> bool:
        """False plays without storing or learning, see ``rl.agents.agent.RecurrentAgent.training``."""
        return any(member.training for member in self.members.values())

    @training.setter
    def training(self, value: bool) -> None:
        for member in self.members.values():
            member.training = value

    @property
    def num_parameters(self) -> int:
        """Of all members."""
        return sum(member.num_parameters for member in self.members.values())

    def reset(self) -> None:
        """Close unfinished episodes and clear the memories of all members."""
        for member in self.members.values():
            member.reset()

    def describe(self) -> list[str]:
        """Say how each member encodes its observations and what its actions are, a line for each leaf."""
        return [f"{name}: {line}" for name, member in self.members.items() for line in member.describe()]

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

    def new_actor(self, num_envs: int, seed: int | None = None, memory: bool = True) -> "Actors":
        """Make actors in ``num_envs`` other rows, with the same seats."""
        rows = {name: self._rows_of(name, num_envs) for name in self.members}
        seeds = {n: None if seed is None else member_seed(seed, i) for i, n in enumerate(self.members)}
        actors = {n: m.new_actor(len(rows[n]), seeds[n], memory) for n, m in self.members.items()}
        return Actors(self.observation_space, actors, rows)

    def state_dict(self) -> dict[str, Any]:
        """Collect what each member needs to go on, by name, and what constructs the population around them."""
        states: dict[str, Any] = {name: member.state_dict() for name, member in self.members.items()}
        return states | {CONSTRUCTION: self.construction}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave.

        Raises:
            ValueError: the state is of other members, or an entry of one is missing or wrong; all are unchanged.
        """
        if not isinstance(state, dict) or state.keys() - {CONSTRUCTION} != self.members.keys():
            raise ValueError(f"the checkpoint is of other agents than {', '.join(self.members)}")
        for name, member in self.members.items():
            if isinstance(member, RecurrentAgent):
                try:
                    member.check_state(state[name])
                except ValueError as error:
                    raise ValueError(f"member {name}: {error}") from error
        for name, member in self.members.items():
            member.load_state_dict(state[name])

    @classmethod
    def rebuild(
        cls,
        state: Mapping[str, Any],
        device: str | torch.device,
        num_envs: int | None,
        trust: tuple[str, ...],
        changes: Mapping[str, Any],
    ) -> Self:
        """Construct a population from its ``state_dict``, its members from theirs, and let it play.

        Raises:
            ValueError: an argument cannot be made again.
        """

        def make(name: str, *spaces_of: spaces.Space, num_envs: int, **_: Any) -> Agent:
            try:
                member: Agent = agent_from_state(state[name], device, num_envs, trust, {})
            except ValueError as error:
                raise ValueError(f"member {name!r}: {error}") from error
            return member

        arguments = arguments_from_data(state[CONSTRUCTION], trust, {"device": str(device)} | dict(changes))
        arguments["num_envs"] = len(arguments["seats"]) if num_envs is None else num_envs
        members = {name: partial(make, name) for name in state if name != CONSTRUCTION}
        return cls(**arguments, members=members)


class Actors:
    """The actors of a population, see ``rl.types.Actor``.

    Args:
        observation_space: of ONE row.
        actors: of the members, by name.
        rows: that each of them plays.
    """

    def __init__(self, observation_space: spaces.Space, actors: dict[str, Actor], rows: dict[str, np.ndarray]):
        self.observation_space, self.actors, self.rows = observation_space, actors, rows

    def act(self, observation: Any, greedy: bool = False) -> np.ndarray:
        """Choose actions ``[B, ...]`` for observations ``[B, ...]``."""
        return _merged(
            (rows, self.actors[name].act(take_rows(self.observation_space, observation, rows), greedy))
            for name, rows in self.rows.items()
        )

    def observe(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        """Take in what came of the last ``act``, each ``[B]``."""
        for name, rows in self.rows.items():
            self.actors[name].observe(rewards[rows], ended[rows])

    def reset(self) -> None:
        """Begin an episode in every row; where outcomes are not told, the memories go on until then."""
        for actor in self.actors.values():
            actor.reset()


def member_seed(seed: int, index: int) -> int:
    """Draw the seed of the member at a place; other pairs of seed and place give other seeds.

    Were it ``seed + index``, a member of one run would be the next member of the run with the seed before.
    """
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def _merged(parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Put ``(rows, actions of these rows)`` of all members together: the actions of all rows, ``[B, ...]``."""
    rows, actions = zip(*parts, strict=True)
    whole = np.empty((sum(map(len, rows)), *actions[0].shape[1:]), dtype=np.result_type(*actions))
    for where, part in zip(rows, actions, strict=True):
        whole[where] = part
    return whole
