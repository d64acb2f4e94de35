"""Agents from checkpoints alone: every class, without an argument, an environment or a check of rollouts."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter
from rl import Player, cores, encoders, load_agent
from rl.agents import DualHeadRecurrentPPO, Population, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.trust import UntrustedError

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)
SMALL = {"layer_size": 8, "core": partial(cores.gru, hidden_size=8)}
WIDE = {"num_envs": 64, "num_steps": 32, "bptt": 8, "num_minibatches": 64, "state_stride": 8, "burn_in": 8}
PACKAGE = """
import torch
from rl.agents import RecurrentPPO, RecurrentPPOLSTM
from rl.cores import gru

def wide(factor, input_size, inner=gru):
    return inner(input_size, hidden_size=4 * factor)

class Twice(torch.nn.Module):
    output_size = 4

    def __init__(self, input_shapes):
        super().__init__()

    def forward(self, obs):
        return obs["obs"].repeat(1, 2)

class PassesOn(RecurrentPPOLSTM):
    def __init__(self, *args, own=3, **kwargs):
        super().__init__(*args, **kwargs)
        self.own = own

class Chooses(RecurrentPPO):
    def __init__(self, observation_space, action_space, size=12):
        super().__init__(observation_space, action_space, size, num_envs=2, num_steps=32, num_minibatches=2)
