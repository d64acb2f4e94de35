import numpy as np
import pytest
import torch

from rl.ppo.advantages import bootstrap_values, bootstrap_values_of_cut_episodes, gae
from rl.types import CutEpisodes


def column(*numbers, dtype=torch.float64):
    return torch.tensor(numbers, dtype=dtype).unsqueeze(1)  # [T, 1]


def flags(*steps, T=3):
    """``[T, 1]``, True at ``steps``."""
    return column(*(t in steps for t in range(T)), dtype=torch.bool)


@pytest.fixture
def advantages():
    """Of three steps: rewards 1 2 3, values 10 20 30, V after them 40, V(final observation) 100; gamma, lambda 1/2."""

    def compute(terminated=(), truncated=(), gamma=0.5, lam=0.5):
        values = column(10, 20, 30)
        terminated, truncated = flags(*terminated), flags(*truncated)
        last = torch.tensor([40.0], dtype=torch.float64)
        following = bootstrap_values(values, last, terminated, truncated, column(100, 100, 100))
        return gae(column(1, 2, 3), values, following, terminated | truncated, gamma, lam).squeeze(1).tolist()

    return compute


def test_rollout_cut_in_mid_episode(advantages):
    # delta_2 = 3 + 0.5 * 40 - 30 = -7      A_2 = -7
    # delta_1 = 2 + 0.5 * 30 - 20 = -3      A_1 = -3 + 0.25 * -7 = -4.75
    # delta_0 = 1 + 0.5 * 20 - 10 = 1       A_0 = 1 + 0.25 * -4.75 = -0.1875
    assert advantages() == [-0.1875, -4.75, -7.0]


def test_termination_is_worth_nothing_after(advantages):
    # delta_1 = 2 + 0 - 20 = -18            A_1 = -18: nothing of step 2 enters
    #                                       A_0 = 1 + 0.25 * -18 = -3.5
    assert advantages(terminated=[1]) == [-3.5, -18.0, -7.0]


def test_truncation_is_worth_the_value_of_the_final_observation(advantages):
    # delta_1 = 2 + 0.5 * 100 - 20 = 32     A_1 = 32: nothing of step 2 enters
    #                                       A_0 = 1 + 0.25 * 32 = 9
    assert advantages(truncated=[1]) == [9.0, 32.0, -7.0]


def test_termination_wins_over_truncation(advantages):
    assert advantages(terminated=[1], truncated=[1]) == advantages(terminated=[1])


def test_episode_ends_at_the_last_step(advantages):
    # delta_2 = 3 - 30 = -27                A_1 = -3 + 0.25 * -27 = -9.75    A_0 = 1 + 0.25 * -9.75 = -1.4375
    assert advantages(terminated=[2]) == [-1.4375, -9.75, -27.0]
    # delta_2 = 3 + 0.5 * 100 - 30 = 23     A_1 = -3 + 0.25 * 23 = 2.75      A_0 = 1 + 0.25 * 2.75 = 1.6875
    assert advantages(truncated=[2]) == [1.6875, 2.75, 23.0]


def test_lambda_0_is_one_step_and_lambda_1_is_monte_carlo(advantages):
    assert advantages(lam=0.0) == [1.0, -3.0, -7.0]  # the deltas
    # returns with gamma = 1/2: 3 + 20 = 23; 2 + 11.5 = 13.5; 1 + 6.75 = 7.75; minus the values
    assert advantages(lam=1.0) == [-2.25, -6.5, -7.0]


def test_gamma_discounts_and_lambda_mixes(advantages):
    # gamma 1/2, lambda 1/4: A_1 = -3 + 1/8 * -7 = -3.875, A_0 = 1 + 1/8 * -3.875
    assert advantages(gamma=0.5, lam=0.25) == [0.515625, -3.875, -7.0]
    # gamma 1/4, lambda 1/2: deltas 3 + 10 - 30 = -17, 2 + 7.5 - 20 = -10.5, 1 + 5 - 10 = -4
    assert advantages(gamma=0.25, lam=0.5) == [-4 + (-10.5 - 17 / 8) / 8, -10.5 - 17 / 8, -17.0]


def test_one_step():
    value, last = column(2.0), torch.tensor([4.0], dtype=torch.float64)
    none = flags(T=1)
    following = bootstrap_values(value, last, none, none, column(9.0))
    assert gae(column(1.0), value, following, none, 0.5, 0.9).tolist() == [[1.0]]  # 1 + 0.5 * 4 - 2


@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_equals_a_slow_double_loop(gamma, lam, device, assert_close):
    T, B = 25, 6
    generator = torch.Generator().manual_seed(0)
    rewards, values, cut = torch.randn(3, T, B, generator=generator).to(device)
    last = torch.randn(B, generator=generator).to(device)
    terminated, truncated = (torch.rand(2, T, B, generator=generator) < 0.15).to(device)
    assert (terminated & truncated).any()

    expected = torch.zeros(T, B, dtype=torch.float64)
    for b in range(B):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):  # the sum of equation 16, term by term
                if terminated[k, b]:
                    future = 0.0
                elif truncated[k, b]:
                    future = cut[k, b].item()
                else:
                    future = (values[k + 1, b] if k + 1 < T else last[b]).item()
                expected[t, b] += weight * (rewards[k, b].item() + gamma * future - values[k, b].item())
                weight *= gamma * lam
                if terminated[k, b] or truncated[k, b]:
                    break
    following = bootstrap_values(values, last, terminated, truncated, cut)
    found = gae(rewards, values, following, terminated | truncated, gamma, lam)
    assert_close(found.double().cpu(), expected, 1e-5)


