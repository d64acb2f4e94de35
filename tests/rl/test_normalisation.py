import pytest
import torch

from rl.normalisation import AdvantageScale, ReturnScale, RunningMoments, discounted_returns


def test_moments_by_hand():
    moments = RunningMoments(())
    moments.update(torch.tensor([1.0, 3.0]))  # mean 2, variance 1
    assert (moments.mean.item(), moments.var.item(), moments.count.item()) == (2.0, 1.0, 2.0)
    moments.update(torch.tensor([8.0]))  # of 1 3 8: mean 4, variance (9 + 1 + 16) / 3
    assert moments.mean.item() == pytest.approx(4.0)
    assert moments.var.item() == pytest.approx(26 / 3)
    assert moments.count.item() == 3


def test_piecewise_equals_all_at_once(device, assert_close):
    data = (torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6.0) + 3.0).to(device)
    whole, pieces = RunningMoments((5,)).to(device), RunningMoments((5,)).to(device)
    whole.update(data)
    for begin, end in ((0, 1), (1, 20), (20, 60)):
        pieces.update(data[begin:end].view(-1, 1, 5))  # any leading axes
    assert_close(whole.mean, data.mean(0), 1e-6)
    assert_close(whole.var, data.var(0, unbiased=False), 1e-6)
    assert_close(pieces.mean, whole.mean, 1e-6)
    assert_close(pieces.var, whole.var, 1e-6)


def test_a_large_offset_does_not_spoil_the_variance():
    data = 1e4 + torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    moments = RunningMoments(())
    for piece in data.split(100):
        moments.update(piece)
    # 100 updates in float32, whose numbers near 1e4 lie 1e-3 apart; from E[x^2] - E[x]^2 not one digit would be right
    assert moments.var.item() == pytest.approx(1.0, abs=0.05)


def test_normalised_data_has_mean_0_and_variance_1():
    data = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
    moments = RunningMoments((3,))
    moments.update(data)
    assert moments(data).mean(0).abs().max() < 1e-5
    assert (moments(data).var(0, unbiased=False) - 1).abs().max() < 1e-4


def test_values_are_clipped():
    moments = RunningMoments((), clip=2.0)
    moments.update(torch.tensor([-1.0, 1.0]))  # mean 0, variance 1
    assert moments(torch.tensor([-5.0, -1.5, 5.0])).tolist() == pytest.approx([-2.0, -1.5, 2.0])


def test_a_constant_stays_finite():
    moments = RunningMoments(())
    moments.update(torch.full((10,), 7.0))
    assert moments(torch.tensor([7.0, 8.0])).tolist() == [0.0, 10.0]  # 1 / sqrt(1e-8) = 1e4, clipped to 10


def test_only_update_changes_the_moments_and_the_checkpoint_holds_them():
    moments = RunningMoments((2,)).train()
    data = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    moments.update(data)
    before = {name: value.clone() for name, value in moments.state_dict().items()}
    moments(data * 9)
    assert before.keys() == {"mean", "var", "count"}
    assert all(torch.equal(value, before[name]) for name, value in moments.state_dict().items())
    assert not list(moments.parameters())
    fresh = RunningMoments((2,))
    fresh.load_state_dict(before)
    assert torch.equal(fresh(data), moments(data))


def test_bytes_and_gradients():
    moments = RunningMoments(())
    moments.update(torch.tensor([0, 4], dtype=torch.uint8))
    assert (moments.mean.item(), moments.var.item()) == (2.0, 4.0)
    samples = torch.ones(3, requires_grad=True)
    moments.update(samples)
    assert not moments.mean.requires_grad


# ------------------------------------------------------------------------------------------------------ return scale


@pytest.fixture
def rollouts():
    """Rewards and starts ``[T, 1]`` of two rollouts, and the discounted returns for gamma = 1/2."""
    # 4; 0 + 2 = 2; 1 + 1 = 2 | carried over: 3 + 1 = 4; a start: 8
    first = torch.tensor([[4.0], [0.0], [1.0]]), torch.tensor([[True], [False], [False]])
    second = torch.tensor([[3.0], [8.0]]), torch.tensor([[False], [True]])
    return first, second, torch.tensor([4.0, 2.0, 2.0, 4.0, 8.0])


def test_rewards_are_divided_by_the_deviation_of_the_returns(rollouts, device, assert_close):
    first, second, returns = rollouts
    scale = ReturnScale(1).to(device)
    for count, (rewards, starts) in ((3, first), (5, second)):
        scale.update(rewards.to(device), starts.to(device), 0.5)
        scaled = scale(rewards.to(device))
        assert_close(scaled.cpu(), rewards / returns[:count].std(unbiased=False), 1e-6)  # the mean is not moved
    assert scale.running.tolist() == [8.0]
    assert scale.moments.count == 5


