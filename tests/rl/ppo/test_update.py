import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.flat_adam import flat_adam
from rl.networks import make_head
from rl.normalisation import ReturnScale
from rl.ppo import PPO
from rl.ppo.losses import policy_loss, value_loss
from rl.ppo.rollout_buffer import RolloutBuffer

T, B = 16, 4


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def state_of(optimizer):
    return [leaf.clone() for state in optimizer.state.values() for leaf in state.values()]


@pytest.fixture
def learned(make_network, collect, update):
    """The weights, metrics and optimiser after one update of equal networks from equal rollouts."""

    def run(progress=0.0, **options):
        network = make_network(cores.gru)
        optimizer = flat_adam(network, 1e-3)
        metrics = update(network, collect(network, T), optimizer=optimizer, progress=progress, **options)
        return weights(network), metrics, optimizer

    return run


# ------------------------------------------------------------------------------------------------------ the loss itself


def test_the_loss_is_the_sum_of_its_parts(make_network, collect, update):
    network = make_network(cores.gru)
    rollout = collect(network, T)
    metrics = update(network, rollout, num_minibatches=1, epochs=1, value_coef=0.7, entropy_coef=0.2)
    parts = metrics["policy_loss"] + 0.7 * metrics["value_loss"] - 0.2 * metrics["entropy"]
    assert metrics["loss"] == pytest.approx(parts, abs=1e-6)
    targets = rollout[1]
    # the ratio is 1, so the surrogate is the mean advantage; the values are the old ones
    assert metrics["policy_loss"] == pytest.approx(-targets.advantages.mean().item(), abs=1e-6)
    squares = (targets.old_values - targets.returns) ** 2
    assert metrics["value_loss"] == pytest.approx(0.5 * squares.mean().item(), abs=1e-5)


@pytest.mark.parametrize("ratio", ["joint", "per_head"])
def test_the_loss_of_one_minibatch(ratio, make_network, collect):
    """Of a policy that is not the one that played: its parts, and what is reported beside them."""
    network = make_network(cores.gru, action_space=spaces.MultiDiscrete([2, 3]))
    buffer, targets = collect(network, T)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1
    ppo = PPO(ratio=ratio, clip=0.05, value_clip=0.05)
    ((mb, _),) = buffer.sequences(targets, 1, None, torch.Generator().manual_seed(0))
    loss, metrics = ppo.loss(network, mb, ppo.coefficients(0.0))
    params, values, _ = network.unroll(mb.obs, mb.state, mb.starts)
    log_probs, entropies = network.head.evaluate(params, mb.actions)
    difference = log_probs - mb.old_log_probs
    expected_ratio = (difference if ratio == "per_head" else difference.sum(-1, keepdim=True)).exp()
    torch.testing.assert_close(metrics["ratio"], expected_ratio)
    torch.testing.assert_close(metrics["entropy"], entropies)
    policy = policy_loss(expected_ratio, mb.advantages, 0.05)
    value = value_loss(values, mb.old_values, mb.returns, 0.05)
    torch.testing.assert_close(metrics["policy_loss"], policy)
    torch.testing.assert_close(metrics["value_loss"], value)
    torch.testing.assert_close(loss, policy + 0.5 * value - 0.01 * entropies.sum(-1).mean())
    assert not any(leaf.requires_grad for leaf in metrics.values())


def test_a_subclass_adds_a_term_to_the_loss(make_network, collect, update):
    """It is learned from, it counts in the loss, and what the subclass reports is shown as a mean over minibatches."""

    class Small(PPO):
        def loss(self, network, mb, now, teacher=None):
            loss, metrics = super().loss(network, mb, now, teacher)
            size = network.heads.weight.square().sum()
            return 2.0 * loss + 100.0 * size, metrics | {"size": size.detach()}

    network = make_network(cores.gru)
    before = network.heads.weight.norm().item()
    options = {"epochs": 1, "num_minibatches": 1}
    metrics = update(network, collect(network, T), kind=Small, **options, learning_rate=0.01)
    assert network.heads.weight.norm().item() < before - 0.01
    plain = make_network(cores.gru)
    loss = update(plain, collect(plain, T), **options)["loss"]
    assert metrics["loss"] == pytest.approx(2.0 * loss + 100.0 * before**2, rel=1e-5)
    assert metrics["size"] == pytest.approx(before**2, rel=1e-5)


