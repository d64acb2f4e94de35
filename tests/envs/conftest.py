"""Shared by the environment tests: playing whole episodes with a scripted policy."""

import numpy as np
import pytest
import torch


def _tell(values):
    """Arrays of numpy, for a policy that knows no others."""
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else values


def _play(env, policy, episodes=2, seed=0):
    """Returns `[episodes, B]` of the first `episodes` episodes of every row; `policy(obs, starts)` gives the actions.

    Also on a device, whose observations the policy gets as arrays of numpy.
    More than one episode per row also covers the restart inside a step.
    """
    observations, _ = env.reset(seed=seed)
    rows = np.arange(env.num_envs)
    returns = np.zeros((episodes + 1, env.num_envs))  # the last line collects what rows do after their last episode
    finished = np.zeros(env.num_envs, dtype=int)
    starts = np.ones(env.num_envs, dtype=bool)
    while (finished < episodes).any():
        actions = policy(_tell(observations), starts)
        actions = actions if env.device is None else torch.tensor(actions).to(env.device)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        returns[np.minimum(finished, episodes), rows] += _tell(rewards)
        starts = _tell(terminated | truncated)
        finished += starts
    return returns[:episodes]


@pytest.fixture
def play():
    return _play


@pytest.fixture
def assert_mean_return():
    """Plays 4096 episodes and compares their mean return with the exact one, within four standard errors."""

    def check(env, policy, expected):
        returns = _play(env, policy, episodes=4096 // env.num_envs)
        standard_error = returns.std() / np.sqrt(returns.size)
        rounding = 1e-9 if env.device is None else 1e-6
        error = abs(returns.mean() - expected)
        assert error <= 4 * standard_error + rounding, (returns.mean(), expected, standard_error)

    return check
