import numpy as np
import pytest
from gymnasium import spaces

from envs.gymnasium_env import make_gymnasium
from envs.minigrid_env import make_minigrid

pytest.importorskip("minigrid", reason="minigrid is of the extra `envs`")


def test_picture_and_direction_are_those_of_minigrid():
    env, whole = make_minigrid("MemoryS7", 2), make_gymnasium("MiniGrid-MemoryS7-v0", 2)
    pictures = spaces.Box(0, 255, (7, 7, 3), np.uint8)
    assert env.single_observation_space == spaces.Dict(direction=spaces.Discrete(4), image=pictures)
    obs, expected = env.reset(seed=4)[0], whole.reset(seed=4)[0]
    for action in (0, 2, 2, 1, 2):
        assert all(np.array_equal(obs[name], expected[name]) for name in ("image", "direction"))
        obs, expected = (each.step(np.full(2, action))[0] for each in (env, whole))


def test_keys_of_the_task_and_more_wrappers():
    env = make_minigrid("RedBlueDoors-6x6", 1, ["gymnasium.wrappers.FlattenObservation"], agent_view_size=5)
    assert env.single_observation_space.shape == (5 * 5 * 3 + 4,)


def test_an_unknown_task():
    with pytest.raises(
        ValueError, match=r"Unknown environment id 'MiniGrid-MemoryS8-v0'; the nearest known ids are Mini"
    ):
        make_minigrid("MemoryS8", 1)
