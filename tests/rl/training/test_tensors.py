import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers.vector import TransformReward

from envs.classic_control import PendulumNoVelocity
from envs.t_maze import TMaze
from rl.training.stepping import Episodes, StepResult, VectorEnvAdapter
from rl.training.tensors import HostView, find_tensor_envs, speaks_tensors


def test_tensors_are_found_behind_wrappers_that_only_check():
    class Checking(VectorWrapper):
        only_checks = True

    envs = TMaze(2, device="cpu")
    assert speaks_tensors(envs) and not speaks_tensors(TMaze(2))
    assert find_tensor_envs(envs) is find_tensor_envs(Checking(envs)) is envs
    assert find_tensor_envs(TransformReward(envs, lambda rewards: rewards)) is None  # its rewards would not be seen
    assert find_tensor_envs(TMaze(2)) is None


def test_an_environment_of_arrays_may_have_a_device():
    """For its pictures, say: only what it says of itself makes it one of tensors."""
    envs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.device = "cuda:0"
    adapter = VectorEnvAdapter(envs, tensors=True)
    assert adapter.tensors is None
    assert isinstance(adapter.reset(0), np.ndarray)
    assert isinstance(adapter.step(np.zeros(2, dtype=np.int64)).obs, np.ndarray)


@pytest.mark.parametrize("make", [TMaze, PendulumNoVelocity])
def test_the_host_sees_arrays(make):
    tensors, seen = make(3, device="cpu"), HostView(make(3, device="cpu"))
    obs, shown = tensors.reset(seed=1)[0], seen.reset(seed=1)[0]
    seen.action_space.seed(0)
    for _ in range(30):
        assert isinstance(shown, np.ndarray) and np.array_equal(shown, obs.numpy())
        actions = seen.action_space.sample()
        obs, *outcome, info = tensors.step(torch.from_numpy(actions))
        shown, *told, facts = seen.step(actions)
        for one, other in zip(outcome, told, strict=True):
            assert isinstance(other, np.ndarray) and np.array_equal(one.numpy(), other)
        assert np.array_equal(info["final_obs"].numpy(), facts["final_obs"])


def test_an_adapter_gives_arrays_unless_it_is_asked_for_tensors():
    adapter = VectorEnvAdapter(TMaze(3, device="cpu"))
    assert adapter.tensors is None
    assert isinstance(adapter.reset(0), np.ndarray)
    assert isinstance(adapter.step(np.zeros(3, dtype=np.int64)).rewards, np.ndarray)
    envs = TMaze(3, device="cpu")
    adapter = VectorEnvAdapter(envs, tensors=True)
    assert adapter.tensors is envs
    assert isinstance(adapter.reset(0)["obs"], torch.Tensor)


def test_a_rollout_counts_as_its_steps_do():
    rng = np.random.default_rng(0)
    rewards, ended = rng.normal(size=(20, 3)).astype(np.float32), rng.random((20, 3)) < 0.2
    one, other = Episodes(3), Episodes(3)
    for paid, over in zip(rewards, ended, strict=True):
        nothing = np.zeros(3, dtype=bool)
        one.add(StepResult(None, paid, over, nothing, None, nothing))
    for part in (slice(0, 7), slice(7, 20)):
        other.add_rollout(torch.from_numpy(rewards[part]), torch.from_numpy(ended[part]))
    assert one.drain() == other.drain() != {}
    assert one.state_dict() == other.state_dict()