def test_what_was_no_step_is_not_measured(rollouts):
    (rewards, starts), _, _ = rollouts
    scale = ReturnScale(1)
    scale.update(rewards, starts, 0.5, torch.tensor([[False], [False], [True]]))
    assert (scale.moments.count, scale.moments.mean) == (2, 3.0)  # of 4 and 2
    scale.update(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), 0.5, torch.ones(1, 1, dtype=torch.bool))
    assert (scale.moments.count, scale.moments.mean) == (2, 3.0)


def test_scaled_rewards_are_clipped():
    scale = ReturnScale(2, clip=1.5)
    rewards = torch.tensor([[1.0, -1.0], [2.0, -2.0], [9.0, -9.0]])
    scale.update(rewards, torch.ones(3, 2, dtype=torch.bool), 0.9)
    assert scale(rewards).abs().max() == 1.5


@pytest.mark.parametrize("same_envs", [True, False])
def test_a_stored_return_scale_goes_on(rollouts, same_envs):
    first, second, returns = rollouts
    scale, other = ReturnScale(1), ReturnScale(1)
    scale.update(*first, 0.5)
    other.running.fill_(7.0)
    other.load({name: value.clone() for name, value in scale.state_dict().items()}, same_envs)
    other.update(*second, 0.5)
    if not same_envs:
        returns[3] = 3.0  # nothing is carried over
    assert other.moments.mean.item() == pytest.approx(returns.mean().item())
    assert other.moments.var.item() == pytest.approx(returns.var(unbiased=False).item())


def test_a_return_scale_loads_from_another_number_of_environments(rollouts):
    scale, other = ReturnScale(1), ReturnScale(3)
    scale.update(*rollouts[0], 0.5)
    other.load(scale.state_dict(), same_envs=False)
    assert other.moments.mean == scale.moments.mean
    assert other.running.tolist() == [0.0, 0.0, 0.0]


# --------------------------------------------------------------------------------------------------- advantage scale


def test_advantages_are_divided_by_the_larger_deviation():
    """Of [1, 3], [0, 8] and [4, 6] the variances are 1, 16 and 1; their means so far 1, 8.5 and 6."""
    scale = AdvantageScale()
    assert scale(torch.tensor([[1.0], [3.0]])).flatten().tolist() == pytest.approx([-1.0, 1.0])
    assert scale(torch.tensor([0.0, 8.0])).tolist() == pytest.approx([-1.0, 1.0])
    assert scale(torch.tensor([4.0, 6.0])).tolist() == pytest.approx([-(6.0**-0.5), 6.0**-0.5])
    assert (scale.var.item(), scale.count.item()) == (pytest.approx(6.0), 3)


def test_advantages_of_nothing_at_stake_stay_zero():
    assert AdvantageScale()(torch.full((3, 2), 5.0)).tolist() == [[0.0, 0.0]] * 3


def test_a_stored_advantage_scale_goes_on():
    scale, other, late = AdvantageScale(), AdvantageScale(), torch.tensor([4.0, 6.0])
    scale(torch.tensor([0.0, 8.0]))
    other.load_state_dict({name: value.clone() for name, value in scale.state_dict().items()})
    assert torch.equal(other(late), scale(late))
    assert not torch.equal(AdvantageScale()(late), scale(late))


def test_discounted_returns_by_hand():
    # environment 0, before 8:  1 + 0.5 * 8 = 5;  2 + 0.5 * 5 = 4.5;  a start: 3;  4 + 0.5 * 3 = 5.5
    # environment 1, before 2:  a start: 10;  20 + 0.5 * 10 = 25;  0 + 12.5;  0 + 6.25
    rewards = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 0.0], [4.0, 0.0]], dtype=torch.float64)
    starts = torch.tensor([[False, True], [False, False], [True, False], [False, False]])
    before = torch.tensor([8.0, 2.0], dtype=torch.float64)
    found = discounted_returns(rewards, starts, before, 0.5)
    assert found.t().tolist() == [[5.0, 4.5, 3.0, 5.5], [10.0, 25.0, 12.5, 6.25]]
    assert before.tolist() == [8.0, 2.0]


# ------------------------------------------------------------------------------------------- numbers that are too large


@pytest.mark.parametrize("size", [1e30, float("inf"), float("nan")])
def test_moments_that_would_not_be_finite_are_refused_and_stay(size):
    moments = RunningMoments((2,))
    moments.update(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
    before = {name: value.clone() for name, value in moments.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"is too large for its moments"):
        moments.update(torch.tensor([[0.0, size]]))
    assert all(torch.equal(value, before[name]) for name, value in moments.state_dict().items())


@pytest.mark.parametrize("size", [1e20, -3e38])
def test_rewards_that_would_make_all_others_0_are_refused(rollouts, size):
    """The variance overflows: from then on each reward would be divided by infinity."""
    (rewards, starts), _, _ = rollouts
    scale = ReturnScale(1)
    scale.update(rewards, starts, 0.5)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"a reward of size .* is too large for normalise_returns"):
        scale.update(torch.tensor([[1.0], [size]]), torch.zeros(2, 1, dtype=torch.bool), 0.5)
    assert all(torch.equal(value, before[name]) for name, value in scale.state_dict().items())
    assert scale(torch.tensor([1.0])) != 0
