import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.memory_gym_env import ResetOptions, make_memory_gym

SHORT = {"command_count": [2], "command_show_duration": [1], "command_show_delay": [0]}


@pytest.fixture
def package():
    pytest.importorskip("memory_gym", reason="memory-gym is installed by hand, without what it demands")


def test_reset_options_are_given_every_time():
    """Pole cart begins within bounds that its options set."""
    env = ResetOptions(gymnasium.make("CartPole-v1"), {"low": 0.2, "high": 0.3})
    for _ in range(3):
        assert (env.reset()[0] >= 0.2).all()
    assert (env.reset(options={"low": 0.29})[0] >= 0.29).all()  # those of a caller are on top
    assert (env.reset(seed=7)[0] == env.reset(seed=7)[0]).all()


def test_a_picture(package):
    env = make_memory_gym("MortarMayhem-Grid", 2, SHORT)
    assert env.single_observation_space == spaces.Box(0, 255, (84, 84, 3), np.uint8)
    assert env.single_action_space == spaces.Discrete(4)
    first, _ = env.reset(seed=[1, 2])
    alone, _ = make_memory_gym("MortarMayhem-Grid", 1, SHORT).reset(seed=2)
    np.testing.assert_array_equal(first[1], alone[0])  # copies share a surface of pygame, and no picture
    assert (first[0] != first[1]).any()


def test_options_reach_the_task(package):
    """Who never moves fails the first of two commands, at the latest after both have been shown."""
    lengths = []
    for options in (SHORT, SHORT | {"command_show_duration": [5]}):
        env = make_memory_gym("MortarMayhem-Grid", 1, options)
        env.reset(seed=3)
        steps, ended = 0, False
        while not ended:
            *_, terminated, truncated, _ = env.step(np.array([0]))
            steps, ended = steps + 1, bool(terminated[0] or truncated[0])
        lengths.append(steps)
    assert lengths[1] - lengths[0] == 2 * 4


def test_an_unknown_task(package):
    with pytest.raises(
        ValueError, match="Unknown environment id 'MortarMayhem-Gird-v0'; the nearest known ids are Mortar"
    ):
        make_memory_gym("MortarMayhem-Gird", 1)


def test_copies_outlive_others_that_are_closed(package):
    env, other = make_memory_gym("MortarMayhem-Grid", 1, SHORT), make_memory_gym("MortarMayhem-Grid", 2)
    first, _ = env.reset(seed=1)
    other.reset(seed=2)
    other.close()
    np.testing.assert_array_equal(env.reset(seed=1)[0], first)
    env.step(np.array([0]))


def test_a_smaller_picture(package):
    pytest.importorskip("cv2", reason="opencv is of the extra `atari`")
    assert make_memory_gym("MysteryPath-Grid", 1, screen_size=42).single_observation_space.shape == (42, 42, 3)
    with pytest.raises(ValueError, match=r"^screen_size=0: it must be"):
        make_memory_gym("MysteryPath-Grid", 1, screen_size=0)


def test_a_smaller_picture_needs_opencv(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sentence = r'^screen_size=42 needs the package cv2, which is not installed: pip install "recurrent-ppo\[atari\]"\.$'
    with pytest.raises(ModuleNotFoundError, match=sentence):
        make_memory_gym("MysteryPath-Grid", 1, screen_size=42)
