import math
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from experiments.benchmark.host_reads import HostReads
from rl import cores
from rl.agents import RecurrentPPO
from rl.flat_adam import flat_adam
from rl.networks import make_head
from rl.normalisation import ReturnScale
from rl.ppo import losses
from rl.ppo.rollout_buffer import RolloutBuffer
from rl.ppo.teacher import Teacher
from rl.ppo.update import PPO

T, B = 16, 4
CORES = [getattr(cores, name) for name in cores.__all__]
MEMORIES = [core for core in CORES if core is not cores.mlp]
every_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.__name__)
every_memory = pytest.mark.parametrize("core", MEMORIES, ids=lambda core: core.__name__)
DROPOUT = {"core_options": {"num_layers": 2, "dropout": 0.3}}


@pytest.fixture
def update():
    """One call of :meth:`PPO.update`; ``frozen`` sets the learning rate to zero."""

    def run(network, rollout, frozen=False, progress=0.0, optimizer=None, teacher=None, **options):
        buffer, targets = rollout
        if frozen:
            options, progress = options | {"anneal_learning_rate": True}, 1.0
        optimizer = optimizer or make_optimizer(network)
        shuffle = torch.Generator().manual_seed(0)
        return PPO(**options).update(network, optimizer, buffer, targets, shuffle, progress, teacher)

    return run


@pytest.fixture
def largest_ratio_error(monkeypatch):
    """The largest ``|ratio - 1|`` over all minibatches so far (the metric is that of the first one)."""
    errors, compute = [], losses.probability_ratio

    def spy(*arguments):
        ratio = compute(*arguments)
        errors.append((ratio.detach() - 1).abs().max().item())
        return ratio

    monkeypatch.setattr(losses, "probability_ratio", spy)
    return lambda: max(errors)


def make_optimizer(network):
    return flat_adam(network, 1e-3)


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def without_dropout(core, options):
    """``options`` of a network, but two plain layers where a core that has no dropout is asked for it."""
    if "core_options" in options and core in (cores.mlp, cores.attention, cores.mamba, cores.jamba):
        return options | {"core_options": {"num_layers": 2}}
    return options


# ------------------------------------------------------------------ a replay with unchanged weights repeats the rollout


@every_core
@pytest.mark.parametrize("bptt", [4, 8, 5, None])
@pytest.mark.parametrize(
    ("network_options", "update_options"),
    [
        ({}, {}),
        (DROPOUT, {}),
        ({"separate_critic": True}, {}),
        (DROPOUT | {"separate_critic": True}, {"burn_in": 4}),
        ({"normalise": True}, {"refresh_states": True, "epochs": 2}),
    ],
    ids=["plain", "dropout", "separate-critic", "dropout-critic-burn-in", "normalise-refresh"],
)
def test_replay_is_exact(
    core, bptt, network_options, update_options, make_network, collect, update, largest_ratio_error, device
):
    network_options = without_dropout(core, network_options)
    network = make_network(core, **network_options).to(device)
    network.update_moments({"obs": 2.0 * torch.randn(100, 3).to(device) + 1.0})
    rollout = collect(network, T, device=device)
    metrics = update(network, rollout, frozen=True, num_minibatches=3, bptt=bptt, **update_options)
    assert largest_ratio_error() <= 1e-5
    assert metrics["ratio_error"] <= 1e-5
    assert metrics["approx_kl"] <= 1e-9
    assert metrics["clipfrac"] == 0.0


