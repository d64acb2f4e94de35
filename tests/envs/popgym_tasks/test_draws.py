"""What new episodes are drawn from: whole decks, mines and ships, each arrangement as often as in POPGym."""

import numpy as np
import pytest

from envs.popgym_tasks.battleship import SHIPS, Battleship, _places
from envs.popgym_tasks.card_streams import Autoencode, HigherLower, RepeatFirst, RepeatPreviousCards
from envs.popgym_tasks.concentration import Concentration
from envs.popgym_tasks.count_recall import CountRecall
from envs.popgym_tasks.mine_sweeper import MINE, MineSweeper
from tests.envs.popgym_tasks import reference

LEVELS = pytest.mark.parametrize("level", ["easy", "medium", "hard"])
# Kinds of cards, and decks.
DECKS = {
    RepeatFirst: {"easy": (4, 1), "medium": (4, 8), "hard": (4, 16)},
    RepeatPreviousCards: {"easy": (4, 1), "medium": (4, 2), "hard": (4, 3)},
    Autoencode: {"easy": (4, 1), "medium": (4, 2), "hard": (4, 3)},
    HigherLower: {"easy": (13, 1), "medium": (13, 2), "hard": (13, 3)},
    Concentration: {"easy": (2, 1), "medium": (2, 2), "hard": (13, 1)},
    CountRecall: {"easy": (2, 1), "medium": (4, 2), "hard": (13, 4)},
}


def restart_some(env):
    """Episodes that begin together, and some that begin later."""
    env.reset(seed=0)
    env._restart(np.arange(0, env.num_envs, 3))


@LEVELS
@pytest.mark.parametrize("cls", DECKS)
def test_every_row_deals_whole_decks(cls, level):
    kinds, decks = DECKS[cls][level]
    env = cls(30, level)
    restart_some(env)
    for cards in [env.values, env.queries] if cls is CountRecall else [env.cards]:
        assert cards.shape == (30, 52 * decks)
        np.testing.assert_array_equal(np.sort(cards), [sorted([*range(kinds)] * (52 * decks // kinds))] * 30)
        assert len(np.unique(cards, axis=0)) == 30


def test_any_card_may_lie_anywhere():
    env = HigherLower(4096)
    env.reset(seed=1)
    at = np.array([(env.cards == rank).mean(axis=0) for rank in range(13)])  # [rank, place]
    assert abs(at - 1 / 13).max() < 5 * (1 / 13 / 4096) ** 0.5
    same = (env.cards[:, 1:] == env.cards[:, :-1]).mean()  # two neighbours: 3 of 51
    assert abs(same - 3 / 51) < 0.003


def test_the_decks_of_values_and_queries_are_independent():
    env = CountRecall(4096, "medium")
    env.reset(seed=1)
    assert abs((env.values == env.queries).mean() - 1 / 4) < 0.005
    assert (env.counts.sum(axis=1) == 1).all() and (env.counts[env.rows, env.values[:, 0]] == 1).all()


@pytest.mark.parametrize(("level", "side", "mines"), [("easy", 4, 2), ("medium", 6, 6), ("hard", 8, 10)])
def test_mines_lie_anywhere_and_are_counted_around(level, side, mines):
    env = MineSweeper(3000, level)
    restart_some(env)
    assert env.cells.shape == (3000, side**2) and ((env.cells == MINE).sum(axis=1) == mines).all()
    assert abs((env.cells == MINE).mean(axis=0) - mines / side**2).max() < 5 * (mines / side**2 / 3000) ** 0.5
    one = reference.MineSweeper(level, seed=0)
    for cells, neighbours in zip(env.cells[:20], env.neighbours[:20], strict=True):
        one.cells = cells
        assert neighbours.tolist() == [one.count(*divmod(cell, side)) for cell in range(side**2)]


@pytest.mark.parametrize(("level", "side"), [("easy", 8), ("medium", 10), ("hard", 12)])
def test_ships_do_not_overlap(level, side):
    env = Battleship(600, level)
    restart_some(env)
    assert env.cells.shape == (600, side**2)
    assert set(np.unique(env.cells)) == {0, 1} and (env.cells.sum(axis=1) == sum(SHIPS)).all()


def test_places_are_all_lines_of_the_board():
    places = np.sort(_places(4, 3).T)
    assert len(places) == len(np.unique(places, axis=0)) == 2 * 4 * 2
    for row, column in (np.divmod(place, 4) for place in places):
        assert {np.ptp(row), np.ptp(column)} == {0, 2} and len(set(zip(row, column, strict=True))) == 3


def test_ships_are_placed_as_by_trying_until_they_fit():
    """How often a ship lies in each cell; all eight reflections of the board are alike."""
    env, one, number = Battleship(4000), reference.Battleship("easy", seed=0), 1500
    env.reset(seed=0)
    tried = np.mean([(one.reset(), one.cells)[1] for _ in range(number)], axis=0)

    def fold(board):
        board = board.reshape(8, 8)
        board = board + board.T
        board = board + board[::-1]
        return (board + board[:, ::-1])[:4, :4][np.tril_indices(4)] / 8

    found, expected = fold(env.cells.mean(axis=0)), fold(tried)
    assert np.ptp(expected) > 0.1  # the corners are taken less often
    np.testing.assert_allclose(found, expected, atol=0.02)
    lines = [board.reshape(8, 8).any(axis=1).sum() + board.reshape(8, 8).any(axis=0).sum() for board in env.cells]
    one_lines = []
    for _ in range(number):
        one.reset()
        board = one.cells.reshape(8, 8)
        one_lines.append(board.any(axis=1).sum() + board.any(axis=0).sum())
    assert abs(np.mean(lines) - np.mean(one_lines)) < 5 * np.std(one_lines) * (1 / number + 1 / 4000) ** 0.5
