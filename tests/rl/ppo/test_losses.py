import math

import pytest
import torch

from rl.ppo.losses import approximate_kl, explained_variance, policy_loss, probability_ratio, value_loss


def test_ratio_of_the_joint_action_and_of_each_head():
    log_probs = torch.tensor([[0.5, 0.3], [0.2, 0.4]]).log()
    old = torch.tensor([[0.25, 0.6], [0.2, 0.1]]).log()
    # by head 0.5 / 0.25 = 2, 0.3 / 0.6 = 0.5; 1 and 4; joint their product
    assert probability_ratio(log_probs, old, per_head=True).flatten().tolist() == pytest.approx([2, 0.5, 1, 4])
    joint = probability_ratio(log_probs, old, per_head=False)
    assert joint.shape == (2, 1)
    assert joint.flatten().tolist() == pytest.approx([1, 4])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [  # clip 0.2; loss = -min(r A, clip(r) A); slope d loss / d r = d loss / d log r / r
        (1.1, 2.0, -2.2, -2.0),  # inside: r A
        (1.5, 2.0, -2.4, 0.0),  # above, a good action: no more than 1.2 * 2
        (0.5, 2.0, -1.0, -2.0),  # below, a good action: its probability may rise again
        (0.9, -2.0, 1.8, 2.0),  # inside
        (0.5, -2.0, 1.6, 0.0),  # below, a bad action: no less than 0.8 * -2
        (1.5, -2.0, 3.0, 2.0),  # above, a bad action: its probability may fall again
    ],
)
def test_clipped_surrogate(ratio, advantage, loss, slope):
    value, derivative = policy_loss(torch.tensor([[ratio]]), torch.tensor([advantage]), 0.2)
    assert value.item() == pytest.approx(loss)
    assert derivative.item() == pytest.approx(slope * ratio)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("value_clip", [None, 0.3])
def test_the_closed_gradients_are_those_of_autograd(per_head, value_clip):
    """Against the equations written out in float64, at 500 random steps with ratios on both sides of the clip range."""
    generator = torch.Generator().manual_seed(0)
    log_probs, old = torch.randn(2, 500, 3, generator=generator, dtype=torch.float64) * 0.2
    advantages, returns, old_values, moved = torch.randn(4, 500, generator=generator, dtype=torch.float64)
    values = (old_values + 0.5 * moved).requires_grad_()
    log_probs.requires_grad_()
    ratio = probability_ratio(log_probs, old, per_head)
    surrogate = torch.minimum(ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None]).sum(-1)
    error = (values - returns) ** 2
    if value_clip is not None:
        held = old_values + (values - old_values).clamp(-value_clip, value_clip)
        error = torch.maximum(error, (held - returns) ** 2)
    expected = -surrogate.mean(), 0.5 * error.mean()
    by_log_probs, by_values = torch.autograd.grad(sum(expected), (log_probs, values))
    policy, policy_slope = policy_loss(ratio.detach(), advantages, 0.2)
    value, value_slope = value_loss(values.detach(), old_values, returns, value_clip)
    torch.testing.assert_close((policy, value), tuple(loss.detach() for loss in expected))
    torch.testing.assert_close((policy_slope.expand_as(log_probs), value_slope), (by_log_probs, by_values))


def test_heads_are_summed_and_steps_averaged():
    ratio = torch.tensor([[1.5, 1.0], [1.0, 0.5]])
    advantages = torch.tensor([1.0, 3.0])
    # step 0: 1.2 * 1 + 1 * 1 = 2.2; step 1: 1 * 3 + 0.5 * 3 = 4.5 (not clipped: min); mean 3.35
    assert policy_loss(ratio, advantages, 0.2)[0].item() == pytest.approx(-3.35)


def test_per_head_clips_each_head_and_joint_their_product():
    # heads 1.5 and 1 / 1.5: the joint ratio is 1, which clips nothing; by head 1.2 + 0.6667
    log_probs, old = torch.tensor([[math.log(1.5), -math.log(1.5)]]), torch.zeros(1, 2)
    advantages = torch.ones(1)
    joint, _ = policy_loss(probability_ratio(log_probs, old, per_head=False), advantages, 0.2)
    per_head, _ = policy_loss(probability_ratio(log_probs, old, per_head=True), advantages, 0.2)
    assert joint.item() == pytest.approx(-1.0)
    assert per_head.item() == pytest.approx(-(1.2 + 1 / 1.5))