@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Discrete(5, start=2),
        spaces.MultiDiscrete([2, 3]),
        spaces.Box(-2.0, 3.0, (2,)),
        spaces.MultiBinary(3),
    ],
    ids=["discrete", "multi-discrete", "box", "multi-binary"],
)
@pytest.mark.parametrize(
    "observation_space",
    [
        spaces.Discrete(6, start=-1),
        spaces.Dict({"image": spaces.Box(0, 255, (7, 7, 3), np.uint8), "scalars": spaces.Box(-1.0, 1.0, (2,))}),
        spaces.Tuple([spaces.MultiBinary(3), spaces.MultiDiscrete([2, 3])]),
    ],
    ids=["discrete", "image-and-scalars", "tuple"],
)
@pytest.mark.parametrize("ratio", ["joint", "per_head"])
def test_replay_is_exact_for_every_space(
    observation_space, action_space, ratio, make_network, collect, update, largest_ratio_error
):
    network = make_network(cores.lstm, observation_space, action_space)
    rollout = collect(network, T, observation_space=observation_space)
    update(network, rollout, frozen=True, num_minibatches=2, bptt=8, ratio=ratio, epochs=1)
    assert largest_ratio_error() <= 1e-5


def test_replay_is_exact_under_an_action_mask(make_network, collect, update, largest_ratio_error):
    space = spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,)), "action_mask": spaces.MultiBinary(5)})
    network = make_network(cores.gru, space, spaces.Discrete(5))
    update(network, collect(network, T, observation_space=space), frozen=True, num_minibatches=2, bptt=8)
    assert largest_ratio_error() <= 1e-5


@every_memory
@pytest.mark.parametrize("core_options", [{}, {"num_layers": 2, "dropout": 0.3}], ids=["plain", "dropout"])
def test_replay_is_exact_over_ignored_steps(core, core_options):
    """Environments may use a step to reset themselves: it is taken out of the rollout, and replay must not notice."""
    agent = RecurrentPPO(
        spaces.Box(-1.0, 1.0, (3,)),
        spaces.Discrete(4),
        seed=0,
        core=partial(core, hidden_size=8, **without_dropout(core, {"core_options": core_options})["core_options"]),
        num_envs=B,
        num_steps=T,
        bptt=T,
        epochs=1,
        num_minibatches=1,
    )
    with torch.no_grad():
        agent.network.heads.weight[:-1].mul_(100.0)
    draw, ignored = np.random.default_rng(0), np.zeros(B, dtype=bool)
    for _ in range(T):
        agent.take_action(draw.normal(size=(B, 3)).astype(np.float32))
        done = (draw.random(B) < 0.2) & ~ignored
        agent.add_memory_ppo(np.zeros(B), done, ignored=ignored)
        ignored = done
    agent.train_step(draw.normal(size=(B, 3)).astype(np.float32))
    assert agent.env_steps < T * B  # there were some
    assert agent.last_metrics["ratio_error"] <= 1e-5


@pytest.mark.parametrize(
    ("core", "separate_critic", "leaf", "spoilt"),
    [
        (cores.rnn, False, "h", "ratio_error"),
        (cores.gru, False, "h", "ratio_error"),
        (cores.lstm, False, "h", "ratio_error"),
        (cores.lstm, False, "c", "ratio_error"),
        (cores.gru, True, "h", "ratio_error"),
        (cores.gru, True, "critic.h", "value_loss"),
        (cores.lstm, True, "critic.c", "value_loss"),
    ],
)
def test_every_leaf_of_the_stored_state_is_used(core, separate_critic, leaf, spoilt, make_network, collect, update):
    network = make_network(core, separate_critic=separate_critic)
    buffer, targets = collect(network, T)
    targets.returns = buffer.values.clone()  # so that an exact replay has no value loss
    options = {"frozen": True, "num_minibatches": 1, "epochs": 1, "bptt": 4}
    assert update(network, (buffer, targets), **options)[spoilt] < 1e-5
    buffer.state[leaf].zero_()
    assert update(network, (buffer, targets), **options)[spoilt] > 1e-4


def test_a_wrong_dropout_count_shows_in_the_ratio(make_network, collect, update):
    network = make_network(cores.gru, **DROPOUT)
    buffer, targets = collect(network, T)
    buffer.state["dropout_count"] += 1
    assert update(network, (buffer, targets), frozen=True, num_minibatches=1, bptt=4)["ratio_error"] > 1e-3


