import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import envs  # noqa: F401  (registers the ids)
from envs.batched_env import BatchedEnv
from envs.single_env import SingleEnv

IDS = sorted(id for id in gymnasium.registry if id.startswith("RecurrentPPO/"))


def test_all_tasks_are_registered():
    assert [id.removeprefix("RecurrentPPO/") for id in IDS] == [
        "Autoencode-v0", "Battleship-v0", "BernoulliBandit-v0", "CartPoleNoVelocity-v0", "Concentration-v0",
        "CopySequence-v0", "CountRecall-v0", "DelayedRecall-v0", "HigherLower-v0", "MemoryGrid-v0", "MineSweeper-v0",
        "MountainCarContinuousNoVelocity-v0", "NoisyPositionOnlyCartPole-v0", "PendulumNoVelocity-v0", "PobaxTMaze-v0",
        "RepeatFirst-v0", "RepeatPrevious-v0", "RepeatPreviousCards-v0", "RockSample-v0", "StatePunishment-v0",
        "TMaze-v0", "VelocityOnlyCartPole-v0", "WitnessVote-v0",
    ]  # fmt: skip


@pytest.mark.parametrize("id", IDS)
def test_check_env_without_a_warning(id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if "Pendulum" in id:  # the torque limit of 2 is Gymnasium's own
            warnings.filterwarnings("ignore", message=".*recommend using a symmetric and normalized space.*")
        if "VelocityOnly" in id:  # the space without bounds is POPGym's own
            warnings.filterwarnings("ignore", message=".*A Box observation space m.*imum value is -?infinity.*")
        check_env(gymnasium.make(id).unwrapped)


@pytest.mark.parametrize("id", IDS)
def test_make_vec_builds_the_batched_form(id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make_vec(id, num_envs=6)
    assert isinstance(env, BatchedEnv) and env.num_envs == 6 and env.spec.id == id
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    again = gymnasium.make_vec(env.spec)
    assert type(again) is type(env) and again.num_envs == 6


def test_parameters_arrive():
    assert gymnasium.make("RecurrentPPO/TMaze-v0", length=30).unwrapped.batched.length == 30
    assert gymnasium.make_vec("RecurrentPPO/TMaze-v0", num_envs=64, length=30).length == 30
    with pytest.raises(ValueError, match="length=0: it must be"):
        gymnasium.make("RecurrentPPO/TMaze-v0", length=0)


def test_the_last_step_returns_the_last_observation_and_asks_for_a_reset():
    env = gymnasium.make("RecurrentPPO/TMaze-v0", length=1).unwrapped
    env.reset(seed=0)
    env.step(0)
    observation, _, terminated, truncated, info = env.step(1)
    assert observation.tolist() == [0, 0, 0, 1] and terminated is True and truncated is False and info == {}
    with pytest.raises(ResetNeeded):
        env.step(0)
    observation, _ = env.reset()
    assert observation[2] == 1
    env.step(np.int64(0))


def test_a_time_limit_asks_for_a_reset_too():
    env = SingleEnv("envs.probes:Counter", episode_length=2, end="truncated")
    env.reset()
    assert env.step(0)[2:4] == (False, False)
    observation, reward, terminated, truncated, _ = env.step(0)
    assert observation.tolist() == [2, 0] and type(reward) is float and reward == 1
    assert (terminated, truncated) == (False, True)
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_a_task_is_a_batched_environment():
    task = "gymnasium.envs.classic_control.cartpole:CartPoleVectorEnv"
    with pytest.raises(TypeError, match=f"^task='{task}': it must name a BatchedEnv$"):
        SingleEnv(task)


def test_one_copy_is_played_in_numpy():
    with pytest.raises(ValueError, match=r"^device='cpu': it must be None, one copy is played in numpy$"):
        SingleEnv("envs.t_maze:TMaze", device="cpu")
    assert SingleEnv("envs.t_maze:TMaze", device=None).batched.device is None
    assert gymnasium.make_vec("RecurrentPPO/TMaze-v0", num_envs=2, device="cpu").device.type == "cpu"


def test_returns_are_passed_on():
    env = SingleEnv("envs.t_maze:TMaze", length=10, passive=False)
    assert (env.optimal_return, env.memoryless_return) == (0.9, 0.5)
    assert SingleEnv("envs.classic_control:PendulumNoVelocity").optimal_return is None


def test_what_cannot_be_drawn_says_so():
    with pytest.raises(ValueError, match="render_mode='rgb_array': it must be one of None"):
        SingleEnv("envs.rock_sample:RockSample", render_mode="rgb_array")
    assert SingleEnv("envs.rock_sample:RockSample").metadata["render_modes"] == []
