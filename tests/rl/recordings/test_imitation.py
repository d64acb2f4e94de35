"""Learning from recordings: the loss, the memory that runs through episodes, and what is left of a failed epoch."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Bernoulli, Categorical, Normal

from rl import cores
from rl.agents import RecurrentPPO
from rl.recordings import Imitation, Imitator, Recording, imitation
from rl.recordings.recording import deal
from rl.recordings.repeat_baseline import repeat_nll


def by_episode(imitator):
    """Parameters of the policy at the held-out steps, each episode by itself from an empty memory, ``[n, P]``."""
    network, found = imitator.network.eval(), []
    for first, _, end in imitator.held_pieces.tolist():
        obs = {name: leaf[first:end].unsqueeze(1) for name, leaf in imitator.obs.items()}
        starts = torch.arange(end - first).unsqueeze(1) == 0
        with torch.no_grad():
            params, _, _ = network.unroll(obs, network.initial_state(1), starts)
        found.append(params[:, 0])
    return torch.cat(found)


# ---------------------------------------------------------------------------------------------------------------- loss


DISTRIBUTIONS = {
    "discrete": (spaces.Discrete(3, start=2), lambda p, a: Categorical(logits=p).log_prob(a - 2)),
    "multi_discrete": (
        spaces.MultiDiscrete([2, 4]),
        lambda p, a: Categorical(logits=p[:, :2]).log_prob(a[:, 0]) + Categorical(logits=p[:, 2:]).log_prob(a[:, 1]),
    ),
    "multi_binary": (spaces.MultiBinary(3), lambda p, a: Bernoulli(logits=p).log_prob(a.float()).sum(-1)),
    "box": (spaces.Box(-2, 4, (2,)), lambda p, a: Normal(p, 1.0).log_prob((a - 1) / 3).sum(-1)),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("window_size", [2, 64])
def test_joint_loss_of_whole_episodes(make_imitator, kind, window_size):
    """Whatever the windows and streams; against torch.distributions."""
    space, log_prob = DISTRIBUTIONS[kind]
    imitator = make_imitator(space, window_size=window_size)
    if kind == "box":
        with torch.no_grad():
            imitator.head.log_std.zero_()
    actions = torch.from_numpy(imitator.recording.actions)[imitator.held_steps]
    expected = -log_prob(by_episode(imitator), actions)
    assert imitator.held_out_nll().sum(axis=1) == pytest.approx(expected.numpy(), abs=1e-5)
    assert imitator.measure()["imitation/held_out_nll"] == pytest.approx(expected.mean().item(), abs=1e-5)


def test_nothing_passes_from_one_episode_to_the_next(make_imitator):
    """Other observations in one held-out episode leave the losses in all others as they are, in the same stream."""
    imitator = make_imitator(streams=1)
    before = imitator.held_out_nll()
    first, _, end = imitator.held_pieces[0]
    imitator.obs["obs"][first:end] += 1.0
    changed = (imitator.held_out_nll() != before).any(axis=1)
    assert changed[: end - first].all() and not changed[end - first :].any()


def test_the_previous_action_and_reward_are_those_of_the_actor(make_agent, make_recording):
    """What is fed while learning is what the agent would be fed while playing the recorded actions."""
    recording = make_recording((4, 5), spaces.MultiDiscrete([2, 3]))
    agent = make_agent(recording, previous_action_reward=True)
    imitator = Imitator(agent, recording, Imitation(held_out=0.5), seed=0)
    actor = agent.new_actor(1)
    ends = recording.bounds[1:] - 1
    for t in range(9):
        inputs = actor.inputs(recording.obs["obs"][[t]])
        assert inputs.keys() == imitator.obs.keys()
        for name, leaf in inputs.items():
            assert leaf[0].equal(imitator.obs[name][t]), (name, t)
        actor.actions = imitator.targets[[t]]
        actor.observe(recording.rewards[[t]], np.array([t in ends]))


def test_burn_in_and_pieces_count_every_step_once(make_imitator):
    """With learning rate 0, all but: the loss of an epoch is the mean over pieces from an empty memory."""
    imitator = make_imitator(piece_steps=3, burn_in=2, learning_rate=1e-12, window_size=4)
    network, total, count = imitator.network.eval(), 0.0, 0
    for first, counted, end in imitator.train_pieces.tolist():
        obs = {name: leaf[first:end].unsqueeze(1) for name, leaf in imitator.obs.items()}
        with torch.no_grad():
            starts = torch.arange(end - first).unsqueeze(1) == 0
            params, _, _ = network.unroll(obs, network.initial_state(1), starts)
        log_probs = Categorical(logits=params[:, 0]).log_prob(imitator.targets[first:end, 0])
        total, count = total - log_probs[counted - first :].sum().item(), count + end - counted
    assert count == len(imitator.train_steps)
    assert imitator.epoch(0)["nll"] == pytest.approx(total / count, abs=1e-5)


# ----------------------------------------------------------------------------------------------------- gradient in time


@pytest.mark.parametrize(("bptt", "reach"), [(None, 8), (8, 8), (2, 2), (3, 2)])
def test_the_gradient_goes_back_as_far_as_bptt(make_imitator, bptt, reach):
    """Of the last action in a window of 8 by the observations in it; pieces of 3 end after 3, 6 and 8 steps."""
    imitator = make_imitator(lengths=(16, 16), streams=1, window_size=8, held_out=0.5)
    imitator.obs["obs"].requires_grad_()
    windows = list(imitator.replay(deal(imitator.train_pieces, 1), bptt))
    window, log_probs = windows[1]
    (gradient,) = torch.autograd.grad(log_probs[-1].sum(), imitator.obs["obs"])
    reached = np.flatnonzero(gradient.abs().sum(-1).numpy())
    assert reached.tolist() == window.steps[-reach:, 0].tolist()


def test_windows_carry_the_state(make_imitator):
    """Or the losses in the second window would not depend on the first."""
    imitator = make_imitator(lengths=(6, 6), streams=1, window_size=3)
    before = imitator.held_out_nll()
    imitator.obs["obs"][imitator.held_steps[0]] += 1.0
    assert (imitator.held_out_nll() != before).any(axis=1).all()


# ------------------------------------------------------------------------------------------------------------- learning


@pytest.fixture
def recall():
    """A bit shown at the first of four steps is to be named at the last; in between the action is 2."""
    rng = np.random.default_rng(0)
    bits = rng.integers(2, size=120)
    obs, actions = np.zeros((120, 4, 2), np.float32), np.full((120, 4), 2)
    obs[np.arange(120), 0, bits], obs[:, 3] = 1.0, 1.0
    actions[:, 3] = bits
    rewards, bounds = np.zeros(480, np.float32), np.arange(0, 481, 4)
    parts = {"obs": obs.reshape(480, 2)}, actions.ravel(), rewards, bounds, np.arange(120)
    return Recording(spaces.Box(0, 1, (2,)), spaces.Discrete(3), *parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", cores.__all__)
def test_memory_learns_what_a_network_without_it_cannot(recall, name):
    """Without memory log 2 is lost at every fourth step: 0.173 nats a step."""
    low, high = (0.17, 0.3) if name == "mlp" else (0.0, 0.03)
    core = partial(getattr(cores, name), hidden_size=16)
    agent = RecurrentPPO(recall.observation_space, recall.action_space, 16, seed=0, core=core)
    rate = {"attention": 5e-3, "mingru": 3e-2}.get(name, 1e-2)  # no one rate suits both within so few updates
    hyperparameters = Imitation(epochs=25, streams=4, window_size=8, learning_rate=rate, held_out=0.2)
    imitator = Imitator(agent, recall, hyperparameters, seed=0)
    losses = [imitator.epoch(number)["nll"] for number in range(hyperparameters.epochs)]
    assert losses[0] > losses[-1]
    values = imitator.measure()
    assert low <= values["imitation/held_out_nll"] <= high
    assert values["imitation/skill"] == values["imitation/repeat_nll"] - values["imitation/held_out_nll"]


def snapshot(agent):
    """Weights and moments of Adam, copied."""
    (moments,) = agent.optimizer.state.values() or ({},)
    return [leaf.detach().clone() for leaf in (*agent.network.parameters(), *moments.values())]


def equal(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def test_an_epoch_that_fails_leaves_weights_and_optimiser_as_they_were(make_imitator):
    """The first windows are good, the last one is not. Then the epoch goes as if it had not been tried before."""
    imitator, twin = (make_imitator(window_size=3, streams=1) for _ in range(2))
    for one in (imitator, twin):
        one.epoch(0)
    before, original = snapshot(imitator.agent), imitator.obs["obs"].clone()
    last = deal(imitator.train_pieces, 1, seed=1).steps[-1, 0]  # of the second epoch, for the seed is 0
    imitator.obs["obs"][last] = float("nan")
    with pytest.raises(FloatingPointError, match="a gradient was not finite: look for extreme observations or lower"):
        imitator.epoch(1)
    assert equal(snapshot(imitator.agent), before)
    imitator.obs["obs"][:] = original
    assert imitator.epoch(1) == twin.epoch(1)
    assert equal(snapshot(imitator.agent), snapshot(twin.agent))
    assert not equal(snapshot(imitator.agent), before)


def test_a_first_epoch_that_fails_leaves_an_optimiser_that_has_seen_nothing(make_imitator):
    imitator = make_imitator(window_size=3, streams=1)
    before = snapshot(imitator.agent)
    imitator.obs["obs"][deal(imitator.train_pieces, 1, seed=0).steps[-1, 0]] = float("nan")
    with pytest.raises(FloatingPointError):
        imitator.epoch(0)
    assert not imitator.agent.optimizer.state
    assert equal(snapshot(imitator.agent), before)


def test_a_bad_window_is_not_forgotten_by_the_good_ones_after_it(make_imitator, monkeypatch):
    """None of them may take a step, for the epoch is undone anyway."""
    imitator, allowed = make_imitator(window_size=3, streams=1), []

    def guarded_step(optimizer, loss, parameters, max_grad_norm, may):
        allowed.append(bool(may))
        return loss.detach(), torch.tensor(len(allowed) != 2)  # the second window is bad

    monkeypatch.setattr(imitation, "guarded_step", guarded_step)
    with pytest.raises(FloatingPointError):
        imitator.epoch(0)
    assert len(allowed) > 4
    assert allowed == [True, True] + [False] * (len(allowed) - 2)


def test_the_norm_and_loss_of_an_epoch_are_means(make_imitator):
    """Over windows of 4 steps of 2 streams, with weights that stay where they are."""
    imitator = make_imitator(streams=2, window_size=4, learning_rate=1e-12)
    losses, norms, parameters = [], [], list(imitator.network.parameters())
    for window, log_probs in imitator.replay(deal(imitator.train_pieces, 2, seed=0)):
        loss = -(log_probs.sum(-1) * torch.from_numpy(window.counted)).sum()
        gradients = torch.autograd.grad(loss / 8, parameters, materialize_grads=True)
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        losses.append(loss.item())
    assert len(set(norms)) > 2
    assert imitator.epoch(0) == {
        "nll": pytest.approx(sum(losses) / len(imitator.train_steps), rel=1e-5),
        "grad_norm": pytest.approx(np.mean(norms), rel=1e-5),
    }


@pytest.fixture
def with_dropout(make_imitator):
    options = {"core": cores.lstm, "core_options": {"num_layers": 2, "dropout": 0.5}}
    return make_imitator(agent_options=options)


def test_dropout_is_for_learning_alone(with_dropout):
    """Whatever mode the network was in; it is put back in the one it was in, also if something fails."""
    network, original, modes = with_dropout.network, with_dropout.network.unroll, []
    network.unroll = lambda *given: modes.append(network.training) or original(*given)
    network.eval()
    with_dropout.epoch(0)
    assert modes and all(modes)
    modes.clear()
    for training in (True, False):
        network.train(training)
        one, other = with_dropout.held_out_nll(), with_dropout.held_out_nll()
        assert (one == other).all() and network.training == training
    assert not any(modes)
    network.train()
    network.unroll = None
    with pytest.raises(TypeError):
        with_dropout.held_out_nll()
    assert network.training


# ------------------------------------------------------------------------------------------------- what is measured


def test_what_is_measured(make_recording, make_agent):
    """Against the losses of each step and of the rules, all and where the action changes, and weighted branches."""
    space = spaces.MultiDiscrete([2, 3])
    recording = make_recording((6, 7, 5), space, branch_weights={"six_heads": (0.5, 2.0)})
    imitator = Imitator(make_agent(recording), recording, Imitation(held_out=0.4), seed=0)
    losses, repeat = imitator.held_out_nll(), imitator.baseline["repeat"]
    steps = imitator.held_steps
    changed = [s not in recording.bounds and (recording.actions[s] != recording.actions[s - 1]).any() for s in steps]
    assert 0 < sum(changed) < len(changed)
    expected = {
        "held_out_nll": losses.sum(1).mean(),
        "repeat_nll": repeat.sum(1).mean(),
        "skill": repeat.sum(1).mean() - losses.sum(1).mean(),
        "held_out_nll_changes": losses[changed].sum(1).mean(),
        "repeat_nll_changes": repeat[changed].sum(1).mean(),
        "held_out_six_heads": (0.5 * losses[:, 0] + 2 * losses[:, 1]).mean(),
        "repeat_six_heads": (0.5 * repeat[:, 0] + 2 * repeat[:, 1]).mean(),
    }
    assert imitator.measure() == {f"imitation/{name}": pytest.approx(value) for name, value in expected.items()}
    marginal = imitator.baseline["marginal"]
    assert imitator.summarise() == {name: pytest.approx(value) for name, value in expected.items()} | {
        "marginal_nll": pytest.approx(marginal.sum(1).mean()),
        "marginal_six_heads": pytest.approx((0.5 * marginal[:, 0] + 2 * marginal[:, 1]).mean()),
        "held_out_nll_branches": {
            "action_0": pytest.approx(losses[:, 0].mean()),
            "action_1": pytest.approx(losses[:, 1].mean()),
        },
        "train_steps": 18 - len(steps),
        "held_out_steps": len(steps),
        "episodes": 3,
        "held_out_pieces": 1,
    }


def test_without_a_change_there_is_no_loss_of_changes(make_recording, make_agent):
    recording = make_recording((4, 4))
    recording.actions[:] = 1
    imitator = Imitator(make_agent(recording), recording, Imitation(held_out=0.5), seed=0)
    assert not [tag for tag in imitator.measure() if tag.endswith("changes")]


@pytest.mark.parametrize("space", [spaces.MultiBinary(2), spaces.Box(-2, 4, (2,)), spaces.MultiDiscrete([2, 3])])
def test_the_rules_to_beat_know_the_kind_of_the_actions(make_recording, make_agent, space):
    """Fitted to what is learned from and judged on what is held out."""
    recording = make_recording((6, 7, 5), space)
    agent = make_agent(recording)
    imitator = Imitator(agent, recording, Imitation(held_out=0.4), seed=0)
    sizes = {"MultiBinary": [2, 2], "Box": None, "MultiDiscrete": [2, 3]}[type(space).__name__]
    inside = agent.network.head.from_environment(recording.actions)
    repeat, marginal = repeat_nll(inside, recording.starts, imitator.train_steps, imitator.held_steps, sizes)
    np.testing.assert_array_equal(imitator.baseline["repeat"], repeat)
    np.testing.assert_array_equal(imitator.baseline["marginal"], marginal)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"burn_in": 3}, "burn_in=3 warms pieces of episodes: set piece_steps as well"),
        ({"window_size": 0}, "window_size=0"),
        ({"bptt": 0}, "bptt=0"),
        ({"split": "steps"}, "split='steps': it must be one of 'episodes', 'time'"),
        ({"held_out": 1.0}, "held_out=1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Imitation(**arguments)


@pytest.mark.parametrize("changed", [False, True])
def test_an_agent_is_fed_the_rewards_of_play(make_recording, changed):
    """One step late, as play would tell them."""
    recording = make_recording([4, 3, 5])
    agent = RecurrentPPO(spaces.Box(-9, 9, (2,)), spaces.Discrete(3), 4, seed=0, previous_action_reward=True)
    told = np.clip(recording.rewards, -0.1, 0.1) if changed else recording.rewards
    imitator = Imitator(agent, recording, Imitation(held_out=0.3), 0, told if changed else None)
    expected = np.where(recording.starts, 0.0, np.roll(told, 1))
    assert imitator.obs["previous_reward"][:, 0].tolist() == pytest.approx(expected.tolist())
