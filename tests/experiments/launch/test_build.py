"""From a configuration to environments and agent."""

import functools
import sys
import types
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from envs.t_maze import TMaze
from experiments.launch import build as building
from experiments.launch.arguments import load_defaults
from experiments.launch.build import (
    Settings,
    build,
    check_device,
    count_evaluation_envs,
    fill_worlds,
    read_settings,
)
from experiments.launch.check import ConfigError
from rl import cores
from rl.agents import RecurrentPPOLSTM

VALUES = {
    "seed": 3,
    "total_steps": 1000,
    "num_envs": 2,
    "num_steps": 4,
    "device": "cpu",
    "threads": 2,
    "evaluate_every": 50,
    "evaluate_episodes": 7,
    "final_episodes": 9,
    "evaluation_envs": 5,
    "evaluation_max_steps": 70,
    "evaluation_share": 0.5,
    "evaluate_memory_zeroed": False,
    "threshold": 0.5,
    "stop_at_threshold": True,
    "patience": 3,
    "min_delta": 0.25,
    "max_seconds": 99.5,
    "checkpoint_every": 60,
    "env_timeout": 30,
    "shards": 1,
    "rank_timeout": 40.0,
}
AGENT = {
    "_target_": "rl.agents.RecurrentPPOLSTM",
    "bptt": 4,
    "num_minibatches": 1,
    "layer_size": 4,
    "core": {"_target_": "rl.cores.gru", "_partial_": True, "hidden_size": 4},
}


@pytest.fixture
def config():
    return OmegaConf.create({**VALUES, "agent": AGENT, "env": {"_target_": "envs.t_maze.TMaze", "length": 2}})


@pytest.fixture
def parts(config):
    return build(config)


def test_settings_are_the_keys_of_training():
    others = "defaults", "hydra", "resume", "init_from", "run_dir", "overwrite", "trust", "observers"
    known = [key for key in load_defaults("train") if key not in others]
    assert sorted(known) == sorted(building.SETTINGS) == sorted(VALUES)


def test_settings_have_the_types_of_their_annotations():
    assert read_settings(OmegaConf.create(VALUES)) == Settings(**VALUES)
    others = {"total_steps": 1e3, "threshold": 1, "evaluate_every": None, "patience": None}
    settings = read_settings(OmegaConf.create(VALUES | others))
    assert (settings.total_steps, settings.threshold, settings.evaluate_every) == (1000, 1.0, None)
    assert type(settings.total_steps) is int and type(settings.threshold) is float
    assert read_settings(OmegaConf.create(VALUES | {"threads": "auto"})).threads == "auto"
    nothing = ("evaluate_every", "patience", "evaluation_envs", "evaluation_max_steps", "evaluation_share")
    settings = read_settings(OmegaConf.create(VALUES | dict.fromkeys(nothing) | {"final_episodes": 0}))
    assert [getattr(settings, name) for name in nothing] == [None] * 5


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        *((key, 0, "it must be a whole number of at least 1") for key in VALUES if key.endswith("steps")),
        *(
            (key, 0, "it must be a whole number of at least 1")
            for key in ("num_envs", "evaluate_every", "evaluate_episodes", "checkpoint_every")
        ),
        *((key, -1, "it must be a whole number of at least 0") for key in ("evaluation_envs", "final_episodes")),
        ("patience", 0, "it must be a whole number of at least 1"),
        ("max_seconds", 0, "it must be a number of at least 0.001"),
        ("min_delta", -1, "it must be a number of at least 0"),
        ("evaluation_share", 1.5, "it must be a number from 0 to 1"),
        ("seed", -1, "it must be a number from 0 to 2147483648"),
        ("threads", 0, "it must be a whole number of at least 1, or auto"),
        ("device", "nowhere", "cannot be used here"),
    ],
)
def test_settings_are_in_their_range(key, value, allowed):
    with pytest.raises(ValueError, match=rf"^{key}={value}.* {allowed}"):
        read_settings(OmegaConf.create(VALUES | {key: value}))


def test_patience_needs_evaluations():
    with pytest.raises(ValueError) as raised:
        read_settings(OmegaConf.create(VALUES | {"evaluate_every": None}))
    assert str(raised.value) == "patience=3: it counts evaluations, so evaluate_every must be a number"


@pytest.mark.parametrize(("threads", "number"), [(1, 1), (2, 2), ("auto", 1)])
def test_threads_of_acting(threads, number):
    try:
        Settings(**VALUES | {"threads": threads}).set_threads()
        assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(1)


def test_a_device_is_there_or_not():
    check_device("cpu")
    with pytest.raises(ConfigError, match=r"^device=nowhere cannot be used here: "):
        check_device("nowhere")


