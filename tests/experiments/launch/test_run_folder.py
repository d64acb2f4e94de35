"""What a run leaves in its folder, read and written."""

import re
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.launch.arguments import load_defaults
from experiments.launch.build import SETTINGS
from experiments.launch.check import ConfigError, to_dict
from experiments.launch.run_folder import (
    choose_checkpoint,
    flatten,
    load_flat_config,
    load_resumed_config,
    load_run_config,
    name_core,
    name_env,
    name_folder,
    read_result,
    write_config,
    write_result,
)
from rl.checkpoint import DamagedError, save_checkpoint

STORED = {
    **dict.fromkeys(SETTINGS, 1),
    "trust": [],
    "agent": {
        "_target_": "rl.agents.RecurrentPPO",
        "clip": 0.2,
        "core": {"_target_": "rl.cores.gru"},
        "image_encoding": "auto",
    },
    "env": {"_target_": "envs.t_maze.TMaze", "length": 3},
}
TRAIN = OmegaConf.to_container(load_defaults("train"))
TOP = {key: value for key, value in TRAIN.items() if key not in ("defaults", "hydra", "run_dir")}
FILLED = TOP | STORED


@pytest.fixture
def run_dir(tmp_path):
    """A run folder, whose name is no YAML."""
    folder = tmp_path / "run: 1"
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(STORED), folder / "config.yaml")
    return folder


def test_the_configuration_of_a_run(run_dir):
    assert load_run_config(run_dir) == FILLED and load_run_config(str(run_dir)) == FILLED
    with pytest.raises(ConfigError, match=r"^nowhere is no run folder: it has no config\.yaml$"):
        load_run_config("nowhere")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"env": STORED["env"]}, "it has no agent"),
        ({"agent": STORED["agent"]}, "it has no env"),
        ({"shopping": ["milk"]}, "it has no agent, env"),
        ({}, "it has no agent, env"),
        ({"agent": None, "env": None}, "agent has no _target_"),
        ({"agent": "gru", "env": None}, "agent has no _target_"),
        ({"agent": STORED["agent"], "env": {"length": 3}}, "env has no _target_"),
    ],
)
def test_a_configuration_that_is_no_runs(content, reason, run_dir):
    OmegaConf.save(OmegaConf.create(content), run_dir / "config.yaml")
    with pytest.raises(ConfigError, match=rf"config\.yaml is not the configuration of a run: {reason}$"):
        load_run_config(run_dir)


def test_a_folder_of_before_lacks_keys_and_gets_their_defaults(run_dir):
    """What it has is kept, also what no command knows any more."""
    old = {"agent": STORED["agent"], "env": None, "seed": 7, "data": "x"}
    OmegaConf.save(OmegaConf.create(old), run_dir / "config.yaml")
    assert load_run_config(run_dir) == TOP | old
    assert TOP.keys() >= set(SETTINGS)


def test_images_of_a_folder_of_before_are_pictures_as_they_were(run_dir):
    """Members of a population, too; an agent that takes no such argument gets none."""
    agent = {key: value for key, value in STORED["agent"].items() if key != "image_encoding"}
    population = {"_target_": "rl.agents.Population", "members": {"a": agent, "b": STORED["agent"]}}
    for node, found in ((agent, agent | {"image_encoding": "brightness"}), (population, None)):
        OmegaConf.save(OmegaConf.create(STORED | {"agent": node}), run_dir / "config.yaml")
        stored = to_dict(load_run_config(run_dir).agent)
        if found is None:
            assert {name: member["image_encoding"] for name, member in stored.pop("members").items()} == {
                "a": "brightness",
                "b": "auto",
            }
            assert stored == {"_target_": "rl.agents.Population"}
        else:
            assert stored == found


@pytest.mark.parametrize(
    ("trust", "names"),
    [(None, []), ("", []), ([], []), ("a", ["a"]), (["a", "b.c"], ["a", "b.c"]), (["a${b}"], ["a${b}"])],
)
def test_trust_is_the_command_lines(trust, names, run_dir):
    """What the folder holds in its place does not count."""
    OmegaConf.save(OmegaConf.create(STORED | {"trust": ["os"]}), run_dir / "config.yaml")
    assert to_dict(load_run_config(run_dir, trust))["trust"] == names
    with pytest.raises(ConfigError, match=r"^trust=\[3\]: it must be a list of packages, trust=\[my_package\]$"):
        load_run_config(run_dir, [3])


