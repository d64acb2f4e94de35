"""Pictures of a world, pixel by pixel."""

import numpy as np

from envs.state_punishment.picture import BACKGROUND, BAR, CELL, COLOURS, FRAME, GAP, GREEN, RED, draw

NONE, INCREASE, DECREASE = range(3)
CODES = np.array([[1, 1, 1], [1, 4, 7], [1, 8, 0]])  # walls, a resource C, what is outside, an agent, sand
TILE = 3 * CELL + 2 * GAP


def picture(count=1, level=0.0, votes=NONE, punished=False):
    votes, punished = np.broadcast_to(votes, count), np.broadcast_to(punished, count)
    return draw(np.repeat(CODES[None], count, axis=0), level, votes, punished)


def tile(drawn, line=0, column=0):
    left, top = BAR + 2 * GAP + column * TILE, line * (TILE + BAR)
    return drawn[top : top + TILE + BAR, left : left + TILE]


def middles(drawn, line=0, column=0):
    """Colours of the middles of the cells, ``[3, 3, 3]``."""
    board = tile(drawn, line, column)[BAR + GAP : -GAP, GAP:-GAP]
    return board[CELL // 2 :: CELL, CELL // 2 :: CELL]


def test_every_cell_has_the_colour_of_its_code():
    np.testing.assert_array_equal(middles(picture()), COLOURS[CODES])
    assert len(np.unique(COLOURS, axis=0)) == 8  # all differ, but walls look like what is outside


def test_resources_and_agents_are_squares_on_sand():
    board = tile(picture())[BAR + GAP : -GAP, GAP:-GAP]
    for y, x, code in ((1, 1, 4), (2, 1, 8)):
        cell = board[y * CELL : (y + 1) * CELL, x * CELL : (x + 1) * CELL]
        assert (cell[3:-3, 3:-3] == COLOURS[code]).all()
        for edge in (cell[:3], cell[-3:], cell[:, :3], cell[:, -3:]):
            assert (edge == COLOURS[0]).all()
    assert (board[:CELL] == COLOURS[1]).all()  # walls fill their cells, as does what is outside
    assert (board[CELL : 2 * CELL, 2 * CELL :] == COLOURS[7]).all()


def test_the_level_is_a_bar_from_below():
    for level, share in ((0.0, 0.0), (0.25, 0.25), (1.0, 1.0)):
        bar = picture(level=level)[GAP:-GAP, GAP : GAP + BAR]
        red = (bar == RED).all(axis=2)
        assert (red == red[:, :1]).all()  # across the whole bar
        filled = red[:, 0]
        assert filled.sum() == round(share * len(bar)) and filled[len(bar) - filled.sum() :].all()
        assert (bar[~filled] == FRAME).all()


def test_votes_are_triangles_above_the_cells():
    strip = [tile(picture(votes=vote))[4:BAR, GAP : GAP + BAR] for vote in (NONE, INCREASE, DECREASE)]
    assert (strip[0] == BACKGROUND).all()
    for painted, colour, upwards in ((strip[1], RED, True), (strip[2], GREEN, False)):
        inside = (painted == colour).all(axis=2)
        assert (painted[~inside] == BACKGROUND).all()
        widths = inside.sum(axis=1)
        assert (np.diff(widths) >= 0).all() if upwards else (np.diff(widths) <= 0).all()
        assert widths.min() < 4 and widths.max() == BAR and (inside == inside[:, ::-1]).all()


def test_a_punished_agent_has_a_red_frame():
    for punished, colour in ((True, RED), (False, FRAME)):
        drawn = tile(picture(punished=punished))
        assert (drawn[BAR + GAP - 2 : BAR + GAP, GAP:-GAP] == colour).all()
        assert (drawn[BAR + GAP : -GAP, -GAP : 2 - GAP] == colour).all()
        assert (drawn[: BAR + GAP - 2, : GAP - 2] == BACKGROUND).all()


def test_five_agents_stand_side_by_side():
    codes = (CODES + np.arange(7)[:, None, None]) % 9  # different ones for each
    drawn = draw(codes, 0.0, np.arange(7) % 2, np.arange(7) == 6)
    assert drawn.shape == (2 * (TILE + BAR), BAR + 2 * GAP + 5 * TILE, 3) and drawn.dtype == np.uint8
    for agent in range(7):
        line, column = divmod(agent, 5)
        np.testing.assert_array_equal(middles(drawn, line, column), COLOURS[codes[agent]])
        voted = (tile(drawn, line, column)[4:BAR, GAP : GAP + BAR] == RED).all(axis=2).any()
        assert voted == (agent % 2 == 1)
    assert (tile(drawn, 1, 1)[BAR + GAP - 2, GAP:-GAP] == RED).all()  # of the last one alone
    assert (tile(drawn, 1, 0)[BAR + GAP - 2, GAP:-GAP] == FRAME).all()
    assert (tile(drawn, 1, 2) == BACKGROUND).all()
    assert picture(count=5).shape == (TILE + BAR, BAR + 2 * GAP + 5 * TILE, 3)
    assert picture(count=2).shape == (TILE + BAR, BAR + 2 * GAP + 2 * TILE, 3)