def test_what_a_configuration_stands_for(parts, config):
    agent = parts.agent
    assert isinstance(agent, RecurrentPPOLSTM)
    assert (agent.num_envs, agent.num_steps, agent.total_steps, agent.ppo.bptt) == (2, 4, 1000, 4)
    assert agent.observation_space == parts.envs.single_observation_space
    assert agent.action_space == parts.envs.single_action_space
    assert (parts.envs.num_envs, parts.evaluation_envs.num_envs, parts.evaluation_envs.length) == (2, 5, 2)
    assert parts.settings == Settings(**VALUES)
    complete = OmegaConf.to_container(parts.config)
    wrappers = {"frame_skip": 1, "frame_stack": 1, "scale_rewards": 1.0, "clip_rewards": None}
    assert complete["agent"]["gamma"] == 0.99
    assert complete["env"] == {**config.env, **wrappers, "passive": True, "device": None, "render_mode": None}
    assert {key: complete[key] for key in VALUES} == VALUES
    assert "num_envs" not in complete["agent"] and "device" not in complete["agent"]


def test_an_agent_gets_the_settings_and_spaces_of_its_run(config, monkeypatch):
    """On a device that is not the default, so that each of them is seen to arrive."""
    module = types.ModuleType("stub")

    def make(num_envs, num_steps, total_steps, seed, device, observation_space, action_space, action_names):
        return dict(locals())

    module.make = make
    monkeypatch.setitem(sys.modules, "stub", module)
    config.agent, config.device = {"_target_": "stub.make"}, "meta"
    config.env = {"_target_": "envs.witness_vote.WitnessVote"}
    parts = build(config)
    given = {name: VALUES[name] for name in ("num_envs", "num_steps", "total_steps", "seed")}
    given |= {"device": "meta", "action_names": ("move", "vote")}
    spaces = parts.envs.single_observation_space, parts.envs.single_action_space
    assert parts.agent == given | dict(zip(("observation_space", "action_space"), spaces, strict=True))


LONGER = {"memory_span": 5000.0}


@pytest.mark.parametrize(
    ("name", "given"),
    [(name, LONGER) for name in ("gru", "lstm", "mingru", "mamba")]
    + [(name, LONGER | {"window_size": 40}) for name in ("attention", "jamba")],
)
def test_the_memory_span_of_an_agent_reaches_the_core(config, monkeypatch, name, given):
    """Through a configuration that is filled with the defaults of the core."""
    calls, make = [], getattr(cores, name)
    noted = functools.wraps(make)(lambda size, **options: calls.append(options) or make(size, **options))
    monkeypatch.setattr(cores, name, noted)
    config.agent.core._target_ = f"rl.cores.{name}"
    config.num_steps = config.agent.bptt = 40
    config.agent.memory_span = 5000
    build(config)
    assert calls and all(given.items() <= call.items() for call in calls)


def test_names_of_actions_may_be_given(config):
    config.agent.action_names = ["go"]
    assert build(config).config.agent.action_names == ["go"]


def test_environments_are_closed_with_the_parts_and_after_a_fault(parts, config, monkeypatch):
    closed = []
    monkeypatch.setattr(building, "close", lambda envs: closed.append(envs.num_envs))
    parts.close()
    assert closed == [2, 5]
    closed.clear()
    config.agent.bptt = 3
    with pytest.raises(Exception, match="bptt"):
        build(config)
    assert sorted(closed) == [2, 5]


SINGLE = SimpleNamespace(unwrapped=SimpleNamespace())
OURS = SimpleNamespace(unwrapped=SimpleNamespace(state_dict=dict))
PAIR = SimpleNamespace(unwrapped=SimpleNamespace(num_agents=2))


@pytest.mark.parametrize(
    ("envs", "num_envs", "evaluation_envs", "number"),
    [
        (SINGLE, 16, None, 16),
        (SINGLE, 64, None, 50),
        (SINGLE, 1, None, 0),
        (OURS, 1, None, 50),
        (PAIR, 4, None, 4),
        (PAIR, 2, None, 0),
        (SINGLE, 1, 3, 3),
        (OURS, 16, 0, 0),
    ],
)
def test_how_many_environments_evaluations_have_of_their_own(envs, num_envs, evaluation_envs, number):
    """One world that is not of ours may be the only one there can be."""
    settings = Settings(**VALUES | {"num_envs": num_envs, "evaluation_envs": evaluation_envs})
    assert count_evaluation_envs(settings, envs, OmegaConf.create({})) == number


def test_evaluations_have_whole_worlds():
    settings = Settings(**VALUES | {"evaluation_envs": 3})
    with pytest.raises(ConfigError, match=r"^evaluation_envs=3: it must be a multiple of 2"):
        count_evaluation_envs(settings, PAIR, OmegaConf.create({}))


