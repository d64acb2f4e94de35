"""Pictures: shapes where they belong, what the player sees and does not see, and no trace in what is played."""

from itertools import pairwise
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from envs import drawing
from envs.agent_rows import AgentRows
from envs.bernoulli_bandit import BernoulliBandit
from envs.classic_control import CartPoleNoVelocity, MountainCarContinuousNoVelocity, PendulumNoVelocity
from envs.copy_sequence import CopySequence
from envs.delayed_recall import DelayedRecall
from envs.drawing import AGENT, BAD, FLOOR, GOOD, GREY, INK, LIGHT, PAPER, hue, pale
from envs.memory_grid import MemoryGrid
from envs.probes import Counter
from envs.repeat_previous import RepeatPrevious
from envs.t_maze import DOWN, FORWARD, UP, TMaze
from envs.witness_vote import WitnessVote

TASKS = [
    BernoulliBandit, CartPoleNoVelocity, CopySequence, DelayedRecall, MemoryGrid, MountainCarContinuousNoVelocity,
    PendulumNoVelocity, RepeatPrevious, TMaze, WitnessVote,
]  # fmt: skip


def colour_at(picture, y, x):
    return tuple(picture[round(y), round(x)].tolist())


def place_of(picture, colour):
    """The mean row and column of all pixels of a colour."""
    return np.argwhere((picture == colour).all(axis=2)).mean(axis=0)


def has(picture, colour):
    return bool((picture == colour).all(axis=2).any())


# ---------------------------------------------------------------------------------------------------------- the shapes


def test_a_box_fills_its_pixels_and_is_cut_at_the_edges():
    picture = drawing.blank(10, 20)
    drawing.box(picture, -5, 15, 3, 40, INK)
    filled = (picture == INK).all(axis=2)
    assert filled[:3, 15:].all() and filled.sum() == 3 * 5


def test_a_disc_has_its_area():
    picture = np.zeros((41, 41, 3), dtype=np.uint8)
    drawing.disc(picture, 20, 20, 12, (255, 255, 255))
    assert picture.sum() / 765 == pytest.approx(np.pi * 12**2, rel=0.01)
    assert colour_at(picture, 20, 8) != (0, 0, 0) and colour_at(picture, 20, 7) == (0, 0, 0)


def test_a_stroke_has_its_width_and_round_ends():
    picture = np.zeros((41, 61, 3), dtype=np.uint8)
    drawing.stroke(picture, 20, 10, 20, 50, 6, (255, 255, 255))
    assert picture[:, 30].sum() / 765 == pytest.approx(6, abs=0.1)
    assert picture.sum() / 765 == pytest.approx(40 * 6 + np.pi * 9, rel=0.02)


