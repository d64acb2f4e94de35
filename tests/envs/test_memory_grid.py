import numpy as np
import pytest

from envs.memory_grid import BALL, EAST, FORWARD, KEY, LEFT, NORTH, RIGHT, SOUTH, WALL, WEST, MemoryGrid
from envs.single_env import SingleEnv

PICKUP, DROP, TOGGLE, DONE = range(3, 7)


def put(env, *, x, y=None, direction=EAST, cue=KEY, up=KEY):
    """Puts all copies there; `up` is the object above the junction, the other one lies below."""
    layout = 2 * (cue == BALL) + (up == KEY)
    y = env.size // 2 if y is None else y
    env.situation[:] = np.ravel_multi_index((layout, x, y, direction), env.shape)


def place(env):
    """x, y, direction of the first copy."""
    return tuple(int(axis[0]) for axis in np.unravel_index(env.situation, env.shape)[1:])


class Optimal:
    """Looks for the cue, then goes to the junction and turns to the object that equals it.

    It looks behind at once, or with `late=True` from the junction, which only the sizes 7 and 9 allow.
    """

    def __init__(self, late):
        self.late = late

    def __call__(self, observations, starts):
        if starts.all():
            self.cue, self.heading = np.zeros(len(starts), dtype=int), np.zeros(len(starts), dtype=int)
        self.cue[starts], self.heading[starts] = 0, EAST
        actions = np.array([self.act(row, view) for row, view in enumerate(observations[..., 0])])
        self.heading += (actions == RIGHT) * 1 - (actions == LEFT)
        self.heading %= 4
        return actions

    def act(self, row, view):
        heading, before_an_end = self.heading[row], view[3, 4] >= KEY
        if heading == EAST:
            if view[2, 6] >= KEY:
                self.cue[row] = view[2, 6]  # the cell to the left of column 1
            cue = self.cue[row]
            if view[3, 5] != WALL:
                return FORWARD if cue or self.late else LEFT
            return LEFT if not cue or view[1, 6] == cue else RIGHT  # at the junction
        if heading == WEST:
            if not view[4].max() >= KEY:
                return FORWARD
            self.cue[row] = view[4].max()
            return RIGHT if view[5, 6] == self.cue[row] else LEFT
        if before_an_end:
            return FORWARD if self.cue[row] else LEFT
        if heading == SOUTH:
            return LEFT
        if view[:3].max() >= KEY:  # looking north, the cue lies to the left
            self.cue[row] = view[:3].max()
        return RIGHT if self.cue[row] else LEFT


def straight_on_then_left(observations, starts):
    kinds = observations[..., 0]
    at_junction = kinds[:, 3, 5] == WALL  # facing the wall behind it
    return np.where(at_junction, LEFT, FORWARD)


