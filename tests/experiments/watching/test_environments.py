"""Environments that draw themselves: asked for pictures where they have some, and stepped in this process."""

import os

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from omegaconf import OmegaConf

from envs.probes import Counter
from envs.t_maze import TMaze
from envs.workers import close
from experiments.launch.arguments import load_defaults
from experiments.launch.check import ConfigError
from experiments.watching.environments import can_draw, make_camera, open_drawn_envs


class Painter(gymnasium.Env):
    """Draws its step as a shade of grey, or whatever ``Painter.picture`` is."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012
    observation_space, action_space = gymnasium.spaces.Box(0.0, 9.0, (1,)), gymnasium.spaces.Discrete(2)
    picture = None

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action):
        self.time += 1
        return np.full(1, self.time, dtype=np.float32), 1.0, self.time == 2, False, {}

    def render(self):
        if isinstance(self.picture, Exception):
            raise self.picture
        return np.full((2, 3, 3), self.time, dtype=np.uint8) if self.picture is None else self.picture


@pytest.fixture
def configure():
    """The configuration of a run in an environment."""

    def make(**env):
        config = load_defaults("train")
        OmegaConf.set_struct(config, False)
        config.merge_with({"agent": {"_target_": "rl.RecurrentPPOLSTM"}, "env": env, "evaluate_every": None})
        return config

    return make


@pytest.fixture
def painted(configure, monkeypatch):
    """One ``Painter`` that is asked for pictures."""
    monkeypatch.setattr("experiments.watching.environments.import_path", lambda path: Painter)
    monkeypatch.setattr("experiments.launch.check.import_path", lambda path: Painter)
    monkeypatch.setattr("hydra._internal.instantiate._instantiate2._locate", lambda path: Painter)
    envs = open_drawn_envs(configure(_target_="painter.Painter"), drawn=True)
    envs.reset(seed=0)
    yield envs
    close(envs)


def test_tasks_tell_whether_they_can_be_drawn():
    assert can_draw(TMaze(1)) and not can_draw(Counter(1))


def test_a_task_draws_itself_and_waits_at_its_end(configure):
    config = configure(_target_="envs.t_maze.TMaze", length=3)
    envs = open_drawn_envs(config, drawn=True)
    assert envs.num_envs == 1 and envs.render_mode == "rgb_array" and "render_mode" not in config.env
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    shapes = make_camera(envs, lambda picture: picture.shape)
    assert shapes() == (160, 480, 3)


def test_what_cannot_be_drawn_has_no_camera(configure):
    envs = open_drawn_envs(configure(_target_="envs.probes.Counter"), drawn=False)
    assert make_camera(envs, lambda picture: picture) is None


def test_one_world_is_not_stepped_by_a_worker(configure):
    given = {"_target_": "envs.gymnasium_env.make_gymnasium", "id": "CartPole-v1", "vectorization_mode": "async"}
    envs = open_drawn_envs(configure(**given), drawn=True)
    assert type(envs).__name__ == "SyncVectorEnv" and envs.render_mode == "rgb_array"
    close(envs)


@pytest.mark.parametrize(("display", "given", "chosen"), [("", "", "egl"), (":0", "", None), ("", "osmesa", "osmesa")])
def test_mujoco_draws_without_a_display(configure, monkeypatch, display, given, chosen):
    """Its own choice is that of glfw, which fails there with a fault of OpenGL."""
    monkeypatch.setattr("sys.platform", "linux")
    for name, value in {"DISPLAY": display, "WAYLAND_DISPLAY": "", "MUJOCO_GL": given}.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    close(open_drawn_envs(configure(_target_="envs.t_maze.TMaze", length=3), drawn=True))
    assert os.environ.get("MUJOCO_GL") == chosen


def test_an_environment_of_a_user_draws_itself_to_its_end(painted):
    draw = make_camera(painted, lambda picture: int(picture[0, 0, 0]))
    shades = [draw()]
    for _ in range(2):
        painted.step(np.array([0]))
        shades.append(draw())
    assert shades == [0, 1, 2] and painted.metadata["render_fps"] == 12


@pytest.mark.parametrize(
    ("picture", "sentence"),
    [
        (
            np.zeros((2, 3)),
            r"^the environment drew float64 of shape \(2, 3\), where a picture is uint8 \[height, width, 3",
        ),
        (KeyError("screen"), "^the environment could not be drawn: KeyError: 'screen'"),
    ],
)
def test_what_is_no_picture_is_told(painted, monkeypatch, picture, sentence):
    monkeypatch.setattr(Painter, "picture", picture)
    with pytest.raises(ConfigError, match=sentence):
        make_camera(painted, lambda kept: kept)()
