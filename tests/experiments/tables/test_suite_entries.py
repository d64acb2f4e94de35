"""What the memory suite trains, and what it refuses before it trains anything."""

import json
from pathlib import Path

import pytest
from hydra import initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.tables import suite_entries
from experiments.tables.entries import PEERS, check_agent, compose_run, list_settings
from experiments.tables.plan import check_rows
from experiments.tables.suite_entries import (
    KEYS,
    NEEDED,
    list_arguments,
    make_entries,
    read_all_spaces,
)

SUITE = OmegaConf.load(Path(__file__).parents[3] / "conf/memory_suite.yaml")
ROWS = OmegaConf.to_container(SUITE.table)
PLAIN = {name: row for name, row in ROWS.items() if row["env"][0] != "env=mujoco"}
SMALL = ["agent.layer_size=4", "agent.core.hidden_size=4"]


@pytest.fixture(autouse=True)
def composing():
    """A place in which configurations can be composed, as a command has."""
    with initialize_config_module("conf", version_base="1.3"):
        yield


def suite(*overrides):
    return OmegaConf.create({"overrides": [*overrides], "core_overrides": SUITE.core_overrides})


def test_every_task_has_the_same_settings():
    """All that differs between runs is the task, the core, the budget, and an evaluation at each tenth of that."""
    entries = make_entries(suite(*SMALL), PLAIN, ["mlp"], [])
    entries += make_entries(suite(*SMALL), {"rock_sample": ROWS["rock_sample"]}, ["gru"], [])
    assert [entry.row for entry in entries] == [*PLAIN, "rock_sample"] and len(PLAIN) == 25
    free = {"total_steps", "evaluate_every", "agent.core._target_", "agent.previous_action_reward"}
    free |= {f"agent.core.{key}" for key in ("dropout", "memory_span")}  # which one of the cores has alone
    kept = [
        {key: value for key, value in entry.settings.items() if not key.startswith("env.") and key not in free}
        for entry in entries
    ]
    assert all(each == kept[0] for each in kept) and kept[0]["num_envs"] == 64
    for entry in entries:
        assert entry.settings["evaluate_every"] * 10 == entry.settings["total_steps"] == ROWS[entry.row]["budget"]
    assert [entry.settings["agent.core._target_"] for entry in entries[-2:]] == ["rl.cores.mlp", "rl.cores.gru"]
    assert [entry.settings["agent.previous_action_reward"] for entry in entries[-2:]] == [False, True]  # a control


def test_the_table():
    check_rows(ROWS, KEYS, NEEDED)
    chosen = [name for name, row in ROWS.items() if row.get("default", True)]
    assert len(chosen) == 18 and not [name for name in chosen if name.endswith("_medium")]
    assert len([name for name in chosen if ROWS[name].get("peers") == [*PEERS]]) >= 4
    labels = [row["label"] for row in ROWS.values()]
    assert len({*labels}) == len(labels)  # panels of the plot
    for name in PLAIN:  # easy and medium in pairs
        if name.endswith("_medium"):
            assert ROWS[name]["env"] == [ROWS[name.replace("medium", "easy")]["env"][0], "env.level=medium"]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"env": ["env=t_maze", "agent.learning_rate=1e-4"]}, r"table.a.env=.* must be a list of keys of the environ"),
        ({"budget": 0}, "table.a.budget=0: it must be a whole number of at least 1"),
        ({"budget": "long"}, "table.a.budget='long' is not a whole number"),
    ],
)
def test_a_row_sets_its_task_and_its_budget_alone(row, sentence):
    with pytest.raises(ValueError, match=sentence):
        list_arguments(suite(), "a", {"env": ["env=t_maze"], "budget": 100} | row, "gru")


