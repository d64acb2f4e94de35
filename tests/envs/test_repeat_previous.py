import numpy as np
import pytest

from envs.repeat_previous import RepeatPrevious


class Optimal:
    """Names the symbol of k steps ago."""

    def __init__(self, k):
        self.k = k
        self.seen = []

    def __call__(self, observations, starts):
        self.seen.append(observations.argmax(axis=1))
        return self.seen[max(0, len(self.seen) - 1 - self.k)]


@pytest.mark.parametrize(("k", "num_symbols", "episode_length"), [(4, 4, 52), (1, 2, 2), (2, 3, 20)])
def test_scripted_policies_reach_the_exact_returns(assert_mean_return, k, num_symbols, episode_length):
    env = RepeatPrevious(2048, k, num_symbols, episode_length)
    assert_mean_return(env, Optimal(k), env.optimal_return)
    assert_mean_return(env, lambda observations, _: observations.argmax(axis=1), env.memoryless_return)


def test_scripted_policies_reach_the_exact_returns_on_a_device(assert_mean_return, device):
    env = RepeatPrevious(2048, 2, 3, 20, device=device)
    assert_mean_return(env, Optimal(2), env.optimal_return)
    assert_mean_return(env, lambda observations, _: observations.argmax(axis=1), env.memoryless_return)


def test_rewards_start_at_step_k_and_the_last_observation_is_blank():
    env = RepeatPrevious(32, k=3, num_symbols=4, episode_length=8)
    observations, _ = env.reset(seed=0)
    for step in range(8):
        assert (observations.sum(axis=1) == 1).all()
        observations, rewards, terminated, truncated, info = env.step(np.zeros(32, dtype=int))
        np.testing.assert_allclose(np.abs(rewards), 0 if step < 3 else 1 / 5)
        assert terminated.all() == (step == 7) and not truncated.any()
    assert not info["final_obs"].any()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"k": 0}, "^k=0: it must be a whole number of at least 1$"),
        ({"num_symbols": 1}, "^num_symbols=1: it must be a whole number of at least 2$"),
        ({"k": 5, "episode_length": 5}, "^episode_length=5: it must be a whole number of at least 6$"),
    ],
)
def test_bad_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        RepeatPrevious(2, **parameters)