def test_burn_in_warms_the_state_with_the_new_weights(make_network, collect, update, randomise):
    """With a burn-in of a whole chunk the stored state in front of it is all that counts."""
    network = make_network(cores.gru)
    buffer, targets = collect(network, T, start_probability=0.0)
    options = {"frozen": True, "num_minibatches": 1, "epochs": 1, "bptt": 4}
    for burn_in, expected in ((0, True), (4, False)):
        states = buffer.state["h"].clone()
        buffer.state["h"][12:] += 1.0  # where the last chunk begins
        error = update(network, (buffer, targets), burn_in=burn_in, **options)["ratio_error"]
        assert (error > 1e-3) == expected
        buffer.state["h"].copy_(states)


def test_states_are_refreshed_before_each_epoch_but_the_first(make_network, collect, update, monkeypatch):
    calls, refresh = [], RolloutBuffer.refresh
    monkeypatch.setattr(RolloutBuffer, "refresh", lambda self, *a: (calls.append(a[1]), refresh(self, *a)))
    network = make_network(cores.gru)
    update(network, collect(network, T), epochs=3, num_minibatches=2, bptt=8, refresh_states=True)
    assert calls == [8, 8]
    update(network, collect(network, T), epochs=3, num_minibatches=2, bptt=8)
    assert calls == [8, 8]


# --------------------------------------------------------------------------------------- how far back the gradient goes


@every_core
@pytest.mark.parametrize(
    ("options", "start", "first"),
    [  # one loss, at step 13 of 16: the gradient begins where the chunk does, or the episode
        ({"bptt": 4}, 0, 12),
        ({"bptt": 8}, 0, 8),
        ({"bptt": None}, 0, 0),
        ({"bptt": None}, 10, 10),
        ({"bptt": 1}, 0, 13),
        ({"bptt": 4, "burn_in": 4}, 0, 12),
    ],
    ids=["4", "8", "whole", "start", "1", "burn-in"],
)
def test_the_gradient_is_cut_where_the_sequence_begins(
    core, options, start, first, make_network, collect, update, monkeypatch
):
    network = make_network(core)
    buffer, targets = collect(network, T, start_probability=0.0)
    buffer.starts[start] = True
    targets.advantages.zero_()
    targets.advantages[13, 2] = 1.0
    obs, reached, grad = buffer.obs["obs"].requires_grad_(), [], torch.autograd.grad

    def with_respect_to_obs_too(outputs, parameters, slopes, **flags):
        *gradients, of_obs = grad(outputs, [*parameters, obs], slopes, **flags)
        reached.append(of_obs.abs().amax(-1) > 0)  # [T, B]
        return gradients

    monkeypatch.setattr(torch.autograd, "grad", with_respect_to_obs_too)
    unclipped = {"clip": 1e9}  # the start was not there in play, so the ratio is not 1
    options = options | {"value_coef": 0.0, "entropy_coef": 0.0} | unclipped
    update(network, (buffer, targets), num_minibatches=1, epochs=1, **options)
    expected = torch.zeros(T, B, dtype=torch.bool)
    expected[13 if core is cores.mlp else first : 14, 2] = True
    assert torch.equal(reached[0], expected)


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
    assert metrics["value_loss"] == pytest.approx(
        0.5 * (targets.old_values - targets.returns).pow(2).mean().item(), abs=1e-5
    )


def test_entropy_is_reported_by_branch(make_network, collect, update):
    network = make_network(cores.gru, action_space=spaces.MultiDiscrete([2, 3]), action_names=("move", "vote"))
    metrics = update(network, collect(network, T), num_minibatches=2)
    assert 0 < metrics["entropy_move"] <= math.log(2) + 1e-6
    assert 0 < metrics["entropy_vote"] <= math.log(3) + 1e-6
    assert metrics["entropy"] == pytest.approx(metrics["entropy_move"] + metrics["entropy_vote"])
    assert "entropy_action" not in update(make_network(cores.gru), collect(make_network(cores.gru), T))


