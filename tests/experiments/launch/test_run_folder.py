"""What a run leaves in its folder, read and written."""

import pytest
from omegaconf import OmegaConf

from experiments.launch.build import SETTINGS
from experiments.launch.check import ConfigError
from experiments.launch.run_folder import (
    flatten,
    load_flat_config,
    load_resumed_config,
    load_run_config,
    name_core,
    read_result,
    write_config,
    write_result,
)

STORED = {
    **dict.fromkeys(SETTINGS, 1),
    "agent": {"clip": 0.2, "core": {"_target_": "rl.cores.gru"}},
    "env": {"length": 3},
}


@pytest.fixture
def run_dir(tmp_path):
    """A run folder, whose name is no YAML."""
    folder = tmp_path / "run: 1"
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(STORED), folder / "config.yaml")
    return folder


def test_the_configuration_of_a_run(run_dir):
    assert load_run_config(run_dir) == STORED and load_run_config(str(run_dir)) == STORED
    with pytest.raises(ConfigError, match=r"^nowhere is no run folder: it has no config\.yaml$"):
        load_run_config("nowhere")


@pytest.mark.parametrize("key", ["agent", "env", "seed", "checkpoint_every"])
def test_a_file_that_lacks_a_key_is_no_configuration_of_a_run(run_dir, key):
    OmegaConf.save(OmegaConf.create({k: v for k, v in STORED.items() if k != key}), run_dir / "config.yaml")
    with pytest.raises(ConfigError, match=rf"config\.yaml is not the configuration of a run: it has no {key}$"):
        load_run_config(run_dir)
    (run_dir / "config.yaml").write_text("- a\n- list\n")
    with pytest.raises(ConfigError, match=r"is not the configuration of a run: it has no agent, env, seed, "):
        load_run_config(run_dir)


def test_a_resumed_run_takes_what_the_command_line_sets(run_dir):
    """Keys of any depth, old and new, in the type that they are written in."""
    config = OmegaConf.create({"resume": str(run_dir)})
    overrides = [f"resume={run_dir}", "total_steps=1e6", "++agent.clip=0.5", "++agent.gamma=null", "threads=auto"]
    changed = {"total_steps": 1e6, "threads": "auto", "resume": str(run_dir)}
    agent = {"agent": STORED["agent"] | {"clip": 0.5, "gamma": None}}
    assert load_resumed_config(config, overrides) == STORED | changed | agent


@pytest.mark.parametrize("override", ["agent=recurrent_iqn", "env=t_maze", "experiment=quick", "agent/core=gru"])
def test_a_resumed_run_stays_the_same_run(run_dir, override):
    with pytest.raises(ConfigError, match=f"^{override}: a resumed run keeps its agent and environment$"):
        load_resumed_config(OmegaConf.create({"resume": str(run_dir)}), ["total_steps=9", override])


def test_names_of_memories():
    node = {"core": {"_target_": "rl.cores.gru"}}
    assert name_core(OmegaConf.create(node)) == "gru"
    members = {"first": node, "second": {"core": {"_target_": "mine.Decay"}}}
    assert name_core(OmegaConf.create({"members": members})) == "gru, Decay"


def test_one_level(run_dir):
    config = OmegaConf.create({"a": {"b": {"c": 1, "d": [1, 2]}, "e": "${f}"}, "f": None})
    assert flatten(config) == {"a.b.c": 1, "a.b.d": [1, 2], "a.e": None, "f": None}
    assert load_flat_config(run_dir)["agent.core._target_"] == "rl.cores.gru"


def test_results_are_read_as_they_were_written(tmp_path):
    for result in ({"a": 1.5, "b": None}, {"a": [1]}):
        write_result(tmp_path, result)
        assert read_result(tmp_path) == result
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_an_agent_that_names_no_core_has_the_default_of_its_class():
    """A YAML file of one's own need not name one; the result of a run must not be lost for that."""
    for agent, core in (("RecurrentPPOLSTM", "lstm"), ("DualHeadRecurrentPPO", "gru")):
        assert name_core(OmegaConf.create({"_target_": f"rl.agents.{agent}"})) == core
    mixed = {"one": {"_target_": "rl.agents.RecurrentIQN"}, "two": {"core": {"_target_": "rl.cores.mamba"}}}
    assert name_core(OmegaConf.create({"members": mixed})) == "gru, mamba"


def test_a_damaged_result_is_named(tmp_path):
    write_result(tmp_path, {"agent": "A", "list": [1, 2]})
    whole = (tmp_path / "result.json").read_bytes()
    for data in (whole[:20], b"", b"\xff\x00", b"[1]"):
        (tmp_path / "result.json").write_bytes(data)
        with pytest.raises(ConfigError, match=r"result\.json is damaged: "):
            read_result(tmp_path)


def test_a_configuration_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    write_config(tmp_path, OmegaConf.create({"a": 1}))
    monkeypatch.setattr("os.fsync", full)
    for write in (lambda: write_config(tmp_path, OmegaConf.create({"a": 2})), lambda: write_result(tmp_path, {})):
        with pytest.raises(OSError, match=r"cannot be written: No space left on device: .*(config\.yaml|result\.json)"):
            write()
    assert OmegaConf.load(tmp_path / "config.yaml") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    "data", [b"a: [1, 2", b"\x00\x01", b"\xff\xfe\xfa", b"a: !!python/object/apply:os.getcwd []", b"a: ${"]
)
def test_a_damaged_configuration_is_named(tmp_path, data):
    (tmp_path / "config.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        load_flat_config(tmp_path)
