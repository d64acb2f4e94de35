"""POPGym's Concentration: find the pairs among cards that lie face down."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.popgym_tasks.decks import DECK_SIZE, KINDS, choose_level, make_deck, shuffle


class Concentration(BatchedEnv):
    """Each step turns one card over; two that match stay up, two that do not are turned down again.

    N = 52 or 104 cards lie in a row; K = 2 colours or 13 ranks are matched.

    Observation: ``MultiDiscrete([K + 1] * N)``: the kinds of the cards that lie face up, K for the others. The cards of
    the current try are shown in the steps in which it is made.
    Action: ``Discrete(N)``: the card to turn.
    Reward: when a try ends, ``2 / N`` for a pair, else ``-1 / limit`` for each card of the try. Choosing a card that
    lies face up for good ends the try at once, and choosing the same card twice is no pair. 0 while a try is open.
    End: terminated when all cards lie face up, truncated after ``limit`` = 104 or 208 steps.
    Optimal return: None, not known exactly.
    Memoryless return: None, not known either.
    Source: POPGym's Concentration.
    """

    state_names = ("cards", "board", "held", "shown", "num_up")

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        num_decks, kind = choose_level(level, easy=(1, "colors"), medium=(2, "colors"), hard=(1, "ranks"))
        self.level, self.num_kinds, self.num_cards = level, KINDS[kind], DECK_SIZE * num_decks
        size = self.num_cards
        limit = math.ceil(2 * size - size / (2 * size - 1))
        observation_space = spaces.MultiDiscrete(np.full(size, self.num_kinds + 1))
        super().__init__(num_envs, observation_space, spaces.Discrete(size), limit, device)
        self._deck = self.xp.asarray(make_deck(kind, num_decks))
        self.cards = self.xp.zeros((self.num_envs, size), self.xp.int64)
        self.board = self.xp.zeros((self.num_envs, size), self.xp.int64)  # K where a card lies face down
        self.held = self.xp.zeros(self.num_envs, self.xp.int64)  # the first card of an open try, or -1
        self.shown = self.xp.zeros((2, self.num_envs), self.xp.int64)  # the cards of the last step's try
        self.num_up = self.xp.zeros(self.num_envs, self.xp.int64)

    def _start(self, rows: Array) -> None:
        self.xp.put(self.cards, rows, shuffle(self, self._deck, len(rows)))
        self.xp.put(self.board, rows, self.num_kinds)
        self.xp.put(self.held, rows, -1)
        self.xp.put(self.num_up, rows, 0)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        rows, where, held, num_kinds = self.rows, self.xp.where, self.held, self.num_kinds
        second = held >= 0
        first = where(second, held, actions)
        card, partner = self.cards[rows, actions], self.cards[rows, first]
        under, under_first = self.board[rows, actions], self.board[rows, first]
        is_up = under != num_kinds
        paired = (card == partner) & (first != actions) & ~is_up
        over = second | is_up
        self.board[rows, actions] = where(paired, card, under)
        self.board[rows, first] = where(paired, partner, under_first)
        self.num_up += 2 * paired
        self.shown[0] = first
        self.shown[1] = actions
        rewards = where(paired, 2.0 / self.num_cards, over * (1 + second * 1) * (-1.0 / self.max_episode_steps))
        self.held = self.xp.renew(held, where(over, -1, actions))
        return rewards, self.num_up == self.num_cards

    def _observe(self) -> Array:
        observations = self.xp.copy(self.board)
        begun = self.elapsed_steps > 0
        for shown in self.shown:
            observations[self.rows, shown] = self.xp.where(begun, self.cards[self.rows, shown], self.num_kinds)
        return observations
