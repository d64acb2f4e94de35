"""The update of IQN piece by piece; whole updates stand beside a reference in ``test_wiring.py``."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from experiments.benchmark.host_reads import HostReads
from rl.flat_adam import flat_adam
from rl.iqn import IQN
from rl.iqn.losses import squash
from rl.iqn.update import move_target, quantiles_of_actions, read_means


@pytest.fixture
def loss_of():
    """Loss and metrics of a minibatch, always with the same tau."""

    def compute(parts, mb):
        return parts.iqn.loss(parts.network, parts.target, mb, torch.Generator().manual_seed(0))

    return compute


@pytest.fixture
def fix_values():
    """Makes all quantiles of a network the same number."""

    def fix(network, value):
        with torch.no_grad():
            network.output.weight.zero_()
            network.output.bias.fill_(value)

    return fix


# ------------------------------------------------------------------------------------------------------------ the loss


def test_the_goal_is_the_reward_and_the_discounted_value_of_what_follows(make_parts, loss_of, fix_values, read_all):
    """-1 + 8 / 2 = 3 beside a value of 0: seen in the priority, which is the error; 2 where the step terminates."""
    parts = make_parts(n_step=1, gamma=0.5, steps=40)
    for network, value in ((parts.network, 0.0), (parts.target, 8.0)):
        fix_values(network, value)
    mb = read_all(parts.replay)
    mb.rewards[:], mb.terminated[:], mb.final[:] = -1.0, False, False
    torch.testing.assert_close(loss_of(parts, mb)[1]["priorities"], torch.full(mb.weights.shape, 3.0))
    mb.rewards[:], mb.terminated[:] = 2.0, True
    torch.testing.assert_close(loss_of(parts, mb)[1]["priorities"], torch.full(mb.weights.shape, 2.0))


def test_rescaled_values_are_learned_on_their_scale(make_parts, loss_of, fix_values, read_all):
    """A value of h(8) stands for 8: the goal is h(-1 + 8 / 2) = h(3) = 1.003."""
    parts = make_parts(n_step=1, gamma=0.5, value_rescaling=True)
    for network, value in ((parts.network, 0.0), (parts.target, squash(torch.tensor(8.0)).item())):
        fix_values(network, value)
    mb = read_all(parts.replay)
    mb.rewards[:], mb.terminated[:], mb.final[:] = -1.0, False, False
    torch.testing.assert_close(loss_of(parts, mb)[1]["priorities"], torch.full(mb.weights.shape, 1.003))


def test_steps_that_are_not_trained_have_no_part_in_loss_mean_or_priority(make_parts, loss_of, read_all):
    """Their rewards are made absurd: nothing changes."""
    parts = make_parts(n_step=1)
    mb = read_all(parts.replay)
    assert mb.final[3:8].sum() > 5
    loss, metrics = loss_of(parts, mb)
    mb.rewards[mb.final] = 1e6
    again, others = loss_of(parts, mb)
    torch.testing.assert_close(again, loss)
    for name in metrics:
        torch.testing.assert_close(others[name], metrics[name])


def test_a_minibatch_without_a_trained_step_has_no_loss(make_parts, loss_of, read_all):
    parts = make_parts()
    mb = read_all(parts.replay)
    mb.final[:] = True
    loss, metrics = loss_of(parts, mb)
    assert loss.item() == metrics["q_mean"].item() == 0.0
    assert metrics["priorities"].tolist() == pytest.approx([1e-6] * len(mb.slots))


def test_nothing_is_learned_through_the_burn_in(make_parts, loss_of, read_all):
    """Its observations matter, but no gradient reaches them."""
    parts = make_parts(burn_in=3)
    mb = read_all(parts.replay)
    mb.starts[:] = False
    mb.obs["numbers"].requires_grad_()
    loss, metrics = loss_of(parts, mb)
    (gradient,) = torch.autograd.grad(loss, mb.obs["numbers"])
    assert gradient[:3].abs().max() == 0
    assert gradient[3].abs().max() > 0
    with torch.no_grad():
        mb.obs["numbers"][:3] += 1.0
    assert abs(loss_of(parts, mb)[1]["q_mean"] - metrics["q_mean"]) > 1e-4


def test_the_target_and_the_choice_of_actions_get_no_gradient(make_parts, loss_of, read_all):
    parts = make_parts()
    parts.target.requires_grad_()
    loss, _ = loss_of(parts, read_all(parts.replay))
    found = torch.autograd.grad(loss, list(parts.target.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)


def test_quantiles_are_picked_by_action():
    """Two steps of 3 quantiles for 2 actions: the second action, then the first."""
    quantiles = torch.arange(12.0).view(2, 3, 2)
    assert quantiles_of_actions(quantiles, torch.tensor([1, 0])).tolist() == [[1.0, 3.0, 5.0], [6.0, 8.0, 10.0]]


# --------------------------------------------------------------------------------------------------------- the update


class Pulled(IQN):
    """Adds the sum of the weights to the loss."""

    def loss(self, network, target, mb, generator, return_scale=None):
        loss, metrics = super().loss(network, target, mb, generator, return_scale)
        pull = sum(weights.sum() for weights in network.parameters())
        return 0.0 * loss + pull, metrics | {"pull": pull.detach()}


def test_a_subclass_adds_a_term_and_a_metric_by_its_loss(make_parts, update):
    """With a gradient of 1 everywhere Adam's first step is the learning rate."""
    parts = make_parts(kind=Pulled, learning_rate=0.25, max_grad_norm=1e6)
    before = deepcopy(parts.network.state_dict())
    metrics = update(parts, count=1)
    assert metrics["loss"] == pytest.approx(metrics["pull"])
    assert metrics["quantile_loss"] != pytest.approx(metrics["loss"], rel=0.1)
    assert metrics["grad_norm"] == pytest.approx(sum(weights.numel() for weights in parts.network.parameters()) ** 0.5)
    for name, weights in parts.network.named_parameters():
        torch.testing.assert_close(weights.detach(), before[name] - 0.25, rtol=1e-4, atol=1e-4)


