"""Learning from recordings: the loss, the memory that runs through episodes, and what a run leaves behind."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Bernoulli, Categorical, Normal

from rl import cores
from rl.agents import RecurrentPPO
from rl.checkpoint import load_checkpoint
from rl.recordings import Imitation, ImitationTrainer, Imitator
from rl.training.metrics import Metrics
from rl.recordings.recording import Recording, deal
from rl.training.run import checkpoint_path

LENGTHS = (5, 9, 3, 7, 6, 4)


@pytest.fixture
def make_agent(randomise):
    """An agent for a recording; its weights are random, so that no error hides in a policy that is almost uniform."""

    def make(recording, core=cores.gru, **options):
        spaces_ = recording.observation_space, recording.action_space
        agent = RecurrentPPO(*spaces_, 8, seed=0, core=partial(core, hidden_size=8), **options)
        randomise(agent.network)
        return agent

    return make


@pytest.fixture
def make_imitator(make_agent, make_recording):
    """An imitator of random recordings."""

    def make(action_space=None, lengths=LENGTHS, agent_options=None, **how):
        recording = make_recording(lengths, action_space)
        agent = make_agent(recording, **(agent_options or {}))
        return Imitator(agent, recording, Imitation(**({"held_out": 0.4, "streams": 2} | how)), seed=0)

    return make


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
        actor.observe(imitator.targets[[t]], recording.rewards[[t]], np.array([t in ends]))


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


@pytest.mark.parametrize("name", cores.__all__)
def test_memory_learns_what_a_network_without_it_cannot(recall, name):
    """Without memory log 2 is lost at every fourth step: 0.173 nats a step."""
    low, high = (0.17, 0.3) if name == "mlp" else (0.0, 0.03)
    core = partial(getattr(cores, name), hidden_size=16)
    agent = RecurrentPPO(recall.observation_space, recall.action_space, 16, seed=0, core=core)
    rate = 3e-2 if name == "lstm" else 1e-2  # no one rate suits the LSTM and attention within so few updates
    how = Imitation(epochs=25, streams=4, window_size=8, learning_rate=rate, held_out=0.2)
    imitator = Imitator(agent, recall, how, seed=0)
    losses = [imitator.epoch(number)["nll"] for number in range(how.epochs)]
    assert losses[0] > losses[-1]
    values = imitator.measure()
    assert low <= values["imitation/held_out_nll"] <= high
    assert values["imitation/skill"] == values["imitation/repeat_nll"] - values["imitation/held_out_nll"]


def test_a_gradient_that_is_not_finite_changes_nothing(make_imitator):
    imitator = make_imitator()
    imitator.obs["obs"][:] = float("nan")
    before = [parameter.clone() for parameter in imitator.network.parameters()]
    with pytest.raises(FloatingPointError, match="a gradient was not finite"):
        imitator.epoch(0)
    assert all(now.equal(then) for now, then in zip(imitator.network.parameters(), before, strict=True))


def test_running_moments_come_from_what_is_learned_from(make_imitator, tmp_path):
    imitator = make_imitator(agent_options={"normalise_observations": True}, epochs=1)
    with Metrics(tmp_path, 100) as metrics:
        ImitationTrainer(imitator, tmp_path).learn(metrics)
    learned = imitator.recording.obs["obs"][imitator.train_steps]
    moments = imitator.network.actor.encoder.parts[0].moments
    assert moments.mean.numpy() == pytest.approx(learned.mean(axis=0), abs=1e-5)


# ------------------------------------------------------------------------------------------------- runs and checkpoints


def trainer(make_imitator, folder, epochs, stop_after=None, **how):
    """The trainer of a run; ``stop_after`` epochs it is interrupted."""
    imitator = make_imitator(epochs=epochs, **how)
    course = ImitationTrainer(imitator, folder)
    if stop_after is not None:
        epoch = imitator.epoch

        def interrupted(number):
            if number == stop_after:
                raise KeyboardInterrupt
            return epoch(number)

        imitator.epoch = interrupted
    return course


def test_a_resumed_run_goes_on_exactly(make_imitator, tmp_path):
    whole = trainer(make_imitator, tmp_path / "whole", 4, keep_best=False)
    with Metrics(tmp_path / "whole", 100) as metrics:
        assert whole.learn(metrics)
    with Metrics(tmp_path / "cut", 100) as metrics, pytest.raises(KeyboardInterrupt):
        trainer(make_imitator, tmp_path / "cut", 4, stop_after=2, keep_best=False).learn(metrics)
    resumed = trainer(make_imitator, tmp_path / "cut", 4, keep_best=False)
    resumed.resume()
    assert resumed.done == 2
    with Metrics(tmp_path / "cut", 100) as metrics:
        assert resumed.learn(metrics)
    pairs = zip(whole.imitator.network.parameters(), resumed.imitator.network.parameters(), strict=True)
    assert all(one.equal(other) for one, other in pairs)
    losses = [[point["imitation/held_out_nll"] for point in course.history] for course in (whole, resumed)]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_the_best_epoch_is_kept(make_imitator, tmp_path):
    """On random actions a high learning rate soon makes it worse."""
    course = trainer(make_imitator, tmp_path, 6, learning_rate=0.05, anneal_learning_rate=False)
    with Metrics(tmp_path, 100) as metrics:
        course.learn(metrics)
    losses = [point["imitation/held_out_nll"] for point in course.history]
    assert course.best_epoch == 1 + int(np.argmin(losses)) < 6
    assert course.imitator.measure()["imitation/held_out_nll"] == pytest.approx(min(losses))
    content = load_checkpoint(checkpoint_path(tmp_path))
    kept, last = content["agent"]["network"], content["imitation"]["last"]
    assert not all(kept[name].equal(last[name]) for name in kept)
    resumed = trainer(make_imitator, tmp_path, 7)
    resumed.resume()  # more epochs go on from the last one, not from the best
    assert all(leaf.equal(last[name]) for name, leaf in resumed.imitator.network.state_dict().items())
    assert (resumed.done, resumed.best_epoch, resumed.best[0]) == (6, course.best_epoch, min(losses))


def test_the_weights_load_by_name_into_a_ppo_agent_that_starts_at_ratio_one(make_imitator, tmp_path):
    options = {"num_envs": 2, "num_steps": 8, "bptt": 4, "num_minibatches": 1, "separate_critic": True}
    course = trainer(make_imitator, tmp_path, 2, agent_options=options)
    with Metrics(tmp_path, 100) as metrics:
        course.learn(metrics)
    recording = course.imitator.recording
    agent = RecurrentPPO(
        recording.observation_space, recording.action_space, 8, core=partial(cores.gru, hidden_size=8), **options
    )
    agent.network.load_state_dict(load_checkpoint(checkpoint_path(tmp_path))["agent"]["network"], strict=True)
    for _ in range(8):
        agent.take_action(np.random.default_rng(0).normal(size=(2, 2)).astype(np.float32))
        agent.add_memory_ppo(np.ones(2), np.zeros(2, dtype=bool))
    agent.train_step()
    assert agent.last_metrics["ratio_error"] < 1e-5
    agent.load(checkpoint_path(tmp_path))  # the file is an agent's checkpoint as well


def test_a_foreign_checkpoint_is_refused(make_imitator, tmp_path):
    course = trainer(make_imitator, tmp_path, 1)
    course.imitator.agent.save(checkpoint_path(tmp_path))
    with pytest.raises(ValueError, match="was written by a training run"):
        course.resume()


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
