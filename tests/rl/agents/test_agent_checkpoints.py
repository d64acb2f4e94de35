"""Checkpoints of recurrent agents: exact, refused whole, and dropping what other weights have begun."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter
from rl.agents import DualHeadRecurrentPPO, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.checkpoint import load_checkpoint, save_checkpoint

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)
SCALES = {"normalise_observations": True, "normalise_returns": True}


@pytest.fixture
def make(make_agent, learner):
    """A learner of either kind."""
    return partial(make_agent, kind=learner)


@pytest.fixture
def write(make, tmp_path):
    """The file of a learner with these options, untrained."""

    def write(name, envs=(OBS, FOUR), **options):
        make(envs, **options).save(tmp_path / name)
        return tmp_path / name

    return write


@pytest.mark.parametrize(("form", "name"), [(str, "plain.pt"), (Path, "folder/that/is/new/model.pt")])
def test_save_and_load(make, play_turns, same_weights, tmp_path, monkeypatch, name, form):
    """Files need no folder, or make their own."""
    monkeypatch.chdir(tmp_path)
    agent = make((OBS, FOUR), epsilon=0.5)
    play_turns(agent, 8)
    agent.learn()
    agent.epsilon_decay(0.5)
    agent.save(form(name))
    other = make((OBS, FOUR), seed=7)
    other.load(form(name))
    assert same_weights(other, agent)
    assert (other.env_steps, other.updates, other.epsilon) == (8, agent.updates, 0.25)
    for player in (agent, other):
        player.training = False
    assert play_turns(other, 20) == play_turns(agent, 20)


@pytest.mark.parametrize("options", [{}, SCALES | {"previous_action_reward": True, "core": "lstm"}], ids=len)
def test_a_loaded_agent_goes_on_exactly(make, train_batched, assert_same, tmp_path, options):
    """Adam's moments, generators, memories, scales and running sums included, in mid-episode."""
    straight, first, second = (make(Counter(3, 7), num_envs=3, seed=seed, **options) for seed in (0, 0, 7))
    envs = Counter(3, 7)
    train_batched(straight, envs, 2)
    train_batched(first, envs, 2)
    first.save(tmp_path / "agent.pt")
    second.load(tmp_path / "agent.pt")
    assert not second.actor.starts.any()
    for agent in (straight, second):
        train_batched(agent, Counter(3, 7), 2, seed=5)
    assert_same(second, straight)
    assert straight.updates > first.updates > 0


def test_schedules_go_on_after_loading(make, play_turns, tmp_path):
    """16 of 32 steps are over: half of the learning rate is left, also in the agent that was loaded."""
    options = {"total_steps": 32, "learning_rate_schedule": "linear", "learning_rate": 0.01}
    agent, other = make((OBS, FOUR), **options), make((OBS, FOUR), seed=1, **options)
    for _ in range(2):
        play_turns(agent, 8)
        agent.learn()
    agent.save(tmp_path / "agent.pt")
    other.load(tmp_path / "agent.pt")
    assert other.progress == 0.5
    for player in (agent, other):
        play_turns(player, 8)
        player.learn()
    assert other.last_metrics["learning_rate"] == agent.last_metrics["learning_rate"] < 0.01


def test_an_older_file_is_overwritten(make, play_turns, tmp_path):
    agent, other = make((OBS, FOUR)), make((OBS, FOUR))
    agent.save(tmp_path / "model.pt")
    play_turns(agent, 8)
    agent.learn()
    agent.save(tmp_path / "model.pt")
    other.load(tmp_path / "model.pt")
    assert other.updates == agent.updates > 0
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_a_file_is_read_onto_the_device_of_the_agent(make, tmp_path, monkeypatch, device):
    asked = []

    def load(path, map_location="cpu"):
        asked.append(torch.device(map_location))
        return load_checkpoint(path, map_location)

    for module in ("agent", "client"):
        monkeypatch.setattr(f"rl.agents.{module}.load_checkpoint", load)
    agent = make((OBS, FOUR), device=str(device))
    agent.save(tmp_path / "model.pt")
    agent.load(tmp_path / "model.pt")
    agent.load_network(tmp_path / "model.pt")
    assert asked == [device, device]


def test_a_copy_of_an_agent_goes_its_own_way(make, play_turns):
    """A client that replaces one agent by a copy of another: the other must not change when the copy learns."""
    agent, copy = make((OBS, FOUR)), make((OBS, FOUR), seed=1)
    play_turns(agent, 8)
    agent.learn()
    copy.load_state_dict(agent.state_dict())
    parts = [agent.network.state_dict(), *agent.optimizer.state.values(), agent.actor.state]
    before = [{name: leaf.clone() for name, leaf in part.items()} for part in parts]
    play_turns(copy, 8, seed=2)
    copy.learn()
    for part, was in zip(parts, before, strict=True):
        assert all(torch.equal(part[name], leaf) for name, leaf in was.items())


# ------------------------------------------------------------------------------------- what a checkpoint does not bring


