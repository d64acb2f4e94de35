"""The equations of implicit quantile networks by hand and beside slow references."""

import numpy as np
import pytest
import torch

from rl.iqn.losses import n_step_returns, quantile_huber_loss, sequence_priorities, squash, unsquash


@pytest.fixture
def loss_and_slopes():
    """The loss, and its derivative by each quantile."""

    def differentiate(quantiles, taus, targets, kappa, weights):
        quantiles = quantiles.detach().requires_grad_()
        loss = quantile_huber_loss(quantiles, taus, targets, kappa, weights)
        return loss.detach(), torch.autograd.grad(loss, quantiles)[0]

    return differentiate


# ------------------------------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize(
    ("quantile", "tau", "target", "loss", "slope"),
    [  # kappa = 2; loss = |tau - [d < 0]| L(d) / 2, slope = -|tau - [d < 0]| L'(d) / 2 with d = target - quantile
        (1.0, 0.25, 2.0, 0.0625, -0.125),  # d = 1: 1/4 * 1/2 / 2, 1/4 * 1 / 2
        (2.0, 0.25, 1.0, 0.1875, 0.375),  # d = -1: 3/4 * 1/2 / 2
        (0.0, 0.75, 5.0, 3.0, -0.75),  # d = 5: 3/4 * 2 * (5 - 1) / 2, 3/4 * 2 / 2
        (5.0, 0.75, 0.0, 1.0, 0.25),  # d = -5: 1/4 * 8 / 2
        (1.0, 0.5, 1.0, 0.0, 0.0),
    ],
)
def test_the_loss_of_one_pair(loss_and_slopes, quantile, tau, target, loss, slope):
    numbers = (torch.tensor([[number]]) for number in (quantile, tau, target))
    got, derivative = loss_and_slopes(*numbers, 2.0, torch.ones(1))
    assert got.item() == pytest.approx(loss)
    assert derivative.item() == pytest.approx(slope)


def test_the_loss_sums_over_quantiles_averages_over_targets_and_weighs_steps(loss_and_slopes):
    """kappa = 1. Step 0: quantile 0 of tau 1/2 and targets 1, 2: 1/2 * 1/2 and 1/2 * 3/2, mean 1/2; quantile 1 of tau
    1/4: 0 and 1/4 * 1/2, mean 1/16. So 9/16, with weight 2; step 1 is the same without weight."""
    quantiles, taus = torch.tensor([[0.0, 1.0]] * 2), torch.tensor([[0.5, 0.25]] * 2)
    targets, weights = torch.tensor([[1.0, 2.0]] * 2), torch.tensor([2.0, 0.0])
    loss, slopes = loss_and_slopes(quantiles, taus, targets, 1.0, weights)
    assert loss.item() == pytest.approx(2 * 9 / 16)
    # 2 * -1/2 * (1 + 1) / 2 and 2 * -1/4 * (0 + 1) / 2
    assert slopes.tolist() == [[-1.0, -0.25], [0.0, 0.0]]


def plain_loss(quantiles, taus, targets, kappa, weights):
    """Every pair by itself with the absolute values of the paper."""
    total = torch.zeros((), dtype=quantiles.dtype)
    for *step, i, j in np.ndindex(*quantiles.shape, targets.shape[-1]):
        step = tuple(step)
        error = targets[(*step, j)] - quantiles[(*step, i)]
        size, tau = error.abs(), taus.expand_as(quantiles)[(*step, i)]
        huber = size**2 / 2 if size <= kappa else kappa * (size - kappa / 2)
        total = total + weights[step] * (1 - tau if error < 0 else tau) * huber / kappa / targets.shape[-1]
    return total