def test_a_resumed_run_takes_what_the_command_line_sets(run_dir):
    """Keys of any depth, old and new, in the type that they are written in."""
    config = OmegaConf.create({"resume": str(run_dir)})
    overrides = [f"resume='{run_dir}'", "total_steps=1e6", "++agent.clip=0.5", "++agent.gamma=null", "threads=auto"]
    changed = {"total_steps": 1e6, "threads": "auto", "resume": str(run_dir), "run_dir": str(run_dir)}
    agent = {"agent": STORED["agent"] | {"clip": 0.5, "gamma": None}}
    assert load_resumed_config(config, [*overrides, "trust=[a]", "run_dir=elsewhere"]) == FILLED | changed | agent


def test_what_a_resumed_run_is_set_to_is_computed_from_its_own_values(run_dir):
    config = load_resumed_config(OmegaConf.create({"resume": str(run_dir)}), ["++agent.state_stride=${agent.clip}"])
    assert config.agent.state_stride == 0.2


def test_no_key_of_a_resumed_run_is_taken_away(run_dir):
    with pytest.raises(ConfigError, match=r"^~agent\.clip: a resumed run keeps its keys, give another value instead$"):
        load_resumed_config(OmegaConf.create({"resume": str(run_dir)}), ["~agent.clip"])


@pytest.mark.parametrize(
    "override", ["agent=recurrent_iqn", "env=t_maze", "experiment=quick", "agent/core=gru", "seed@x=3"]
)
def test_a_resumed_run_stays_the_same_run(run_dir, override):
    with pytest.raises(ConfigError, match=f"^{override}: a resumed run keeps its agent and environment$"):
        load_resumed_config(OmegaConf.create({"resume": str(run_dir)}), ["total_steps=9", override])


@pytest.mark.parametrize(
    "override", ["init_from=other", "++agent.memory_span=9", "++agent.core.forget_bias=2", "++agent.core.gate_bias=-2"]
)
def test_a_resumed_run_keeps_its_weights(run_dir, override):
    sentence = f"{override.lstrip('+')}: a resumed run goes on with the weights that it has"
    with pytest.raises(ConfigError, match=f"^{re.escape(sentence)}$"):
        load_resumed_config(OmegaConf.create({"resume": str(run_dir)}), [override])


def test_a_resumed_run_keeps_its_seed(run_dir):
    """Its environments and generators go on from there, and its results are told to be of that seed."""
    resumed = OmegaConf.create({"resume": str(run_dir)})
    with pytest.raises(ConfigError, match=r"^seed=9: a resumed run goes on with the seed that it has$"):
        load_resumed_config(resumed, ["seed=9"])
    assert load_resumed_config(resumed, [f"seed={STORED['seed']}"]).seed == STORED["seed"]


def test_a_changed_environment_is_told(run_dir, caplog):
    """Also where a key is called like one of what a fresh run gets."""
    changed = load_resumed_config(OmegaConf.create({"resume": str(run_dir)}), ["++env.memory_span=9"])
    assert changed.env.memory_span == 9
    told = "env.memory_span=9: the run goes on in another environment than it had, with env.memory_span=None"
    assert caplog.messages == [told]


def test_what_a_resumed_run_began_with_may_be_repeated(run_dir):
    OmegaConf.save(OmegaConf.create(STORED | {"init_from": "other"}), run_dir / "config.yaml")
    assert load_resumed_config(OmegaConf.create({"resume": str(run_dir)}), ["init_from=other"]).init_from == "other"


def test_names_of_memories():
    node = {"core": {"_target_": "rl.cores.gru"}}
    assert name_core(OmegaConf.create(node)) == "gru"
    members = {"first": node, "second": {"core": {"_target_": "mine.Decay"}}}
    assert name_core(OmegaConf.create({"members": members})) == "gru, Decay"


