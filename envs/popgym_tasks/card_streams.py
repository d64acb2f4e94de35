"""POPGym's tasks in which the cards of a shuffled deck are shown one by one, whatever the agent does."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.popgym_tasks.decks import KINDS, NUM_RANKS, NUM_SUITS, choose_level, make_deck, shuffle


class CardStream(BatchedEnv):
    """A deck is shuffled for every episode, and each step shows its next card.

    Args:
        num_envs: B.
        kind: what is shown of a card, see ``envs.popgym_tasks.decks.KINDS``.
        num_decks: that are shuffled together.
        action_space: of one copy; ``Discrete`` of the kind if None.
        observation_space: of one copy; likewise.
        device: None for numpy, or the name of a device of torch.
    """

    state_names: tuple[str, ...] = ("cards",)

    def __init__(
        self,
        num_envs: int,
        kind: str,
        num_decks: int,
        action_space: spaces.Space | None = None,
        observation_space: spaces.Space | None = None,
        device: str | None = None,
    ):
        shown = spaces.Discrete(KINDS[kind])
        super().__init__(num_envs, observation_space or shown, action_space or shown, device=device)
        deck = make_deck(kind, num_decks)
        self.num_cards = len(deck)
        self._deck = self.xp.asarray(deck)
        self.cards = self.xp.zeros((self.num_envs, self.num_cards), self.xp.int64)

    def _start(self, rows: Array) -> None:
        self.xp.put(self.cards, rows, shuffle(self, self._deck, len(rows)))

    def _observe(self) -> Array:
        return self.cards[self.rows, self.elapsed_steps]


class RepeatFirst(CardStream):
    """Name, at every step, the suit of the first card.

    Observation: ``Discrete(4)``: the suit of the current card.
    Action: ``Discrete(4)``.
    Reward: ``1 / (N - 1)`` for the suit of the first card, minus as much for another, with N cards: 52, 416 or 832.
    End: terminated after ``N - 1`` steps.
    Optimal return: 1.
    Memoryless return: that of naming the current suit, about -0.5. It is right at the first step and with probability
    ``(N / 4 - 1) / (N - 1)`` at the others; any other suit gains ``1 / (N - 1)`` at each of these, which is less
    together than the first step.
    Source: POPGym's RepeatFirst.
    """

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        super().__init__(num_envs, "suits", choose_level(level, easy=1, medium=8, hard=16), device=device)
        self.level, steps = level, self.num_cards - 1
        right = 1 + (steps - 1) * (self.num_cards / NUM_SUITS - 1) / steps
        self.optimal_return = 1.0
        self.memoryless_return = 2 * right / steps - 1

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        rewards = self.xp.where(actions == self.cards[:, 0], 1.0, -1.0) / (self.num_cards - 1)
        return rewards, self.elapsed_steps == self.num_cards - 2


class RepeatPreviousCards(CardStream):
    """Name, at every step, the suit of the card that was shown ``k - 1`` steps before.

    ``envs.repeat_previous.RepeatPrevious`` with ``k - 1`` for k is the same task with independent symbols.

    Observation: ``Discrete(4)``: the suit of the current card.
    Action: ``Discrete(4)``, counted from step ``k - 1`` on (the first step is 0).
    Reward: ``1 / (N - k)`` for the right suit, minus as much for another, with N = 52, 104 or 156 cards and k = 4, 32
    or 64.
    End: terminated after ``N - 1`` steps.
    Optimal return: 1.
    Memoryless return: ``2 * (N / 4) / (N - 1) - 1``, that of naming any suit but the current one, of which fewer cards
    are left for the rest of the deck.
    Source: POPGym's RepeatPrevious.
    """

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        num_decks, self.k = choose_level(level, easy=(1, 4), medium=(2, 32), hard=(3, 64))
        super().__init__(num_envs, "suits", num_decks, device=device)
        self.level = level
        self.optimal_return = 1.0
        self.memoryless_return = 2 * (self.num_cards / NUM_SUITS) / (self.num_cards - 1) - 1

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        step, delay = self.elapsed_steps, self.k - 1
        right = actions == self.cards[self.rows, step - delay]
        rewards = (step >= delay) * self.xp.where(right, 1.0, -1.0) / (self.num_cards - self.k)
        return rewards, step == self.num_cards - 2


class Autoencode(CardStream):
    """Watch a deck, then name its suits in reverse order.

    Observation: ``MultiDiscrete([2, 4])``, POPGym's ``Tuple(Discrete(2), Discrete(4))`` in one array: 1 while watching,
    and the suit of the current card. The last card is shown with the first 0; while naming, (0, 0) is shown.
    Action: ``Discrete(4)``, counted while 0 is shown.
    Reward: ``1 / N`` for each right suit, minus as much for each wrong one, with N cards: 52, 104 or 156.
    End: terminated after ``2 * N - 1`` steps.
    Optimal return: 1.
    Memoryless return: ``(3 - N) / (2 * N)``. The last card is still shown when it is to be named, and the other
    ``N - 1`` suits are guessed; to guess suit 0 serves the last card, too.
    Source: POPGym's Autoencode.
    """

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        space = spaces.MultiDiscrete([2, NUM_SUITS])
        super().__init__(
            num_envs, "suits", choose_level(level, easy=1, medium=2, hard=3), observation_space=space, device=device
        )
        self.level = level
        self.optimal_return = 1.0
        self.memoryless_return = (3 - self.num_cards) / (2 * self.num_cards)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        step, last = self.elapsed_steps, self.num_cards - 1
        naming = step >= last
        right = actions == self.cards[self.rows, abs(2 * last - step) % self.num_cards]
        rewards = naming * self.xp.where(right, 1.0, -1.0) / self.num_cards
        return rewards, step == 2 * last

    def _observe(self) -> Array:
        step = self.elapsed_steps
        observations = self.xp.zeros((self.num_envs, 2), self.xp.int64)
        observations[:, 0] = step < self.num_cards - 1
        shown = self.cards[self.rows, step % self.num_cards]  # past the last card the index only has to exist
        observations[:, 1] = shown * (step < self.num_cards)
        return observations


class HigherLower(CardStream):
    """Guess whether the next card is higher or lower than the current one; who counts cards guesses better.

    Observation: ``Discrete(13)``: the rank of the current card.
    Action: ``Discrete(2)``: 0 guesses higher, 1 lower.
    Reward: ``1 / N`` for a right guess, minus as much for a wrong one, 0 if the ranks are equal, with N cards: 52, 104
    or 156.
    End: terminated after ``N - 1`` steps.
    Optimal return: that of guessing by the cards that are left, 0.5276 for one deck, 0.5161 for two, 0.5115 for three
    (``optimal_higher_lower``).
    Memoryless return: 84 / 169, that of guessing by the current card.
    Source: POPGym's HigherLower.
    """

    def __init__(self, num_envs: int, level: str = "easy", device: str | None = None):
        num_decks = choose_level(level, easy=1, medium=2, hard=3)
        super().__init__(num_envs, "ranks", num_decks, spaces.Discrete(2), device=device)
        self.level = level
        self.optimal_return = optimal_higher_lower(NUM_SUITS * num_decks)
        surplus = abs(NUM_RANKS - 1 - 2 * np.arange(NUM_RANKS))  # higher ranks minus lower ones
        self.memoryless_return = float(surplus.mean() / NUM_RANKS)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        step = self.elapsed_steps
        current, following = self.cards[self.rows, step], self.cards[self.rows, step + 1]
        right = (following > current) == (actions == 0)
        rewards = (following != current) * self.xp.where(right, 1.0, -1.0) / self.num_cards
        return rewards, step == self.num_cards - 2


def optimal_higher_lower(copies: int) -> float:
    """Return the expected return in Higher-Lower of who knows which cards are left.

    At each step it is the mean of ``|h - l| / m`` over the ranks of the current card, where m cards are left, h of them
    higher and l lower: any m of the other ``N - 1``, all equally likely.

    Args:
        copies: how many cards of each rank there are.
    """
    num_cards = copies * NUM_RANKS
    log_factorials = np.concatenate([[0.0], np.log(np.arange(1, num_cards + 1)).cumsum()])

    def log_choose(n: int, k: Any) -> Any:
        return log_factorials[n] - log_factorials[k] - log_factorials[n - k]

    total = 0.0
    left = np.arange(1, num_cards)
    for rank in range(NUM_RANKS):
        higher, lower, equal = copies * (NUM_RANKS - 1 - rank), copies * rank, copies - 1
        for unequal in range(1, higher + lower + 1):  # of the cards that are left
            h = np.arange(max(0, unequal - lower), min(higher, unequal) + 1)
            of_these = log_choose(higher, h) + log_choose(lower, unequal - h) - log_choose(higher + lower, unequal)
            gain = (np.exp(of_these) * abs(2 * h - unequal)).sum()
            m = left[(left >= unequal) & (left <= unequal + equal)]
            odds = log_choose(higher + lower, unequal) + log_choose(equal, m - unequal) - log_choose(num_cards - 1, m)
            total += float((np.exp(odds) * gain / m).sum())
    return total / NUM_RANKS / num_cards