def test_good_actions_become_likelier(make_network, collect, update):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    targets.advantages = torch.where(buffer.actions.squeeze(-1) == 0, 1.0, -1.0)
    update(network, (buffer, targets), learning_rate=1e-2, epochs=8, entropy_coef=0.0, value_coef=0.0)
    with torch.no_grad():
        params, _, _ = network.unroll(buffer.obs, {name: leaf[0] for name, leaf in buffer.state.items()}, buffer.starts)
    before, after = (p.softmax(-1)[..., 0].mean().item() for p in (buffer.params, params))
    assert after > before + 0.05


def test_a_long_gradient_is_scaled_down(make_network, collect, update, monkeypatch):
    found, step = [], torch.optim.Adam.step

    def spy(self):
        step(self)
        found.append(self.param_groups[0]["params"][0].grad.norm().item())

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    network = make_network(cores.gru)
    metrics = update(network, collect(network, T), num_minibatches=1, epochs=1, max_grad_norm=0.01)
    assert metrics["grad_norm"] > 0.1  # the norm before it is cut
    assert found == [pytest.approx(0.01, rel=1e-3)]


# ------------------------------------------------------------------------------------------------------------ annealing


@pytest.mark.parametrize(
    ("anneal", "progress", "expected"), [(False, 0.75, 0.01), (True, 0.75, 0.0025), (True, 1.5, 0.0)]
)
def test_learning_rate(anneal, progress, expected, make_network, collect, update):
    network = make_network(cores.gru)
    optimizer, before = make_optimizer(network), weights(network)
    options = {"learning_rate": 0.01, "anneal_learning_rate": anneal, "num_minibatches": 2}
    update(network, collect(network, T), progress=progress, optimizer=optimizer, **options)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)
    assert same(weights(network), before) == (expected == 0.0)


@pytest.mark.parametrize(("anneal", "progress", "expected"), [(False, 0.75, 0.4), (True, 0.75, 0.1), (True, 0.0, 0.4)])
def test_clip_range(anneal, progress, expected, make_network, collect, update, monkeypatch):
    seen, compute = [], losses.policy_loss
    monkeypatch.setattr(losses, "policy_loss", lambda r, a, clip: (seen.append(clip), compute(r, a, clip))[1])
    network = make_network(cores.gru)
    update(network, collect(network, T), progress=progress, clip=0.4, anneal_clip=anneal, num_minibatches=1, epochs=2)
    assert seen == [pytest.approx(expected)] * 2


@pytest.mark.parametrize(
    ("final", "progress", "expected"),
    [(None, 0.75, 0.08), (0.0, 0.75, 0.02), (0.04, 0.75, 0.05), (0.04, 0.0, 0.08), (0.04, 1.0, 0.04)],
)
def test_entropy_coefficient(final, progress, expected, make_network, collect, update):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    targets.advantages.zero_()  # so that the entropy is all of the loss
    options = {"entropy_coef": 0.08, "entropy_coef_final": final, "value_coef": 0.0, "num_minibatches": 1, "epochs": 1}
    metrics = update(network, (buffer, targets), progress=progress, **options)
    assert metrics["loss"] == pytest.approx(-expected * metrics["entropy"], rel=1e-4)


# ----------------------------------------------------------------------------------------- stopping, and broken numbers


def test_target_kl_ends_all_epochs(make_network, collect, update, monkeypatch):
    network, twin = make_network(cores.gru), make_network(cores.gru)
    rollout = collect(network, T)
    options = {"num_minibatches": 4, "bptt": 4, "learning_rate": 0.02}
    calls, sequences = [], RolloutBuffer.sequences
    monkeypatch.setattr(RolloutBuffer, "sequences", lambda *a, **k: (calls.append(1), sequences(*a, **k))[1])
    optimizer = make_optimizer(network)
    metrics = update(network, rollout, epochs=5, target_kl=1e-8, optimizer=optimizer, **options)
    assert len(calls) == 1  # the first epoch was the last
    assert metrics["approx_kl"] > 1e-6
    # the first minibatch has ratio 1 and is taken; the second exceeds the limit, and with it all others are left
    monkeypatch.setattr(RolloutBuffer, "sequences", lambda *a, **k: [next(iter(sequences(*a, **k)))])
    update(twin, rollout, epochs=1, **options)
    assert same(weights(network), weights(twin))
    assert all(state["step"] == 1 for state in optimizer.state.values())


