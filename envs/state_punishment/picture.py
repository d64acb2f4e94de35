"""Pictures of one world, drawn in plain numpy."""

from __future__ import annotations

import numpy as np

from envs.state_punishment.actions import DECREASE, INCREASE

CELL = 16  # pixels
GAP = 8
BAR = 16  # width of the level's bar, height of the strip with the votes
PER_LINE = 5  # agents
# By code: sand, wall, A to E, outside or nothing, agent.
COLOURS = np.array(
    [
        [232, 220, 184],
        [92, 92, 100],
        [214, 48, 49],
        [52, 120, 200],
        [60, 160, 90],
        [230, 150, 40],
        [140, 90, 180],
        [92, 92, 100],
        [20, 20, 20],
    ],
    dtype=np.uint8,
)
BACKGROUND, FRAME, RED, GREEN = 250, (180, 180, 186), (200, 40, 40), (30, 140, 60)


def draw(codes: np.ndarray, level: float, votes: np.ndarray, punished: np.ndarray) -> np.ndarray:
    """Draw a world, uint8 ``[H, W, 3]``: left the level as a bar, then the agents' cells, at most five side by side.

    Args:
        codes: of the cells by agent, int ``[N, h, w]``.
        level: punishment level in [0, 1].
        votes: of the last turn, int ``[N]``: a red triangle up or a green one down above the cells, none for no vote.
        punished: in the last turn, bool ``[N]``: a red frame.
    """
    count, height, width = codes.shape
    tile_height, tile_width = BAR + height * CELL + 2 * GAP, width * CELL + 2 * GAP
    lines, columns = -(-count // PER_LINE), min(count, PER_LINE)
    picture = np.full((lines * tile_height, BAR + 2 * GAP + columns * tile_width, 3), BACKGROUND, dtype=np.uint8)
    bar = picture[GAP:-GAP, GAP : GAP + BAR]
    bar[:] = FRAME
    bar[len(bar) - round(level * len(bar)) :] = RED
    for agent in range(count):
        line, column = divmod(agent, PER_LINE)
        left = BAR + 2 * GAP + column * tile_width
        tile = picture[line * tile_height : (line + 1) * tile_height, left : left + tile_width]
        board = tile[BAR + GAP : -GAP, GAP:-GAP]
        tile[BAR + GAP - 2 : 2 - GAP, GAP - 2 : 2 - GAP] = RED if punished[agent] else FRAME
        board[:] = _cells(codes[agent])
        if votes[agent] in (INCREASE, DECREASE):
            _triangle(tile[4:BAR, GAP : GAP + BAR], upwards=votes[agent] == INCREASE)
    return picture


def _cells(codes: np.ndarray) -> np.ndarray:
    """Enlarge the cells, with resources and agents as squares on sand."""
    large = COLOURS[codes].repeat(CELL, axis=0).repeat(CELL, axis=1)
    edge = np.zeros((CELL, CELL), dtype=bool)
    edge[:3] = edge[-3:] = edge[:, :3] = edge[:, -3:] = True
    on_sand = ((codes >= 2) & (codes != 7)).repeat(CELL, axis=0).repeat(CELL, axis=1)
    large[on_sand & np.tile(edge, codes.shape)] = COLOURS[0]
    return large


def _triangle(area: np.ndarray, upwards: bool) -> None:
    """Paint a triangle into an area of the picture: red and upwards, or green and downwards."""
    height, width = area.shape[:2]
    depth = np.arange(height)[:: 1 if upwards else -1, None] + 1
    inside = np.abs(np.arange(width) - (width - 1) / 2) < depth * width / 2 / height
    area[inside] = RED if upwards else GREEN