@pytest.mark.parametrize("kappa", [0.3, 1.0])
def test_the_loss_and_its_gradient_are_those_of_plain_autograd(kappa):
    """In float64, behind a layer and in front of another term, so that the slope that comes from above is not 1."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(3, 2, n, generator=generator, dtype=torch.float64) for n in (4, 5))
    layer = torch.randn(4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    taus = torch.rand(2, 4, generator=generator, dtype=torch.float64)  # the same for all steps of a sequence
    weights = torch.rand(3, 2, generator=generator, dtype=torch.float64)
    results = []
    for loss in (quantile_huber_loss, plain_loss):
        value = loss(torch.tanh(inputs @ layer) * 2, taus, targets, kappa, weights)
        whole = 3.0 * value + value**2
        results.append((value.detach(), torch.autograd.grad(whole, layer)[0]))
    torch.testing.assert_close(results[0], results[1])
    assert results[0][1].abs().min() > 1e-3


def test_only_quantiles_get_a_gradient():
    taus, targets, weights = (torch.ones(1, 1, requires_grad=True) for _ in range(3))
    quantiles = torch.zeros(1, 1, requires_grad=True)
    loss = quantile_huber_loss(quantiles, taus, targets, 1.0, weights[0])
    gradients = torch.autograd.grad(loss, [quantiles, taus, targets, weights], allow_unused=True)
    assert [gradient is None for gradient in gradients] == [False, True, True, True]


def test_minimising_the_loss_finds_quantiles(loss_and_slopes):
    """Of the numbers 0 ... 100 the quantiles 0.1, 0.5 and 0.9 are 10, 50 and 90; kappa is small beside them."""
    quantiles, targets = torch.zeros(1, 3), torch.arange(101.0).view(1, -1)
    for _ in range(300):
        _, slopes = loss_and_slopes(quantiles, torch.tensor([[0.1, 0.5, 0.9]]), targets, 0.1, torch.ones(1))
        quantiles -= 4.0 * slopes
    torch.testing.assert_close(quantiles, torch.tensor([[10.0, 50.0, 90.0]]), atol=1.0, rtol=0)


def test_rescaling_and_back():
    """h(3) = 2 - 1 + 0.003, h(-8) = -(3 - 1) - 0.008."""
    x = torch.tensor([-300.0, -3.0, -1e-3, 0.0, 0.5, 8.0, 1000.0], dtype=torch.float64)
    assert squash(torch.tensor([3.0, -8.0])).tolist() == pytest.approx([1.003, -2.008])
    assert unsquash(torch.tensor([1.003, -2.008])).tolist() == pytest.approx([3.0, -8.0])
    torch.testing.assert_close(unsquash(squash(x)), x)
    torch.testing.assert_close(unsquash(squash(x.float())), x.float(), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ n-step returns


@pytest.mark.parametrize(
    ("terminated", "final", "returns", "factors", "following"),
    [  # rewards 1 2 3 4 5, n = 3, gamma = 1/2; the first two of five entries are asked for
        ((), (), [2.75, 4.5], [0.125, 0.125], [3, 4]),  # 1 + 2/2 + 3/4; 2 + 3/2 + 4/4
        ((1,), (), [2.0, 2.0], [0.0, 0.0], [2, 2]),  # 1 + 2/2; 2
        ((2,), (), [2.75, 3.5], [0.0, 0.0], [3, 3]),
        ((0,), (), [1.0, 4.5], [0.0, 0.125], [1, 4]),
        ((), (2,), [2.0, 2.0], [0.25, 0.5], [2, 2]),  # entry 2 is only seen: 1 + 2/2, then V(o_2) / 4
        ((), (1,), [1.0, 4.5], [0.5, 0.125], [1, 4]),  # entry 1 itself does not count
        ((), (3,), [2.75, 3.5], [0.125, 0.25], [3, 3]),  # just within reach: nothing changes for entry 0
        ((3,), (3,), [2.75, 3.5], [0.125, 0.25], [3, 3]),  # a final entry cannot terminate anything
    ],
)
def test_n_step_returns_by_hand(terminated, final, returns, factors, following):
    flags = torch.zeros(2, 5, 1, dtype=torch.bool)
    flags[0, list(terminated)] = True
    flags[1, list(final)] = True
    got = n_step_returns(torch.arange(1.0, 6.0).unsqueeze(1), *flags, 3, 0.5)
    assert got[0].flatten().tolist() == returns
    assert got[1].flatten().tolist() == factors
    assert got[2].flatten().tolist() == following


def test_sequences_have_returns_of_their_own():
    """n = 2, gamma = 1/2: rewards 1 2 4 beside 8 16 32, which terminate at once."""
    rewards = torch.tensor([[1.0, 8.0], [2.0, 16.0], [4.0, 32.0]])
    terminated = torch.tensor([[False, True], [False, False], [False, False]])
    returns, factors, following = n_step_returns(rewards, terminated, torch.zeros_like(terminated), 2, 0.5)
    assert returns.tolist() == [[2.0, 8.0]]
    assert factors.tolist() == [[0.25, 0.0]]
    assert following.tolist() == [[2, 1]]
    assert rewards.tolist() == [[1.0, 8.0], [2.0, 16.0], [4.0, 32.0]]


# ---------------------------------------------------------------------------------------------------------- priorities


@pytest.mark.parametrize(("peak", "expected"), [(0.9, 2.9), (0.0, 2.0), (1.0, 3.0)])
def test_priorities_mix_the_largest_error_with_the_mean_one(peak, expected):
    """Errors 1, 3 and 2 of trained steps, 9 of one that is not: 3 and 2; another sequence has errors of 5 only."""
    errors = torch.tensor([[1.0, 5.0], [3.0, 5.0], [9.0, 5.0], [2.0, 5.0]])
    trained = torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    assert sequence_priorities(errors, trained, peak).tolist() == pytest.approx([expected, 5.0])


def test_sequences_without_an_error_or_a_trained_step_can_be_drawn_again():
    errors, trained = torch.tensor([[0.0, 7.0], [0.0, 7.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert sequence_priorities(errors, trained, 0.5).tolist() == pytest.approx([1e-6, 1e-6])