def test_settings_of_all_runs():
    row = {"env": ["env=t_maze", "env.length=3"], "budget": 5}
    assert list_arguments(suite("num_envs=2"), "a", row, "gru") == [
        *("experiment=memory_suite", "agent/core=gru", "num_envs=2", "env=t_maze", "env.length=3"),
        *("total_steps=5", "evaluate_every=1"),
    ]
    of_mlp = list_arguments(suite("num_envs=2"), "a", row, "mlp")
    assert of_mlp[1:4] == ["agent/core=mlp", "agent.previous_action_reward=false", "num_envs=2"]  # which may change it
    single = OmegaConf.create({"overrides": "num_envs=2", "core_overrides": {}})
    assert list_arguments(single, "a", row, "gru") == list_arguments(suite("num_envs=2"), "a", row, "gru")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("final_episodes=0", "final_episodes=0: it must be a whole number of at least 1"),
        ("evaluate_memory_zeroed=false", "evaluate_memory_zeroed=false: the suite reports the returns with the memory"),
        ("agent.clib=1", "there is no key 'agent.clib'; did you mean clip"),
        ("env.levle=hard", "there is no key 'env.levle'; did you mean level"),
        ("agent.bptt=50", "bptt=50"),
        ("total_steps=9", r"^overrides=\['total_steps=9'\]: the row a has its own, see table.a$"),
        ("env.level=hard", r"^overrides=\['env.level=hard'\]: the row a has its own, see table.a$"),
        ("env=t_maze", r"^overrides=\['env=t_maze'\]: the row a has its own, see table.a$"),
    ],
)
def test_settings_that_cannot_be_are_refused(override, sentence):
    with pytest.raises((ValueError, HydraException), match=sentence):
        make_entries(suite(*SMALL, override), {"a": ROWS["repeat_first_easy"]}, ["mlp"], [])


def test_a_missing_package_is_told_with_the_rows_that_can_do_without(monkeypatch):
    def read(config):
        assert config.num_envs == 1  # enough to see what is observed
        if config.name in ("legs", "arms"):
            missing = ModuleNotFoundError(f'{config.name} needs mujoco: pip install "x[mujoco]".', name="mujoco")
            raise HydraException("Error in call to target") from missing
        if config.name == "cards":
            raise ModuleNotFoundError("cards needs decks: pip install decks", name="decks")
        return config.name

    monkeypatch.setattr(suite_entries, "read_spaces", read)
    names = "first", "legs", "cards", "arms", "last"
    configs = {name: OmegaConf.create({"name": name, "num_envs": 64}) for name in names}
    with pytest.raises(ConfigError) as raised:
        read_all_spaces(configs)
    first, second = (
        'legs, arms: legs needs mujoco: pip install "x[mujoco]"',
        "cards: cards needs decks: pip install decks",
    )
    assert str(raised.value) == f"{first}; {second}; all others: rows=[first,last]"
    with pytest.raises(ConfigError) as raised:
        read_all_spaces({"cards": configs["cards"]})
    assert str(raised.value) == second
    for name in ("legs", "arms", "cards"):
        del configs[name]
    assert read_all_spaces(configs) == {"first": "first", "last": "last"}
    assert configs["first"].num_envs == 64


def test_another_fault_is_not_one_of_a_package(monkeypatch):
    def read(config):
        raise HydraException("level=hrad") from ValueError("level=hrad")

    monkeypatch.setattr(suite_entries, "read_spaces", read)
    with pytest.raises(HydraException, match="level=hrad"):
        read_all_spaces({"a": OmegaConf.create({"num_envs": 64})})


def test_the_agent_of_each_core_is_made_once(monkeypatch):
    """With the spaces of the first task; entries hold what the runs are going to be made of."""
    seen = []

    def check(config, spaces):
        seen.append((config.agent.core._target_, str(spaces[1])))
        check_agent(config, spaces)

    monkeypatch.setattr(suite_entries, "check_agent", check)
    rows = {name: ROWS[name] for name in ("rock_sample", "repeat_first_easy")}
    entries = make_entries(suite(*SMALL), rows, ["mlp", "gru"], [])
    assert seen == [("rl.cores.mlp", "Discrete(16)"), ("rl.cores.gru", "Discrete(16)")]
    for entry in entries:
        composed = compose_run(list_arguments(suite(*SMALL), entry.row, ROWS[entry.row], entry.column))
        assert entry.settings == list_settings(composed)
    assert [(entry.row, entry.column) for entry in entries] == [
        (name, core) for name in rows for core in ("mlp", "gru")
    ]


def test_another_program_gets_the_task_the_steps_and_the_environments_of_the_cores(tmp_path):
    entries = make_entries(suite(*SMALL, "num_envs=8"), {"a": ROWS["repeat_first_easy"]}, ["mlp"], [*PEERS])
    own, peer = entries
    assert (own.column, peer.column) == ("mlp", "sb3-contrib")
    shared = {key: own.settings[key] for key in peer.settings}
    assert peer.settings == shared and (shared["num_envs"], shared["total_steps"]) == (8, 500_000)
    module, *words = peer.list_remaining(tmp_path, 7)
    node = {"_target_": "envs.popgym_tasks.card_streams.RepeatFirst", "level": "easy", "device": None}
    assert module == "experiments.peers.sb3_tasks" and {f"--folder={tmp_path}", "--seed=7"} <= {*words}
    assert {f"--env={json.dumps(node)}", "--num-envs=8", "--total-steps=500000", "--evaluate-every=50000"} <= {*words}