@pytest.mark.parametrize(
    ("env", "name", "folder"),
    [
        ({"_target_": "envs.t_maze.TMaze"}, "TMaze", "TMaze"),
        ({"_target_": "envs.gymnasium_env.make_gymnasium", "id": "CartPole-v1"}, "CartPole-v1", "CartPole-v1"),
        ({"_target_": "envs.gymnasium_env.make_gymnasium", "id": "ALE/Pong-v5"}, "ALE/Pong-v5", "ALE-Pong-v5"),
        ({"_target_": "envs.gymnasium_env.make_gymnasium", "id": "my.module:A B/ü-v0"}, "A B/ü-v0", "A-B-ü-v0"),
        ({"_target_": "envs.pettingzoo_env.make_pettingzoo", "id": "mpe2.x_v3"}, "mpe2.x_v3", "mpe2.x_v3"),
        ({"_target_": "mine.Env", "id": None}, "Env", "Env"),
        ({"_target_": "mine.Env", "id": "../.."}, "../..", "unnamed"),
    ],
)
def test_names_of_environments(env, name, folder):
    assert name_env(OmegaConf.create(env)) == name and name_folder(name) == folder


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
    write_result(tmp_path, {"agent": "A", "list": [1, 2]}, OmegaConf.create({"seed": 3}))
    assert OmegaConf.load(tmp_path / "config.yaml") == {"seed": 3}  # the folder had been removed meanwhile
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


@pytest.mark.parametrize("counts", [{"env_steps": 8}, {"total_steps": None}, {"env_steps": True, "total_steps": 8}])
def test_a_result_without_its_counts_is_named(tmp_path, counts):
    """A run of which nobody can say whether it is finished; other kinds of runs count other things."""
    write_result(tmp_path, counts)
    with pytest.raises(ConfigError, match=r"result\.json is damaged: env_steps and total_steps must be whole numbers"):
        read_result(tmp_path)
    write_result(tmp_path, {"epochs": 3})
    assert read_result(tmp_path) == {"epochs": 3}


@pytest.fixture
def choose(tmp_path, monkeypatch):
    """``choose("best")``: the checkpoint of a run folder that holds all four files, with another one beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("run/checkpoints/last.pt", "run/checkpoints/previous.pt", "run/checkpoints/best.pt", "other.pt"):
        save_checkpoint({"agent": {}}, name)
    return lambda name, run="run": choose_checkpoint(OmegaConf.create({"run": run, "checkpoint": name}))


def test_which_checkpoint_is_chosen(choose):
    folder = Path("run/checkpoints")
    assert choose("last") == folder / "last.pt" and choose("best") == folder / "best.pt"
    assert choose("other.pt") == Path("other.pt") and choose("last", None) is None
    (folder / "last.pt").write_bytes(b"broken off")
    assert choose("last") == folder / "previous.pt" and choose("best") == folder / "best.pt"


@pytest.mark.parametrize(
    ("name", "run", "sentence"),
    [
        ("best", None, "checkpoint=best is of a run: give run=RUN_DIR, too"),
        ("other.pt", None, "checkpoint=other.pt is of a run: give run=RUN_DIR, too"),
        (
            "best",
            "new",
            "checkpoint=best: new/checkpoints/best.pt is not there, as where a run was not evaluated during its "
            "training; it must be last, best or the path of a checkpoint",
        ),
        ("run", "run", "checkpoint=run: there is no such file; it must be last, best or the path of a checkpoint"),
        ("bset", "run", "checkpoint=bset: there is no such file; it must be last, best or the path of a checkpoint"),
        (None, "run", "checkpoint=null is not a text"),
    ],
)
def test_checkpoints_that_there_are_not(choose, name, run, sentence):
    with pytest.raises(ConfigError) as raised:
        choose(name, run)
    assert str(raised.value) == sentence


@pytest.mark.parametrize("name", ["best", "run/checkpoints/best.pt"])
def test_a_damaged_checkpoint_that_was_asked_for_is_not_replaced_by_another(choose, name):
    Path("run/checkpoints/best.pt").write_bytes(b"broken off")
    with pytest.raises(DamagedError, match=r"^run/checkpoints/best\.pt is damaged or no checkpoint"):
        choose(name)
    shutil.rmtree("run/checkpoints")
    with pytest.raises(FileNotFoundError, match=r"^there is no checkpoint at run/checkpoints/last\.pt$"):
        choose("last")