@pytest.mark.parametrize("num_envs", [None, 3])
def test_an_action_that_waits_is_dropped_by_loading(make, num_envs):
    """Its outcome would be stored beside an observation of the rollout that is gone."""
    agent = make((OBS, FOUR), num_envs=num_envs)
    agent.act(np.zeros((num_envs or 1, 2)))
    agent.load_state_dict(agent.state_dict())
    assert agent.pending_action is None
    with pytest.raises(RuntimeError, match="without act"):
        agent.observe(1.0, False)
    agent.act(np.ones((num_envs or 1, 2)))
    agent.observe(1.0, False)
    assert (agent.buffer.obs["obs"].flatten(0, -2)[: agent.num_envs] == 1.0).all()
    assert agent.rollout_size == agent.num_envs


def test_a_checkpoint_of_an_agent_whose_action_waits_holds_the_memory_before_it(make):
    """The step is dropped, so what it saw must not be remembered twice when it is taken again."""
    agent, other = make((OBS, FOUR)), make((OBS, FOUR), seed=1)
    agent.act(np.ones(2))
    agent.observe(0.0, False)
    remembered = agent.actor.state["h"].clone()
    agent.act(np.zeros(2))
    other.load_state_dict(agent.state_dict())
    assert torch.equal(other.actor.state["h"], remembered) and remembered.any()
    assert other.actor.starts.tolist() == [False]


def test_a_refused_checkpoint_leaves_the_action_that_waits_and_the_rollout(make, play_turns, write):
    agent = make((OBS, FOUR))
    play_turns(agent, 3)
    agent.act(np.zeros(2))
    with pytest.raises(ValueError, match="of another network"):
        agent.load(write("wider.pt", hidden_size=9))
    agent.observe(1.0, False)
    assert agent.rollout_size == 4


def test_a_rollout_of_other_weights_is_not_learned_from(make_agent, play_turns):
    """What was played before cannot be replayed with other weights: the probability ratio would not be 1."""
    stranger = make_agent((OBS, FOUR), seed=3)
    with torch.no_grad():
        for parameter in stranger.network.parameters():
            parameter.mul_(3)
    agent = make_agent((OBS, FOUR), epochs=1, num_minibatches=1)
    agent.act(np.zeros(2))
    agent.observe(0.0, False, True, np.ones(2))  # a cut whose value would belong to the next rollout, too
    play_turns(agent, 2)
    agent.load_state_dict(stranger.state_dict())
    assert agent.rollout_size == 0
    play_turns(agent, 8)
    agent.learn()
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert agent.env_steps == 8


def test_an_agent_of_another_width_begins_new_episodes(make, train_batched, next_outputs, same_weights, tmp_path):
    """Weights and counters are taken over; memories and running sums belong to environments that are gone."""
    wide, narrow, fresh = (make(Counter(n, 7), num_envs=n, seed=n, **SCALES) for n in (3, 2, 1))
    train_batched(wide, Counter(3, 7), 2)  # 16 steps end at count 1, where the running sum is 0 + 1
    assert wide.return_scale.running.abs().max() > 0
    wide.save(tmp_path / "agent.pt")
    narrow.act(np.ones((2, 2)))
    narrow.observe(0.0, False)
    narrow.load(tmp_path / "agent.pt")
    assert (narrow.env_steps, narrow.updates, narrow.rollout_size) == (48, wide.updates, 0)
    assert narrow.return_scale.running.tolist() == [0.0, 0.0]
    assert torch.equal(narrow.return_scale.moments.var, wide.return_scale.moments.var)
    assert same_weights(narrow, wide)
    fresh.load(tmp_path / "agent.pt")
    expected = next_outputs(fresh, np.ones((1, 2))).expand(2, -1)
    torch.testing.assert_close(next_outputs(narrow, np.ones((2, 2))), expected)


def test_what_other_weights_played_is_dropped_with_them(make, tmp_path):
    """A rollout, the action that waits, and the memories: the network that is loaded made none of them."""
    agent = make((OBS, FOUR), num_envs=2)
    agent.save(tmp_path / "agent.pt")
    for _ in range(3):
        agent.act(np.ones((2, 2)))
        agent.observe(1.0, False)
    agent.act(np.ones((2, 2)))
    assert agent.rollout_size > 0 and not agent.actor.starts.any()
    agent.load_network(tmp_path / "agent.pt")
    assert agent.rollout_size == 0 and agent.actor.starts.all()
    agent.act(np.ones((2, 2)))


def test_a_network_alone_brings_neither_counters_nor_the_optimiser(make, play_turns, same_weights, tmp_path):
    agent, other = make((OBS, FOUR)), make((OBS, FOUR), seed=1)
    play_turns(agent, 8)
    agent.learn()
    agent.save(tmp_path / "agent.pt")
    other.load_network(tmp_path / "agent.pt")
    assert same_weights(other, agent)
    assert (other.env_steps, other.updates) == (0, 0)
    assert not other.optimizer.state


# ----------------------------------------------------------------------------------------------------- what is refused