def test_inputs_are_left_as_they_were():
    rewards, values, none = column(1, 2, 3), column(10, 20, 30), flags()
    following = column(1, 1, 1)
    gae(rewards, values, following, none, 0.9, 0.9)
    assert (rewards.tolist(), values.tolist()) == ([[1], [2], [3]], [[10], [20], [30]])
    assert following.tolist() == [[1], [1], [1]]


def test_a_time_limit_is_no_death():
    """Reward 1 for ever, cut every 20 steps: with the exact V = 1 / (1 - gamma) there is nothing to learn."""
    gamma, T = 0.95, 60
    exact = torch.full((T, 2), 1 / (1 - gamma), dtype=torch.float64)
    truncated = torch.zeros(T, 2, dtype=torch.bool)
    truncated[19::20] = True
    none = torch.zeros_like(truncated)

    def compute(terminated, truncated):
        following = bootstrap_values(exact, exact[0], terminated, truncated, exact)
        return gae(torch.ones_like(exact), exact, following, terminated | truncated, gamma, 0.95)

    assert compute(none, truncated).abs().max() < 1e-12  # 1 + gamma V - V = 1 - (1 - gamma) V = 0
    assert compute(truncated, none)[19::20].eq(1 - exact[0, 0]).all()  # were it a death: 1 - V


# ------------------------------------------------------------------------------------- what cut episodes were worth


class Values:
    """In place of the step of a network: V = observation + 10 * memory. It notes how often it is asked."""

    def __init__(self):
        self.calls = 0

    def __call__(self, obs, state, starts):
        assert starts is None  # the episodes go on
        self.calls += 1
        return torch.zeros(len(obs["x"]), 3), obs["x"].squeeze(1) + 10.0 * state["h"][:, 0, 0], state


@pytest.fixture
def cut():
    """Episodes of ``env_ids`` cut after a step: what was observed then, and the memories."""

    def make(step, env_ids, observed, remembered):
        memory = torch.tensor(remembered).view(-1, 1, 1).repeat(1, 1, 2)
        return CutEpisodes(step, np.array(env_ids), {"x": torch.tensor(observed).unsqueeze(1)}, {"h": memory})

    return make


@pytest.fixture
def played():
    """V(o_t) of four steps of three environments: ``100 * (t + 1) + b``."""
    return 100.0 * torch.arange(1, 5).unsqueeze(1) + torch.arange(3)


def test_cut_episodes_are_worth_the_value_of_what_followed(cut, played):
    """Each under its own memory, in its own place, all of them and the end of the rollout in one batch."""
    step = Values()
    cuts = [cut(0, [1], [5.0], [0.5]), cut(2, [0, 2], [1.0, 2.0], [0.1, 0.2]), cut(3, [2], [7.0], [0.7])]
    last = cut(4, [0, 1, 2], [4.0, 5.0, 6.0], [0.4, 0.5, 0.6])
    final_values, last_values = bootstrap_values_of_cut_episodes(step, played, cuts, last)
    expected = played.clone()
    expected[0, 1], expected[2, 0], expected[2, 2], expected[3, 2] = 5 + 5, 1 + 1, 2 + 2, 7 + 7
    torch.testing.assert_close(final_values, expected)
    assert last_values.tolist() == pytest.approx([4 + 4, 5 + 5, 6 + 6])
    assert step.calls == 1


def test_where_it_is_not_known_what_followed_the_last_value_stands_in(cut, played):
    step = Values()
    final_values, last_values = bootstrap_values_of_cut_episodes(step, played, [], None)
    assert torch.equal(final_values, played)
    assert torch.equal(last_values, played[-1])
    assert step.calls == 0
    final_values, last_values = bootstrap_values_of_cut_episodes(step, played, [cut(1, [2], [3.0], [0.3])], None)
    assert (final_values[1, 2].item(), final_values[1, 1].item()) == (pytest.approx(6.0), 201.0)
    assert torch.equal(last_values, played[-1])
    last = cut(4, [0, 1, 2], [4.0, 5.0, 6.0], [0.4, 0.5, 0.6])
    final_values, last_values = bootstrap_values_of_cut_episodes(step, played, [], last)
    assert torch.equal(final_values, played)
    assert last_values.tolist() == pytest.approx([8.0, 10.0, 12.0])


def test_the_values_of_the_rollout_are_left_as_they_were(cut, played):
    before = played.clone()
    bootstrap_values_of_cut_episodes(Values(), played, [cut(1, [2], [3.0], [0.3])], None)
    assert torch.equal(played, before)
    final_values, last_values = bootstrap_values_of_cut_episodes(Values(), played, [], None)
    with torch.inference_mode():
        final_values.zero_()
        last_values.zero_()
    assert torch.equal(played, before)
