"""Recurrent IQN in environments of tensors: what it learns there, and that nothing leaves the device."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.classic_control import CartPoleNoVelocity
from envs.t_maze import TMaze
from rl import cores, graphs
from rl.agents import RecurrentIQN
from rl.iqn import IQN
from rl.training.metrics import Metrics
from rl.training.trainer import Trainer
from rl.types import TensorAgent
from tests.rl.agents.test_tensor_rollout import NESTED, PLAIN, B, Counting, Overwriting
from tests.tape import Tape

T = 6
OPTIONS = {"num_envs": B, "num_steps": T, "bptt": 4, "burn_in": 2, "n_step": 2, "batch_size": 8, "learning_starts": 12}
OPTIONS |= {"capacity": 240, "num_cosines": 8, "replay_ratio": 1.5, "total_steps": 90, "layer_size": 8, "seed": 5}
TWO = spaces.Discrete(2)


@pytest.fixture
def make():
    def build(space=PLAIN, action_space=TWO, device="cpu", **options):
        core = partial(cores.gru, hidden_size=8)
        return RecurrentIQN(space, action_space, device=str(device), core=core, **OPTIONS | options)

    return build


def play(agent, space=PLAIN, iterations=8):
    """Train by act, observe and learn."""
    envs, metrics = Counting(space, lambda array: array.copy()), []
    obs = envs.show()
    for _ in range(iterations):
        for _ in range(T):
            obs, rewards, terminated, truncated, info = envs.step(agent.act(obs))
            agent.observe(rewards, terminated, truncated, info.get("final_obs"))
        agent.learn(obs)
        metrics.append(agent.last_metrics)
    return metrics


def play_tensors(agent, envs, iterations=8):
    """Train by collect and learn."""
    obs, metrics = envs.show(), []
    for _ in range(iterations):
        obs = agent.collect(envs, obs).obs
        agent.learn(obs)
        metrics.append(agent.last_metrics)
    return metrics


def give_tensors(space=PLAIN, kind=Counting):
    return kind(space, lambda array: torch.from_numpy(array.copy()))


def check_equal(found, expected, tolerance=0.0):
    for part in ("network", "target"):
        for name, leaf in getattr(expected, part).state_dict().items():
            other = getattr(found, part).state_dict()[name]
            torch.testing.assert_close(other.cpu(), leaf.cpu(), rtol=0, atol=tolerance)


# -------------------------------------------------------------------------------------- beside environments of arrays


@pytest.mark.parametrize(
    ("space", "action_space", "options"),
    [
        (PLAIN, spaces.Discrete(3, start=2), {}),
        (NESTED, spaces.MultiDiscrete([2, 3]), {"previous_action_reward": True, "priority_exponent": 0.7}),
        (PLAIN, TWO, {"normalise_observations": True, "state_stride": 1, "burn_in": 0, "target_interval": 1}),
        (PLAIN, TWO, {"capacity": 60, "state_stride": 3}),
    ],
    ids=["discrete", "fed-priorities", "moments", "small-ring"],
)
def test_it_learns_what_act_and_observe_do(space, action_space, options, make):
    """Bit by bit, the rings included: episodes that terminate, that are cut, and both."""
    expected, found = make(space, action_space, **options), make(space, action_space, **options)
    right, other = play(expected, space), play_tensors(found, give_tensors(space))
    assert right == other
    assert found.updates == expected.updates > 5
    check_equal(found, expected)
    assert torch.equal(expected.buffer.written, found.buffer.written)
    slots = expected.buffer.ready().nonzero().squeeze(1)
    assert torch.equal(expected.buffer.priorities[slots], found.buffer.priorities[slots])
    one, two = (agent.buffer.read(slots, torch.ones(len(slots))) for agent in (expected, found))
    for name, leaf in graphs.flatten(one).items():
        assert torch.equal(graphs.flatten(two)[name], leaf), name
    assert one.final.any() and one.terminated.any()
    assert np.array_equal(expected.actor.read_starts(), found.actor.read_starts())


def test_returns_are_measured_a_rollout_at_a_time(make):
    """The same moments but for rounding: those of many steps at once are merged in another order."""
    expected, found = make(normalise_returns=True), make(normalise_returns=True)
    play(expected, iterations=1)
    play_tensors(found, give_tensors(), iterations=1)
    for name, leaf in expected.return_scale.state_dict().items():
        torch.testing.assert_close(found.return_scale.state_dict()[name], leaf)
    assert found.return_scale.moments.count == T * B


def test_what_a_rollout_brought_is_told(make):
    agent, envs = make(), give_tensors()
    played = agent.collect(envs, envs.show())
    assert played.rewards.shape == played.ended.shape == (T, B)
    assert played.ended.T.tolist() == [[t + 1 == length for t in range(T)] for length in (4, 5, 7)]
    assert ((played.rewards - played.rewards.floor()) == 0).all() and played.rewards[3, 0] >= 3
    assert torch.equal(played.obs["obs"], envs.show())
    agent.learn()
    assert agent.env_steps == T * B


@pytest.mark.parametrize("tells", [True, False])
def test_an_environment_may_use_its_memory_again_or_not_tell_what_followed(tells, make):
    """Told only where an episode ended, or never: then the last step of a cut episode is not trained."""
    agent, envs = make(), give_tensors(kind=Overwriting)
    if not tells:
        step = envs.step
        envs.step = lambda actions: (*step(actions)[:4], {})
    play_tensors(agent, envs, 4)
    replay, cut = agent.buffer, 1  # environment 1 is cut after 5 steps
    places = torch.arange(int(replay.written[cut])) * B + cut
    counts, final = replay.obs["obs"][places, 0], replay.final[places]
    finals = [index for index, flag in enumerate(final.tolist()) if flag]
    period = 6 if tells else 5
    assert finals == list(range(period - 1, len(places), period)) and len(finals) == 4
    assert counts[finals].round().tolist() == [5.0 if tells else 4.0] * 4


def test_an_agent_goes_back_to_arrays_and_on_from_a_file(make, tmp_path):
    agent, again = make(), make()
    play_tensors(agent, give_tensors(), 3)
    agent.save(tmp_path / "agent.pt")
    again.load(tmp_path / "agent.pt")
    assert play(agent, iterations=3) == play(again, iterations=3)
    check_equal(agent, again)
    assert agent.env_steps == again.env_steps == 6 * T * B


def test_steps_of_a_rollout_that_was_not_learned_from_are_in_the_file(make):
    agent, again, envs = make(), make(), give_tensors()
    agent.collect(envs, envs.show())
    again.load_state_dict(agent.state_dict())
    again.learn()
    assert again.env_steps == T * B


def test_what_cannot_be_collected_is_refused(make, check_collect_is_refused):
    check_collect_is_refused(make, give_tensors())


def test_rewards_that_would_ruin_their_scale_are_refused(make):
    agent, envs = make(normalise_returns=True), give_tensors()
    envs.count[0] = 2**62
    step = envs.step
    envs.step = lambda actions: tuple(part * 1e30 if i == 1 else part for i, part in enumerate(step(actions)))
    before = agent.return_scale.moments.var.clone()
    with pytest.raises(FloatingPointError, match="too large for normalise_returns"):
        agent.collect(envs, envs.show())
    assert torch.equal(agent.return_scale.moments.var, before)


def test_a_trainer_plays_it_in_tensors(make, tmp_path):
    envs = TMaze(B, length=3, device="cpu")
    agent = make(envs.single_observation_space, envs.single_action_space)
    assert isinstance(agent, TensorAgent)
    trainer = Trainer(agent, envs, tmp_path, 90, seed=0)
    with Metrics(tmp_path, 90, 0) as metrics:
        assert trainer.train(metrics)
    assert agent.rollout is not None and agent.env_steps == 90 and agent.updates


# ------------------------------------------------------------------------------------------------------ on the device


@pytest.fixture
def tape(shadow, request, monkeypatch):
    """Record what runs on the shadow device."""
    Tape.shadow, Tape.made, Tape.replays = request.config.shadow, [], 0
    monkeypatch.setattr(graphs, "Recording", Tape)
    monkeypatch.setattr(graphs, "can_record", lambda device: device.type == "shadow")
    yield Tape
    Tape.made = []


EVERYTHING = {"previous_action_reward": True, "priority_exponent": 0.7, "value_rescaling": True, "dueling": True}
EVERYTHING |= {"target_interval": 2, "target_share": 0.3, "learning_rate_schedule": "linear", "state_stride": 3}


def learn_in(make, device, kind, iterations=6, **options):
    envs = kind(B, device=str(device))
    agent = make(envs.single_observation_space, envs.single_action_space, device, **options)
    obs = envs.reset(seed=1)[0]
    for _ in range(iterations):
        obs = agent.collect(envs, obs).obs
        agent.learn(obs)
    return agent


@pytest.mark.parametrize("kind", [partial(TMaze, length=3), CartPoleNoVelocity], ids=["t_maze", "cartpole"])
@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
def test_rollouts_and_minibatches_are_recorded(kind, options, make, tape, device):
    """Nothing passes between host and device in either, for the tape would not hold it; what is learned is the same.

    In the course of it epsilon falls, the learning rate too, rings go round and the target moves.
    """
    options = options | {"capacity": 60, "total_steps": 200, "exploration": 1.0}
    plain = learn_in(make, device, kind, graphs=False, **options)
    assert not tape.made
    agent = learn_in(make, device, kind, **options)
    assert agent.rollout.recorded.recordings and agent.iqn._step.recorded.recordings
    assert tape.replays > 8 and agent.updates == plain.updates > 8
    assert 0.4 < agent.epsilon < 0.6 and agent.last_metrics == pytest.approx(plain.last_metrics, abs=1e-5)
    check_equal(agent, plain, 1e-6)


def test_what_is_read_back(make, device, shadow):
    """Nothing in a rollout; learning reads what was played and what it reports, however many minibatches."""
    learned = []
    for ratio in (1.0, 4.0):
        envs = TMaze(B, length=3, device=str(device))
        agent = make(envs.single_observation_space, envs.single_action_space, device, replay_ratio=ratio)
        agent.advisor.every, counts, obs = None, [], envs.reset(seed=1)[0]
        for _ in range(6):
            shadow.reads.clear()
            shadow.uploads.clear()
            obs = agent.collect(envs, obs).obs
            assert shadow.reads == []
            assert agent.env_steps == 0 or shadow.uploads == []  # the first flags come from the host
            updates = agent.updates
            agent.learn(obs)
            if updates:  # the first update also looks at the scales of the observations
                counts.append([*shadow.reads])
        learned.append(counts)
    assert learned[0] == learned[1]
    assert {len(reads) for reads in learned[0]} == {2}


def test_acting_in_arrays_is_recorded(make, tape, device):
    agents = [make(device=device, graphs=recorded) for recorded in (False, True)]
    plain, recorded = (play(agent) for agent in agents)
    assert agents[1].actor.recorded[False].recordings and not agents[0].actor.recorded[False].recordings
    for one, other in zip(plain, recorded, strict=True):
        assert other == pytest.approx(one, abs=1e-5)
    check_equal(*agents, 1e-6)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_loss_of_ones_own_is_recorded_only_if_it_says_so(recorded, with_own_loss, make, tape, device, monkeypatch):
    monkeypatch.setattr(RecurrentIQN, "algorithm", with_own_loss(IQN, recorded))
    kind = partial(TMaze, length=3)
    agent, plain = learn_in(make, device, kind), learn_in(make, device, kind, graphs=False)
    assert bool(agent.iqn._step.recorded.recordings) is recorded
    check_equal(agent, plain, 1e-6)
