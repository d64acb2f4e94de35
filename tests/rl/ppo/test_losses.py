import math
from dataclasses import replace

import pytest
import torch

from rl.ppo.losses import (
    Coefficients,
    approximate_kl,
    explained_variance,
    policy_loss,
    ppo_loss,
    probability_ratio,
    value_loss,
)
from rl.types import Sequences

every_clipping = pytest.mark.parametrize("per_head", [False, True], ids=["joint", "per-head"])
every_value_clip = pytest.mark.parametrize("value_clip", [None, 0.3])


def coefficients(**changes):
    given = {"learning_rate": 1.0, "clip": 0.2, "entropy_coef": 0.3, "teacher_kl": 0.0}
    return Coefficients(**given | {"value_coef": 0.7, "value_clip": None, "per_head": False} | changes)


# ---------------------------------------------------------------------------------------------------------- the ratio


def test_ratio_of_the_joint_action_and_of_each_head():
    log_probs = torch.tensor([[0.5, 0.3], [0.2, 0.4]]).log()
    old = torch.tensor([[0.25, 0.6], [0.2, 0.1]]).log()
    # by head 0.5 / 0.25 = 2, 0.3 / 0.6 = 0.5; 1 and 4; joint their product
    assert probability_ratio(log_probs, old, per_head=True).flatten().tolist() == pytest.approx([2, 0.5, 1, 4])
    joint = probability_ratio(log_probs, old, per_head=False)
    assert joint.shape == (2, 1)
    assert joint.flatten().tolist() == pytest.approx([1, 4])


# ------------------------------------------------------------------------------------------------------ the surrogate


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [  # clip 0.2; loss = -min(r A, clip(r) A); slope d loss / d r
        (1.1, 2.0, -2.2, -2.0),  # inside: r A
        (1.5, 2.0, -2.4, 0.0),  # above, a good action: no more than 1.2 * 2
        (0.5, 2.0, -1.0, -2.0),  # below, a good action: its probability may rise again
        (0.9, -2.0, 1.8, 2.0),  # inside
        (0.5, -2.0, 1.6, 0.0),  # below, a bad action: no less than 0.8 * -2
        (1.5, -2.0, 3.0, 2.0),  # above, a bad action: its probability may fall again
    ],
)
def test_clipped_surrogate(ratio, advantage, loss, slope):
    r = torch.tensor([[ratio]], requires_grad=True)
    value = policy_loss(r, torch.tensor([advantage]), 0.2)
    (derivative,) = torch.autograd.grad(value, r)
    assert value.item() == pytest.approx(loss)
    assert derivative.item() == pytest.approx(slope)


def test_heads_are_summed_and_steps_averaged():
    ratio = torch.tensor([[1.5, 1.0], [1.0, 0.5]])
    advantages = torch.tensor([1.0, 3.0])
    # step 0: 1.2 * 1 + 1 * 1 = 2.2; step 1: 1 * 3 + 0.5 * 3 = 4.5 (not clipped: min); mean 3.35
    assert policy_loss(ratio, advantages, 0.2).item() == pytest.approx(-3.35)


def test_per_head_clips_each_head_and_joint_their_product():
    # heads 1.5 and 1 / 1.5: the joint ratio is 1, which clips nothing; by head 1.2 + 0.6667
    log_probs, old = torch.tensor([[math.log(1.5), -math.log(1.5)]]), torch.zeros(1, 2)
    advantages = torch.ones(1)
    joint = policy_loss(probability_ratio(log_probs, old, per_head=False), advantages, 0.2)
    per_head = policy_loss(probability_ratio(log_probs, old, per_head=True), advantages, 0.2)
    assert joint.item() == pytest.approx(-1.0)
    assert per_head.item() == pytest.approx(-(1.2 + 1 / 1.5))


# ----------------------------------------------------------------------------------------------------- the value loss


def test_plain_value_loss():
    # errors 1 and -3: (1 + 9) / 2 / 2
    assert value_loss(torch.tensor([2.0, 1.0]), torch.zeros(2), torch.tensor([1.0, 4.0]), None).item() == 2.5


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
    v = torch.tensor([value], requires_grad=True)
    found = value_loss(v, torch.tensor([1.0]), torch.tensor([target]), 0.5)
    (derivative,) = torch.autograd.grad(found, v)
    assert found.item() == pytest.approx(loss)
    assert derivative.item() == pytest.approx(slope)