class LooksBack:
    """Memoryless, for the sizes 7 and 9: looks back from the junction, and facing down takes that end at random."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __call__(self, observations, starts):
        return np.array([self.act(view) for view in observations[..., 0]])

    def act(self, view):
        if view[3, 4] >= KEY:  # before an end; facing down the hallway is to the right, and a wall to the left
            return RIGHT if view[2, 6] == WALL and self.rng.random() > 0.1 else FORWARD
        if view[3, 5] == WALL:
            return RIGHT
        if view[1, 6] >= KEY:  # both objects to the sides, the cue somewhere ahead
            return RIGHT if view[5, 6] == view[4].max() else LEFT
        return FORWARD


@pytest.mark.parametrize(("size", "late"), [(7, False), (7, True), (9, True), (11, False), (13, False), (17, False)])
def test_the_optimal_policy_reaches_the_exact_return(assert_mean_return, size, late):
    env = MemoryGrid(1024, size)
    assert_mean_return(env, Optimal(late), env.optimal_return)


@pytest.mark.parametrize("size", [11, 17])
def test_the_memoryless_policy_reaches_the_exact_return(assert_mean_return, size):
    env = MemoryGrid(1024, size)
    assert_mean_return(env, straight_on_then_left, env.memoryless_return)


def test_scripted_policies_reach_the_exact_returns_on_a_device(assert_mean_return, device):
    env = MemoryGrid(1024, device=device)
    assert_mean_return(env, Optimal(late=False), env.optimal_return)
    assert_mean_return(env, straight_on_then_left, env.memoryless_return)


@pytest.mark.parametrize("size", [7, 9])
def test_a_memoryless_policy_beats_chance_where_the_junction_shows_the_cue(play, size):
    env = MemoryGrid(512, size)
    assert play(env, LooksBack()).mean() > 0.85 and env.memoryless_return is None


@pytest.mark.parametrize(("size", "shows_cue"), [(7, True), (9, True), (11, False), (13, False), (17, False)])
def test_whether_a_view_at_the_junction_depends_on_the_cue(size, shows_cue):
    env = MemoryGrid(1, size)
    env.reset(seed=0)
    depends = []
    for direction in (EAST, SOUTH, WEST, NORTH):
        views = []
        for cue in (KEY, BALL):
            put(env, x=size - 2, direction=direction, cue=cue)
            views.append(env._observe())
        depends.append((views[0] != views[1]).any())
    assert depends == [False, False, shows_cue, False]


def num_bits(sets):
    return sum(sets >> bit & 1 for bit in range(4))


@pytest.mark.parametrize("size", [7, 9, 11, 13])
def test_the_optimal_return_by_backward_induction(size):
    """Over what can be known: the pose, and which layouts agree with all that was seen, as a set of bits.

    To know the start column as well can only help, and the scripted policy gets as much without knowing it.
    """
    env = MemoryGrid(1, size)
    num_poses = size * size * 4
    pose = np.arange(num_poses)
    views = env._views.reshape(4, num_poses, -1)
    moves = env._next.reshape(4, num_poses, 7)[0]  # the same in all layouts
    succeeds, ends = env._succeeds.reshape(4, -1), env._ends.reshape(4, -1)[0]
    alike = (views[:, None] == views[None]).all(axis=-1)  # [4, 4, poses]
    bits = 1 << np.arange(4)
    same_view = np.einsum("abp,b->ap", alike, bits)  # [4, poses]: the layouts that look like this one
    known = np.arange(16)
    weights = (known[:, None] & bits) > 0  # [16, 4]
    wins = weights @ succeeds  # [16, poses], how many of the known layouts
    values = np.zeros((16, num_poses))  # summed over the known layouts
    for step in range(env.max_episode_steps, 0, -1):
        later = np.zeros_like(values)
        for layout in range(4):  # a share of each set's value for each of its layouts
            after = known[:, None] & same_view[layout]  # [16, poses]
            sizes = np.maximum(1, num_bits(after))
            later += weights[:, [layout]] * values[after, pose] / sizes
        later = np.where(ends, wins * env._reward(step), later)
        values = later[:, moves].max(axis=-1)
    starts = np.ravel_multi_index((np.arange(1, size - 2), size // 2, EAST), env.shape[1:])
    total = sum(values[same_view[layout, starts], starts] / num_bits(same_view[layout, starts]) for layout in range(4))
    assert env.optimal_return == pytest.approx(total.mean() / 4, abs=1e-12)


def test_one_episode_step_by_step():
    env = MemoryGrid(1, size=7)
    env.reset(seed=0)
    put(env, x=3, cue=BALL, up=KEY)
    assert place(env) == (3, 3, EAST)
    expected = [  # the room, 3 x 3, has the ball in its upper left corner (1, 2)
        (LEFT, (3, 3, NORTH)),
        (FORWARD, (3, 2, NORTH)),
        (FORWARD, (3, 2, NORTH)),  # a wall
        (LEFT, (3, 2, WEST)),
        (FORWARD, (2, 2, WEST)),
        (FORWARD, (2, 2, WEST)),  # the ball
        (PICKUP, (2, 2, WEST)),
        (DROP, (2, 2, WEST)),
        (TOGGLE, (2, 2, WEST)),
        (DONE, (2, 2, WEST)),
        (LEFT, (2, 2, SOUTH)),
        (FORWARD, (2, 3, SOUTH)),
        (LEFT, (2, 3, EAST)),
        (FORWARD, (3, 3, EAST)),
        (FORWARD, (4, 3, EAST)),
        (FORWARD, (5, 3, EAST)),
        (FORWARD, (5, 3, EAST)),  # a wall
        (RIGHT, (5, 3, SOUTH)),
    ]
    for action, then in expected:
        _, rewards, terminated, truncated, _ = env.step(np.array([action]))
        assert place(env) == then and not rewards and not terminated and not truncated
    _, rewards, terminated, _, info = env.step(np.array([FORWARD]))
    assert rewards == [1 - 0.9 * 19 / 245] and terminated
    assert info["final_obs"][0, 3, 5].tolist() == [BALL, 1, 0]
    assert place(env)[1:] == (3, EAST)


@pytest.mark.parametrize("cue", [KEY, BALL])
@pytest.mark.parametrize("up", [KEY, BALL])
def test_the_end_that_pays(cue, up):
    for turn in (LEFT, RIGHT):
        env = MemoryGrid(1)
        env.reset(seed=0)
        put(env, x=9, cue=cue, up=up)
        env.step(np.array([turn]))
        _, rewards, terminated, _, _ = env.step(np.array([FORWARD]))
        assert terminated and (rewards == [1 - 0.9 * 2 / 605] if (turn == LEFT) == (cue == up) else rewards == [0])


def drawn(observation):
    """The view as text: ahead is up."""
    return ["".join("?.#  kb"[kind] for kind in line) for line in observation[..., 0].T]


@pytest.mark.parametrize(
    ("where", "view"),
    [
        # From the west wall of the room: the cue right beside the agent, the hallway ahead.
        ({"x": 1}, ["??#.#??", "??#.#??", "??#.#??", "?##.##?", "?#...#?", "?#...#?", "?#k..#?"]),
        # From the room's middle row to the north: the wall behind the cue, and the hallway's wall to the right.
        ({"x": 3, "direction": NORTH}, ["???????"] * 4 + ["#####??", "#k..###", "#......"]),
        # Back from the hallway: the cue comes into view as far ahead as one can see.
        ({"x": 7, "direction": WEST}, ["?#..k#?", "?#...#?", "?#...#?", "??#.#??", "??#.#??", "??#.#??", "??#.#??"]),
        ({"x": 8, "direction": WEST}, ["?#...#?", "?#...#?", "??#.#??", "??#.#??", "??#.#??", "??#.#??", "??#.#??"]),
        # Both ends from the hallway, and one end from the junction, with what lies behind the object.
        ({"x": 6}, ["???????"] * 2 + ["#######", ".b...k.", "??#.#??", "??#.#??", "??#.#??"]),
        ({"x": 9, "direction": NORTH}, ["???????", "??###??", "??#.#??", "??#.#??", "??#b#??", "###.#??", "....#??"]),
    ],
)
def test_views_worked_by_hand(where, view):
    env = MemoryGrid(1)
    env.reset(seed=0)
    put(env, **where, cue=KEY, up=BALL)
    observation = env._observe()[0]
    kinds = observation[..., 0].T  # ahead is up
    assert ["".join("?.#  kb"[kind] for kind in line) for line in kinds] == view
    colours = {"?": 0, ".": 0, "#": 5, "k": 1, "b": 1}
    assert observation[..., 1].T.tolist() == [[colours[kind] for kind in line] for line in view]
    assert not observation[..., 2].any()


def test_the_time_limit_truncates():
    env = MemoryGrid(3, size=7)
    env.reset(seed=0)
    truncated = np.array([env.step(np.full(3, LEFT))[3] for _ in range(245)])
    assert truncated.sum(axis=0).tolist() == [1, 1, 1] and truncated[-1].all()


def test_starts_are_uniform_and_independent():
    env = MemoryGrid(32_000)
    env.reset(seed=0)
    layout, x, y, direction = np.unravel_index(env.situation, env.shape)
    assert (y == 5).all() and (direction == EAST).all()
    counts = np.bincount(layout * 8 + x - 1)  # x is 1 to 8
    assert len(counts) == 32 and (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()


@pytest.mark.parametrize(
    ("size", "allowed"), [(5, "a whole number of at least 7"), (8, "odd"), ("9", "a whole number of at least 7")]
)
def test_bad_size(size, allowed):
    with pytest.raises(ValueError, match=f"^size={size!r}: it must be {allowed}$"):
        MemoryGrid(2, size)


def minigrid_env(size):
    pytest.importorskip("minigrid", reason="compares with minigrid, of the extra `envs`")
    from minigrid.envs import MemoryEnv
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(MemoryEnv(size=size))


@pytest.mark.parametrize("size", [7, 9, 11, 13, 17])
@pytest.mark.parametrize("actions", ["random", "straight on", "mostly still"])
def test_whole_episodes_equal_minigrids(size, actions):
    """The same seed draws the same layouts, episode after episode, and every step returns the same."""
    reference, env = minigrid_env(size), SingleEnv("envs.memory_grid:MemoryGrid", size=size)
    assert env.observation_space == reference.observation_space and env.action_space == reference.action_space
    rng = np.random.default_rng(size)
    seed, episodes, ends = size, {"random": 4, "straight on": 40, "mostly still": 2}[actions], []
    for _ in range(episodes):
        np.testing.assert_array_equal(env.reset(seed=seed)[0], reference.reset(seed=seed)[0])
        seed, over = None, False
        while not over:
            if actions == "straight on":  # turns at the walls, at random
                blocked = reference.unwrapped.grid.get(*reference.unwrapped.front_pos) is not None
                action = int(rng.integers(2)) if blocked or rng.random() < 0.1 else FORWARD
            else:
                action = int(rng.integers(7) if actions == "random" else rng.integers(3, 7))
            observation, *rest, _ = env.step(action)
            expected, *expected_rest, _ = reference.step(action)
            np.testing.assert_array_equal(observation, expected)
            assert observation.dtype == expected.dtype and rest == expected_rest
            over = rest[1] or rest[2]
        ends.append((rest[0] > 0, rest[1]))
    if actions == "straight on":
        assert {(True, True), (False, True)} <= set(ends)
    if actions == "mostly still":
        assert ends == [(False, False)] * episodes


@pytest.mark.parametrize("size", [7, 9, 11])
def test_every_step_from_every_situation_equals_minigrids(size):
    """Puts MiniGrid into each pose that can be reached in each layout, and takes each action there."""
    reference, env = minigrid_env(size), MemoryGrid(1, size)
    layouts = {}
    for seed in range(100):
        reference.reset(seed=seed)
        env.reset(seed=seed)
        layouts[int(np.unravel_index(env.situation, env.shape)[0][0])] = reference.unwrapped.grid.copy()
    assert len(layouts) == 4
    junction, middle, checked = size - 2, size // 2, 0
    for layout, grid in layouts.items():
        cells = [(x, y) for x in range(1, 4) for y in range(middle - 1, middle + 2) if (x, y) != (1, middle - 1)]
        cells += [(x, middle) for x in range(4, junction + 1)]
        pays = middle - 1 if grid.get(1, middle - 1).type == grid.get(junction, middle - 2).type else middle + 1
        for x, y in cells:
            for direction in range(4):
                for action in range(7):
                    reference.unwrapped.grid = grid.copy()
                    reference.unwrapped.agent_pos, reference.unwrapped.agent_dir = np.array([x, y]), direction
                    reference.unwrapped.success_pos = (junction, pays)
                    reference.unwrapped.failure_pos = (junction, 2 * middle - pays)
                    reference.unwrapped.step_count = checked % 50
                    env.situation[:] = np.ravel_multi_index((layout, x, y, direction), env.shape)
                    env.elapsed_steps[:] = checked % 50
                    observation, reward, terminated, truncated = env.transition(np.array([action]))
                    expected = reference.step(action)
                    np.testing.assert_array_equal(observation[0], expected[0])
                    assert (reward[0], terminated[0], truncated[0]) == expected[1:4]
                    assert place(env) == (*reference.unwrapped.agent_pos, reference.unwrapped.agent_dir)
                    checked += 1
    assert checked == 4 * 4 * 7 * (8 + size - 5)