def test_a_wide_target_kl_stops_nothing(make_network, collect, update):
    network, twin = make_network(cores.gru), make_network(cores.gru)
    rollout = collect(network, T)
    update(network, rollout, target_kl=1e3)
    update(twin, rollout)
    assert same(weights(network), weights(twin))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["obs", "state", "advantages", "returns", "old_log_probs"])
@pytest.mark.parametrize("target_kl", [None, 0.5])
def test_broken_numbers_leave_the_weights_as_they_were(bad, where, target_kl, make_network, collect, update):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    optimizer = make_optimizer(network)
    update(network, (buffer, targets), num_minibatches=1, optimizer=optimizer)
    before = weights(network), [v.clone() for state in optimizer.state.values() for v in state.values()]
    if where == "obs":
        buffer.obs["obs"][5, 1, 0] = bad * 0.0  # NaN: an infinite one is a large one for tanh
    elif where == "state":
        buffer.starts[0] = False
        buffer.state["h"][0, 1] = bad
    elif where == "old_log_probs":
        targets.old_log_probs[5, 1] = -bad
    else:
        getattr(targets, where)[5, 1] = bad
    with pytest.raises(FloatingPointError, match="not finite"):
        update(network, (buffer, targets), num_minibatches=1, bptt=None, target_kl=target_kl, optimizer=optimizer)
    assert same(weights(network), before[0])
    assert same([v for state in optimizer.state.values() for v in state.values()], before[1])


def test_minibatches_after_a_broken_one_are_left(make_network, collect, update, monkeypatch):
    network, twin = make_network(cores.gru), make_network(cores.gru)
    buffer, targets = collect(network, T)
    options, sequences = {"num_minibatches": 4, "bptt": 4}, RolloutBuffer.sequences
    drawn = list(buffer.sequences(targets, 4, 4, torch.Generator().manual_seed(0)))  # as update draws them
    targets.returns[targets.returns == drawn[1][0].returns[0, 0]] = math.nan
    with pytest.raises(FloatingPointError):
        update(network, (buffer, targets), epochs=2, **options)
    monkeypatch.setattr(RolloutBuffer, "sequences", lambda *a, **k: [next(iter(sequences(*a, **k)))])
    update(twin, (buffer, targets), epochs=1, **options)
    assert same(weights(network), weights(twin))


def test_after_broken_numbers_the_next_update_goes_on(make_network, collect, update):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    optimizer, good = make_optimizer(network), targets.returns.clone()
    targets.returns[3, 0] = math.nan
    with pytest.raises(FloatingPointError):
        update(network, (buffer, targets), optimizer=optimizer)
    targets.returns, before = good, weights(network)
    update(network, (buffer, targets), optimizer=optimizer)
    assert not same(weights(network), before)


# ------------------------------------------------------------------------------------- nothing is read back to the host


@pytest.fixture
def host_reads(make_network, collect, update):
    """What one update reads from the device, and what from the CPU."""

    def count(core, network_options=None, **options):
        network = make_network(core, **(network_options or {}))
        buffer, targets = collect(network, T)
        teacher = Teacher(network, B)
        targets.teacher_params = teacher.follow(buffer.observations(), buffer.starts)
        stored = [buffer.actions, buffer.params, buffer.values, *buffer.obs.values(), *buffer.state.values()]
        sources = [*network.parameters(), *network.buffers(), *stored, *vars(targets).values()]
        sources += teacher.network.parameters()
        optimizer = make_optimizer(network)
        with HostReads(sources) as mode:
            update(network, (buffer, targets), optimizer=optimizer, teacher=teacher, teacher_kl=0.1, **options)
        return mode.reads, mode.others

    return count


