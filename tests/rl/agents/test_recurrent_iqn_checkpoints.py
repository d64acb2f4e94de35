"""Checkpoints of recurrent IQN, the replay included, and what is left after an update that failed."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch

from envs.probes import Counter, SpaceProbe
from envs.repeat_previous import RepeatPrevious
from rl.training.metrics import Metrics
from rl.training.trainer import Trainer


@pytest.fixture
def make_trainer(tmp_path, make_iqn):
    def make(envs, total_steps, folder="run", seed=0, **options):
        agent = make_iqn(envs, num_envs=envs.num_envs, seed=seed, **{"total_steps": 400, **options})
        return Trainer(agent, envs, tmp_path / folder, total_steps, seed=0)

    return make


@pytest.fixture
def run_trainer():
    def run(trainer):
        with Metrics(trainer.run_dir, trainer.total_steps, trainer.agent.env_steps) as metrics:
            return trainer.train(metrics)

    return run


@pytest.fixture
def snapshot():
    """Weights, target and optimiser of an agent as they are now."""

    def take(agent):
        return deepcopy([agent.network.state_dict(), agent.target.state_dict(), agent.optimizer.state_dict()["state"]])

    return take


@pytest.fixture
def assert_equal():
    """Two snapshots hold the same numbers, bit by bit."""

    def compare(one, other):
        assert type(one) is type(other)
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            one, other = list(one.values()), list(other.values())
        if isinstance(one, list):
            for mine, theirs in zip(one, other, strict=True):
                compare(mine, theirs)
        else:
            assert torch.equal(one, other)

    return compare


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    ("task", "core", "options"),
    [
        (partial(RepeatPrevious, episode_length=11), "gru", {"replay_ratio": 0.7}),
        (
            partial(SpaceProbe, observation="dict", action="multi_discrete", episode_length=5),
            "lstm",
            {"previous_action_reward": True, "normalise_observations": True, "priority_exponent": 0.6, "burn_in": 2},
        ),
        (
            partial(Counter, episode_length=[3, 5, 7], end="truncated"),
            "mlp",
            {"capacity": 60, "target_interval": 7, "normalise_returns": True},
        ),
    ],
    ids=["owed", "everything", "small_ring"],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    make_trainer, run_trainer, assert_same, task, core, options
):
    """8 calls of learn at once, or 4, a new process, 4 more; the small ring has gone round by then."""
    straight = make_trainer(task(3), 192, "straight", core=core, **options)
    run_trainer(straight)
    run_trainer(make_trainer(task(3), 96, "broken", core=core, **options))
    second = make_trainer(task(3), 192, "broken", seed=77, core=core, **options)
    second.resume()
    assert second.agent.env_steps == 96
    run_trainer(second)
    assert straight.agent.updates > 10
    assert_same(straight.agent, second.agent)


def test_steps_played_since_the_last_update_are_granted_after_loading(make_iqn, collect_steps, play_turns):
    """8 steps before and 8 after are 16 transitions, so 2 minibatches of 2 x 4."""
    agent, other = make_iqn(Counter(1)), make_iqn(Counter(1), seed=1)
    play_turns(agent, 8)
    other.load_state_dict(agent.state_dict())
    play_turns(other, 8)
    other.learn()
    assert (other.env_steps, other.updates) == (16, 2)


def test_a_checkpoint_of_another_width_brings_no_replay(make_iqn, train_batched, play_turns):
    """Nor what was played since the last update and is owed for it."""
    wide, narrow = make_iqn(Counter(3, 7), num_envs=3), make_iqn(Counter(2, 7), num_envs=2, seed=1)
    train_batched(wide, Counter(3, 7), 3)
    play_turns(wide, 8)
    narrow.act(np.zeros((2, 2)))
    narrow.observe(np.zeros(2), np.zeros(2, dtype=bool))
    narrow.load_state_dict(wide.state_dict())
    for name, value in wide.target.state_dict().items():
        assert torch.equal(value, narrow.target.state_dict()[name])
    assert narrow.rollout_size == 0
    train_batched(narrow, Counter(2, 7), 3)
    assert narrow.env_steps == 72 + 48
    assert narrow.updates - wide.updates == 48 // 8


@pytest.mark.parametrize("changed", [{"n_step": 5}, {"capacity": 80}, {}], ids=str)
def test_a_replay_that_cannot_go_on_is_told(make_iqn, train_batched, caplog, changed):
    """Its steps are gone, and learning waits for new ones; what only plays needs none."""
    envs = Counter(2, episode_length=3)
    agent, other = make_iqn(envs, num_envs=2), make_iqn(envs, num_envs=2, **changed)
    train_batched(agent, envs, 3)
    other.load_state_dict(agent.state_dict())
    assert (other.rollout_size == 0) == bool(changed) == ("the replay of the checkpoint is left out" in caplog.text)
    caplog.clear()
    other.plays_only = True
    other.load_state_dict(agent.state_dict())
    assert caplog.text == ""


def test_the_target_and_the_replay_of_a_copy_are_its_own(make_iqn, train_batched):
    agent, copy = make_iqn(Counter(3), num_envs=3), make_iqn(Counter(3), num_envs=3, seed=4)
    train_batched(agent, Counter(3), 3)
    state = agent.state_dict()
    copy.load_state_dict(state)
    before = deepcopy(state)
    train_batched(copy, Counter(3), 3, seed=1)
    assert all(torch.equal(value, before["target"][name]) for name, value in agent.target.state_dict().items())
    assert torch.equal(agent.buffer.state_dict()["obs"]["obs"], before["replay"]["obs"]["obs"])


def test_the_target_of_a_network_that_was_loaded_begins_there(make_iqn, train_batched, tmp_path):
    agent, other = make_iqn(Counter(3), num_envs=3), make_iqn(Counter(3), num_envs=3, seed=4)
    train_batched(agent, Counter(3), 3)
    agent.save(tmp_path / "agent.pt")
    other.load_network(tmp_path / "agent.pt")
    for name, value in agent.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name])
        assert torch.equal(value, other.target.state_dict()[name])


def test_loading_drops_an_action_that_waits_and_its_entry(make_iqn, collect_steps, play_turns):
    agent = make_iqn(Counter(1))
    play_turns(agent, 8)
    state = agent.state_dict()
    agent.act(np.full(2, 9.0))
    agent.load_state_dict(state)
    with pytest.raises(RuntimeError, match="without act"):
        agent.observe(1.0, False)
    assert agent.rollout_size == 8
    agent.act(np.zeros(2))
    agent.observe(1.0, False)
    assert agent.rollout_size == 9
    assert not (agent.buffer.obs["obs"] == 9.0).any()


# --------------------------------------------------------------------------------------------- updates that fail


@pytest.mark.parametrize("first", [True, False])
def test_nothing_is_left_of_an_update_with_a_bad_minibatch_after_good_ones(
    make_iqn, train_batched, play_turns, snapshot, assert_equal, first
):
    """One of many sequences is bad; the target would have moved with every minibatch. Also in the very first update."""
    agent = make_iqn(Counter(3), num_envs=3, target_interval=1, target_share=0.5, num_steps=24)
    if not first:
        train_batched(agent, Counter(3), 1)
    play_turns(agent, 24)
    before, updates = snapshot(agent), agent.updates
    losses, loss = [], agent.iqn.loss

    def spoilt(*arguments):
        losses.append(loss(*arguments))
        return losses[-1] if len(losses) < 5 else (losses[-1][0] * float("nan"), losses[-1][1])

    agent.iqn.loss = spoilt
    with pytest.raises(FloatingPointError, match="not finite"):
        agent.learn()
    assert len(losses) >= 5
    assert_equal(snapshot(agent), before)
    assert (agent.updates, agent.rollout_size) == (updates, 0)
    agent.iqn.loss = loss
    agent.reset()
    assert train_batched(agent, Counter(3), 2)[-1]["loss"] > 0


@pytest.mark.parametrize("normalise", [False, True])
def test_a_bad_observation_is_not_learned_from_and_forgotten(
    make_iqn, train_batched, snapshot, assert_equal, normalise
):
    """Not even the moments of the observations take it in, and after a reset nothing is left of it in the memory."""
    agent = make_iqn(Counter(3), num_envs=3, normalise_observations=normalise)
    train_batched(agent, Counter(3), 2)
    before = snapshot(agent)
    for _ in range(30):
        agent.act(np.full((3, 2), np.nan))
        agent.observe(np.zeros(3), np.zeros(3, dtype=bool))
    with pytest.raises(FloatingPointError, match="not finite"):
        agent.learn()
    assert_equal(snapshot(agent), before)
    assert agent.rollout_size == 0
    agent.reset()
    assert train_batched(agent, Counter(3), 3)[-1]["loss"] > 0


def test_rewards_that_would_ruin_their_scale_are_refused_whole(make_iqn, play_turns):
    """The step is not in the replay, and its outcome may be given again."""
    agent = make_iqn(Counter(1), normalise_returns=True)
    play_turns(agent, 4)
    agent.act(np.zeros(2))
    before = agent.return_scale.moments.var.item()
    with pytest.raises(FloatingPointError, match=r"a reward of size 1e\+20 is too large for normalise_returns"):
        agent.observe(1e20, False)
    assert (agent.rollout_size, agent.return_scale.moments.var.item()) == (4, before)
    agent.observe(1.0, False)
    assert agent.rollout_size == 5


def test_observations_that_would_ruin_the_moments_are_refused(make_iqn, train_batched, snapshot, assert_equal):
    agent = make_iqn(Counter(3), num_envs=3, normalise_observations=True)
    train_batched(agent, Counter(3), 2)
    before = snapshot(agent)
    agent.act(np.full((3, 2), 1e30))
    agent.observe(np.zeros(3), np.zeros(3, dtype=bool))
    agent.act(np.zeros((3, 2)))
    agent.observe(np.zeros(3), np.zeros(3, dtype=bool))
    with pytest.raises(FloatingPointError, match="too large for its moments"):
        agent.learn()
    assert_equal(snapshot(agent), before)
    assert agent.rollout_size == 0
