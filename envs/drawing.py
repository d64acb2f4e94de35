"""Pictures of the tasks of this package, drawn in numpy, for ``render`` with ``render_mode="rgb_array"``.

A picture is uint8 ``[height, width, 3]``. What the player does not see of a task is drawn all the same, but pale.
Places are in pixels, y points down.
"""

from __future__ import annotations

import colorsys
from typing import Any, Literal

import numpy as np

RenderMode = Literal["rgb_array"] | None
"""How an environment shows itself: not at all, or as arrays of numbers."""

Picture = np.ndarray
Colour = tuple[int, int, int]

PAPER, FLOOR, INK, GREY = (248, 249, 251), (226, 231, 238), (44, 54, 70), (150, 160, 174)
AGENT, GOOD, BAD, LIGHT = (219, 68, 55), (24, 144, 88), (200, 50, 60), (255, 213, 79)
PALE = 0.25  # share of a colour that is left where the player does not see what is drawn
WIDTH, HEIGHT = 480, 160  # of most pictures


def blank(height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """Make an empty picture."""
    return np.full((height, width, 3), PAPER, dtype=np.uint8)


def pale(colour: Colour) -> Colour:
    """Mix a colour with paper."""
    red, green, blue = (round(PALE * a + (1 - PALE) * b) for a, b in zip(colour, PAPER, strict=True))
    return red, green, blue


def hue(index: int, count: int) -> Colour:
    """Return the colour of one of ``count`` symbols."""
    red, green, blue = colorsys.hls_to_rgb(index / count, 0.5, 0.65)
    return round(255 * red), round(255 * green), round(255 * blue)


def blend(picture: Picture, cover: np.ndarray, colour: Colour) -> None:
    """Paint a colour over a picture, as far as ``cover`` (0 to 1, ``[height, width]``) hides it."""
    share = np.clip(cover, 0.0, 1.0)[..., None]
    picture[:] = np.rint(picture * (1 - share) + np.array(colour) * share).astype(np.uint8)


def box(picture: Picture, top: float, left: float, bottom: float, right: float, colour: Colour) -> None:
    """Fill a rectangle; parts outside of the picture are left out."""
    rows, columns = (slice(max(0, round(a)), max(0, round(b))) for a, b in ((top, bottom), (left, right)))
    picture[rows, columns] = colour


def disc(picture: Picture, y: float, x: float, radius: float, colour: Colour) -> None:
    """Fill a circle."""
    rows, columns = np.indices(picture.shape[:2])
    blend(picture, radius + 0.5 - np.hypot(rows - y, columns - x), colour)


def stroke(picture: Picture, y0: float, x0: float, y1: float, x1: float, width: float, colour: Colour) -> None:
    """Draw a line with round ends."""
    rows, columns = np.indices(picture.shape[:2])
    dy, dx = y1 - y0, x1 - x0
    along = ((rows - y0) * dy + (columns - x0) * dx) / max(dy**2 + dx**2, 1e-9)
    along = np.clip(along, 0.0, 1.0)
    distance = np.hypot(rows - y0 - along * dy, columns - x0 - along * dx)
    blend(picture, width / 2 + 0.5 - distance, colour)


def arrow(picture: Picture, y: float, x: float, size: float, dy: int, dx: int, colour: Colour) -> None:
    """Fill a triangle that points to ``(dy, dx)``, one of the four directions; ``size`` is half of its height."""
    rows, columns = np.indices(picture.shape[:2])
    ahead = (rows - y) * dy + (columns - x) * dx  # -size at the base, size at the tip
    aside = np.abs((rows - y) * dx - (columns - x) * dy)
    blend(picture, np.minimum((size - ahead) / 2 - aside, ahead + size) + 0.5, colour)


def meter(picture: Picture, share: float) -> None:
    """Draw along the lower edge how much of an episode is over."""
    height, width = picture.shape[:2]
    box(picture, height - 5, 0, height, width, FLOOR)
    box(picture, height - 5, 0, height, width * min(share, 1.0), GREY)


def t_maze(length: int, oracle: bool, position: int, cue: int, shows_cue: bool, turn: int | None) -> Picture:
    """Draw a T-maze.

    Args:
        length: of the corridor.
        oracle: a cell before the start shows the cue.
        position: of the player, 0 in the first cell.
        cue: 0 is up, 1 is down.
        shows_cue: the player sees it.
        turn: the player has turned up (0) or down (1) at the junction; None while it has not.
    """
    picture, cells = blank(), length + 1 + oracle
    wide = (WIDTH - 40) / cells
    half, middle, right = min(18.0, max(5.0, wide / 2)), HEIGHT / 2, WIDTH - 20
    box(picture, middle - half, 20, middle + half, right, FLOOR)
    box(picture, 16, right - 2 * half, HEIGHT - 16, right, FLOOR)
    for cell in range(1, cells - 1) if wide > 8 else ():
        box(picture, middle - half, 20 + cell * wide, middle + half, 21 + cell * wide, PAPER)
    for side, up in enumerate((-1, 1)):
        place = middle + up * (middle - 16 - half)
        disc(picture, place, right - half, half * 0.75, GOOD if side == cue else pale(BAD))
    towards = -1 if cue == 0 else 1
    arrow(
        picture, middle + towards * (half + 16), 20 + max(wide / 2, 9), 9, towards, 0, INK if shows_cue else pale(INK)
    )
    junction = position == cells - 1
    x = right - half if junction else 20 + (position + 0.5) * wide
    y = middle if turn is None else middle + (-1, 1)[turn] * (middle - 16 - half)
    disc(picture, y, x, half * 0.55, AGENT)
    return picture


def witness_vote(
    corridor: int, suspects: int, position: int, culprit: int, seen: bool, vote: int | None, share: float
) -> Picture:
    """Draw the strip of WitnessVote, and the suspects above it.

    Args:
        corridor: cells of the strip.
        suspects: how many.
        position: of the player.
        culprit: which suspect it is.
        seen: the player sees it.
        vote: the last one; None before the first.
        share: of the episode that is over.
    """
    picture, wide, apart = blank(), (WIDTH - 40) / corridor, (WIDTH - 40) / suspects
    radius = min(18.0, apart / 3)
    for suspect in range(suspects):
        x, guilty = 20 + (suspect + 0.5) * apart, suspect == culprit
        if guilty:
            disc(picture, 40, x, radius + 6, LIGHT if seen else pale(LIGHT))
        disc(picture, 40, x, radius, hue(suspect, suspects) if seen and guilty else pale(hue(suspect, suspects)))
        if suspect == vote:
            arrow(picture, 78, x, 9, -1, 0, GOOD if guilty else BAD)
    for cell in range(corridor):
        left = 20 + cell * wide
        box(picture, 98, left + 1, 138, left + wide - 1, LIGHT if cell == 0 and seen else FLOOR)
    stroke(picture, 100, WIDTH - 22, 136, WIDTH - 22, 4, INK)  # where the vote counts
    disc(picture, 118, 20 + (position + 0.5) * wide, min(14.0, wide / 3), AGENT)
    meter(picture, share)
    return picture


def cards(symbols: int, shown: int | None, asked: bool, answer: int | None, right: int | None, share: float) -> Picture:
    """Draw a task of symbols: the card that is shown, and all symbols with the last answer.

    Args:
        symbols: how many there are.
        shown: the symbol on the card; None for a blank card.
        asked: the player's answer counts now.
        answer: the last action; None before the first.
        right: the symbol that it should have been; None where it did not count.
        share: of the episode that is over.
    """
    picture, apart = blank(), (WIDTH - 180) / symbols
    box(picture, 20, 20, 140, 120, INK if asked else GREY)
    box(picture, 24, 24, 136, 116, PAPER if shown is None else hue(shown, symbols))
    for symbol in range(symbols):
        x = 160 + (symbol + 0.5) * apart
        disc(picture, 60, x, min(22.0, apart / 2.6), hue(symbol, symbols))
        if symbol == answer:
            colour = GREY if right is None else GOOD if answer == right else BAD
            arrow(picture, 108, x, 10, -1, 0, colour)
        if symbol == right:
            stroke(picture, 128, x - 10, 128, x + 10, 4, GOOD)
    meter(picture, share)
    return picture


def bandit(chances: np.ndarray, pulled: int | None, paid: bool, share: float) -> Picture:
    """Draw arms.

    Args:
        chances: that each of them pays, ``[A]``.
        pulled: the last arm; None before the first.
        paid: it did.
        share: of the episode that is over.
    """
    picture, apart = blank(), (WIDTH - 40) / len(chances)
    for arm, chance in enumerate(chances.tolist()):
        x, half = 20 + (arm + 0.5) * apart, min(30.0, apart / 3)
        box(picture, 16, x - half, 116, x + half, FLOOR)
        box(picture, 116 - 100 * chance, x - half, 116, x + half, pale(INK))
        if arm == pulled:
            disc(picture, 134, x, 11, GOOD if paid else BAD)
    meter(picture, share)
    return picture


def cart_pole(place: float, angle: float, limit: float) -> Picture:
    """Draw a cart with its pole.

    Args:
        place: of the cart, -``limit`` to ``limit``.
        angle: of the pole in radians, 0 upright.
        limit: where the track ends.
    """
    picture = blank(200, 320)
    x = 160 + place / limit * 140
    box(picture, 168, 20, 171, 300, GREY)
    for end in (20, 300):
        box(picture, 158, end - 2, 180, end + 2, BAD)
    box(picture, 146, x - 22, 166, x + 22, INK)
    stroke(picture, 146, x, 146 - 110 * np.cos(angle), x + 110 * np.sin(angle), 8, AGENT)
    disc(picture, 146, x, 5, GREY)
    return picture


def pendulum(angle: float, speed: float, fastest: float) -> Picture:
    """Draw a pendulum, and its speed as a bar: ``angle`` in radians, 0 upright; ``speed`` up to ``fastest``."""
    picture = blank(220, 220)
    disc(picture, 105, 110, 84, FLOOR)
    stroke(picture, 105, 110, 105 - 76 * np.cos(angle), 110 + 76 * np.sin(angle), 12, AGENT)
    disc(picture, 105, 110, 6, INK)
    end = 110 + 100 * speed / fastest
    box(picture, 206, min(110, end), 214, max(110, end), pale(INK))
    return picture


def mountain_car(place: float, low: float, high: float, goal: float) -> Picture:
    """Draw a car in its valley, whose places go from ``low`` to ``high``, and the ``goal``."""
    picture = blank(200, 320)
    columns = np.arange(320)

    def height(x: Any) -> Any:
        return 170 - 60 * (np.sin(3 * (low + x / 319 * (high - low))) + 1)

    picture[np.arange(200)[:, None] >= height(columns)] = FLOOR
    flag, x = ((where - low) / (high - low) * 319 for where in (goal, place))
    stroke(picture, height(flag), flag, height(flag) - 30, flag, 3, INK)
    arrow(picture, height(flag) - 24, flag + 8, 7, 0, 1, GOOD)
    disc(picture, height(x) - 9, x, 9, AGENT)
    return picture


def memory_grid(walls: np.ndarray, keys: np.ndarray, balls: np.ndarray, seen: np.ndarray, pose: np.ndarray) -> Picture:
    """Draw a grid with its objects.

    Args:
        walls: cells that are walls, bool ``[x, y]``; likewise ``keys`` and ``balls``, objects of either kind.
        keys: see ``walls``.
        balls: see ``walls``.
        seen: cells that the player sees, bool ``[x, y]``.
        pose: x, y, and the step (x, y) that the player looks along, ``[4]``.
    """
    side = max(8, 264 // len(walls))
    colours = np.where(walls.T[..., None], GREY, np.where(seen.T[..., None], LIGHT, FLOOR))  # [y, x, 3]
    picture = colours.astype(np.uint8).repeat(side, axis=0).repeat(side, axis=1)
    picture[::side], picture[:, ::side] = PAPER, PAPER
    for x, y in np.argwhere(balls) * side + side / 2:
        disc(picture, y, x, side * 0.3, GOOD)
    for x, y in np.argwhere(keys) * side + side / 2:
        disc(picture, y - side * 0.18, x, side * 0.2, GOOD)
        stroke(picture, y, x, y + side * 0.32, x, max(2.0, side * 0.12), GOOD)
        stroke(picture, y + side * 0.3, x, y + side * 0.3, x + side * 0.18, max(2.0, side * 0.1), GOOD)
    x, y, dx, dy = pose.tolist()
    arrow(picture, (y + 0.5) * side, (x + 0.5) * side, side * 0.35, dy, dx, AGENT)
    return picture
