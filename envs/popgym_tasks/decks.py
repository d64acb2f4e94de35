"""Decks of cards, and how they are shuffled for all rows at once."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from envs.array_module import Array
from envs.batched_env import BatchedEnv
from envs.checks import one_of

LEVELS = ("easy", "medium", "hard")
NUM_RANKS, NUM_SUITS = 13, 4
DECK_SIZE = NUM_RANKS * NUM_SUITS
KINDS = {"colors": 2, "suits": NUM_SUITS, "ranks": NUM_RANKS}
"""What can be told of a card, and how many of it there are."""

Level = TypeVar("Level")


def choose_level(level: str, *, easy: Level, medium: Level, hard: Level) -> Level:
    """Return what a level stands for.

    Raises:
        ValueError: there is no such level.
    """
    one_of(LEVELS, level=level)
    return (easy, medium, hard)[LEVELS.index(level)]


def make_deck(kind: str, num_decks: int) -> np.ndarray:
    """Return the kind of each card of ``num_decks`` decks together, int64 ``[N]``: 0 to ``KINDS[kind] - 1``."""
    number = KINDS[kind]
    return np.arange(number).repeat(DECK_SIZE * num_decks // number)


def shuffle(env: BatchedEnv, deck: Array, num_rows: int) -> Array:
    """Return shuffled copies ``[num_rows, N]`` of a deck ``[N]``, drawn by the environment."""
    return deck[env.xp.argsort(env.draws.random((num_rows, len(deck))))]