"""


class OfThisFile(RecurrentPPO):
    """An agent that is defined in a script."""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's own."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "package_of_tests.py").write_text(PACKAGE)
    yield __import__("package_of_tests")
    del sys.modules["package_of_tests"]


@pytest.fixture
def reload(tmp_path, same_weights):
    """The agent that comes back from the checkpoint of another."""

    def load(agent, kind=None, **options):
        agent.save(tmp_path / "agent.pt")
        again = (kind.from_checkpoint if kind else load_agent)(tmp_path / "agent.pt", **options)
        assert type(again) is type(agent) and same_weights(again, agent) and not again.training
        return again

    return load


@pytest.mark.parametrize("num_envs", [None, 1, 3])
@pytest.mark.parametrize(
    "make",
    [
        partial(RecurrentPPO, OBS, FOUR, **SMALL, **WIDE),
        partial(
            RecurrentPPO, OBS, FOUR, normalise_observations=True, previous_action_reward=True, separate_critic=True
        ),
        partial(RecurrentPPOLSTM, OBS, FOUR, 8, 0.5, 0.1, "cpu", 3, normalise_returns=True),
        partial(RecurrentPPOLSTM, input_size=(3, 8, 8), action_space=4, hidden_size=16),
        partial(RecurrentPPOLSTM, 12, 15, use_factored_actions=True, action_dims="5,3", lr=1e-3),
        partial(DualHeadRecurrentPPO, OBS, spaces.MultiDiscrete([4, 3]), **SMALL),
        partial(DualHeadRecurrentPPO, 20, 7, n_move_actions=5, obs_dim=(2, 3, 3)),
        partial(RecurrentIQN, OBS, spaces.MultiDiscrete([2, 3]), num_envs=5, dueling=True, num_cosines=7, **SMALL),
        partial(RecurrentIQN, 20, 5, n_quantiles=8, memory_size=500),
    ],
    ids=lambda make: getattr(getattr(make, "func", None), "__name__", None),
)
def test_an_agent_comes_back_with_any_number_of_environments(reload, make, num_envs):
    """The same class, weights and arguments, though as many minibatches as sequences would refuse one environment."""
    agent = make()
    if getattr(agent, "normalise_observations", False):
        agent.network.actor.encoder.parts[0].moments.update(torch.full((5, 2), 3.0))
    again = reload(agent, num_envs=num_envs)
    assert (again.num_envs, again.batched) == (num_envs or 1, num_envs is not None)
    assert (again.observation_space, again.action_space) == (agent.observation_space, agent.action_space)
    assert list(again.leaves) == list(agent.leaves) and again.epsilon == agent.epsilon
    changed = {"num_envs", "device"}
    ours, theirs = ({n: a for n, a in x.construction["arguments"].items() if n not in changed} for x in (agent, again))
    assert ours == theirs
    numbers = sum(int(np.prod(leaf.shape)) for leaf in again.leaves.values())
    again.act(np.zeros((again.num_envs, numbers)))


def test_moves_that_votes_hide_still_are_hidden(reload, force_branches):
    agent = DualHeadRecurrentPPO(20, 7)
    force_branches(agent, 2, 1)
    assert reload(agent).take_action(np.zeros(20)) == 4  # moves 0 to 3, then votes 1 and 2


@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN])
def test_training_goes_on_as_if_it_had_never_stopped(make_agent, train_batched, assert_same, reload, kind):
    agent = make_agent(Counter(3, 7), kind, num_envs=3, normalise_returns=True, learning_rate=0.01)
    train_batched(agent, Counter(3, 7), 2)
    agent.reset()
    again = reload(agent, num_envs=3)
    assert (again.env_steps, again.updates) == (agent.env_steps, agent.updates) and agent.updates
    again.training = True
    for learner in (agent, again):
        train_batched(learner, Counter(3, 7), 2, seed=5)
    assert_same(again, agent)


def test_what_concerns_rollouts_is_checked_when_training_begins(reload):
    again = reload(RecurrentPPO(OBS, FOUR, **SMALL, **WIDE), num_envs=2)
    with pytest.raises(ValueError, match="num_minibatches=64 is more than the 8 sequences of a rollout"):
        again.training = True
    assert not again.training and again.act(np.zeros((2, 2))).shape == (2,)


def test_a_run_folder_its_checkpoints_and_a_file_are_the_same(tmp_path):
    RecurrentPPO(OBS, FOUR, **SMALL).save(tmp_path / "run" / "checkpoints" / "last.pt")
    for path in ("run", "run/checkpoints", "run/checkpoints/last.pt"):
        assert isinstance(load_agent(tmp_path / path), RecurrentPPO)
        assert Player.load(str(tmp_path / path)).act(np.zeros(2)) in range(4)
    with pytest.raises(
        FileNotFoundError, match=r"there is no checkpoint in .*: neither checkpoints/last.pt nor last.pt"
    ):
        load_agent(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint at .*none\.pt"):
        load_agent(tmp_path / "none.pt")


@pytest.mark.parametrize("name", ["cuda:77", "gpu"])
def test_a_device_that_is_not_there_is_told_before_anything_is_read(name):
    with pytest.raises(ValueError, match=f"device='{name}': it must be one that torch can use here"):
        load_agent("none.pt", device=name)


def test_an_agent_of_another_class_is_told(reload, tmp_path):
    agent = RecurrentPPOLSTM(OBS, FOUR, 8)
    reload(agent, RecurrentPPOLSTM)
    reload(agent, RecurrentPPO)  # which it is, too
    for other in (RecurrentIQN, DualHeadRecurrentPPO, Population):
        with pytest.raises(
            ValueError, match=f"class RecurrentPPOLSTM, not {other.__name__}: call RecurrentPPOLSTM.from_ch"
        ):
            other.from_checkpoint(tmp_path / "agent.pt")


# ------------------------------------------------------------------------------------------------- of the user's own


def test_parts_of_an_own_package_come_back_if_it_is_trusted(package, reload, tmp_path):
    core = partial(package.wide, 3, inner=partial(cores.lstm, num_layers=2))
    agent = package.PassesOn(OBS, FOUR, 8, core=core, own=5)
    assert reload(agent, trust=["package_of_tests"]).own == 5
    assert reload(agent, trust="package_of_tests", num_envs=4).num_envs == 4
    with pytest.raises(UntrustedError, match=r"agent.pt: package_of_tests.PassesOn is code from outside this project"):
        load_agent(tmp_path / "agent.pt")
    assert reload(package.PassesOn(OBS, FOUR, 8), package.PassesOn).own == 3  # named by the caller, so trusted


def test_trust_does_not_reach_into_the_run_folder(tmp_path, monkeypatch):
    """A checkpoint that lies in no run folder may have the user's code beside it."""
    agent = RecurrentPPO(OBS, FOUR, 8)
    state = agent.state_dict()
    state["construction"]["agent"] = "stranger_of_tests_2.Agent"
    save_checkpoint({"agent": state}, tmp_path / "checkpoints/last.pt")
    save_checkpoint({"agent": state}, tmp_path / "agent.pt")
    (tmp_path / "stranger_of_tests_2.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints/last.pt"):
        for trust in ("stranger_of_tests_2", ["rl", "stranger_of_tests_2.Agent"]):
            with pytest.raises(UntrustedError, match=r"^stranger_of_tests_2.* lies in the run folder"):
                load_agent(path, trust=trust)
    with pytest.raises(KeyboardInterrupt):
        load_agent(tmp_path / "agent.pt", trust="stranger_of_tests_2")


