"""PettingZoo's parallel environments as one SAME_STEP vector environment with a row for every agent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from envs.batched_env import SAME_STEP
from envs.checks import positive

World = Any
"""A parallel environment. Typed loosely, since PettingZoo need not be installed."""

MARKING_STEPS: dict[str, Any] = {**SAME_STEP, "ignores_steps": True}
"""Metadata that let ``info["ignored"]`` mark steps that are no transitions."""


class AgentRows(VectorEnv):
    """A vector environment of worlds of ``num_agents`` (A) agents, one row for each agent, with SAME_STEP autoreset.

    Row ``world * A + agent`` belongs to one agent, in the order of ``possible_agents``. Agents of one world may come
    and go at different times. While the agent of a row does not live, before its first observation or after its last
    step, the row idles: its action is not used, it observes and earns zero, nothing ends. Such a step is no transition,
    and ``info["ignored"]`` (bool ``[B]``, only in steps with an idle row) is True there. The observation that ends the
    idling is the first one of an episode.

    A world in which no agent lives any more is reset in the same step, all its rows at once. ``info["final_obs"]`` has
    the full batched shape and is valid where ``info["_final_obs"]`` (bool ``[B]``) is True: in rows whose episode
    ended. Both exist only in steps in which some row ended. The worlds' own infos are dropped. The worlds are stepped
    one after another. ``render`` draws as the worlds do.

    Args:
        make_world: makes one parallel environment.
        num_envs: B, a multiple of A.
        name: of the environment, for messages.

    Raises:
        ValueError: ``num_envs`` is no multiple of A, the agents are not known beforehand, or their spaces differ.
    """

    metadata = MARKING_STEPS

    def __init__(self, make_world: Callable[[], World], num_envs: int, name: str = "the environment"):
        positive(num_envs=num_envs)
        self.num_envs = int(num_envs)
        self.worlds = [make_world()]
        try:
            self.possible_agents = _agents(self.worlds[0], name)
            self.num_agents = len(self.possible_agents)
            if num_envs % self.num_agents:
                allowed = f"a multiple of {self.num_agents}, the number of agents of {name}: every agent is a row"
                raise ValueError(f"num_envs={num_envs}: it must be {allowed}")
            single = _shared_spaces(self.worlds[0], self.possible_agents, name)
            self.single_observation_space, self.single_action_space = single
            told: Any = getattr(self.worlds[0], "metadata", {})
            self.metadata = {
                **MARKING_STEPS,
                **{key: told[key] for key in ("render_modes", "render_fps") if key in told},
            }
            self.render_mode = getattr(self.worlds[0], "render_mode", None)
            self.worlds += [make_world() for _ in range(num_envs // self.num_agents - 1)]
        except BaseException:
            self.close()
            raise
        self.observation_space, self.action_space = (batch_space(space, self.num_envs) for space in single)
        self.living = np.zeros(num_envs, dtype=np.bool_)  # rows whose next action counts
        self._rows = [
            {agent: world * self.num_agents + index for index, agent in enumerate(self.possible_agents)}
            for world in range(len(self.worlds))
        ]
        zeros = create_empty_array(self.single_observation_space, self.num_envs)
        self._nothing = next(iter(iterate(self.observation_space, zeros)))
        self._observed = [self._nothing] * self.num_envs
        self._seeds: list[np.random.Generator] = []  # one for each world, from the first reset on

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start every world anew.

        Args:
            seed: world w is reset with ``seed + w``; from then on each of its episodes, and a reset without a seed,
                has a seed drawn from a generator of its own.
            options: go to this reset of each world.

        Returns:
            The first observations ``[B, ...]`` and an empty info.
        """
        if seed is not None or not self._seeds:
            own = [None if seed is None else seed + world for world in range(len(self.worlds))]
            self._seeds = [np.random.default_rng(number) for number in own]
        for world in range(len(self.worlds)):
            self._restart(world, self._fresh_seed(world) if seed is None else seed + world, options)
        return self._batch(), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row, and restart the worlds in which no agent lives any more.

        An agent that its world drops without a flag is taken for terminated.

        Args:
            actions: of the batched action space, ``[B, ...]``.

        Returns:
            Observations ``[B, ...]``, rewards ``[B]``, terminated ``[B]``, truncated ``[B]`` and the info.

        Raises:
            ResetNeeded: ``reset`` was never called.
        """
        if not self._seeds:
            raise ResetNeeded("Call reset() before step().")
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=np.bool_)
        info: dict[str, Any] = {} if self.living.all() else {"ignored": ~self.living}
        single_actions = list(iterate(self.action_space, actions))
        for world, rows in zip(self.worlds, self._rows, strict=True):
            acted = {agent: row for agent, row in rows.items() if self.living[row]}
            observed, earned, ends, cuts, _ = world.step({agent: single_actions[row] for agent, row in acted.items()})
            present = set(world.agents)
            for agent, row in rows.items():
                end, cut = bool(ends.get(agent, False)), bool(cuts.get(agent, False))
                self.living[row] = agent in present and not (end or cut)
                if agent in acted:
                    rewards[row] = earned.get(agent, 0.0)
                    truncated[row] = cut
                    terminated[row] = end or not (cut or self.living[row])
                if agent in observed and (agent in acted or self.living[row]):
                    self._observed[row] = observed[agent]
        ended = terminated | truncated
        if ended.any():
            info |= {"final_obs": self._batch(), "_final_obs": ended}
            self._go_on(np.flatnonzero(ended))
        return self._batch(), rewards, terminated, truncated, info

    def render(self) -> tuple[Any, ...] | None:
        """Draw every world as it is now, a picture each; None without a ``render_mode``.

        ``gymnasium.vector`` asks for a tuple of pictures; there is one for each world, since it shows all of its rows.
        """
        return None if self.render_mode is None else tuple(world.render() for world in self.worlds)

    def _go_on(self, ended: np.ndarray) -> None:
        """Let the rows that ``ended`` (int ``[n]``) idle, or restart their world if none of its agents lives."""
        for row in ended:
            if not self.living[row]:
                self._observed[row] = self._nothing
        for world in np.unique(ended // self.num_agents):
            if not self.living[list(self._rows[world].values())].any():
                self._restart(world, self._fresh_seed(world))

    def _restart(self, world: int, seed: int, options: dict[str, Any] | None = None) -> None:
        observed, _ = self.worlds[world].reset(seed=seed, options=options)
        present = set(self.worlds[world].agents)
        for agent, row in self._rows[world].items():
            self.living[row] = agent in present
            self._observed[row] = observed[agent] if agent in present else self._nothing

    def _fresh_seed(self, world: int) -> int:
        return int(self._seeds[world].integers(2**31))

    def _batch(self) -> Any:
        """Collect what every row observes in a new array, or structure of arrays, ``[B, ...]``."""
        space = self.single_observation_space
        out: Any = create_empty_array(space, self.num_envs)
        return concatenate(space, self._observed, out)

    def close_extras(self, **kwargs: Any) -> None:
        """Close every world; ``close`` calls this."""
        for world in self.worlds:
            world.close()


def _agents(world: World, name: str) -> tuple[Any, ...]:
    """Return all agents that may ever live. A copy, since some environments take the dead out of their own list.

    Raises:
        ValueError: the world does not know them beforehand.
    """
    agents = tuple(getattr(world, "possible_agents", ()))
    if not agents:
        raise ValueError(f"{name} has no possible_agents: each of its agents must be known beforehand to be a row")
    return agents


def _shared_spaces(world: World, agents: Sequence[Any], name: str) -> tuple[spaces.Space, spaces.Space]:
    """Return the observation space and the action space that all agents have.

    Raises:
        ValueError: the agents' spaces differ.
    """
    first = agents[0]
    for kind, wrapper in (("observation", "pad_observations_v0"), ("action", "pad_action_space_v0")):
        space_of = getattr(world, f"{kind}_space")
        for agent in agents[1:]:
            if space_of(agent) != space_of(first):
                raise ValueError(
                    f"the agents of {name} must have equal {kind} spaces, but {first} has {space_of(first)} and "
                    f"{agent} {space_of(agent)}: pad them with wrappers=[supersuit.{wrapper}]"
                )
    return world.observation_space(first), world.action_space(first)