@every_core
@pytest.mark.parametrize(
    ("network_options", "update_options"),
    [
        ({}, {}),
        (DROPOUT | {"separate_critic": True}, {"burn_in": 4}),
        ({"normalise": True}, {"refresh_states": True, "value_clip": 0.2}),
    ],
    ids=["plain", "dropout-critic-burn-in", "normalise-refresh-value-clip"],
)
@pytest.mark.parametrize(("epochs", "num_minibatches"), [(1, 1), (3, 4)])
def test_an_update_reads_the_device_once(core, network_options, update_options, epochs, num_minibatches, host_reads):
    network_options = without_dropout(core, network_options)
    options = {"epochs": epochs, "num_minibatches": num_minibatches, "bptt": 8} | update_options
    reads, _ = host_reads(core, network_options, **options)
    assert reads == ["tolist"]  # the metrics, at the end


def test_a_target_kl_is_read_once_an_epoch(host_reads):
    for num_minibatches in (1, 4):
        reads, _ = host_reads(cores.gru, epochs=3, num_minibatches=num_minibatches, bptt=8, target_kl=1e3)
        assert reads.count("__bool__") == 3
        assert set(reads) == {"__bool__", "is_nonzero", "_local_scalar_dense", "tolist"} & set(reads)
        assert reads.count("tolist") == 1


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.detach().numpy(), "numpy"),
        (lambda x: np.asarray(x.detach()), "__array__"),
        (lambda x: x.cpu(), "cpu"),
        (lambda x: bool(x.sum() > 0), "__bool__"),
        (lambda x: float(x.sum()), "__float__"),
        (lambda x: int(x.sum()), "__int__"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x[x > 0], "index"),
        (lambda x: x.masked_select(x > 0), "masked_select"),
        (lambda x: x.unique(), "_unique2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_reads_are_noticed(read, name):
    """The measure itself: every way to read is seen, for a tensor of the device and what is computed from it only."""
    source, other = torch.arange(3.0), torch.arange(3.0)
    with HostReads([source]) as mode:
        read(other * 2.0)
        assert (mode.reads, name in mode.others) == ([], True)
        read(other * source)
        assert name in mode.reads


# --------------------------------------------------------------------------------------------------- rollout to targets


@pytest.fixture
def rollout_of_three():
    """The rollout of the tests of advantages: rewards 1 2 3, values 10 20 30, an end of either kind at step 1."""

    def make(terminated=False, truncated=False, values=(10.0, 20.0, 30.0)):
        head = make_head(spaces.Discrete(2))
        example = torch.zeros(1, 1)
        buffer = RolloutBuffer(
            5, {"obs": example}, {}, example.long(), torch.zeros(1, 2)
        )  # longer than what is collected
        for t, value in enumerate(values):
            params = torch.tensor([[0.0, t * 1.0]])
            buffer.write_step({"obs": example}, {}, np.array([t == 0]), params, torch.tensor([value]), torch.ones(1, 1))
            ends = np.array([terminated and t == 1]), np.array([truncated and t == 1])
            buffer.finish_step(np.float32([t + 1]), *ends, np.array([False]))
        return buffer, head, torch.full((3, 1), 100.0), torch.tensor([40.0])

    return make


@pytest.mark.parametrize(
    ("ends", "expected"),
    [  # worked out in test_advantages
        ({}, [-0.1875, -4.75, -7.0]),
        ({"terminated": True}, [-3.5, -18.0, -7.0]),
        ({"truncated": True}, [9.0, 32.0, -7.0]),
    ],
    ids=["running", "terminated", "truncated"],
)
def test_targets_of_a_rollout(ends, expected, rollout_of_three):
    ppo = PPO(gamma=0.5, gae_lambda=0.5, normalise_advantages=False)
    targets, metrics = ppo.targets(*rollout_of_three(**ends), None)
    advantages = torch.tensor(expected)
    assert targets.advantages.squeeze(1).tolist() == expected
    assert targets.returns.squeeze(1).tolist() == pytest.approx([10 + expected[0], 20 + expected[1], 30 + expected[2]])
    assert targets.old_values.squeeze(1).tolist() == [10.0, 20.0, 30.0]
    # action 1 with logits (0, t): log (e^t / (1 + e^t))
    assert targets.old_log_probs.flatten().tolist() == pytest.approx([-math.log(1 + math.exp(-t)) for t in range(3)])
    returns = advantages + torch.tensor([10.0, 20.0, 30.0])
    unexplained = advantages.var(unbiased=False) / returns.var(unbiased=False)
    assert metrics["explained_variance"] == pytest.approx(1 - unexplained.item(), abs=1e-5)


def test_advantages_are_normalised_and_returns_are_not(rollout_of_three):
    options = {"gamma": 0.5, "gae_lambda": 0.5}
    plain, _ = PPO(**options, normalise_advantages=False).targets(*rollout_of_three(), None)
    targets, _ = PPO(**options).targets(*rollout_of_three(), None)
    assert targets.advantages.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert targets.advantages.std(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)
    assert torch.equal(targets.advantages.argsort(0), plain.advantages.argsort(0))
    assert torch.equal(targets.returns, plain.returns)


def test_rewards_are_scaled_before_the_advantages(rollout_of_three):
    scale = ReturnScale(1)
    targets, _ = PPO(gamma=0.5, gae_lambda=0.0, normalise_advantages=False).targets(*rollout_of_three(), scale)
    # discounted returns 1, 2.5, 4.25: mean 31/12, variance (361 + 1 + 400) / 432
    deviation = math.sqrt(762 / 432)
    expected = [1 / deviation + 10 - 10, 2 / deviation + 15 - 20, 3 / deviation + 20 - 30]
    assert targets.advantages.squeeze(1).tolist() == pytest.approx(expected, abs=1e-5)


def test_broken_values_are_refused_before_anything_changes(rollout_of_three):
    scale = ReturnScale(1)
    before = {name: value.clone() for name, value in scale.state_dict().items()}
    with pytest.raises(FloatingPointError, match="not finite"):
        PPO().targets(*rollout_of_three(values=(10.0, math.nan, 30.0)), scale)
    assert all(torch.equal(value, before[name]) for name, value in scale.state_dict().items())


# ------------------------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("epochs", 0),
        ("num_minibatches", 0),
        ("num_minibatches", 1.5),
        ("bptt", 0),
        ("burn_in", -1),
        ("burn_in", 17),  # longer than bptt
        ("gamma", 1.1),
        ("gae_lambda", -0.1),
        ("ratio", "both"),
        ("clip", 0.0),
        ("value_clip", -1.0),
        ("value_coef", -1.0),
        ("entropy_coef", math.nan),
        ("entropy_coef_final", -1.0),
        ("target_kl", -1.0),
        ("learning_rate", 0.0),
        ("max_grad_norm", math.inf),
    ],
)
def test_a_bad_argument_is_named(argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value!r}"):
        PPO(**{"bptt": 16} | {argument: value})