def test_metrics_are_means_over_the_minibatches():
    minibatches = [
        {"loss": torch.tensor(1.0), "q": torch.tensor(2.0)},
        {"loss": torch.tensor(4.0), "q": torch.tensor(4)},
    ]
    assert read_means(minibatches, torch.tensor(True)) == {"loss": 2.5, "q": 3.0}
    with pytest.raises(FloatingPointError, match="not finite"):
        read_means(minibatches, torch.tensor(False))


def test_the_target_network_moves_at_its_interval(make_parts, update):
    """Interval 3, 5 minibatches done before: of the next 7 the first, fourth and seventh end at a multiple of 3."""
    parts = make_parts(target_interval=3, target_share=0.5, learning_rate=1e-12)
    start = deepcopy(parts.target.state_dict())
    for count, count_before, halvings in ((7, 5, 3), (1, 0, 0), (1, 2, 1)):
        parts.target.load_state_dict(start)
        update(parts, count, count_before)
        for name, weights in parts.network.named_parameters():
            expected = weights + (start[name] - weights) * 0.5**halvings
            torch.testing.assert_close(parts.target.state_dict()[name], expected.detach())


def test_a_full_share_copies_exactly(make_parts):
    parts = make_parts()
    move_target(parts.target, parts.network, 1.0)
    for mine, theirs in zip(parts.target.parameters(), parts.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert not mine.requires_grad
        assert mine.data_ptr() != theirs.data_ptr()


@pytest.mark.parametrize(
    ("options", "progress", "expected"),
    [
        ({}, 0.75, 0.01),
        ({"learning_rate_schedule": "linear"}, 0.75, 0.0025),
        ({"learning_rate_schedule": "linear"}, 2, 0),
        ({"learning_rate_schedule": "cosine", "learning_rate_final": 0.002}, 0.5, 0.006),
        ({"learning_rate_warmup": 0.2}, 0.1, 0.0055),
    ],
)
def test_the_learning_rate_follows_its_schedule(make_parts, update, options, progress, expected):
    parts = make_parts(learning_rate=0.01, **options)
    optimizer = flat_adam(parts.network, 0.01)
    assert update(parts, progress=progress, optimizer=optimizer)["learning_rate"] == pytest.approx(expected)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_minibatches_lower_the_loss(make_parts, update):
    parts = make_parts(learning_rate=0.01, target_interval=1000)
    optimizer = flat_adam(parts.network, 0.01)
    first = update(parts, 5, optimizer=optimizer)["loss"]
    update(parts, 100, optimizer=optimizer)
    assert update(parts, 5, optimizer=optimizer)["loss"] < 0.7 * first


# ------------------------------------------------------------------------------------------------------- bad numbers


class BadLoss(IQN):
    """Makes the loss infinite and leaves its gradient finite, in the second minibatch."""

    calls = 0

    def loss(self, *arguments):
        self.calls += 1
        loss, metrics = super().loss(*arguments)
        return (loss + float("inf") if self.calls == 2 else loss), metrics


class BadGradient(BadLoss):
    """Leaves the loss finite and makes its gradient infinite, in the second minibatch."""

    def loss(self, network, *arguments):
        self.calls += 1
        loss, metrics = IQN.loss(self, network, *arguments)
        root = (0.0 * network.output.bias.sum()).sqrt()  # the slope of the root at 0 is not finite
        return (loss + root if self.calls == 2 else loss), metrics


@pytest.mark.parametrize("kind", [BadLoss, BadGradient])
def test_no_step_is_taken_from_a_bad_minibatch_on(make_parts, update, kind):
    """The second of three is bad: the weights are those of an update with the first alone."""
    parts, twin = make_parts(kind=kind), make_parts()
    with pytest.raises(FloatingPointError, match="a loss or gradient was not finite"):
        update(parts, count=3)
    drawn = twin.replay.draw(3, twin.iqn.sequences, torch.Generator().manual_seed(0), beta=0.6)
    twin.replay.draw = lambda *_: [part[:1] for part in drawn]
    update(twin, count=1)
    for mine, theirs in zip(parts.network.parameters(), twin.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("where", ["obs", "rewards"])
def test_a_bad_number_leaves_weights_and_priorities_as_they_were(make_parts, update, where):
    parts = make_parts(priority_exponent=0.6)
    if where == "obs":
        parts.replay.obs["numbers"][:] = float("nan")
    else:
        parts.replay.rewards[:] = np.inf
    before, priorities = deepcopy(parts.network.state_dict()), parts.replay.priorities.clone()
    with pytest.raises(FloatingPointError, match="not finite"):
        update(parts)
    assert all(torch.equal(value, before[name]) for name, value in parts.network.state_dict().items())
    assert torch.equal(parts.replay.priorities, priorities)


# ------------------------------------------------------------------------------------------------ the device, options

EVERYTHING = {"priority_exponent": 0.6, "value_rescaling": True, "target_interval": 2, "masked": True}
EVERYTHING |= {"network_options": {"normalise": True, "dueling": True}}


@pytest.mark.parametrize(
    ("core", "options"),
    [("gru", {}), ("lstm", EVERYTHING), ("jamba", EVERYTHING)],
    ids=["plain", "everything", "jamba"],
)
def test_an_update_reads_the_device_once(make_parts, update, core, options):
    parts = make_parts(core, **options)
    _, network, target, replay = parts
    sources = [*network.parameters(), *network.buffers(), *target.parameters(), *target.buffers(), replay.actions]
    optimizer = flat_adam(network, 1e-3)
    with HostReads([*sources, *replay.obs.values(), *replay.state.values()]) as mode:
        update(parts, 5, optimizer=optimizer)
    assert mode.reads == ["tolist"]  # metrics and priorities, at the end


@pytest.mark.parametrize(
    "option",
    [
        {"batch_size": 0}, {"bptt": 0}, {"burn_in": -1}, {"capacity": 0}, {"learning_starts": -1},
        {"replay_ratio": 0.0}, {"gamma": 1.1}, {"n_step": 0}, {"num_quantiles": 0}, {"num_target_quantiles": 0},
        {"kappa": 0.0}, {"reward_scale": 0.0}, {"target_interval": 0}, {"target_share": 1.5},
        {"priority_exponent": -1.0},
        {"priority_correction": 2.0}, {"priority_peak": -0.1}, {"learning_rate": 0.0}, {"max_grad_norm": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_values_out_of_range_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name}={value}: it must be"):
        IQN(**option)


def test_minibatches_hold_whole_sequences():
    """512 / 32 = 16 sequences; 100 / 32 is nearest to 3; one at least."""
    assert [IQN(batch_size=size, bptt=32).sequences for size in (512, 100, 1)] == [16, 3, 1]
    assert IQN(bptt=32, burn_in=8, n_step=3).length == 43
