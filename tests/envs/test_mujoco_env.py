import re

import gymnasium
import numpy as np
import pytest

from envs import mujoco_env
from envs.gymnasium_env import MUJOCO
from envs.mujoco_env import find_parts, make_mujoco

TASKS = {  # positions, velocities and forces that a task shows, as its documentation says
    "Ant": (13, 14, 78),
    "HalfCheetah": (8, 9, 0),
    "Hopper": (5, 6, 0),
    "Humanoid": (22 + 130, 23 + 78, 17 + 78),
    "HumanoidStandup": (22 + 130, 23 + 78, 17 + 78),
    "InvertedDoublePendulum": (5, 3, 1),
    "InvertedPendulum": (2, 2, 0),
    "Pusher": (16, 7, 0),
    "Reacher": (8, 2, 0),
    "Swimmer": (3, 5, 0),
    "Walker2d": (8, 9, 0),
}
pytest.importorskip("mujoco", reason="mujoco is of the extra `mujoco`")


@pytest.mark.parametrize("id", TASKS)
def test_sizes_of_what_is_shown(id):
    positions, velocities, forces = TASKS[id]
    sizes = {"velocities": positions + forces, "positions": velocities + forces, "none": sum(TASKS[id])}
    for hide, size in sizes.items():
        env = make_mujoco(id, 1, hide)
        assert env.single_observation_space.shape == env.reset(seed=0)[0][0].shape == (size,)
        env.close()


def test_every_task_of_gymnasium_is_known():
    of_mujoco = {id for id in gymnasium.registry if id.startswith(MUJOCO) and id.endswith("-v5")}
    assert {id.removesuffix("-v5") for id in of_mujoco} == TASKS.keys()


def read_documented_velocities(env):
    """The numbers of the rows of the table in the docstring of a task whose unit is one of velocity."""
    rows = re.findall(r"^\s*\|\s*(\d+)\s*\|.*\|([^|]*)\|\s*$", env.unwrapped.__doc__, re.MULTILINE)
    units = {int(number): unit for number, unit in rows}  # the last table is that of the observation
    return {number for number, unit in units.items() if "velocity" in unit}


@pytest.mark.parametrize(
    "id", ["HalfCheetah", "Hopper", "InvertedPendulum", "Pusher", "Reacher", "Swimmer", "Walker2d"]
)
def test_velocities_are_those_of_the_documented_observation(id):
    env = gymnasium.make(f"{id}-v5")
    parts = [name for name, size in find_parts(env) for _ in range(size)]
    found = {index for index, name in enumerate(parts) if name in mujoco_env.VELOCITIES}
    assert found == read_documented_velocities(env)


@pytest.mark.parametrize("id", TASKS)
def test_what_is_shown_does_not_tell_what_is_hidden(id):
    """Two states that differ in their velocities alone look alike; two that differ in positions do not."""
    task = gymnasium.make(f"{id}-v5").unwrapped
    task.reset(seed=0)
    hidden = mujoco_env.hide_parts(gymnasium.make(f"{id}-v5"), "velocities")
    at, speed = task.data.qpos.copy(), task.data.qvel.copy()

    def look(qpos, qvel):
        task.set_state(qpos, qvel)
        whole = task._get_obs()
        forces = [name in ("cfrc_ext", "qfrc_actuator", "qfrc_constraint") for name in parts]
        return np.where(forces, 0.0, whole)[hidden._kept]

    parts = [name for name, size in find_parts(task) for _ in range(size)]
    still = look(at, speed)
    np.testing.assert_array_equal(look(at, speed + 0.3), still)
    assert (look(at + 0.01, speed) != still).any()


def test_positions_are_hidden_too():
    env = make_mujoco("InvertedPendulum", 1, "positions")
    whole = make_mujoco("InvertedPendulum", 1, "none")
    np.testing.assert_array_equal(env.reset(seed=5)[0], whole.reset(seed=5)[0][:, 2:])


def test_arguments_of_the_task_change_the_parts():
    env = make_mujoco("Ant", 1, "velocities", include_cfrc_ext_in_observation=False)
    assert env.single_observation_space.shape == (13,)
    env = make_mujoco("Hopper", 1, "velocities", exclude_current_positions_from_observation=False)
    assert env.single_observation_space.shape == (6,)


@pytest.mark.filterwarnings("ignore:.*out of date")
def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="Hopper-v4: it is not known which numbers are velocities; take version 5"):
        make_mujoco("Hopper-v4", 1)
    assert make_mujoco("Hopper-v4", 1, "none").single_observation_space.shape == (11,)


def test_bad_values():
    with pytest.raises(ValueError, match=r"^hide='speed': it must be one of 'velocities', 'positions', 'none'$"):
        make_mujoco("Hopper", 1, "speed")
    with pytest.raises(ValueError, match=r"Unknown environment id 'Hoper-v5'; the nearest known ids are Hopper-v5"):
        make_mujoco("Hoper", 1)