def test_burn_in_and_refresh_exclude_each_other():
    with pytest.raises(ValueError, match="burn_in and refresh_states"):
        PPO(burn_in=4, refresh_states=True)


@pytest.mark.parametrize(
    ("options", "sizes", "message"),
    [
        ({"bptt": 16}, (4, 24, 1, True), r"bptt=16 does not divide num_steps=24"),
        ({"bptt": 8}, (4, 24, 8, False), r"state_stride=8: one environment"),
        ({"bptt": 8}, (4, 24, 3, True), r"state_stride=3 must divide bptt=8"),
        ({"bptt": 8, "burn_in": 6}, (4, 24, 4, True), r"state_stride=4 must divide bptt=8 and burn_in=6"),
        ({"bptt": 8, "num_minibatches": 13}, (4, 24, 1, True), r"num_minibatches=13 is more than the 12 sequences"),
        ({"bptt": 8}, (0, 24, 1, True), r"num_envs=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, sizes, message):
    with pytest.raises(ValueError, match=message):
        PPO(**options).check_rollout(*sizes)


@pytest.mark.parametrize("sizes", [(4, 24, 1, True), (4, 24, 8, True), (1, 23, 1, False), (1, 5, 1, False)])
def test_sizes_that_fit_are_accepted(sizes):
    PPO(bptt=8, num_minibatches=12).check_rollout(*sizes)
