"""PettingZoo's parallel environments as one SAME_STEP vector environment with a row for every agent."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from envs.batched_env import check_integer
from envs.gymnasium_env import resolve_wrapper

# A parallel environment, and what makes another one of it. Typed loosely, since PettingZoo need not be installed.
World = Any
Wrapper = Callable[[World], World]

EXTRA = ("pettingzoo", "mpe2", "supersuit", "pygame", "pymunk")  # the packages that the extra `multiagent` brings


def make_pettingzoo(
    id: str, num_envs: int, wrappers: Sequence[Wrapper | str | Mapping[str, Any]] = (), **kwargs: Any
) -> AgentRows:
    """Build as many worlds of the parallel environment `id` as have `num_envs` agents in all.

    `id` is the dotted path of a module with a `parallel_env`, "mpe2.simple_spread_v3" say, or, with a slash, an id of
    PettingZoo's own registry, "butterfly/pistonball-v6" say. `wrappers` are applied to every world, in order; each is a
    callable, the dotted path of one, or a mapping with the dotted path under `path` (or `_target_`) and the wrapper's
    keyword arguments beside it. `kwargs` go to the environment.

    A ValueError says what is unknown or does not fit, a ModuleNotFoundError which package is missing.
    """
    make = _constructor(id)
    resolved = [resolve_wrapper(wrapper) for wrapper in wrappers]

    def world() -> World:
        made = make(**kwargs)
        for wrapper in resolved:
            made = wrapper(made)
        return made

    return AgentRows(world, num_envs, id)


def _constructor(id: str) -> Callable[..., World]:
    """What makes a world of `id`."""
    if "/" in id:
        pettingzoo = _imported("pettingzoo", id)
        known = getattr(pettingzoo, "parallel_registry", {})
        if id not in known:
            raise ValueError(f"PettingZoo has no parallel environment {id!r}{_nearest(id, known)}.")
        entry_point = known[id].entry_point
        if isinstance(entry_point, str):
            _imported(entry_point.partition(":")[0], id)
        return partial(pettingzoo.make, "parallel", id)
    module = _imported(id, id)
    if not hasattr(module, "parallel_env"):
        raise ValueError(f"{id} has no parallel_env: only environments in which all agents act at once can be rows.")
    return module.parallel_env


def _imported(path: str, id: str) -> ModuleType:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = error.name or path
        package, _, name = missing.rpartition(".")
        if package and f"{path}.".startswith(f"{missing}."):
            siblings = [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
            raise ValueError(f"There is no module {missing}{_nearest(name, siblings)}.") from error
        root = missing.partition(".")[0]
        hint = ': pip install "recurrent-ppo[multiagent]"' if root in EXTRA else ""
        raise ModuleNotFoundError(
            f"{id} needs the package {root}, which is not installed{hint}.", name=missing
        ) from error


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; the nearest known are {', '.join(close)}" if close else ""


class AgentRows(VectorEnv):
    """Worlds of `num_agents` (A) agents, stepped one after another, in `num_envs` (B) rows with SAME_STEP autoreset.

    Row `world * A + agent` belongs to one agent, in the order of `possible_agents`. Agents of one world may come and go
    at different times. While the agent of a row does not live, before its first observation or after its last step, the
    row idles: its action is not used, it observes and earns zero, nothing ends. Such a step is no transition, and
    `info["ignored"]` (bool `[B]`, only in steps with an idle row) is True there. The observation that ends the idling
    is the first one of an episode.

    A world in which nobody lives any more is reset in the same step, all its rows at once. `info["final_obs"]` has the
    full batched shape and is valid where `info["_final_obs"]` (bool `[B]`) is True: in rows whose episode ended. Both
    exist only in steps in which some row ended. The worlds' own infos are dropped.

    Args:
        make_world: makes one parallel environment.
        num_envs: B, a multiple of A.
        name: of the environment, for messages.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, make_world: Callable[[], World], num_envs: int, name: str = "the environment"):
        self.num_envs = check_integer("num_envs", num_envs, 1)
        self.worlds = [make_world()]
        try:
            self.possible_agents = _agents(self.worlds[0], name)
            self.num_agents = len(self.possible_agents)
            if num_envs % self.num_agents:
                raise ValueError(
                    f"num_envs={num_envs} must be a multiple of {self.num_agents}, the number of agents of {name}: "
                    "every agent is a row."
                )
            single = _shared_spaces(self.worlds[0], self.possible_agents, name)
            self.single_observation_space, self.single_action_space = single
            self.worlds += [make_world() for _ in range(num_envs // self.num_agents - 1)]
        except BaseException:
            self.close()
            raise
        self.observation_space, self.action_space = (batch_space(space, num_envs) for space in single)
        self.living = np.zeros(num_envs, dtype=np.bool_)  # whose next action counts
        self._rows = [
            {agent: world * self.num_agents + index for index, agent in enumerate(self.possible_agents)}
            for world in range(len(self.worlds))
        ]
        zeros = create_empty_array(self.single_observation_space, num_envs)
        self._nothing = next(iter(iterate(self.observation_space, zeros)))
        self._observed = [self._nothing] * num_envs
        self._seeds: list[np.random.Generator] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start every world anew: observations `[B, ...]`.

        World w is reset with `seed + w`; from then on each of its episodes, and a reset without a seed, has a seed
        drawn from a generator of its own. `options` go to this reset of each world.
        """
        if seed is None and self._seeds is not None:
            firsts = [self._fresh_seed(world) for world in range(len(self.worlds))]
        else:
            own = [None if seed is None else seed + world for world in range(len(self.worlds))]
            self._seeds = [np.random.default_rng(number) for number in own]
            firsts = own if seed is not None else [self._fresh_seed(world) for world in range(len(self.worlds))]
        for world, first in enumerate(firsts):
            self._restart(world, first, options)
        return self._batch(), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Act in every row: observations, rewards `[B]`, terminated `[B]`, truncated `[B]`, info.

        An agent that its world drops without a flag is taken for terminated.
        """
        if self._seeds is None:
            raise ResetNeeded("Call reset() before step().")
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=np.bool_)
        info = {} if self.living.all() else {"ignored": ~self.living}
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

    def _go_on(self, ended: np.ndarray) -> None:
        """The rows that `ended` (int `[n]`) idle, or begin a new episode if nobody lives in their world."""
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
        """What every row observes, as a new array or structure of arrays `[B, ...]`."""
        space = self.single_observation_space
        return concatenate(space, self._observed, create_empty_array(space, self.num_envs))

    def close_extras(self, **kwargs: Any) -> None:
        for world in self.worlds:
            world.close()


def _agents(world: World, name: str) -> tuple[Any, ...]:
    """All agents that may ever live. A copy, since some environments take the dead out of their own list."""
    agents = tuple(getattr(world, "possible_agents", ()))
    if not agents:
        raise ValueError(f"{name} has no possible_agents: each of its agents must be known beforehand to be a row.")
    return agents


def _shared_spaces(world: World, agents: Sequence[Any], name: str) -> tuple[spaces.Space, spaces.Space]:
    """The observation and the action space that all agents have."""
    first = agents[0]
    for kind, wrapper in (("observation", "pad_observations_v0"), ("action", "pad_action_space_v0")):
        space_of = getattr(world, f"{kind}_space")
        for agent in agents[1:]:
            if space_of(agent) != space_of(first):
                raise ValueError(
                    f"the agents of {name} must have equal {kind} spaces, but {first} has {space_of(first)} and "
                    f"{agent} {space_of(agent)}: pad them with wrappers=[supersuit.{wrapper}]."
                )
    return world.observation_space(first), world.action_space(first)