def test_a_class_that_chooses_its_sizes_keeps_them(package, reload):
    assert reload(package.Chooses(OBS, FOUR, 9), trust=["package_of_tests"]).num_envs == 2
    with pytest.raises(
        ValueError, match="num_envs=3, device='cpu': Chooses takes no such arguments and has num_envs=2"
    ):
        reload(package.Chooses(OBS, FOUR), trust=["package_of_tests"], num_envs=3)


def test_what_has_no_name_never_keeps_an_agent_from_being_saved_and_may_be_given(reload, tmp_path):
    agent = RecurrentPPO(OBS, FOUR, core=lambda size: cores.gru(size, 8))
    assert reload(agent, core=lambda size: cores.gru(size, 8)).num_envs == 1
    with pytest.raises(ValueError, match=r"agent.pt: core=.*<lambda>: it cannot be imported by name"):
        load_agent(tmp_path / "agent.pt")
    by_hand = RecurrentPPO(OBS, FOUR, core=lambda size: cores.gru(size, 8))
    by_hand.load(tmp_path / "agent.pt")


def test_a_class_of_a_script_is_found_where_it_is_defined(reload, tmp_path, monkeypatch):
    monkeypatch.setattr(OfThisFile, "__module__", "__main__")
    reload(OfThisFile(OBS, FOUR, **SMALL), OfThisFile)
    with pytest.raises(ValueError, match="OfThisFile was defined in __main__ and cannot be imported by name: move it"):
        load_agent(tmp_path / "agent.pt")


# --------------------------------------------------------------------------------------------------------- populations


@pytest.mark.parametrize("num_envs", [None, 9])
def test_a_population_comes_back_member_by_member(tmp_path, same_weights, num_envs):
    """Also one whose member was replaced; None for one world of three seats, though 64 minibatches do not fit it."""
    rollout = {"num_steps": 32, "num_envs": 48}
    members = {"a": partial(RecurrentPPO, bptt=8, num_minibatches=64, **SMALL), "b": partial(RecurrentIQN, **SMALL)}
    population = Population(OBS, FOUR, members, ["a", "b", "a"], seed=3, **rollout)
    population.members["b"] = RecurrentPPOLSTM(OBS, FOUR, 5, num_envs=16, num_steps=32)
    population.save(tmp_path / "agent.pt")
    again = Population.from_checkpoint(tmp_path / "agent.pt", num_envs=num_envs)
    assert [type(member) for member in again.members.values()] == [RecurrentPPO, RecurrentPPOLSTM]
    assert (again.num_envs, again.seats, again.training) == (num_envs or 3, ["a", "b", "a"], False)
    assert all(same_weights(again.members[name], population.members[name]) for name in "ab")
    assert again.act(np.zeros((again.num_envs, 2))).shape == (again.num_envs,)
    again.save(tmp_path / "again.pt")
    assert load_agent(tmp_path / "again.pt").construction["arguments"]["seats"] == ["a", "b", "a"]


def test_a_member_that_cannot_come_back_is_named(tmp_path):
    member = partial(RecurrentPPO, core=lambda size: cores.gru(size, 8))
    Population(OBS, FOUR, {"a": member}, ["a"], num_envs=8).save(tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=r"agent.pt: member 'a': core=.*<lambda>"):
        load_agent(tmp_path / "agent.pt")


def test_no_member_takes_the_name_of_the_entry_beside_the_members():
    with pytest.raises(ValueError, match="'construction' must be no name, checkpoints use it"):
        Population(OBS, FOUR, {"construction": RecurrentPPO}, ["construction"], num_envs=8)


