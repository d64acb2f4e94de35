import gymnasium
import numpy as np
import pytest

from envs.popgym_tasks.cartpole import NoisyPositionOnlyCartPole, VelocityOnlyCartPole


@pytest.mark.parametrize(("level", "limit"), [("easy", 200), ("medium", 400), ("hard", 600)])
def test_the_first_observation_and_the_velocities_are_enough_for_the_optimal_return(level, limit):
    env = VelocityOnlyCartPole(64, level)
    positions, _ = env.reset(seed=0)
    np.testing.assert_array_equal(positions, env.state[::2].T.astype(np.float32))
    velocities, returns = np.zeros((64, 2)), np.zeros(64)
    for step in range(limit):
        push = 0.5 * positions[:, 0] + velocities[:, 0] + 20 * positions[:, 1] + 3 * velocities[:, 1]
        positions = positions + env.tau * velocities  # as the physics does it
        velocities, rewards, terminated, truncated, info = env.step((push > 0) * 1)
        returns += rewards
        assert not terminated.any() and truncated.all() == (step == limit - 1)
        if step < limit - 1:
            np.testing.assert_array_equal(velocities, env.state[1::2].T.astype(np.float32))
    np.testing.assert_allclose(returns, env.optimal_return, rtol=1e-12)
    assert abs(info["final_obs"] - velocities).max() > 0  # the next episode begins with positions again


@pytest.mark.parametrize("cls", [NoisyPositionOnlyCartPole, VelocityOnlyCartPole])
def test_physics_are_those_of_gymnasium(cls):
    env, one = cls(1), gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=0)
    one.reset(seed=0)
    one.state = env.state[:, 0].copy()
    terminated = np.array([False])
    while not terminated[0]:
        _, rewards, terminated, _ = env.transition(np.array([1]))
        _, _, one_terminated, _, _ = one.step(1)
        np.testing.assert_allclose(env.state[:, 0], one.state, rtol=1e-6)
        assert terminated[0] == one_terminated and rewards[0] == 1 / 200


@pytest.mark.parametrize(("level", "sigma"), [("easy", 0.1), ("medium", 0.2), ("hard", 0.3)])
def test_noise_is_new_in_every_step_and_clipped(level, sigma):
    env = NoisyPositionOnlyCartPole(4000, level)
    first, _ = env.reset(seed=0)
    second, *_ = env.step(np.zeros(4000, dtype=int))
    bound = env.single_observation_space.high
    assert bound.tolist() == pytest.approx([4.8, 0.41888], abs=1e-5)
    for shown in (first, second):
        assert abs(shown[:, 0]).max() < bound[0] and abs(shown[:, 0].std() - sigma) < 0.05 * sigma + 0.001
        assert (abs(shown[:, 1]) <= bound[1]).all()
        clipped = (abs(shown[:, 1]) == bound[1]).mean()
        assert abs(clipped - {0.1: 0.0, 0.2: 0.036, 0.3: 0.163}[sigma]) < 0.02  # outside of 4.19, 2.09, 1.4 deviations
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.1
    np.testing.assert_array_equal(first[:, 0], env.reset(seed=0)[0][:, 0])
