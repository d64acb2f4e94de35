"""POPGym's CountRecall: how often was this card shown?"""

from __future__ import annotations

from math import comb

from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.popgym_tasks.decks import DECK_SIZE, KINDS, choose_level, make_deck, shuffle


class CountRecall(BatchedEnv):
    """Two shuffled decks are dealt in step; say how often the kind of the second card has come up in the first deck.

    Cards are told apart by colour, suit or rank: K = 2, 4 or 13 kinds, in N = 52, 104 or 208 cards.

    Observation: ``MultiDiscrete([K, K])``: the kind that is dealt, the kind that is asked for.
    Action: ``Discrete(N / K + 1)``: the count, with the card that is dealt now.
    Reward: ``1 / (N - 1)`` for the right count, minus as much for a wrong one.
    End: terminated after ``N - 1`` steps.
    Optimal return: 1.
    Memoryless return: that of the likeliest count over the episode for either kind of observation, "the kind that is
    dealt is asked for" and "another one", worked out from hypergeometric odds: -0.9230 for easy, -0.9245 for medium,
    -0.8812 for hard.
    Source: POPGym's CountRecall.
    """

    state_names = ("values", "queries", "counts")

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        num_decks, kind = choose_level(level, easy=(1, "colors"), medium=(2, "suits"), hard=(4, "ranks"))
        self.level, self.num_kinds, self.num_cards = level, KINDS[kind], DECK_SIZE * num_decks
        per_kind = self.num_cards // self.num_kinds
        observation_space = spaces.MultiDiscrete([self.num_kinds] * 2)
        super().__init__(num_envs, observation_space, spaces.Discrete(per_kind + 1), device=device)
        self._deck = self.xp.asarray(make_deck(kind, num_decks))
        self.values = self.xp.zeros((self.num_envs, self.num_cards), self.xp.int64)
        self.queries = self.xp.zeros((self.num_envs, self.num_cards), self.xp.int64)
        self.counts = self.xp.zeros((self.num_envs, self.num_kinds), self.xp.int64)
        self._kinds = self.xp.arange(self.num_kinds)
        self.optimal_return = 1.0
        self.memoryless_return = self._guess_counts(per_kind)

    def _guess_counts(self, per_kind: int) -> float:
        """Work out the best return without a memory."""
        others, steps = self.num_cards - 1, self.num_cards - 1

        def best(own: int) -> float:
            """Share of right guesses; ``own`` is 1 if the kind that is dealt now is asked for, else 0."""
            cards = per_kind - own  # of the kind, among the other cards, of which ``step`` were dealt before
            odds = [0.0] * (per_kind + 1)
            for step in range(steps):
                for before in range(max(0, step - others + cards), min(step, cards) + 1):
                    odds[before + own] += comb(cards, before) * comb(others - cards, step - before) / comb(others, step)
            return max(odds) / steps

        right = (best(1) + (self.num_kinds - 1) * best(0)) / self.num_kinds
        return 2 * right - 1

    def _start(self, rows: Array) -> None:
        values = shuffle(self, self._deck, len(rows))
        self.xp.put(self.values, rows, values)
        self.xp.put(self.queries, rows, shuffle(self, self._deck, len(rows)))
        self.xp.put(self.counts, rows, self.xp.astype(values[:, :1] == self._kinds, self.xp.int64))

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        step, rows = self.elapsed_steps, self.rows
        right = actions == self.counts[rows, self.queries[rows, step]]
        self.counts[rows, self.values[rows, step + 1]] += 1
        return self.xp.where(right, 1.0, -1.0) / (self.num_cards - 1), step == self.num_cards - 2

    def _observe(self) -> Array:
        observations = self.xp.empty((self.num_envs, 2), self.xp.int64)
        observations[:, 0] = self.values[self.rows, self.elapsed_steps]
        observations[:, 1] = self.queries[self.rows, self.elapsed_steps]
        return observations
