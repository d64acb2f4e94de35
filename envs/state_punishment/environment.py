"""The State Punishment game: the rules of a turn, for all agents of all worlds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from gymnasium import spaces

from envs.batched_env import BatchedEnv, check_integer
from envs.state_punishment import rules, statistics
from envs.state_punishment.actions import ACTION_SETS, DECREASE, INCREASE, NO_VOTE, ActionSet
from envs.state_punishment.bounds import known_returns
from envs.state_punishment.grid import PUNISHED_FOR, Grid, identities
from envs.state_punishment.menu import Menu
from envs.state_punishment.picture import draw
from envs.state_punishment.scalars import Scalars

PUNISHMENT_MODES = ("probabilistic", "deterministic")
RENDER_MODES = ("rgb_array",)


class StatePunishment(BatchedEnv):
    """N agents forage, each alone in a grid of its own; what couples them is one punishment level and the harm they do.

    Rows are agents: row = world * num_agents + agent, so `num_envs` is a multiple of `num_agents`. All agents of a
    world end together.

    A turn of a world: everything spawns; all agents observe; all act, one after another in an order that is drawn anew
    each turn (`random_order`, else by index). An agent first moves, then votes. Its punishment is decided at the level
    at which its turn comes: the votes of those before it count at once, its own does not. It pays its harm account as
    it stood when it observed, so the observed account is what it pays; the harm of all resources that others take in
    a turn is on the account in the next one.

    Reward: value of what was entered (a wall: -1 and no move; an empty cell: 0; a resource, which is consumed: its
    `values`) - punishment - harm account. Kind k is punished at level p with probability `q[s][k]`, where `q` is the
    `schedule` ("head", "seed", or "generated" by a rule) and s = min(round(9 p), 9), halves to even. Taking kind k puts
    `harms[k]` on the account of every other agent.
    `punishment_mode`: "probabilistic" (the magnitude with probability q, else 0) or "deterministic" (magnitude * q).
    `important_rule`: kind A is never punished. `delayed_punishment`: paid with the next action, whatever that is; what
    is pending when an episode ends is never paid.

    Level: `initial_level`, a number in [0, 1] or "random": one of s/9 for s = 0 ... 9, each as likely. A vote changes
    it by `vote_step`, within [0, 1] (rounded to 10 decimals, so that votes cancel exactly). `reset_level`: back to the
    initial one in each episode; else it lasts until `reset(seed=...)`. `votes=False` fixes it. `phased_voting=k`: turns
    1, k + 1, 2k + 1, ... are for voting only, all others for moving only.

    Grid: side `size` with a wall around; the agent and `initial_resources` on distinct free cells, uniformly. Each
    empty cell spawns with `respawn_prob` before every turn, as long as there are fewer than `max_resources` (None: no
    limit), a kind drawn from `spawn_probabilities`.
    Menu (`menu=True`, no grid): each turn `menu_size` arms, kinds drawn from `spawn_probabilities`; take one or leave.

    Action (moves 0 to 3: up, down, left, right; votes: 0 none, 1 increase, 2 decrease; M = `menu_size`):
    "dual": `MultiDiscrete([4, 3])`, move and vote; "factored": `MultiDiscrete([5, 3])`, where move 4 stays;
    "simple": `Discrete(7)`, the moves, vote to increase, vote to decrease, nothing;
    "composite": `Discrete(13)`, 3 * move + vote, or 12 nothing.
    In the menu move i < M takes arm i: dual and factored `MultiDiscrete([M + 1, 3])`, where move M leaves; simple
    `Discrete(M + 3)`: the arms, leave, vote to increase, vote to decrease; composite `Discrete(3 M + 1)`.

    Observation: `Dict` of a picture and float32 `scalars`, or with `flat` one float32 vector, the picture (channels
    first) followed by the scalars. Picture `image` of the cells within `view_radius`: "slot", float32 `[27, V, V]`
    (0 empty, 1 me, 2 wall, 3 sand, 4-8 A-E, 9 other, 10-25 my identity, 26 I was punished in the last 2 turns, the
    last 17 in my cell; topmost object only), or "onehot", uint8 `[9, V, V]` (0 empty, 1 wall, 2 sand, 3-7 A-E, 8 agent;
    the layers added up: the wall around the grid counts 2, all outside of it 1). Channels 0 and 9 stay 0: free cells
    are sand, others are in other grids. Or `menu`, uint8 `[M, 5]`, the kind of each arm.
    Scalars: the level if `level_visible` else 0; the harm account if `harm_visible` else 0; 1 in a turn that is for
    voting only, but without `phased_voting` the place of `punishment_visible`: 1 if the last action paid a punishment
    (with both, that comes fourth); with `observe_others_punished` the same about each other agent, by index.

    End: truncated after `max_turns`.
    Optimal and memoryless return: known for one harmless kind in a menu of one at a level that never changes, as
    `envs.state_punishment.bounds.known_returns` says; else None.
    Source: github.com/social-ai-uoft/sorrel, examples/state_punishment (values and rules; written afresh).
    """

    metadata: ClassVar[dict[str, Any]] = {**BatchedEnv.metadata, "render_modes": list(RENDER_MODES), "render_fps": 5}
    state_names = ("level", "account", "pending", "recent", "last_votes", "cells", "position")
    state_names += ("tally", "finished", "by_level")

    def __init__(
        self,
        num_envs: int,
        num_agents: int = 3,
        size: int = 10,
        view_radius: int = 4,
        initial_resources: int = 8,
        max_resources: int | None = None,
        respawn_prob: float = 0.0,
        spawn_probabilities: Sequence[float] = (0.2, 0.2, 0.2, 0.2, 0.2),
        values: Sequence[float] = (20.0, 10.0, 10.0, 10.0, 10.0),
        harms: Sequence[float] = (5.0, 0.0, 0.0, 0.0, 0.0),
        schedule: Literal["head", "seed", "generated"] = "head",
        punishment_mode: Literal["probabilistic", "deterministic"] = "probabilistic",
        punishment_magnitude: float = 25.0,
        important_rule: bool = False,
        delayed_punishment: bool = False,
        initial_level: float | Literal["random"] = 0.0,
        vote_step: float = 0.1,
        reset_level: bool = True,
        votes: bool = True,
        phased_voting: int | None = None,
        random_order: bool = True,
        level_visible: bool = True,
        harm_visible: bool = True,
        punishment_visible: bool = False,
        observe_others_punished: bool = False,
        observation: Literal["slot", "onehot"] = "slot",
        flat: bool = False,
        actions: Literal["dual", "simple", "composite", "factored"] = "dual",
        menu: bool = False,
        menu_size: int = 3,
        max_turns: int = 100,
        render_mode: Literal["rgb_array"] | None = None,
    ):
        self.num_agents = check_integer("num_agents", num_agents, 1)
        if check_integer("num_envs", num_envs, 1) % self.num_agents:
            raise ValueError(f"num_envs must be a multiple of num_agents, got {num_envs} and {num_agents}.")
        self.worth, self.harm, self.punished = rules.event_tables(schedule, values, harms, important_rule)
        self.probabilistic = rules.one_of("punishment_mode", punishment_mode, PUNISHMENT_MODES) == "probabilistic"
        self.magnitude = rules.number("punishment_magnitude", punishment_magnitude, low=0)
        if isinstance(initial_level, str) and initial_level != "random":
            raise ValueError(f"initial_level must be a number from 0 to 1 or random, got {initial_level!r}.")
        random_level = initial_level == "random"
        self.initial_level = None if random_level else rules.number("initial_level", initial_level, 0, 1)
        self.vote_step = rules.number("vote_step", vote_step, 0, 1)
        self.phased_voting = None if phased_voting is None else check_integer("phased_voting", phased_voting, 1)
        self.delayed_punishment, self.reset_level, self.votes = delayed_punishment, reset_level, votes
        self.random_order, self.flat = random_order, flat
        self.chances = rules.probabilities("spawn_probabilities", spawn_probabilities)
        if menu:
            self.board = Menu(check_integer("menu_size", menu_size, 1), self.chances)
        else:
            stocks = (initial_resources, max_resources, respawn_prob, self.chances)
            self.board = Grid(size, view_radius, observation, *stocks)
        self.scalars = Scalars(
            self.num_agents,
            ((self.num_agents - 1) * self.harm.min(), (self.num_agents - 1) * self.harm.max()),
            level=level_visible,
            account=harm_visible,
            phased=self.phased_voting is not None,
            punishment=punishment_visible,
            others=observe_others_punished,
        )
        self.action_set = ActionSet(rules.one_of("actions", actions, ACTION_SETS), menu_size if menu else None)
        self.action_names = self.action_set.branch_names
        self.render_mode = None if render_mode is None else rules.one_of("render_mode", render_mode, RENDER_MODES)
        turns = check_integer("max_turns", max_turns, 1)
        super().__init__(num_envs, self._observation_space(), self.action_set.space, turns)
        self._make_state()
        self.optimal_return, self.memoryless_return = known_returns(self)

    def _observation_space(self) -> spaces.Space:
        picture, scalars = self.board.space, self.scalars.space
        if not self.flat:
            return spaces.Dict({self.board.leaf: picture, "scalars": scalars})
        ends = [
            np.append(one.ravel(), other).astype(np.float32)
            for one, other in ((picture.low, scalars.low), (picture.high, scalars.high))
        ]
        return spaces.Box(*ends)

    def _make_state(self) -> None:
        rows, agents = self.num_envs, self.num_agents
        self.level = np.full(rows // agents, np.nan)  # NaN: to be drawn
        self.account, self.pending = np.zeros(rows), np.zeros(rows)  # to be paid with the next action
        self.recent = np.zeros(rows, dtype=np.int64)  # turns for which the last punishment remains to be shown
        self.last_votes = np.zeros(rows, dtype=np.int64)
        self.cells = np.zeros((rows, *self.board.shape), dtype=np.int8)
        self.position = np.zeros(rows, dtype=np.int64)
        self.tally = statistics.empty_tally(len(self.action_set.names), rows)
        self.finished = statistics.empty_tally(len(self.action_set.names), agents)
        self.by_level = np.zeros((rules.NUM_LEVELS, 2))
        self._identity = np.tile(identities(agents), (len(self.level), 1))  # [R, 16]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As in `BatchedEnv`. A seed also restarts a level that lasts, and clears the statistics."""
        if seed is not None:
            self.level[:] = np.nan
            self.finished[:] = self.by_level[:] = 0
        return super().reset(seed=seed, options=options)

    def _start(self, rows: np.ndarray) -> None:
        worlds = rows[:: self.num_agents] // self.num_agents  # the agents of a world always start together
        if not self.reset_level:
            worlds = worlds[np.isnan(self.level[worlds])]
        if self.initial_level is None:
            self.level[worlds] = self.np_random.integers(rules.NUM_LEVELS, size=len(worlds)) / (rules.NUM_LEVELS - 1)
        else:
            self.level[worlds] = self.initial_level
        for array in (self.account, self.pending, self.recent, self.last_votes):
            array[rows] = 0
        self.tally[:, rows] = 0
        self.cells[rows], self.position[rows] = self.board.start(self.np_random, len(rows))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        codes, moves, votes = self.action_set.decode(actions)
        if self.phased_voting is not None:
            voting = self._voting_turn()
            moves, votes = np.where(voting, self.action_set.rest, moves), np.where(voting, votes, NO_VOTE)
        if not self.votes:
            votes = np.zeros_like(votes)
        levels = rules.level_index(self._vote(votes))  # [R]
        events, self.position = self.board.act(self.cells, self.position, moves)

        chance = self.punished.take(levels * rules.NUM_EVENTS + events)
        if self.probabilistic:
            chance = self.np_random.random(self.num_envs) < chance
        punishment = self.magnitude * chance
        paid, self.pending = (self.pending, punishment) if self.delayed_punishment else (punishment, self.pending)
        rewards = self.worth.take(events) - paid - self.account
        self.recent = np.where(paid > 0, PUNISHED_FOR, np.maximum(self.recent - 1, 0))
        self._count(codes, events, votes, levels, rewards)
        harm = self.harm.take(events).reshape(-1, self.num_agents)
        self.account = (harm.sum(axis=1, keepdims=True) - harm).ravel()
        self.last_votes = votes
        self.board.next_turn(self.np_random, self.cells, self.position)
        return rewards, np.zeros(self.num_envs, dtype=np.bool_)

    def _voting_turn(self) -> np.ndarray:
        """Whether the coming turn is for voting only, bool `[R]`."""
        return self.elapsed_steps % self.phased_voting == 0

    def _vote(self, votes: np.ndarray) -> np.ndarray:
        """Lets the agents vote in turn, votes `[R]`: the level that each one finds, `[R]`."""
        if not votes.any():
            return np.repeat(self.level, self.num_agents)
        change = (self.vote_step * ((votes == INCREASE) * 1.0 - (votes == DECREASE))).reshape(-1, self.num_agents)
        found = np.empty_like(change)  # [W, N]
        order = np.broadcast_to(np.arange(self.num_agents), change.shape)
        if self.random_order:
            order = np.argsort(self.np_random.random(change.shape), axis=1)
        worlds = np.arange(len(change))
        for agent in order.T:  # of each world, [W]
            found[worlds, agent] = self.level
            self.level = np.clip(np.round(self.level + change[worlds, agent], 10), 0, 1)
        return found.ravel()

    def _observe(self) -> Any:
        picture = self.board.space
        area = int(np.prod(picture.shape))
        width, dtype = (area + self.scalars.size, np.float32) if self.flat else (area, picture.dtype)
        out = np.zeros((self.num_envs, width), dtype=dtype)
        self.board.paint(out, self.cells, self.position, self._identity, self.recent > 0)
        voting = self._voting_turn() if self.phased_voting is not None else None
        scalars = self.scalars.observe(self.level, self.account, voting, self.recent)
        if not self.flat:
            return {self.board.leaf: out.reshape(self.num_envs, *picture.shape), "scalars": scalars}
        out[:, area:] = scalars
        return out

    def _count(
        self, codes: np.ndarray, events: np.ndarray, votes: np.ndarray, levels: np.ndarray, rewards: np.ndarray
    ) -> None:
        """Adds a turn to the statistics, before the account is settled. All `[R]`; `levels` are indices."""
        level = np.repeat(self.level, self.num_agents)
        tally = self.tally
        tally[statistics.SCORE] += rewards
        tally[statistics.HARM] += self.account
        tally[statistics.PUNISHMENTS] += self.recent == PUNISHED_FOR
        tally[statistics.LEVEL] += level
        tally[statistics.INCREASES] += votes == INCREASE
        tally[statistics.DECREASES] += votes == DECREASE
        statistics.count_events(tally, events, codes)
        statistics.count_by_level(self.by_level, levels, events)
        ends = self.elapsed_steps + 1 >= self.max_episode_steps
        if ends.any():
            tally[statistics.LAST_LEVEL] = level
            tally[statistics.EPISODES] = 1
            self.finished += (tally * ends).reshape(len(tally), -1, self.num_agents).sum(axis=1)

    def drain_statistics(self) -> dict[str, float]:
        """The game's metrics since the last call, cleared: averages over the episodes of worlds that ended since then.

        `Agent_i/NAME` is the sum over an episode of agent i, `Total/total_NAME` of all agents of a world, and
        `Mean/mean_NAME` that divided by the number of agents. NAME: `individual_score` (rewards),
        `social_harm_received` (paid), `punishments` (paid ones), `<entity>_encounters` (moves to a, b, c, d, e,
        emptyentity, wall), `action_freq_<action>` (chosen, executed or not; `action_set.names`).
        `Global/average_punishment_level` is the mean of the level after each turn, `Global/current_punishment_level`
        the level at the end of the episode, `Global/vote_increase`, `vote_decrease` and `total_votes` count the votes
        of a world's episode that were executed. `Global/a_rate_level_s`: the share of A among the resources taken
        at level index s, in all turns since the last call; levels at which none was taken are left out.
        Nothing at all if no episode has ended since the last call.
        """
        result = statistics.tags(self.finished, self.by_level, self.action_set.names, self.max_episode_steps)
        if result:
            self.finished[:] = self.by_level[:] = 0
        return result

    def render(self) -> tuple[np.ndarray, ...] | None:
        """With `render_mode="rgb_array"` a tuple of one frame, uint8 `[H, W, 3]` of world 0; else None.

        `gymnasium.vector` asks for a tuple of frames; there is one, since a frame shows the agents of a whole world.
        """
        if self.render_mode is None:
            return None
        agents = slice(self.num_agents)
        codes = self.board.drawing(self.cells[agents], self.position[agents])
        return (draw(codes, self.level[0], self.last_votes[agents], self.recent[agents] == PUNISHED_FOR),)
