"""The game without a grid."""

import numpy as np
import pytest

from envs.state_punishment.menu import Menu
from envs.state_punishment.rules import FIRST_KIND, NOTHING

CHANCES = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
A, B, C, D, E = range(FIRST_KIND, FIRST_KIND + 5)


def test_an_arm_is_taken_or_the_menu_left():
    menu, cells = Menu(2, CHANCES), np.array([[A, B], [C, D], [E, A]], dtype=np.int8)
    position = np.zeros(3, dtype=np.int64)
    events, after = menu.act(cells, position, np.array([1, 0, 2]))
    assert events.tolist() == [B, C, NOTHING] and events.dtype == np.int64
    assert after is position


def test_every_turn_has_new_arms():
    menu, rng = Menu(3, CHANCES), np.random.default_rng(0)
    cells, position = menu.start(rng, 4000)
    assert cells.shape == (4000, 3) and not position.any() and position.shape == (4000,)
    first = cells.copy()
    menu.next_turn(rng, cells, position)
    for arms in (first, cells):
        assert np.bincount(arms.ravel())[FIRST_KIND:] / 12_000 == pytest.approx(CHANCES, abs=0.02)
    assert (first == cells).mean() == pytest.approx((CHANCES**2).sum(), abs=0.02)  # as if by accident


def test_the_kinds_of_the_arms_are_seen():
    menu = Menu(2, CHANCES)
    out = np.zeros((2, 12), dtype=np.uint8)
    menu.paint(out, np.array([[A, C], [E, B]], dtype=np.int8), None, None, None)
    assert out.tolist() == [[1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0]]
    assert out[0, :10].reshape(2, 5) in menu.space and menu.shape == (2,)


def test_the_drawing_is_one_line_of_arms():
    assert Menu(2, CHANCES).drawing(np.array([[A, C], [E, B]], dtype=np.int8), None).tolist() == [[[2, 4]], [[6, 3]]]


@pytest.mark.parametrize("size", [0, 1.5, True])
def test_a_menu_has_an_arm(size):
    with pytest.raises(ValueError, match=f"^menu_size={size}: it must be a whole number of at least 1$"):
        Menu(size, CHANCES)