# --------------------------------------------------------------------------------------------- older and damaged files


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (None, "agent.pt: the checkpoint does not hold what constructs its agent, as those of earlier versions do not"),
        ({"agent": "x"}, "does not hold what constructs its agent"),
        ({"agent": 3, "arguments": {}}, "holds 3 where the class of its agent should be"),
        ({"agent": "rl.agents.Player", "arguments": {}}, "rl.agents.Player"),
        ({"agent": "rl.agents.player.Player", "arguments": {}}, "rl.agents.player.Player"),
        ({"agent": "rl.agents.agent.RecurrentAgent", "arguments": {}}, "rl.agents.agent.RecurrentAgent"),
        ({"agent": "rl.cores.gru.gru", "arguments": {}}, "where something of rl.agents should be"),
        (
            {"agent": "rl.agents.recurrent_ppo.RecurrentPPO", "arguments": {}},
            "cannot be constructed as the checkpoint says",
        ),
    ],
    ids=str,
)
def test_checkpoints_of_before_and_damaged_ones_are_told_in_a_sentence(tmp_path, change, sentence):
    agent = RecurrentPPO(OBS, FOUR, **SMALL)
    agent.save(tmp_path / "agent.pt")
    content = load_checkpoint(tmp_path / "agent.pt")
    del content["agent"]["construction"]
    if change is not None:
        content["agent"]["construction"] = change
    save_checkpoint(content, tmp_path / "agent.pt")
    with pytest.raises(ValueError, match=sentence):
        load_agent(tmp_path / "agent.pt")
    agent.load(tmp_path / "agent.pt")


def test_a_checkpoint_of_another_network_tells_both_cores_and_sizes(tmp_path):
    RecurrentPPO(OBS, FOUR, 8, core=partial(cores.lstm, hidden_size=16)).save(tmp_path / "agent.pt")
    with pytest.raises(
        ValueError, match=r"it is RecurrentPPO\(core=lstm\(hidden_size=16, .*; this agent is .*core=gru\("
    ):
        RecurrentPPO(OBS, FOUR, **SMALL).load(tmp_path / "agent.pt")


# ------------------------------------------------------------------------------------------------------------ encoders


def test_a_chosen_encoder_comes_back_with_its_options_and_ones_own_if_it_is_trusted(package, reload, tmp_path):
    agent = RecurrentPPO(OBS, FOUR, 8, encoder=partial(encoders.mlp, widths=[5, 3]))
    assert reload(agent).network.actor.encoder.output_size == 3
    agent = RecurrentPPO(OBS, FOUR, 8, encoder=package.Twice)
    assert reload(agent, trust="package_of_tests").network.actor.encoder.output_size == 4
    with pytest.raises(UntrustedError, match=r"package_of_tests.Twice is code from outside this project"):
        load_agent(tmp_path / "agent.pt")


def test_a_checkpoint_from_before_encoders_could_be_chosen_loads(tmp_path):
    agent = RecurrentPPO(OBS, FOUR, 8)
    state = agent.state_dict()
    del state["construction"]["arguments"]["encoder"]
    save_checkpoint({"agent": state}, tmp_path / "agent.pt")
    assert load_agent(tmp_path / "agent.pt").network.actor.encoder.chosen is None


@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN])
def test_images_of_a_checkpoint_of_before_are_pictures_as_they_were(kind, tmp_path, same_weights):
    """Where the encoding is not stored the weights tell; today's agents of a class that stores little keep theirs."""
    for encoding in ("brightness", "auto"):
        agent = kind(spaces.Box(0, 255, (7, 7, 3), np.uint8), FOUR, 8, image_encoding=encoding)
        state = agent.state_dict()
        del state["construction"]["arguments"]["image_encoding"]
        save_checkpoint({"agent": state}, tmp_path / "agent.pt")
        assert same_weights(load_agent(tmp_path / "agent.pt"), agent)
        if encoding == "brightness":
            with pytest.raises(ValueError, match="as brightness, which image_encoding=brightness does"):
                kind(agent.observation_space, FOUR, 8).load(tmp_path / "agent.pt")