# ------------------------------------------------------------------------------- the whole loss and its closed gradient


@pytest.fixture
def batch():
    """500 random steps of two branches in float64: ratios and values on both sides of their clip ranges.

    Returns what is differentiated, ``log_probs, values, entropies``, and the minibatch.
    """
    generator = torch.Generator().manual_seed(0)
    log_probs, old = torch.randn(2, 50, 10, 2, generator=generator, dtype=torch.float64) * 0.2
    entropies = torch.rand(50, 10, 2, generator=generator, dtype=torch.float64)
    advantages, returns, old_values, moved = torch.randn(4, 50, 10, generator=generator, dtype=torch.float64)
    inputs = tuple(leaf.requires_grad_() for leaf in (log_probs, old_values + 0.5 * moved, entropies))
    return inputs, Sequences({}, {}, torch.zeros(50, 10), torch.zeros(50, 10, 2), old, old_values, advantages, returns)


def written_out(inputs, mb, now):
    """The loss by autograd, in the plainest words."""
    log_probs, values, entropies = inputs
    log_ratio = log_probs - mb.old_log_probs
    ratio = (log_ratio if now.per_head else log_ratio.sum(-1, keepdim=True)).exp()
    advantages = mb.advantages.unsqueeze(-1)
    gain, held = ratio * advantages, ratio.clamp(1 - now.clip, 1 + now.clip) * advantages
    error = (values - mb.returns) ** 2
    if now.value_clip is not None:
        near = mb.old_values + (values - mb.old_values).clamp(-now.value_clip, now.value_clip)
        error = torch.maximum(error, (near - mb.returns) ** 2)
    policy, value = -torch.where(gain < held, gain, held).sum(-1).mean(), 0.5 * error.mean()
    return policy + now.value_coef * value - now.entropy_coef * entropies.sum(-1).mean(), policy, value


@every_clipping
@every_value_clip
def test_the_closed_gradients_are_those_of_autograd(per_head, value_clip, batch):
    inputs, mb = batch
    now = coefficients(per_head=per_head, value_clip=value_clip)
    loss, ratio, metrics = ppo_loss(*inputs, mb, now)
    expected, policy, value = written_out(inputs, mb, now)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics, {"policy_loss": policy.detach(), "value_loss": value.detach()})
    torch.testing.assert_close(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs))
    expected_ratio = probability_ratio(inputs[0].detach(), mb.old_log_probs, per_head)
    assert torch.equal(ratio, expected_ratio)
    assert ((ratio > 1.2) & (mb.advantages > 0).unsqueeze(-1)).any()
    assert ((ratio < 0.8) & (mb.advantages < 0).unsqueeze(-1)).any()


@every_clipping
@every_value_clip
def test_a_term_beside_the_loss_and_a_factor_in_front_of_it(per_head, value_clip, batch):
    """As a subclass adds them: the slope that comes into the loss is not 1, and other paths lead to the same leaves."""
    inputs, mb = batch
    now = coefficients(per_head=per_head, value_clip=value_clip)

    def total(loss):
        return 2.0 * loss + sum((leaf**2).mean() for leaf in inputs)

    found = torch.autograd.grad(total(ppo_loss(*inputs, mb, now)[0]), inputs)
    torch.testing.assert_close(found, torch.autograd.grad(total(written_out(inputs, mb, now)[0]), inputs))


@every_clipping
@every_value_clip
def test_the_closed_gradients_are_those_of_small_differences(per_head, value_clip, batch):
    inputs, mb = batch
    names = "old_log_probs", "old_values", "advantages", "returns"
    mb = replace(mb, **{name: getattr(mb, name)[:2, :4].detach() for name in names})
    now = coefficients(per_head=per_head, value_clip=value_clip)
    few = tuple(leaf[:2, :4].detach().requires_grad_() for leaf in inputs)
    assert torch.autograd.gradcheck(lambda *leaves: ppo_loss(*leaves, mb, now)[0], few)


