import numpy as np
import pytest
from gymnasium import spaces

from envs.probes import ActionReward, ConstantReward, Counter, DelayedReward, EchoCue, SignReward, SpaceProbe


def test_one_step_probes():
    zeros, ones = np.zeros(50, dtype=int), np.ones(50, dtype=int)
    for cls, actions, expected in ((ConstantReward, zeros, 1), (ActionReward, zeros, 0), (ActionReward, ones, 1)):
        env = cls(50)
        env.reset(seed=0)
        observations, rewards, terminated, _, _ = env.step(actions)
        assert (rewards == expected).all() and terminated.all() and not observations.any()
    env = SignReward(50)
    observations, _ = env.reset(seed=0)
    following, rewards, terminated, _, info = env.step(ones)
    np.testing.assert_array_equal(rewards, observations[:, 0])
    assert set(rewards) == {-1.0, 1.0} and terminated.all()
    np.testing.assert_array_equal(info["final_obs"], observations)
    assert (following != observations).any()


def test_delayed_reward():
    env = DelayedReward(3)
    observations, _ = env.reset(seed=0)
    rewards = []
    for _ in range(4):
        observations, reward, terminated, _, _ = env.step(np.zeros(3, dtype=int))
        rewards.append((reward[0], terminated[0], observations[0, 0]))
    assert rewards == [(0, False, 1), (1, True, 0), (0, False, 1), (1, True, 0)]


def test_echo_cue(assert_mean_return):
    env, cue = EchoCue(2048), np.zeros(2048, dtype=int)
    assert (env.reset(seed=0)[0].sum(axis=1) == 1).all() and not env.step(cue)[0].any()

    def remember(observations, starts):
        cue[starts] = observations[starts, 1]
        return cue

    assert_mean_return(env, remember, EchoCue.optimal_return)
    assert_mean_return(env, lambda observations, _: np.ones(2048, dtype=int), EchoCue.memoryless_return)


@pytest.mark.parametrize("end", ["terminated", "truncated", "both"])
def test_counter(end):
    env = Counter(3, episode_length=(2, 3, 3), end=end)
    observations, _ = env.reset()
    for step in range(12):
        np.testing.assert_array_equal(observations, [[step % 2, 0], [step % 3, 1], [step % 3, 2]])
        before = observations
        observations, rewards, terminated, truncated, info = env.step(np.zeros(3, dtype=int))
        np.testing.assert_array_equal(rewards, before[:, 0])
        ended = np.array([step % 2 == 1, step % 3 == 2, step % 3 == 2])
        np.testing.assert_array_equal(terminated, ended & (end != "truncated"))
        np.testing.assert_array_equal(truncated, ended & (end != "terminated"))
        if ended.any():
            last = np.array([[2, 0], [3, 1], [3, 2]])
            np.testing.assert_array_equal(info["final_obs"][ended], last[ended])


def test_bad_counter_parameters():
    with pytest.raises(ValueError, match=r"^end='never': it must be one of 'terminated', 'truncated', 'both'$"):
        Counter(2, end="never")
    with pytest.raises(
        ValueError, match=r"^episode_length=\(1, 2, 3\): it must be one whole number, or one for each of 2 rows$"
    ):
        Counter(2, episode_length=(1, 2, 3))
    with pytest.raises(ValueError, match=r"^episode_length=0: it must be a whole number of at least 1$"):
        Counter(2, episode_length=(1, 0))


READ = {
    "box": lambda obs: obs[:, 1] > 0,
    "image": lambda obs: obs[:, 0, 0, 11] == 255,
    "image_last": lambda obs: obs[:, 0, 11, 0] == 255,
    "discrete": lambda obs: obs == 1,
    "dict": lambda obs: (obs["image"][:, 2, 11, 11] == 255) & (obs["numbers"][:, 0] > 0),
    "tuple": lambda obs: (obs[0][:, 0] > 0) & (obs[1] == 1),
}
WRITE = {
    "discrete": lambda bit: bit,
    "multi_discrete": lambda bit: np.stack([bit, 2 * bit], axis=1),
    "multi_binary": lambda bit: np.stack([bit, bit], axis=1).astype(np.int8),
    "box": lambda bit: np.stack([2.0 * bit - 1] * 2, axis=1),
}


@pytest.mark.parametrize("observation", READ)
@pytest.mark.parametrize("action", WRITE)
def test_space_probe_pays_for_the_bit_and_not_for_its_opposite(play, observation, action):
    env = SpaceProbe(64, observation, action, episode_length=3)

    def policy(flip):
        return lambda obs, _: WRITE[action](READ[observation](obs).astype(int) ^ flip)

    np.testing.assert_allclose(play(env, policy(0)), 1.0)
    np.testing.assert_allclose(play(env, policy(1)), 0.0, atol=1e-12)


def test_space_probe_images():
    channels_first, channels_last = SpaceProbe(4, "image"), SpaceProbe(4, "image_last")
    assert channels_first.single_observation_space == spaces.Box(0, 255, (3, 12, 12), np.uint8)
    first, last = channels_first.reset(seed=0)[0], channels_last.reset(seed=0)[0]
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_bad_space_probe_parameters():
    with pytest.raises(ValueError, match=r"^observation='text': it must be one of .*, 'dict', 'tuple'$"):
        SpaceProbe(1, observation="text")
    with pytest.raises(ValueError, match=r"^action='dict': it must be one of 'discrete', .*, 'box'$"):
        SpaceProbe(1, action="dict")
