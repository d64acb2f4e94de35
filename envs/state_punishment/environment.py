"""The State Punishment game: the rules of a turn, for all agents of all worlds at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import positive
from envs.drawing import RenderMode
from envs.state_punishment import bounds, rules, statistics
from envs.state_punishment.actions import ActionSet
from envs.state_punishment.grid import PUNISHED_FOR, Grid, identities
from envs.state_punishment.menu import Menu
from envs.state_punishment.picture import draw
from envs.state_punishment.scalars import Scalars
from envs.state_punishment.voting import Voting


class StatePunishment(BatchedEnv):
    """N agents forage, each alone in a grid of its own; they share one punishment level, and harm each other.

    Rows are agents: row = world * num_agents + agent, so ``num_envs`` is a multiple of ``num_agents``. All agents of a
    world end together.

    A turn of a world: everything spawns; all agents observe; all act, one after another in an order that is drawn anew
    each turn (``random_order``, else by index). An agent first moves, then votes. Its punishment is decided at the
    level at which its turn comes: the votes of those before it count at once, its own does not. It pays its harm
    account as it stood when it observed, so the observed account is what it pays; the harm of all resources that others
    take in a turn is on the account in the next one.

    Reward: value of what was entered (a wall: -1 and no move; an empty cell: 0; a resource, which is consumed: its
    ``values``) - punishment - harm account. Kind k is punished at level p with probability ``q[s][k]``, where ``q`` is
    the ``schedule`` ("head", "seed", or "generated" by a rule) and s = min(round(9 p), 9), halves to even. Taking kind
    k puts ``harms[k]`` on the account of every other agent.
    ``punishment_mode``: "probabilistic" (the magnitude with probability q, else 0) or "deterministic" (magnitude * q).
    ``important_rule``: kind A is never punished. ``delayed_punishment``: paid with the next action, whatever that is;
    what is pending when an episode ends is never paid.

    Level: ``initial_level``, a number in [0, 1] or "random": one of s/9 for s = 0 ... 9, each as likely. A vote changes
    it by ``vote_step``, within [0, 1] (rounded to 10 decimals, so that votes cancel exactly). ``reset_level``: back to
    the initial one in each episode; else it lasts until ``reset(seed=...)``. ``votes=False`` fixes it.
    ``phased_voting=k``: turns 1, k + 1, 2k + 1, ... are for voting only, all others for moving only.

    Grid: side ``size`` with a wall around; the agent and ``initial_resources`` on distinct free cells, uniformly. Each
    empty cell spawns with ``respawn_prob`` before every turn, as long as there are fewer than ``max_resources`` (None:
    no limit), a kind drawn from ``spawn_probabilities``.
    Menu (``menu=True``, no grid): each turn ``menu_size`` arms, kinds drawn from ``spawn_probabilities``; take one or
    leave.

    Action (moves 0 to 3: up, down, left, right; votes: 0 none, 1 increase, 2 decrease; M = ``menu_size``):
    "dual": ``MultiDiscrete([4, 3])``, move and vote; "factored": ``MultiDiscrete([5, 3])``, where move 4 stays;
    "simple": ``Discrete(7)``, the moves, vote to increase, vote to decrease, nothing;
    "composite": ``Discrete(13)``, 3 * move + vote, or 12 nothing.
    In the menu move i < M takes arm i: dual and factored ``MultiDiscrete([M + 1, 3])``, where move M leaves; simple
    ``Discrete(M + 3)``: the arms, leave, vote to increase, vote to decrease; composite ``Discrete(3 M + 1)``.

    Observation: ``Dict`` of a picture and float32 ``scalars``, or with ``flat`` one float32 vector, the picture
    (channels first) followed by the scalars. Picture ``image`` of the cells within ``view_radius``: "slot", float32
    ``[27, V, V]`` (0 empty, 1 me, 2 wall, 3 sand, 4-8 A-E, 9 other, 10-25 my identity, 26 I was punished in the last 2
    turns, the last 17 in my cell; topmost object only), or "onehot", uint8 ``[9, V, V]`` (0 empty, 1 wall, 2 sand, 3-7
    A-E, 8 agent; the layers added up: the wall around the grid counts 2, all outside of it 1). Channels 0 and 9 stay 0:
    free cells are sand, others are in other grids. Or ``menu``, uint8 ``[M, 5]``, the kind of each arm.
    Scalars: the level if ``level_visible`` else 0; the harm account if ``harm_visible`` else 0; 1 in a turn that is for
    voting only, but without ``phased_voting`` the place of ``punishment_visible``: 1 if the last action paid a
    punishment (with both, that comes fourth); with ``observe_others_punished`` the same about each other agent, by
    index.

    End: truncated after ``max_turns``.
    Optimal and memoryless return: known for one harmless kind in a menu of one at a level that never changes, as
    ``envs.state_punishment.bounds.known_returns`` says; else None.
    Source: github.com/social-ai-uoft/sorrel, examples/state_punishment (values and rules; written afresh).
    """

    metadata = DRAWN
    state_names: tuple[str, ...] = ("level", "account", "pending", "recent", "last_votes", "cells", "position")
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
        render_mode: RenderMode = None,
    ):
        positive(num_agents=num_agents, num_envs=num_envs, max_turns=max_turns)
        if num_envs % num_agents:
            raise ValueError(f"num_envs={num_envs}: it must be a multiple of num_agents={num_agents}")
        self.num_agents, self.max_turns = int(num_agents), int(max_turns)
        self.flat, self.delayed_punishment = flat, delayed_punishment
        self.payoffs = rules.Payoffs(schedule, values, harms, important_rule, punishment_mode, punishment_magnitude)
        self.voting = Voting(self.num_agents, initial_level, vote_step, reset_level, votes, phased_voting, random_order)
        self.chances = rules.probabilities("spawn_probabilities", spawn_probabilities)
        stocks = (initial_resources, max_resources, respawn_prob, self.chances)
        self.board = Menu(menu_size, self.chances) if menu else Grid(size, view_radius, observation, *stocks)
        self.scalars = Scalars(
            self.num_agents,
            self.payoffs.harm,
            level=level_visible,
            account=harm_visible,
            phased=phased_voting is not None,
            punishment=punishment_visible,
            others=observe_others_punished,
        )
        self.action_set = ActionSet(actions, menu_size if menu else None)
        self.action_names = self.action_set.branch_names
        space = self._observation_space()
        super().__init__(num_envs, space, self.action_set.space, self.max_turns, render_mode=render_mode)
        self._make_state()
        self.optimal_return, self.memoryless_return = self._known_returns()

    def _observation_space(self) -> spaces.Space:
        picture, scalars = self.board.space, self.scalars.space
        if not self.flat:
            return spaces.Dict({self.board.leaf: picture, "scalars": scalars})
        low = np.append(picture.low.ravel(), scalars.low).astype(np.float32)
        return spaces.Box(low, np.append(picture.high.ravel(), scalars.high).astype(np.float32))

    def _known_returns(self) -> tuple[float | None, float | None]:
        """Return the optimal and the memoryless return of an agent, each None where it is not known.

        They are known for a menu of one arm that is always of the same kind, if the level cannot change, punishments
        are paid at once and no agent can be harmed.
        """
        kind = int(self.chances.argmax())
        one_arm = isinstance(self.board, Menu) and self.board.size == 1 and self.chances[kind] == 1
        harmless = self.num_agents == 1 or self.payoffs.harm[rules.FIRST_KIND + kind] == 0
        if not (one_arm and harmless and self.voting.is_fixed()) or self.delayed_punishment:
            return None, None
        return bounds.known_returns(
            self.payoffs.net_values()[:, kind],
            self.payoffs.chances()[:, kind],
            self.voting.prior(),
            self.max_turns,
            level_known=self.scalars.level or self.voting.initial_level is not None,
            punishment_visible=self.scalars.punishment is not None,
            others_visible=self.scalars.others and self.num_agents > 1,
            probabilistic=self.payoffs.probabilistic,
        )

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
        """Start a new episode in every world, as in ``BatchedEnv``.

        Args:
            seed: restarts the generator and a level that lasts, and clears the statistics.
            options: none exist; whatever is given is not used.
        """
        if seed is not None:
            self.level[:] = np.nan
            self.finished[:] = self.by_level[:] = 0
        return super().reset(seed=seed, options=options)

    def _start(self, rows: np.ndarray) -> None:
        worlds = rows[:: self.num_agents] // self.num_agents  # the agents of a world always start together
        self.voting.start(self.np_random, self.level, worlds)
        for array in (self.account, self.pending, self.recent, self.last_votes):
            array[rows] = 0
        self.tally[:, rows] = 0
        self.cells[rows], self.position[rows] = self.board.start(self.np_random, len(rows))

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        codes, moves, votes = self.action_set.decode(actions)
        moves, votes = self.voting.executed(moves, votes, self.elapsed_steps, self.action_set.rest)
        found, self.level = self.voting.vote(self.np_random, self.level, votes)
        levels = rules.level_index(found)  # [R]
        events, self.position = self.board.act(self.cells, self.position, moves)

        punishment = self.payoffs.punish(self.np_random, levels, events)
        paid, self.pending = (self.pending, punishment) if self.delayed_punishment else (punishment, self.pending)
        rewards = self.payoffs.worth.take(events) - paid - self.account
        self.recent = np.where(paid > 0, PUNISHED_FOR, np.maximum(self.recent - 1, 0))
        self._count(rewards, levels, votes, events, codes)
        harm = self.payoffs.harm.take(events).reshape(-1, self.num_agents)
        self.account = (harm.sum(axis=1, keepdims=True) - harm).ravel()
        self.last_votes = votes
        self.board.next_turn(self.np_random, self.cells, self.position)
        return rewards, np.zeros(self.num_envs, dtype=np.bool_)

    def _observe(self) -> Any:
        picture = self.board.space
        area = int(np.prod(picture.shape))
        width, dtype = (area + self.scalars.size, np.float32) if self.flat else (area, picture.dtype)
        out = np.zeros((self.num_envs, width), dtype=dtype)
        self.board.paint(out, self.cells, self.position, self._identity, self.recent > 0)
        voting = self.voting.voting_turn(self.elapsed_steps)
        scalars = self.scalars.observe(self.level, self.account, voting, self.recent)
        if not self.flat:
            return {self.board.leaf: out.reshape(self.num_envs, *picture.shape), "scalars": scalars}
        out[:, area:] = scalars
        return out

    def _count(
        self, rewards: np.ndarray, levels: np.ndarray, votes: np.ndarray, events: np.ndarray, codes: np.ndarray
    ) -> None:
        """Add a turn to the statistics, before the account is settled; all are ``[R]``, ``levels`` are indices."""
        level, punished = np.repeat(self.level, self.num_agents), self.recent == PUNISHED_FOR
        statistics.count_turn(self.tally, rewards, self.account, punished, level, votes, events, codes)
        statistics.count_by_level(self.by_level, levels, events)
        ends = self.elapsed_steps + 1 >= self.max_turns
        if ends.any():
            statistics.count_episodes(self.finished, self.tally, ends, level)

    def drain_statistics(self) -> dict[str, float]:
        """Return the game's metrics since the last call, and clear them.

        They are averages over the episodes of worlds that have ended since then; the result is empty if none has.
        ``Agent_i/NAME`` is the sum over an episode of agent i, ``Total/total_NAME`` of all agents of a world, and
        ``Mean/mean_NAME`` that divided by the number of agents. NAME: ``individual_score`` (rewards),
        ``social_harm_received`` (paid), ``punishments`` (paid ones), ``<entity>_encounters`` (moves to a, b, c, d, e,
        emptyentity, wall), ``action_freq_<action>`` (chosen, executed or not; ``action_set.names``).
        ``Global/average_punishment_level`` is the mean of the level after each turn,
        ``Global/current_punishment_level`` the level at the end of the episode, ``Global/vote_increase``,
        ``vote_decrease`` and ``total_votes`` count the votes of a world's episode that were executed.
        ``Global/a_rate_level_s`` is the share of A among the resources taken at level index s, in all turns since the
        last call; levels at which none was taken are left out.
        """
        result = statistics.tags(self.finished, self.by_level, self.action_set.names, self.max_turns)
        if result:
            self.finished[:] = self.by_level[:] = 0
        return result

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Draw world 0 as a tuple of one frame, uint8 ``[H, W, 3]``; None without a ``render_mode``.

        ``gymnasium.vector`` asks for a tuple of frames; there is one, since a frame shows the agents of a whole world.
        """
        if self.render_mode is None:
            return None
        agents = slice(self.num_agents)
        codes = self.board.drawing(self.cells[agents], self.position[agents])
        return (draw(codes, self.level[0], self.last_votes[agents], self.recent[agents] == PUNISHED_FOR),)