@pytest.fixture
def one_step():
    """One step of one branch in float64: what is differentiated, and the minibatch, whose old value is 1."""

    def make(log_prob=0.0, value=1.0, advantage=0.0, target=0.0):
        def full(number, *shape):
            return torch.full((1, 1, *shape), number, dtype=torch.float64)

        inputs = full(log_prob, 1).requires_grad_(), full(value).requires_grad_(), full(1.0, 1).requires_grad_()
        return inputs, Sequences({}, {}, full(0.0), full(0.0), full(0.0, 1), full(1.0), full(advantage), full(target))

    return make


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("log_prob", [math.log(1.25), math.log(0.75)])
def test_a_ratio_on_the_border_of_its_range_still_learns(advantage, log_prob, one_step):
    inputs, mb = one_step(log_prob, advantage=advantage)
    ratio = probability_ratio(inputs[0], mb.old_log_probs, False)
    now = coefficients(clip=abs(ratio.item() - 1.0))  # the border to the last bit
    loss, _, _ = ppo_loss(*inputs, mb, now)
    (found,) = torch.autograd.grad(loss, inputs[:1])
    assert found.item() == pytest.approx(-advantage * ratio.item())  # autograd has other answers in other versions


@pytest.mark.parametrize(
    ("value", "slope"),
    [  # old value 1, clip 0.25, target 3: on the border a value goes to it by its own error
        (1.25, -1.75),
        (0.75, -2.25),
        (1.0, -2.0),
        (1.5, 0.0),  # beyond, it is held at 1.25, for that is farther away
    ],
)
def test_a_value_on_the_border_of_its_range_still_learns(value, slope, one_step):
    inputs, mb = one_step(value=value, target=3.0)
    loss, _, _ = ppo_loss(*inputs, mb, coefficients(value_clip=0.25))
    (found,) = torch.autograd.grad(loss, inputs[1:2])
    plain = value_loss(inputs[1], mb.old_values, mb.returns, 0.25)
    torch.testing.assert_close(found, 0.7 * torch.autograd.grad(plain, inputs[1:2])[0])
    assert found.item() == pytest.approx(0.7 * slope)


def test_an_entropy_coefficient_is_taken_from_each_branch(batch):
    inputs, mb = batch
    loss, _, _ = ppo_loss(*inputs, mb, coefficients(entropy_coef=0.5))
    (slope,) = torch.autograd.grad(loss, inputs[2])
    assert slope.shape == (50, 10, 2)
    assert slope.unique().tolist() == [-0.5 / 500]


def test_only_the_loss_leads_back_to_the_weights(batch):
    inputs, mb = batch
    loss, ratio, metrics = ppo_loss(*inputs, mb, coefficients())
    assert loss.requires_grad and loss.shape == ()
    assert not any(leaf.requires_grad for leaf in (ratio, *metrics.values()))


# --------------------------------------------------------------------------------------------------------- to be seen


def test_approximate_kl_by_hand():
    # (2 - 1) - log 2 = 0.306853 and (0.5 - 1) + log 2 = 0.193147 of two heads: 0.5; and 0 of the second step; mean 0.25
    assert approximate_kl(torch.tensor([[2.0, 0.5], [1.0, 1.0]])).item() == pytest.approx(0.25)


@pytest.mark.parametrize("spread", [1e-7, 1e-2, 1.0])
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


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e3 / 3])
def test_explained_variance_of_constant_returns_is_zero(constant):
    values = torch.randn(7, generator=torch.Generator().manual_seed(0))
    assert explained_variance(values, torch.full((7,), constant)).item() == 0.0


def test_explained_variance_does_not_depend_on_the_scale():
    returns = torch.randn(100, generator=torch.Generator().manual_seed(0))
    for scale in (1e-7, 1.0, 1e7):
        assert explained_variance(torch.zeros(100), scale * returns).item() == pytest.approx(0.0, abs=1e-5)
        assert explained_variance(0.5 * scale * returns, scale * returns).item() == pytest.approx(0.75, abs=1e-5)
