"""Grids: moves, spawning, and what is seen of them."""

import numpy as np
import pytest

from envs.state_punishment.grid import Grid, identities
from envs.state_punishment.rules import FIRST_KIND, NOTHING, OUTSIDE, SAND, WALL

UP, DOWN, LEFT, RIGHT, STAY = range(5)
EACH = np.full(5, 0.2)


def make(
    size=10, radius=1, observation="slot", initial_resources=0, max_resources=None, respawn_prob=0.0, chances=EACH
):
    return Grid(size, radius, observation, initial_resources, max_resources, respawn_prob, chances)


def cell(grid, y, x):
    return (y + grid.radius) * grid.side + x + grid.radius


def begin(grid, count=1, seed=0):
    return grid.start(np.random.default_rng(seed), count)


def test_walls_turn_back():
    grid = make()
    cells, _ = begin(grid)
    position = np.array([cell(grid, 1, 1)])
    for move, event, then in [(UP, WALL, (1, 1)), (LEFT, WALL, (1, 1)), (RIGHT, SAND, (1, 2)), (DOWN, SAND, (2, 2))]:
        events, position = grid.act(cells, position, np.array([move]))
        assert (events.tolist(), position.tolist()) == ([event], [cell(grid, *then)])
    far = np.array([cell(grid, 8, 8)])
    assert [grid.act(cells, far, np.array([move]))[0][0] for move in (UP, DOWN, LEFT, RIGHT)] == [
        SAND,
        WALL,
        SAND,
        WALL,
    ]


def test_a_resource_is_consumed_when_it_is_entered():
    grid = make()
    cells, _ = begin(grid, 2)
    cells[0, cell(grid, 3, 4)] = FIRST_KIND + 3
    position = np.full(2, cell(grid, 4, 4))
    events, position = grid.act(cells, position, np.array([UP, UP]))
    assert events.tolist() == [FIRST_KIND + 3, SAND] and events.dtype == np.int64  # grids are apart
    assert cells[0, cell(grid, 3, 4)] == SAND and grid.stock(cells).tolist() == [0, 0]
    events, then = grid.act(cells, position, np.array([STAY, DOWN]))
    assert events.tolist() == [NOTHING, SAND] and then.tolist() == [cell(grid, 3, 4), cell(grid, 4, 4)]


def test_agent_and_first_resources_lie_on_uniform_distinct_cells():
    chances = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    grid = make(size=5, initial_resources=4, chances=chances)
    cells, position = begin(grid, 3000)
    assert (grid.stock(cells) == 4).all() and (cells[np.arange(3000), position] == SAND).all()
    places = np.bincount(position, minlength=cells.shape[1])[grid.free]
    assert places.sum() == 3000 and (np.abs(places - 3000 / 9) < 5 * np.sqrt(3000 / 9)).all()
    filled = (cells[:, grid.free] >= FIRST_KIND).sum(axis=0)
    assert (np.abs(filled - 3000 * 4 / 9) < 5 * np.sqrt(3000)).all()
    kinds = np.bincount(cells[:, grid.free].ravel())[FIRST_KIND:]
    assert kinds / 12_000 == pytest.approx(chances, abs=0.02)


def test_the_grid_is_walled_in_and_widened_by_the_radius():
    grid = make(size=4, radius=2)
    codes = begin(grid)[0].reshape(8, 8)
    assert (codes[2:6, 2:6] == [[WALL] * 4, [WALL, SAND, SAND, WALL], [WALL, SAND, SAND, WALL], [WALL] * 4]).all()
    codes[2:6, 2:6] = OUTSIDE
    assert (codes == OUTSIDE).all()
    assert grid.free.tolist() == [27, 28, 35, 36] and grid.shape == (64,)


def test_empty_cells_spawn_also_before_the_first_turn_but_not_under_the_agent():
    grid = make(respawn_prob=0.05)
    cells, position = begin(grid, 3000)
    for expected in (63 * 0.05, 63 * 0.05 * 1.95):  # in the second turn of the cells that are still empty
        stock = grid.stock(cells)
        assert abs(stock.mean() - expected) < 4 * stock.std() / np.sqrt(3000)
        assert (cells[np.arange(3000), position] == SAND).all()
        grid.next_turn(np.random.default_rng(1), cells, position)


def test_what_lies_there_stays_when_others_spawn():
    grid = make(respawn_prob=0.5, chances=np.array([0, 0, 0, 0, 1.0]))
    cells, _ = begin(grid, 50)
    cells[:, cell(grid, 2, 2)] = FIRST_KIND
    before = cells.copy()
    grid.next_turn(np.random.default_rng(0), cells, np.full(50, cell(grid, 1, 1)))
    assert (cells[:, cell(grid, 2, 2)] == FIRST_KIND).all() and (cells != before).any()
    assert (cells[before >= FIRST_KIND] == before[before >= FIRST_KIND]).all()


def test_nothing_spawns_and_nothing_is_drawn_without_a_probability():
    grid, rng = make(), np.random.default_rng(0)
    cells, position = begin(grid, 5)
    grid.next_turn(rng, cells, position)
    assert not grid.stock(cells).any() and rng.random() == np.random.default_rng(0).random()


