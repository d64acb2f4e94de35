"""Parity with Gymnasium's own physics, and what is hidden."""

import gymnasium
import numpy as np
import pytest

from envs.classic_control import CartPoleNoVelocity, MountainCarContinuousNoVelocity, PendulumNoVelocity

CASES = {
    "CartPole-v1": (CartPoleNoVelocity, lambda env: env.state[:, 0], [0, 2], 500),
    "Pendulum-v1": (PendulumNoVelocity, lambda env: np.array([env.angle[0], env.speed[0]]), [0, 1], 200),
    "MountainCarContinuous-v0": (
        MountainCarContinuousNoVelocity, lambda env: np.array([env.position[0], env.velocity[0]]), [0], 999,
    ),
}  # fmt: skip


def push_with_the_velocity(state):
    """Reaches the goal of the mountain car, which random actions do not."""
    return np.array([1.0 if state[1] >= 0 else -1.0], dtype=np.float32)


@pytest.mark.parametrize("id", CASES)
def test_states_rewards_ends_and_observations_equal_gymnasiums(id):
    cls, get_state, kept, time_limit = CASES[id]
    env, reference = cls(1), gymnasium.make(id)
    assert reference.spec.max_episode_steps == time_limit
    env.reset(seed=0)
    reference.reset(seed=0)
    reference.action_space.seed(0)
    reference.unwrapped.state = get_state(env).copy()
    episodes = {"terminated": 0, "truncated": 0}
    for step in range(2500 if "Mountain" in id else 1000):
        action = reference.action_space.sample()
        if "Mountain" in id and step > 1000:
            action = push_with_the_velocity(get_state(env))
        observation, reward, terminated, truncated, _ = reference.step(action)
        # Look at the state before the restart: transition() is step() without it.
        observations, rewards, *flags = env.transition(np.asarray(action)[None])
        np.testing.assert_allclose(get_state(env), reference.unwrapped.state, rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(rewards[0], reward, rtol=1e-6, atol=2e-6)
        np.testing.assert_allclose(observations[0], observation[kept], rtol=1e-6, atol=2e-6)
        assert [flags[0][0], flags[1][0]] == [terminated, truncated]
        if terminated or truncated:
            episodes["terminated"] += terminated
            episodes["truncated"] += truncated
            env.reset()
            reference.reset()
            reference.unwrapped.state = get_state(env).copy()
    assert episodes["terminated"] >= (0 if "Pendulum" in id else 1)
    assert episodes["truncated"] >= (0 if "CartPole" in id else 1)


@pytest.mark.parametrize("id", CASES)
def test_start_states_are_distributed_as_gymnasiums(id):
    cls = CASES[id][0]
    env, reference = cls(4000), gymnasium.make(id).unwrapped
    env.reset(seed=0)
    states = env.state if "CartPole" in id else np.array([getattr(env, name) for name in env.state_names])
    reference.reset(seed=0)
    expected = np.array([(reference.reset(), reference.state)[1] for _ in range(4000)]).T
    assert states.shape == expected.shape
    scale = np.ptp(expected, axis=1)
    np.testing.assert_allclose(states.mean(axis=1), expected.mean(axis=1), atol=0.03 * scale.max())
    np.testing.assert_allclose(np.ptp(states, axis=1), scale, rtol=0.02, atol=1e-7)


def test_a_linear_controller_reaches_the_optimal_cartpole_return_on_a_device(device):
    balance(CartPoleNoVelocity(512, device))


def test_two_observations_are_enough_for_the_optimal_cartpole_return():
    balance(CartPoleNoVelocity(512))


def balance(env):
    """A linear controller on positions and their differences never falls; the first push is blind."""
    before, _ = env.reset(seed=0)
    observations, returns = before, np.zeros(512)
    for step in range(500):
        difference = (observations - before) / env.tau
        push = 0.5 * observations[:, 0] + difference[:, 0] + 20 * observations[:, 1] + 3 * difference[:, 1]
        before = observations
        actions = (push > 0) * 1
        observations, rewards, terminated, truncated, _ = env.step(actions)
        returns += rewards if env.device is None else rewards.cpu().numpy()
        assert not terminated.any() and truncated.all() == (step == 499)
    assert (returns == env.optimal_return).all()


def test_unknown_returns_are_none():
    assert CartPoleNoVelocity(1).memoryless_return is None
    for cls in (PendulumNoVelocity, MountainCarContinuousNoVelocity):
        assert cls(1).optimal_return is None and cls(1).memoryless_return is None