def test_entropy_is_reported_by_branch(make_network, collect, update):
    network = make_network(cores.gru, action_space=spaces.MultiDiscrete([2, 3]), action_names=("move", "vote"))
    metrics = update(network, collect(network, T), num_minibatches=2)
    assert 0 < metrics["entropy_move"] <= math.log(2) + 1e-6
    assert 0 < metrics["entropy_vote"] <= math.log(3) + 1e-6
    assert metrics["entropy"] == pytest.approx(metrics["entropy_move"] + metrics["entropy_vote"])
    one = make_network(cores.gru)
    assert [name for name in update(one, collect(one, T)) if "entropy" in name] == ["entropy_coef", "entropy"]


def test_good_actions_become_likelier(make_network, collect, update):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    targets.advantages = torch.where(buffer.actions.squeeze(-1) == 0, 1.0, -1.0)
    update(network, (buffer, targets), learning_rate=1e-2, epochs=8, entropy_coef=0.0, value_coef=0.0)
    with torch.no_grad():
        params, _, _ = network.unroll(buffer.obs, {name: leaf[0] for name, leaf in buffer.state.items()}, buffer.starts)
    before, after = (p.softmax(-1)[..., 0].mean().item() for p in (buffer.params, params))
    assert after > before + 0.05


def test_the_metrics_of_a_clipped_update(learned):
    """The first minibatch has ratio 1; the share of the others that is clipped is that of the range that has fallen."""
    options = {"learning_rate": 0.02, "num_minibatches": 1, "epochs": 4, "clip": 0.4}
    (_, wide, _), (_, narrow, _) = learned(**options), learned(**options, clip_schedule="linear", progress=0.99)
    assert wide["ratio_error"] < 1e-5  # of the first minibatch
    assert narrow["clipfrac"] > 0.5 > wide["clipfrac"]  # ranges 0.4 and 0.004
    assert learned(**options | {"epochs": 1})[1]["clipfrac"] == 0.0


# ------------------------------------------------------------------------------------------------------------ schedules


def test_coefficients_of_an_update():
    plain = PPO(learning_rate=0.01, clip=0.4, entropy_coef=0.08, teacher_kl=1.0, teacher_kl_schedule="constant")
    for progress in (0.0, 0.75, 1.0):
        now = plain.coefficients(progress)
        assert (now.learning_rate, now.clip, now.entropy_coef, now.teacher_kl) == (0.01, 0.4, 0.08, 1.0)
    one = PPO(value_coef=0.3, value_clip=0.7, ratio="per_head").coefficients(0.5)
    assert (one.value_coef, one.value_clip, one.per_head) == (0.3, 0.7, True)
    assert plain.coefficients(0.5).per_head is False


FALLS = {"entropy_coef_schedule": "linear"}


@pytest.mark.parametrize(
    ("options", "name", "values"),
    [  # before training, after three quarters of it, at its end, and beyond
        ({"learning_rate": 0.01, "learning_rate_schedule": "linear"}, "learning_rate", [0.01, 0.0025, 0.0, 0.0]),
        ({"clip": 0.4, "clip_schedule": "linear"}, "clip", [0.4, 0.1, 0.0, 0.0]),
        (
            {"clip": 0.4, "clip_schedule": "cosine", "clip_final": 0.2},
            "clip",
            [0.4, 0.4 - 0.1 * (1 + 0.5**0.5), 0.2, 0.2],
        ),
        ({"entropy_coef": 0.08, "entropy_coef_final": 0.0} | FALLS, "entropy_coef", [0.08, 0.02, 0.0, 0.0]),
        ({"entropy_coef": 0.08, "entropy_coef_final": 0.04} | FALLS, "entropy_coef", [0.08, 0.05, 0.04, 0.04]),
        ({"entropy_coef": 0.0, "entropy_coef_final": 0.04} | FALLS, "entropy_coef", [0.0, 0.03, 0.04, 0.04]),
        ({"teacher_kl": 1.0}, "teacher_kl", [1.0, 0.25, 0.0, 0.0]),  # to 0 unless told
        ({"teacher_kl": 1.0, "teacher_kl_final": 0.6}, "teacher_kl", [1.0, 0.7, 0.6, 0.6]),
    ],
)
def test_coefficients_follow_the_progress(options, name, values):
    ppo = PPO(**options)
    found = [getattr(ppo.coefficients(progress), name) for progress in (0.0, 0.75, 1.0, 1.5)]
    assert found == pytest.approx(values)