@pytest.fixture
def alive(monkeypatch):
    """Numbers of the environments that are open now, and of all that ever were."""
    module, now, ever = types.ModuleType("stub"), [], []

    class Counted(TMaze):
        def __init__(self, num_envs: int):
            super().__init__(num_envs, length=2)
            now.append(num_envs)
            ever.append(list(now))

        def close(self, **options):
            now.remove(self.num_envs)

    module.Counted = Counted
    monkeypatch.setitem(sys.modules, "stub", module)
    return SimpleNamespace(now=now, ever=ever)


@pytest.mark.parametrize(
    ("changes", "options", "ever"),
    [
        ({}, {}, [[2], [2, 5]]),
        ({"evaluation_envs": 0}, {}, [[2]]),
        ({"evaluate_every": None, "patience": None, "final_episodes": 0}, {}, [[2]]),
        ({}, {"playing": True}, [[5]]),
        ({"evaluation_envs": 0}, {"playing": True}, [[2]]),
        ({"evaluation_envs": None}, {"playing": True}, [[2], [50]]),
        ({"evaluation_envs": None, "num_envs": 60}, {"playing": True}, [[60], [50]]),
        ({}, {"playing": True, "at_most": 2}, [[5], [2]]),
        ({"evaluation_envs": None, "num_envs": 1}, {"playing": True, "at_most": 2}, [[1], [2]]),
    ],
)
def test_no_more_environments_are_open_than_are_needed(config, alive, changes, options, ever):
    """Training may need two vectors of them; playing has one at a time."""
    for key, value in changes.items():
        config[key] = value
    config.env = {"_target_": "stub.Counted"}
    parts = build(config, **options)
    assert alive.ever == ever and alive.now == ever[-1]
    assert parts.lends_envs == (len(ever[-1]) == 1)
    parts.close()
    assert alive.now == []


def test_a_run_without_an_environment_cannot_be_built(config):
    config.env = None
    with pytest.raises(ConfigError, match="this run has no environment: it was made of a recording"):
        build(config)


@pytest.mark.parametrize(
    ("at_least", "agents", "seats", "number"),
    [(50, None, None, 50), (50, 3, None, 51), (2, 3, None, 3), (6, 3, None, 6), (50, 2, 4, 52), (4, 1, 3, 6)],
)
def test_worlds_and_populations_are_whole(at_least, agents, seats, number):
    envs = SimpleNamespace(unwrapped=SimpleNamespace(**{} if agents is None else {"num_agents": agents}))
    agent = OmegaConf.create({} if seats is None else {"seats": ["name"] * seats})
    assert fill_worlds(at_least, envs, agent) == number


@pytest.mark.parametrize("seats", [0, 2, 4])
def test_seats_that_do_not_fit_a_world_are_refused(seats):
    envs = SimpleNamespace(unwrapped=SimpleNamespace(num_agents=3))
    with pytest.raises(ConfigError, match=rf"^agent\.seats has {seats} names, but a world .* has 3 agents$"):
        fill_worlds(6, envs, OmegaConf.create({"seats": ["name"] * seats}))


def test_the_settings_of_a_shard():
    """A third of the environments, the seed of the run in the first one and another in each other."""
    values = VALUES | {"num_envs": 6, "evaluation_envs": 9}
    shards = [SimpleNamespace(index=index, size=3) for index in range(3)]
    found = [read_settings(OmegaConf.create(values)).of_shard(shard) for shard in shards]
    assert {(settings.num_envs, settings.evaluation_envs, settings.shards) for settings in found} == {(2, 3, 3)}
    assert found[0].seed == VALUES["seed"] and len({settings.seed for settings in found}) == 3
    assert all(0 <= settings.seed < 2**31 for settings in found)
    assert {settings.total_steps for settings in found} == {VALUES["total_steps"]}
    with pytest.raises(ConfigError, match="evaluation_envs=5: it must be a multiple of the 3 shards"):
        read_settings(OmegaConf.create(values | {"evaluation_envs": 5})).of_shard(shards[0])


def test_torch_has_its_threads_before_weights_are_drawn(config, monkeypatch):
    """Orthogonal weights differ in their last digits from one number of threads to another."""
    noted = []

    def construct(node, name, **given):
        noted.append((name, torch.get_num_threads()))
        return real(node, name, **given)

    real = building.construct
    monkeypatch.setattr(building, "construct", construct)
    try:
        build(OmegaConf.merge(config, {"threads": 2})).close()
        torch.set_num_threads(2)
        build(OmegaConf.merge(config, {"threads": "auto"})).close()
    finally:
        torch.set_num_threads(1)
    assert [number for name, number in noted if name == "agent"] == [2, 1]