def test_plain_value_loss():
    # errors 1 and -3: (1 + 9) / 2 / 2
    loss, slope = value_loss(torch.tensor([2.0, 1.0]), torch.zeros(2), torch.tensor([1.0, 4.0]), None)
    assert loss.item() == 2.5
    assert slope.tolist() == [0.5, -1.5]


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [  # old value 1, clip 0.5
        (1.3, 2.0, 0.5 * 0.7**2, -0.7),  # inside: plain
        (3.0, 4.0, 0.5 * 2.5**2, 0.0),  # too far up and on its way: held at 1.5, whose error 2.5 is larger than 1
        (3.0, 0.0, 0.5 * 3.0**2, 3.0),  # too far up and wrong: its own error 3 is larger than 1.5
        (-1.0, -2.0, 0.5 * 2.5**2, 0.0),  # too far down and on its way: held at 0.5
        (-1.0, 2.0, 0.5 * 3.0**2, -3.0),  # too far down and wrong
    ],
)
def test_clipped_value_loss(value, target, loss, slope):
    found, derivative = value_loss(torch.tensor([value]), torch.tensor([1.0]), torch.tensor([target]), 0.5)
    assert found.item() == pytest.approx(loss)
    assert derivative.item() == pytest.approx(slope)


def test_approximate_kl_by_hand():
    # (2 - 1) - log 2 = 0.306853 and (0.5 - 1) + log 2 = 0.193147 of two heads: 0.5; and 0 of the second step; mean 0.25
    assert approximate_kl(torch.tensor([[2.0, 0.5], [1.0, 1.0]])).item() == pytest.approx(0.25)


@pytest.mark.parametrize("spread", [1e-7, 1e-4, 1e-2, 1.0])
def test_approximate_kl_is_never_negative(spread):
    ratio = (spread * torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))).exp()
    assert approximate_kl(ratio).item() >= 0.0
    assert all(approximate_kl(one.unsqueeze(0)).item() >= 0.0 for one in ratio[:100])


def test_approximate_kl_estimates_the_kl():
    old, new = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    actions = torch.multinomial(old, 100_000, replacement=True, generator=torch.Generator().manual_seed(0))
    exact = (old * (old / new).log()).sum().item()  # 0.02527; one estimate spreads by about 0.02
    assert approximate_kl((new / old)[actions].unsqueeze(-1)).item() == pytest.approx(exact, abs=4 * 0.02 / 316)


def test_explained_variance():
    returns = torch.tensor([[1.0, 2.0], [3.0, 6.0]])  # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    assert explained_variance(returns, returns).item() == 1.0
    assert explained_variance(torch.full((2, 2), 3.0), returns).item() == pytest.approx(0.0)
    assert explained_variance(returns + 5.0, returns).item() == pytest.approx(1.0)  # an offset is not counted
    assert explained_variance(-returns, returns).item() == pytest.approx(-3.0)  # 1 - Var(2 R) / Var(R) = 1 - 4
    # values 1 2 3 2: errors 0 0 0 4, variance 16 / 4 - 1 = 3, so 1 - 3 / 3.5
    assert explained_variance(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), returns).item() == pytest.approx(1 / 7)


@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, 1e3 / 3])
def test_explained_variance_of_constant_returns_is_zero(constant):
    values = torch.randn(7, generator=torch.Generator().manual_seed(0))
    assert explained_variance(values, torch.full((7,), constant)).item() == 0.0


def test_explained_variance_does_not_depend_on_the_scale():
    returns = torch.randn(100, generator=torch.Generator().manual_seed(0))
    for scale in (1e-7, 1.0, 1e7):
        assert explained_variance(torch.zeros(100), scale * returns).item() == pytest.approx(0.0, abs=1e-5)
        assert explained_variance(0.5 * scale * returns, scale * returns).item() == pytest.approx(0.75, abs=1e-5)
