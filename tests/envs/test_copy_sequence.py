import numpy as np
import pytest

from envs.copy_sequence import CopySequence


class Optimal:
    """Says the symbols back; all rows are in the same step, since every episode has the same length."""

    def __init__(self, reverse):
        self.reverse = reverse
        self.symbols = []

    def __call__(self, observations, starts):
        if starts.all():
            self.symbols = []
        symbols = observations[:, :-1].argmax(axis=1)
        if observations[:, -1].any():
            return self.symbols.pop(-1 if self.reverse else 0)
        self.symbols.append(symbols)
        return symbols


@pytest.mark.parametrize(
    ("length", "num_symbols", "reverse"), [(4, 4, False), (4, 4, True), (1, 2, False), (8, 3, True)]
)
def test_scripted_policies_reach_the_exact_returns(assert_mean_return, length, num_symbols, reverse):
    env = CopySequence(2048, length, num_symbols, reverse)
    assert_mean_return(env, Optimal(reverse), env.optimal_return)
    assert_mean_return(env, lambda observations, _: np.full(2048, num_symbols - 1), env.memoryless_return)


@pytest.mark.parametrize("reverse", [False, True])
def test_scripted_policies_reach_the_exact_returns_on_a_device(assert_mean_return, reverse, device):
    env = CopySequence(2048, 4, 4, reverse, device)
    assert_mean_return(env, Optimal(reverse), env.optimal_return)
    assert_mean_return(env, lambda observations, _: np.full(2048, 3), env.memoryless_return)


def test_reverse_is_not_forward(play):
    forward = play(CopySequence(2048, 4, 4, reverse=False), Optimal(reverse=True), episodes=1)
    assert forward.mean() < 0.2


def test_what_each_step_shows():
    env = CopySequence(8, length=2, num_symbols=3)
    observations, _ = env.reset(seed=0)
    go = []
    for step in range(4):
        go.append(observations[:, -1].mean())
        assert (observations.sum(axis=1) == 1).all()
        observations, rewards, terminated, truncated, info = env.step(np.zeros(8, dtype=int))
        assert rewards.any() == (step >= 2) and terminated.all() == (step == 3) and not truncated.any()
    assert go == [0, 0, 1, 1] and not info["final_obs"].any()
    assert set(np.unique(rewards)) <= {0.5, -0.25}


@pytest.mark.parametrize(("name", "value", "minimum"), [("length", 0, 1), ("num_symbols", 1, 2)])
def test_bad_parameters(name, value, minimum):
    with pytest.raises(ValueError, match=f"^{name}={value}: it must be a whole number of at least {minimum}$"):
        CopySequence(2, **{name: value})
