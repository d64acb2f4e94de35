"""A replay with unchanged weights repeats the rollout, and its gradient goes back to where a sequence begins."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import RecurrentPPO
from rl.ppo import PPO

T, B = 16, 4
CORES = [getattr(cores, name) for name in cores.__all__]
every_core = pytest.mark.parametrize("core", CORES, ids=cores.__all__)
DROPOUT = {"core_options": {"num_layers": 2, "dropout": 0.3}}


def without_dropout(core, options):
    """``options`` of a network, but two plain layers where a core that has no dropout is asked for it."""
    if "core_options" in options and core in (cores.mlp, cores.attention, cores.mamba, cores.jamba):
        return options | {"core_options": {"num_layers": 2}}
    return options


@pytest.fixture
def largest_ratio_error(update):
    """One update with a learning rate of zero: the largest ``|ratio - 1|`` of all minibatches, and the metrics."""

    class Watched(PPO):
        def loss(self, *arguments):
            loss, metrics = super().loss(*arguments)
            errors.append((metrics["ratio"] - 1.0).abs().max().item())
            return loss, metrics

    errors = []

    def measure(network, rollout, **options):
        metrics = update(network, rollout, frozen=True, kind=Watched, **options)
        return max(errors), metrics

    return measure


# ------------------------------------------------------------------ a replay with unchanged weights repeats the rollout


@every_core
@pytest.mark.parametrize(
    ("network_options", "update_options"),
    [
        (DROPOUT, {"bptt": 5}),  # sequences of two lengths
        (DROPOUT | {"separate_critic": True}, {"bptt": 4, "burn_in": 4}),
        ({"normalise": True}, {"bptt": 8, "refresh_states": True, "epochs": 2}),
        ({}, {"bptt": None}),
    ],
    ids=["dropout", "dropout-critic-burn-in", "normalise-refresh", "whole"],
)
def test_replay_is_exact(core, network_options, update_options, make_network, collect, largest_ratio_error, device):
    network = make_network(core, **without_dropout(core, network_options)).to(device)
    network.update_moments({"obs": 2.0 * torch.randn(100, 3).to(device) + 1.0})
    rollout = collect(network, T, device=device)
    error, metrics = largest_ratio_error(network, rollout, num_minibatches=3, **{"epochs": 1} | update_options)
    assert error <= 1e-5
    assert metrics["ratio_error"] <= 1e-5
    assert metrics["approx_kl"] <= 1e-9
    assert metrics["clipfrac"] == 0.0


@pytest.mark.parametrize(
    ("observation_space", "action_space", "ratio"),
    [
        (spaces.Discrete(6, start=-1), spaces.Discrete(5, start=2), "joint"),
        (spaces.Tuple([spaces.MultiBinary(3), spaces.MultiDiscrete([2, 3])]), spaces.MultiDiscrete([2, 3]), "joint"),
        (spaces.Discrete(6), spaces.MultiDiscrete([2, 3]), "per_head"),
        (
            spaces.Dict({"image": spaces.Box(0, 255, (8, 8, 3), np.uint8), "scalars": spaces.Box(-1.0, 1.0, (2,))}),
            spaces.Box(-2.0, 3.0, (2,)),
            "joint",
        ),
        (spaces.Box(-1.0, 1.0, (3,)), spaces.MultiBinary(3), "per_head"),
        (
            spaces.Dict({"x": spaces.Box(-1.0, 1.0, (2,)), "action_mask": spaces.MultiBinary(5)}),
            spaces.Discrete(5),
            "joint",
        ),
    ],
    ids=["discrete", "tuple-multi-discrete", "per-head", "image-box", "multi-binary", "mask"],
)
def test_replay_is_exact_for_every_space(
    observation_space, action_space, ratio, make_network, collect, largest_ratio_error
):
    network = make_network(cores.lstm, observation_space, action_space)
    rollout = collect(network, T, observation_space=observation_space)
    assert largest_ratio_error(network, rollout, num_minibatches=2, bptt=8, ratio=ratio, epochs=1)[0] <= 1e-5


@every_core
def test_replay_is_exact_over_ignored_steps(core):
    """Environments may use a step to reset themselves: it is taken out of the rollout, and replay must not notice."""
    options = without_dropout(core, DROPOUT)["core_options"]
    agent = RecurrentPPO(
        spaces.Box(-1.0, 1.0, (3,)),
        spaces.Discrete(4),
        seed=0,
        core=partial(core, hidden_size=8, **options),
        num_envs=B,
        num_steps=T,
        bptt=T,
        num_minibatches=2,
        epochs=1,
    )
    draw, ignored = np.random.default_rng(0), np.zeros(B, dtype=bool)
    for _ in range(T):
        agent.act(draw.normal(size=(B, 3)).astype(np.float32))
        terminated = (draw.random(B) < 0.2) & ~ignored
        agent.observe(np.zeros(B), terminated, ignored=ignored)
        ignored = terminated
    agent.learn(draw.normal(size=(B, 3)).astype(np.float32))
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


@pytest.mark.parametrize(("leaf", "spoilt"), [("h", "ratio_error"), ("critic.h", "value_loss")])
def test_with_a_burn_in_the_state_in_front_of_it_is_all_that_counts(leaf, spoilt, make_network, collect, update):
    """It is of a whole chunk, so that what is stored where a chunk begins is replayed from the chunk before."""
    network = make_network(cores.gru, separate_critic=True)
    buffer, targets = collect(network, T, start_probability=0.0)
    targets.returns = buffer.values.clone()
    options = {"frozen": True, "num_minibatches": 1, "epochs": 1, "bptt": 4}
    buffer.state[leaf][12:] += 1.0  # where the last chunk begins
    assert update(network, (buffer, targets), burn_in=0, **options)[spoilt] > 1e-4
    assert update(network, (buffer, targets), burn_in=4, **options)[spoilt] < 1e-5


# --------------------------------------------------------------------------------------- how far back the gradient goes


class Reaching(PPO):
    """Notes which observations of the whole rollout have a part in the gradient of the loss."""

    def loss(self, network, mb, now, teacher=None):
        loss, metrics = super().loss(network, mb, now, teacher)
        (slope,) = torch.autograd.grad(loss, Reaching.observations, retain_graph=True)
        Reaching.reached = slope.abs().amax(-1) > 0  # [T, B]
        return loss, metrics


@pytest.mark.parametrize(
    ("options", "start", "first", "tried"),
    [  # one loss, at step 13 of 16: the gradient begins where the chunk does, or the episode
        ({"bptt": 4}, 0, 12, CORES),
        ({"bptt": None}, 10, 10, CORES),
        ({"bptt": 8}, 0, 8, [cores.gru, cores.lstm]),
        ({"bptt": None}, 0, 0, [cores.gru, cores.lstm, cores.attention]),
        ({"bptt": 1}, 0, 13, [cores.gru]),
        ({"bptt": 4, "burn_in": 4}, 0, 12, [cores.gru, cores.lstm]),
    ],
    ids=["4", "start", "8", "whole", "1", "burn-in"],
)
def test_the_gradient_is_cut_where_the_sequence_begins(options, start, first, tried, make_network, collect, update):
    for core in tried:
        network = make_network(core)
        buffer, targets = collect(network, T, start_probability=0.0)
        buffer.starts[start] = True
        targets.advantages.zero_()
        targets.advantages[13, 2] = 1.0
        Reaching.observations = buffer.obs["obs"].requires_grad_()
        options = options | {"value_coef": 0.0, "entropy_coef": 0.0}
        options |= {"clip": 1e9}  # the start was not there in play, so the ratio is not 1
        update(network, (buffer, targets), kind=Reaching, num_minibatches=1, epochs=1, **options)
        expected = torch.zeros(T, B, dtype=torch.bool)
        expected[13 if core is cores.mlp else first : 14, 2] = True
        assert torch.equal(Reaching.reached, expected), core
