import importlib
import inspect

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.atari_env import Flicker, make_atari
from envs.single_env import SingleEnv
from rl.trust import FACTORIES


@pytest.fixture
def ale():
    pytest.importorskip("ale_py", reason="ale_py is of the extra `atari`")
    pytest.importorskip("cv2", reason="opencv is of the extra `atari`")


def play(env, steps, seed=3):
    """The observations and rewards of a few steps of the same actions."""
    actions = np.random.default_rng(0).integers(0, env.single_action_space.n, (steps, env.num_envs))
    seen, paid = [env.reset(seed=seed)[0]], []
    for row in actions:
        obs, rewards, *_ = env.step(row)
        seen.append(obs)
        paid.append(rewards)
    env.close()
    return np.stack(seen), np.stack(paid)


def test_one_gray_picture_at_a_time(ale):
    env = make_atari("Pong", 2)
    assert env.single_observation_space == spaces.Box(0, 255, (84, 84), np.uint8)
    assert env.single_action_space == spaces.Discrete(6)
    seen, _ = play(env, 40)
    assert seen.any((2, 3)).all() and (seen[0] != seen[-1]).any()


def test_a_picture_is_the_larger_of_the_last_two_of_four_frames(ale):
    """Beside the game itself, stepped by hand without random repeats of actions."""
    import cv2

    env = make_atari("Breakout", 1, noop_max=0, repeat_action_probability=0.0)
    game = gymnasium.make("ALE/Breakout-v5", frameskip=1, repeat_action_probability=0.0, obs_type="grayscale")
    env.reset(seed=0)
    game.reset(seed=0)
    for action in (1, 2, 2, 3, 3, 3, 0, 2):
        frames = [game.step(action)[0] for _ in range(4)]
        expected = cv2.resize(np.maximum(*frames[2:]), (84, 84), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(env.step(np.array([action]))[0][0], expected)


@pytest.mark.parametrize("flicker", [0.25, 0.5])
def test_pictures_are_blank_as_often_as_they_should(flicker, ale):
    shown, _ = play(make_atari("Pong", 4, flicker=flicker, screen_size=36), 150)
    blank = ~shown.any((2, 3))
    assert blank.mean() == pytest.approx(flicker, abs=4 * np.sqrt(flicker * (1 - flicker) / blank.size))
    both = (blank[1:] & blank[:-1]).mean()  # whatever came before
    assert both == pytest.approx(flicker**2, abs=4 * np.sqrt(flicker**2 / blank.size))
    assert blank[0].any() or not blank[0].all()


def test_blank_pictures_repeat_with_their_seed(ale):
    one, other, third = (play(make_atari("Pong", 2, flicker=0.5, screen_size=36), 30, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, other)
    assert (one.any((2, 3)) != third.any((2, 3))).any()


def test_frames_are_stacked_if_asked_for(ale):
    env = make_atari("Pong", 2, frame_stack=4, screen_size=42)
    assert env.single_observation_space.shape == (4, 42, 42)
    seen, _ = play(env, 5)
    np.testing.assert_array_equal(seen[2:, :, :3], seen[1:-1, :, 1:])


def test_an_action_lasts_as_many_frames_as_asked_for(ale):
    """What is paid in a game without chance is the same, only told in fewer steps."""
    one = make_atari("Freeway", 1, frame_skip=1, noop_max=0, repeat_action_probability=0.0)
    eight = make_atari("Freeway", 1, frame_skip=8, noop_max=0, repeat_action_probability=0.0)
    paid = []
    for env, steps in ((one, 1600), (eight, 200)):
        env.reset(seed=0)
        paid.append(sum(env.step(np.array([1]))[1][0] for _ in range(steps)))
    assert paid[0] == paid[1] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"flicker": 1.5}, "^flicker=1.5: it must be a number from 0 to 1$"),
        ({"frame_stack": 0}, "^frame_stack=0: it must be a whole number of at least 1$"),
        ({"screen_size": 0}, "^screen_size=0: it must be"),
        ({"frame_skip": 0.5}, "^frame_skip=0.5: it must be"),
    ],
)
def test_values_out_of_range(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_atari("Pong", 1, **options)


def test_an_unknown_game(ale):
    with pytest.raises(
        ValueError, match=r"Unknown environment id 'ALE/Pongg-v5'; the nearest known ids are ALE/Pong-v5"
    ):
        make_atari("Pongg", 1)


@pytest.mark.parametrize(("probability", "shown"), [(0.0, True), (1.0, False)])
def test_flicker_of_any_environment(probability, shown):
    """No observation is blank, or every one, the first included; the next wrapper gets an array of its own."""
    env = Flicker(SingleEnv("envs.probes:SpaceProbe", observation="image"), probability)
    seen = [env.reset(seed=seed)[0] for seed in range(3)]
    seen.append(env.step(env.action_space.sample())[0])
    assert all(obs in env.observation_space and obs.any() == shown for obs in seen)


def test_pictures_are_stacked_by_a_key_of_its_own():
    pytest.importorskip("ale_py")
    envs = make_atari("Pong", 1, frame_stack=4, screen_size=42)
    assert envs.single_observation_space.shape == (4, 42, 42)
    envs.close()


@pytest.mark.parametrize("family", [name for name in FACTORIES if "pettingzoo" not in name])
def test_frames_are_keys_of_every_family(family):
    """The command line hands ``env.frame_stack`` on to those alone that name it."""
    module, _, name = family.rpartition(".")
    make = getattr(importlib.import_module(module), name)
    assert {"frame_skip", "frame_stack"} <= inspect.signature(make).parameters.keys()