def test_resources_never_exceed_the_most_and_all_cells_have_the_same_chance():
    grid = make(size=6, max_resources=6, respawn_prob=0.5)
    cells, position = begin(grid, 2000)
    stock = grid.stock(cells)
    assert stock.max() == 6 and (stock == 6).mean() > 0.5
    filled = (cells[:, grid.free] >= FIRST_KIND).sum(axis=0)
    assert (np.abs(filled - filled.mean()) < 5 * np.sqrt(filled.mean())).all()
    cells[:1000, grid.free[:8]] = SAND
    missing = 6 - grid.stock(cells)
    assert missing.max() > 2
    before = grid.stock(cells)
    grid.next_turn(np.random.default_rng(0), cells, position)
    assert ((grid.stock(cells) - before) <= missing).all() and grid.stock(cells).max() == 6


def view_of(codes, centre, grid, identity, marked):
    """The view of one agent, cell by cell as the rules say; ``codes`` are those of its grid, ``[P, P]``."""
    slot, radius, size = grid.slot, grid.radius, grid.size
    y0, x0 = np.divmod(centre, grid.side) - np.array(radius)
    view = np.zeros((27 if slot else 9, 2 * radius + 1, 2 * radius + 1))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x, at = y0 + dy, x0 + dx, (slice(None), dy + radius, dx + radius)
            inside = 0 <= y < size and 0 <= x < size
            wall = not (0 < y < size - 1 and 0 < x < size - 1)
            kind = codes[y + radius, x + radius] - FIRST_KIND if not wall else -1
            if slot:
                view[at][2 if wall else 1 if dy == dx == 0 else 4 + kind if kind >= 0 else 3] = 1
            elif wall:
                view[at][1] = 2 if inside else 1
            else:
                view[at][2] = 1
                if dy == dx == 0:
                    view[at][8] = 1
                elif kind >= 0:
                    view[at][3 + kind] = 1
    if slot:
        view[10:26, radius, radius] = identity
        view[26, radius, radius] = marked
    return view


@pytest.mark.parametrize("observation", ["slot", "onehot"])
@pytest.mark.parametrize(("size", "radius"), [(6, 4), (9, 2)])
def test_views_cell_by_cell(observation, size, radius):
    grid = make(size, radius, observation, initial_resources=6)
    cells, position = begin(grid, 40)
    identity, marked = np.tile(identities(4), (10, 1)), np.arange(40) % 3 == 0
    area = grid.window**2 * grid.space.shape[0]
    out = np.zeros((40, area + 2), dtype=grid.space.dtype)  # what comes after the picture is left alone
    grid.paint(out, cells, position, identity, marked)
    assert not out[:, area:].any()
    assert grid.space.dtype == (np.float32 if observation == "slot" else np.uint8)
    for row, image in enumerate(out[:, :area].reshape(40, *grid.space.shape)):
        assert image in grid.space
        codes = cells[row].reshape(grid.side, grid.side)
        np.testing.assert_array_equal(image, view_of(codes, position[row], grid, identity[row], marked[row]))


def test_agents_can_be_told_apart():
    vectors = identities(10)
    assert vectors.dtype == np.float32 and vectors.shape == (10, 16)
    assert set(vectors.ravel()) == {-0.25, 0.25} and len(np.unique(vectors, axis=0)) == 10
    np.testing.assert_array_equal(vectors[:3], identities(3))  # whatever the number of agents


def test_the_drawing_shows_the_grid_and_the_agent():
    grid = make(size=5, radius=3)
    cells, _ = begin(grid, 2)
    cells[0, cell(grid, 1, 3)] = FIRST_KIND + 1
    drawing = grid.drawing(cells, np.array([cell(grid, 2, 2), cell(grid, 3, 1)]))
    assert drawing.shape == (2, 5, 5) and (drawing[:, 0] == WALL).all() and (drawing[:, :, 4] == WALL).all()
    assert drawing[0, 1:4, 1:4].tolist() == [[0, 0, 3], [0, 8, 0], [0, 0, 0]]
    assert drawing[1, 1:4, 1:4].tolist() == [[0, 0, 0], [0, 0, 0], [8, 0, 0]]
    assert (cells != 8).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": 2}, "size=2: it must be a whole number of at least 3"),
        ({"radius": 0}, "view_radius=0: it must be a whole number of at least 1"),
        ({"observation": "pixels"}, "observation='pixels': it must be one of 'slot', 'onehot'"),
        ({"initial_resources": -1}, "initial_resources=-1: it must be a whole number of at least 0"),
        ({"initial_resources": 64}, "initial_resources=64: it must be at most 63 for size=10"),
        ({"max_resources": -1}, "max_resources=-1: it must be a whole number of at least 0"),
        ({"initial_resources": 8, "max_resources": 7}, "initial_resources=8: it must be at most max_resources=7"),
        ({"respawn_prob": 1.5}, "respawn_prob=1.5: it must be a number from 0 to 1"),
    ],
)
def test_what_is_refused(changes, sentence):
    with pytest.raises(ValueError) as caught:
        make(**changes)
    assert str(caught.value) == sentence


def test_the_fullest_grid_that_is_allowed():
    grid = make(initial_resources=63, max_resources=63)
    cells, position = begin(grid)
    assert grid.stock(cells) == [63] and cells[0, position] == SAND