def test_an_update_takes_its_steps_with_the_coefficients_of_now(learned):
    rate = {"learning_rate": 0.01, "learning_rate_schedule": "linear"}
    _, _, optimizer = learned(progress=0.75, **rate)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0025)
    assert same(learned(progress=0.75, **rate)[0], learned(learning_rate=0.0025)[0])
    annealed = learned(progress=0.75, entropy_coef=0.08, entropy_coef_final=0.04, **FALLS)
    constant = learned(entropy_coef=0.05)
    for one, other in zip(annealed[0], constant[0], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert annealed[1]["loss"] == pytest.approx(constant[1]["loss"], rel=1e-5)


# ----------------------------------------------------------------------------------------- stopping, and broken numbers


def test_a_target_kl_is_exceeded_at_one_and_a_half_times(learned):
    """Two epochs of one minibatch: the first has a divergence of 0, the second twice what is reported of both."""
    options = {"num_minibatches": 1, "epochs": 2, "learning_rate": 0.02}
    both, metrics, _ = learned(**options)
    second = 2.0 * metrics["approx_kl"]
    assert second > 1e-4
    assert same(learned(**options, target_kl=second / 1.49)[0], both)
    first_only, _, optimizer = learned(**options | {"epochs": 1})
    stopped, _, other = learned(**options, target_kl=second / 1.51)
    assert same(stopped, first_only) and not same(stopped, both)
    assert same(state_of(optimizer), state_of(other))


def test_a_target_kl_ends_all_epochs(learned):
    """Of twenty minibatches the first is taken and the second exceeds the limit: no step after that, nor a moment."""
    options = {"num_minibatches": 4, "bptt": 4, "learning_rate": 0.02}
    stopped, metrics, optimizer = learned(**options, epochs=5, target_kl=1e-8)
    assert metrics["approx_kl"] > 1e-6
    assert [float(state["step"]) for state in optimizer.state.values()] == [1.0]
    again, _, other = learned(**options, epochs=1, target_kl=1e-8)
    assert same(stopped, again)
    assert same(state_of(optimizer), state_of(other))


def test_a_wide_target_kl_stops_nothing(learned):
    assert same(learned(target_kl=1e3)[0], learned()[0])


@pytest.mark.parametrize(
    ("where", "bad", "target_kl"),
    [
        ("obs", math.nan, None),
        ("state", math.nan, None),
        ("state", math.inf, 0.5),
        ("advantages", math.nan, 0.5),
        ("advantages", math.inf, None),
        ("returns", math.inf, None),
        ("returns", math.nan, 0.5),
        ("old_log_probs", -math.inf, None),
        ("old_log_probs", math.nan, 0.5),
    ],
)
def test_broken_numbers_leave_the_weights_as_they_were(where, bad, target_kl, make_network, collect, update):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    optimizer = flat_adam(network, 1e-3)
    update(network, (buffer, targets), num_minibatches=1, optimizer=optimizer)
    before = weights(network), state_of(optimizer)
    if where == "obs":
        buffer.obs["obs"][5, 1, 0] = bad
    elif where == "state":
        buffer.starts[0] = False
        buffer.state["h"][0, 1] = bad
    else:
        getattr(targets, where)[5, 1] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        update(network, (buffer, targets), num_minibatches=1, bptt=None, target_kl=target_kl, optimizer=optimizer)
    assert same(weights(network), before[0])
    assert same(state_of(optimizer), before[1])


def test_minibatches_after_a_broken_one_are_left(make_network, collect, update):
    """Two epochs of four minibatches, the second is broken: one step is taken, that of the first."""
    network, twin = make_network(cores.gru), make_network(cores.gru)
    buffer, targets = collect(network, T)
    drawn = list(buffer.sequences(targets, 4, 4, torch.Generator().manual_seed(0)))  # as update draws them
    targets.returns[targets.returns == drawn[1][0].returns[0, 0]] = math.nan
    optimizer = flat_adam(network, 1e-3)
    with pytest.raises(FloatingPointError):
        update(network, (buffer, targets), optimizer=optimizer, epochs=2, num_minibatches=4, bptt=4)
    assert [float(state["step"]) for state in optimizer.state.values()] == [1.0]
    with pytest.raises(FloatingPointError):
        update(twin, (buffer, targets), epochs=1, num_minibatches=4, bptt=4)
    assert same(weights(network), weights(twin))


def test_after_broken_numbers_the_next_update_goes_on(make_network, collect, update):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    optimizer, good = flat_adam(network, 1e-3), targets.returns.clone()
    targets.returns[3, 0] = math.nan
    with pytest.raises(FloatingPointError):
        update(network, (buffer, targets), optimizer=optimizer)
    targets.returns, before = good, weights(network)
    update(network, (buffer, targets), optimizer=optimizer)
    assert not same(weights(network), before)


# --------------------------------------------------------------------------------------------------- rollout to targets


@pytest.fixture
def rollout_of_three():
    """The rollout of the tests of advantages: rewards 1 2 3, values 10 20 30, an end of either kind at step 1."""

    def make(terminated=False, truncated=False, values=(10.0, 20.0, 30.0), rewards=(1.0, 2.0, 3.0), last=40.0):
        head = make_head(spaces.Discrete(2))
        example = torch.zeros(1, 1)
        room = 5  # longer than what is collected
        buffer = RolloutBuffer(room, {"obs": example}, {}, example.long(), torch.zeros(1, 2))
        for t, value in enumerate(values):
            params = torch.tensor([[0.0, t * 1.0]])
            buffer.write_step({"obs": example}, {}, np.array([t == 0]), params, torch.tensor([value]), torch.ones(1, 1))
            ends = np.array([terminated and t == 1]), np.array([truncated and t == 1])
            buffer.finish_step(np.float32(rewards[t : t + 1]), *ends, np.array([False]))
        return buffer, head, torch.full((3, 1), 100.0), torch.tensor([last])

    return make


@pytest.mark.parametrize(
    ("ends", "expected"),
    [  # gamma 1/2, lambda 1/4, so each advantage takes an eighth of the next; deltas 1, -3 (-18, 32 at an end), -7
        ({}, [0.515625, -3.875, -7.0]),
        ({"terminated": True}, [-1.25, -18.0, -7.0]),
        ({"truncated": True}, [5.0, 32.0, -7.0]),
    ],
    ids=["running", "terminated", "truncated"],
)
def test_targets_of_a_rollout(ends, expected, rollout_of_three):
    ppo = PPO(gamma=0.5, gae_lambda=0.25, normalise_advantages=False)
    targets, metrics = ppo.targets(*rollout_of_three(**ends), None)
    advantages = torch.tensor(expected)
    assert targets.advantages.squeeze(1).tolist() == expected
    assert targets.returns.squeeze(1).tolist() == pytest.approx([10 + expected[0], 20 + expected[1], 30 + expected[2]])
    assert targets.old_values.squeeze(1).tolist() == [10.0, 20.0, 30.0]
    # action 1 with logits (0, t): log (e^t / (1 + e^t))
    assert targets.old_log_probs.flatten().tolist() == pytest.approx([-math.log(1 + math.exp(-t)) for t in range(3)])
    assert targets.teacher_params is None
    returns = advantages + torch.tensor([10.0, 20.0, 30.0])
    unexplained = advantages.var(unbiased=False) / returns.var(unbiased=False)
    assert metrics == {"explained_variance": pytest.approx(1 - unexplained.item(), abs=1e-5)}


def test_what_the_teacher_said_comes_with_the_targets(rollout_of_three):
    said = torch.rand(3, 1, 2)
    targets, _ = PPO().targets(*rollout_of_three(), None, teacher_params=said)
    assert targets.teacher_params is said


def test_advantages_are_normalised_and_returns_are_not(rollout_of_three):
    options = {"gamma": 0.5, "gae_lambda": 0.5}
    plain, _ = PPO(**options, normalise_advantages=False).targets(*rollout_of_three(), None)
    targets, _ = PPO(**options).targets(*rollout_of_three(), None)
    assert targets.advantages.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert targets.advantages.std(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(targets.advantages.argsort(0), plain.advantages.argsort(0))
    assert torch.equal(targets.returns, plain.returns)


def test_advantages_that_are_all_alike_become_zero(rollout_of_three):
    """Rewards 1, values 2, gamma 1/2: every error is 1 + 1 - 2 = 0, and so is the deviation."""
    constant = rollout_of_three(values=(2.0, 2.0, 2.0), rewards=(1.0, 1.0, 1.0), last=2.0)
    targets, _ = PPO(gamma=0.5, gae_lambda=0.5).targets(*constant, None)
    assert targets.advantages.flatten().tolist() == [0.0, 0.0, 0.0]


def test_rewards_are_scaled_before_the_advantages(rollout_of_three):
    scale = ReturnScale(1)
    targets, _ = PPO(gamma=0.5, gae_lambda=0.0, normalise_advantages=False).targets(*rollout_of_three(), scale)
    # discounted returns 1, 2.5, 4.25: mean 31/12, variance (361 + 1 + 400) / 432
    deviation = math.sqrt(762 / 432)
    expected = [1 / deviation + 10 - 10, 2 / deviation + 15 - 20, 3 / deviation + 20 - 30]
    assert targets.advantages.squeeze(1).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "broken",
    [{"values": (10.0, math.nan, 30.0)}, {"rewards": (1.0, math.inf, 3.0)}, {"last": math.nan}],
    ids=["values", "rewards", "last value"],
)
def test_broken_values_are_refused_before_anything_changes(broken, rollout_of_three):
    scale = ReturnScale(1)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    with pytest.raises(FloatingPointError, match="not finite"):
        PPO().targets(*rollout_of_three(**broken), scale)
    assert all(torch.equal(value, before[name]) for name, value in scale.state_dict().items())