@pytest.mark.parametrize(("dy", "dx"), [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_an_arrow_is_narrow_where_it_points(dy, dx):
    picture = np.zeros((41, 41, 3), dtype=np.uint8)
    drawing.arrow(picture, 20, 20, 12, dy, dx, (255, 255, 255))

    def width(along):
        y, x = 20 + along * dy, 20 + along * dx
        return (picture[y] if dy else picture[:, x]).sum()

    assert 0 < width(10) < width(0) < width(-10)


# --------------------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("cls", TASKS)
def test_each_row_has_a_picture_and_drawing_changes_nothing(cls):
    drawn, plain = cls(3, render_mode="rgb_array"), cls(3)
    assert drawn.metadata["render_modes"] == ["rgb_array"] and plain.render() is None
    drawn.action_space.seed(0)
    drawn.reset(seed=5)
    plain.reset(seed=5)
    pictures = [drawn.render()]
    for _ in range(12):
        actions = drawn.action_space.sample()
        for one, other in zip(drawn.step(actions)[:4], plain.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(one, other)
        pictures.append(drawn.render())
    for rows in pictures:
        assert isinstance(rows, tuple) and len(rows) == 3
        assert all(row.dtype == np.uint8 and row.ndim == 3 and row.shape == rows[0].shape for row in rows)
    assert any((before[0] != after[0]).any() for before, after in pairwise(pictures))


@pytest.mark.parametrize("cls", TASKS)
def test_a_device_draws_the_same(cls):
    """From one state, numpy and torch."""
    here, there = cls(2, render_mode="rgb_array"), cls(2, device="cpu", render_mode="rgb_array")
    here.reset(seed=3)
    there.reset(seed=3)
    here.action_space.seed(1)
    for _ in range(2):
        here.step(here.action_space.sample())
    there.load_state_dict(here.state_dict())
    there.last_actions = here.last_actions
    for one, other in zip(here.render(), there.render(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_modes_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"^render_mode='human': it must be one of None, 'rgb_array'$"):
        TMaze(1, render_mode="human")
    with pytest.raises(ValueError, match=r"^render_mode='rgb_array': it must be one of None$"):
        type("Blind", (TMaze,), {"metadata": Counter.metadata})(1, render_mode="rgb_array")
    with pytest.raises(ResetNeeded, match="before render"):
        TMaze(1, render_mode="rgb_array").render()


def test_gymnasium_renders_one_and_many():
    one = gymnasium.make("RecurrentPPO/CartPoleNoVelocity-v0", render_mode="rgb_array")
    one.reset(seed=0)
    many = gymnasium.make_vec("RecurrentPPO/CartPoleNoVelocity-v0", num_envs=2, render_mode="rgb_array")
    many.reset(seed=0)
    assert one.render().shape == (200, 320, 3) and one.metadata["render_fps"] == 50
    assert [picture.shape for picture in many.render()] == [(200, 320, 3)] * 2
    assert gymnasium.make("RecurrentPPO/TMaze-v0").unwrapped.render() is None


def draw_maze(actions, cue=0, **options):
    env = TMaze(1, render_mode="rgb_array", **options)
    env.reset(seed=0)
    env.cue[:] = cue
    for action in actions:
        env.transition(np.array([action]))
    return env.render()[0]


def test_the_cue_of_a_maze_is_dark_while_it_is_seen():
    first, second = draw_maze([], length=4), draw_maze([FORWARD], length=4)
    assert has(first, INK) and not has(first, pale(INK))
    assert has(second, pale(INK)) and not has(second, INK)
    assert place_of(first, AGENT)[1] < place_of(second, AGENT)[1]


@pytest.mark.parametrize(("turn", "direction"), [(UP, -1), (DOWN, 1)])
def test_a_turn_in_a_maze_is_seen(turn, direction):
    before, after = draw_maze([FORWARD] * 2, length=2), draw_maze([FORWARD] * 2 + [turn], length=2)
    assert place_of(before, AGENT)[0] == pytest.approx(80, abs=1)
    assert np.sign(place_of(after, AGENT)[0] - 80) == direction


@pytest.mark.parametrize("cue", [0, 1])
def test_the_right_end_of_a_maze_is_where_the_cue_points(cue):
    picture = draw_maze([], cue, length=3, passive=False)
    assert (place_of(picture, GOOD)[0] < 80) == (cue == 0)
    assert (place_of(picture, pale(INK))[0] < 80) == (cue == 0)  # the oracle is a step behind the start


def test_a_new_episode_forgets_the_last_turn():
    env = TMaze(1, length=1, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(np.array([FORWARD]))
    env.step(np.array([UP]))
    assert place_of(env.render()[0], AGENT) == pytest.approx([80, 240 / 2 + 10], abs=1)  # in the first of two cells


def test_the_culprit_stands_out_while_it_is_seen():
    seen = drawing.witness_vote(5, 4, 0, 2, True, None, 0.0)
    later = drawing.witness_vote(5, 4, 3, 2, False, 1, 0.5)
    assert has(seen, LIGHT) and has(seen, hue(2, 4)) and not has(seen, BAD)
    assert not has(later, LIGHT) and not has(later, hue(2, 4)) and has(later, pale(hue(2, 4)))
    assert place_of(later, BAD)[1] == pytest.approx(20 + 1.5 * 110, abs=1)  # the vote, for the wrong one
    assert has(drawing.witness_vote(5, 4, 3, 2, False, 2, 0.5), GOOD)


def test_cards_show_symbol_answer_and_truth():
    picture = drawing.cards(4, 1, True, 3, 0, 0.5)
    assert colour_at(picture, 80, 70) == hue(1, 4) and colour_at(picture, 21, 70) == INK
    assert place_of(picture, BAD)[1] == pytest.approx(160 + 3.5 * 75, abs=1)
    assert place_of(picture, GOOD)[1] == pytest.approx(160 + 0.5 * 75, abs=1)
    blank = drawing.cards(4, None, False, 3, None, 0.5)
    assert colour_at(blank, 80, 70) == PAPER and not has(blank, BAD) and not has(blank, GOOD)
    assert colour_at(blank, 158, 100) == GREY and colour_at(blank, 158, 400) == FLOOR  # half of the episode is over


def spy(monkeypatch, module, name):
    """The arguments of each drawing that a task asks for."""
    asked = []
    monkeypatch.setattr(f"envs.{module}.{name}", lambda *given: asked.append(given) or drawing.blank())
    return asked


def test_what_delayed_recall_shows(monkeypatch):
    asked = spy(monkeypatch, "delayed_recall", "cards")
    env = DelayedRecall(1, num_cues=3, delay=2, render_mode="rgb_array")
    env.reset(seed=0)
    env.cue[:] = 2
    distractors = []
    for action in (0, 1, 2):
        env.render()
        env.transition(np.array([action]))
        distractors.append(int(env.distractor[0]))
    env.render()
    assert asked == [
        (3, 2, False, None, None, 0.0),
        (3, distractors[0], False, 0, None, 1 / 3),
        (3, None, True, 1, None, 2 / 3),
        (3, None, True, 2, 2, 1.0),
    ]


@pytest.mark.parametrize(("reverse", "expected"), [(False, [None, None, None, 0, 1]), (True, [None, None, None, 1, 0])])
def test_what_copying_shows(monkeypatch, reverse, expected):
    asked = spy(monkeypatch, "copy_sequence", "cards")
    env = CopySequence(1, length=2, num_symbols=2, reverse=reverse, render_mode="rgb_array")
    env.reset(seed=0)
    env.shown[0, :2] = [0, 1]
    env.render()
    for _ in range(4):
        env.transition(np.array([0]))
        env.render()
    assert [given[1] for given in asked] == [0, 1, None, None, None]
    assert [given[4] for given in asked] == expected


def test_what_repeating_shows(monkeypatch):
    asked = spy(monkeypatch, "repeat_previous", "cards")
    env = RepeatPrevious(1, k=1, num_symbols=3, episode_length=3, render_mode="rgb_array")
    env.reset(seed=0)
    env.symbols[0, :3] = [2, 0, 1]
    env.render()
    for _ in range(3):
        env.transition(np.array([0]))
        env.render()
    assert [given[1] for given in asked] == [2, 0, 1, None] and [given[4] for given in asked] == [None, None, 2, 0]


def test_arms_are_as_high_as_their_chances():
    picture = drawing.bandit(np.array([0.2, 0.8]), 1, False, 0.0)
    heights = [(picture[:120, x] == pale(INK)).all(axis=1).sum() for x in (130, 350)]
    assert heights == [20, 80] and place_of(picture, BAD)[1] == pytest.approx(350, abs=1)


def test_poles_lean_and_cars_drive_to_their_side():
    left, right = drawing.cart_pole(-1.0, -0.2, 2.4), drawing.cart_pole(1.0, 0.2, 2.4)
    assert place_of(left, INK)[1] == pytest.approx(160 - 140 / 2.4, abs=1)
    assert place_of(left, AGENT)[1] < place_of(left, INK)[1] < place_of(right, INK)[1] < place_of(right, AGENT)[1]
    hanging = drawing.pendulum(np.pi, 4.0, 8.0)
    assert place_of(hanging, AGENT)[0] > 105 > place_of(drawing.pendulum(0.0, 0.0, 8.0), AGENT)[0]
    assert place_of(hanging, pale(INK))[1] == pytest.approx(135, abs=1)  # half as fast as can be: 50 pixels wide
    car = drawing.mountain_car(0.45, -1.2, 0.6, 0.45)
    assert place_of(car, AGENT)[1] == pytest.approx(1.65 / 1.8 * 319, abs=1)


def test_the_grid_is_lit_where_the_player_looks():
    """It stands at the beginning of the hallway and looks along it, so all of that is lit; the room behind is not."""
    env = MemoryGrid(1, size=11, render_mode="rgb_array")
    env.reset(seed=0)
    env.situation[:] = np.ravel_multi_index((0, 4, 5, 0), env.shape)  # layout, x, y, east
    picture = env.render()[0]
    side = 264 // 11

    def cell(x, y):
        return colour_at(picture, (y + 0.1) * side, (x + 0.1) * side)

    assert [cell(x, 5) for x in (3, 4, 5, 9)] == [FLOOR, LIGHT, LIGHT, LIGHT]
    assert cell(0, 0) == GREY and cell(1, 5) == FLOOR
    assert place_of(picture, AGENT) == pytest.approx([5.5 * side, 4.5 * side], abs=3)


def test_worlds_of_several_agents_draw_themselves():
    """A picture for each world, in the mode and with the speed that the worlds tell."""

    def make_world():
        space = gymnasium.spaces.Discrete(2)
        told = {"render_modes": ["rgb_array"], "render_fps": 7, "name": "pair"}
        return SimpleNamespace(
            possible_agents=["a", "b"], metadata=told, render_mode="rgb_array", close=lambda: None,
            observation_space=lambda _: space, action_space=lambda _: space, render=lambda: drawing.blank(2, 3),
        )  # fmt: skip

    envs = AgentRows(make_world, 4)
    assert envs.render_mode == "rgb_array" and envs.metadata["render_fps"] == 7 and "name" not in envs.metadata
    assert [picture.shape for picture in envs.render()] == [(2, 3, 3)] * 2
    assert AgentRows.metadata["render_modes"] == []