def test_a_network_of_another_agent_is_refused_and_changes_nothing(make, write, copy_weights, same_weights):
    agent = make((OBS, FOUR))
    before = copy_weights(agent)
    for read in (agent.load, agent.load_network):
        with pytest.raises(ValueError, match="of another shape is"):
            read(write("wider.pt", hidden_size=9))
        with pytest.raises(
            ValueError, match=r"another network: it is .*core=mlp.*; this agent is .*core=gru.*; it lacks"
        ):
            read(write("mlp.pt", core="mlp"))
    with pytest.raises(ValueError, match="another setting of normalise_returns"):
        agent.load(write("scaled.pt", normalise_returns=True))
    agent.load_network(write("scaled.pt", seed=0, normalise_returns=True))
    assert same_weights(agent, before)


def test_files_that_are_missing_or_foreign_are_refused(make, tmp_path, copy_weights, same_weights):
    agent = make((OBS, FOUR))
    before = copy_weights(agent)
    (tmp_path / "text.pt").write_text("weights, honestly")
    torch.save({"model": agent.network.state_dict(), "optimizer": {}}, tmp_path / "foreign.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for read in (agent.load, agent.load_network):
        for name in ("text", "foreign", "list"):
            with pytest.raises(ValueError, match=f"{name}.pt"):
                read(tmp_path / f"{name}.pt")
        with pytest.raises(FileNotFoundError, match=r"missing\.pt"):
            read(tmp_path / "missing.pt")
    assert same_weights(agent, before)


@pytest.mark.parametrize("hidden_size", [8, 128])
def test_a_file_that_broke_off_is_refused_whatever_its_size(make, write, tmp_path, hidden_size):
    whole = write("whole.pt", hidden_size=hidden_size).read_bytes()
    agent = make((OBS, FOUR), hidden_size=hidden_size)
    for share in (0.0, 0.5, 0.99):
        (tmp_path / "part.pt").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"part\.pt is damaged"):
            agent.load(tmp_path / "part.pt")


@pytest.mark.parametrize("content", [3, [1]])
def test_a_file_with_something_else_for_an_agent_is_refused(make, tmp_path, content):
    save_checkpoint({"agent": content}, tmp_path / "odd.pt")
    for read in (make((OBS, FOUR)).load, make((OBS, FOUR)).load_network):
        with pytest.raises(ValueError, match=f"the checkpoint holds {type(content).__name__} where an agent should be"):
            read(tmp_path / "odd.pt")


@pytest.mark.parametrize("kind", [RecurrentPPO, DualHeadRecurrentPPO, RecurrentPPOLSTM, RecurrentIQN])
def test_a_checkpoint_without_one_of_its_entries_is_refused(make_agent, kind):
    agent = make_agent((OBS, FOUR), kind)
    whole = agent.state_dict()
    assert whole["model_name"] == kind.__name__
    assert {*kind.ENTRIES, "construction"} == set(whole)  # older files have no construction, which load does not need
    for missing in kind.ENTRIES:
        with pytest.raises(ValueError, match=f"the checkpoint has no entry {missing}"):
            agent.load_state_dict({name: part for name, part in whole.items() if name != missing})


# ------------------------------------------------------------------------------------------- numbers that ruin an agent


@pytest.mark.parametrize(
    ("options", "size", "reward", "words"),
    [
        ({"normalise_observations": True}, 1e30, 1.0, "too large for its moments"),
        ({"normalise_returns": True}, 1.0, 1e20, "too large for normalise_returns"),
        ({"learning_rate": 1e38}, 1.0, 1.0, "or a weight after it"),
        ({"learning_rate": 1e38, "core": "mlp", "epochs": 1, "num_minibatches": 1}, 1.0, 1.0, "or a weight after it"),
    ],
)
def test_of_an_update_that_would_ruin_the_agent_nothing_is_left(
    make_agent, play_turns, assert_same, options, size, reward, words
):
    """The loss may be finite; the agent goes on as if there had been no such rollout, but for what it drew."""
    agent, twin = (make_agent((OBS, FOUR), **options) for _ in range(2))
    for _ in range(8):
        agent.act(np.full(2, size))
        agent.observe(reward, False)
    with pytest.raises(FloatingPointError, match=words):
        agent.learn()
    assert agent.rollout_size == 0
    agent.reset()
    state, fresh = agent.state_dict(), twin.state_dict()
    for name in ("network", "optimizer", "return_scale"):
        assert_same(Held(state[name]), Held(fresh[name]))


class Held:
    """Something whose ``state_dict`` is given."""

    def __init__(self, state):
        self.state_dict = lambda: state


@pytest.mark.parametrize("plays", [False, True])
def test_generators_of_another_kind_of_device_are_left_alone_and_the_log_says_so(plays, make_agent, learner, caplog):
    """A state of 16 bytes is that of a GPU."""
    agent = make_agent(Counter(3, 7), learner, num_envs=2)
    drawn = agent.actor.generator.get_state()
    state = agent.state_dict()
    state["generators"][1] = torch.zeros(16, dtype=torch.uint8)
    agent.plays_only = plays
    with caplog.at_level(logging.INFO):
        agent.load_state_dict(state)
    assert torch.equal(agent.actor.generator.get_state(), drawn)
    said = ["the checkpoint is of another kind of device: from here on other actions are drawn than there"]
    assert caplog.messages == ([] if plays else said)
