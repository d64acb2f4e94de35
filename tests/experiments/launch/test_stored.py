"""A configuration from elsewhere: read as data, refused where it names code, files or something to compute."""

import json
import os

import gymnasium
import pytest
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError, to_dict
from experiments.launch.escape import to_config
from experiments.launch.stored import check_links, check_stored, read_stored

AGENT = {"_target_": "rl.agents.RecurrentPPOLSTM", "core": {"_target_": "rl.cores.lstm", "_partial_": True}}
MAZE = {"_target_": "envs.t_maze.TMaze", "length": 3}
GYM = {"_target_": "envs.gymnasium_env.make_gymnasium", "id": "CartPole-v1", "wrappers": []}
WORLDS = {"_target_": "envs.pettingzoo_env.make_pettingzoo", "id": "mpe2.simple_spread_v3"}
EVIL = {"_target_": "os.system", "command": "touch PWNED"}
TRUST = "it runs only if you trust it, trust="


def gym(**changes):
    return {"env": GYM | changes}


def family(name, **changes):
    return {"env": {"_target_": f"envs.{name}_env.make_{name}"} | changes}


def wrapped(*wrappers):
    return gym(wrappers=list(wrappers))


HOSTILE = {  # name -> changes of a configuration, words of the sentence
    "a target": ({"env": EVIL}, rf"env\._target_=os\.system: os\.system is code from .*{TRUST}\[os\]"),
    "an agent": ({"agent": {"_target_": "evil.Agent"}}, rf"agent\._target_=evil\.Agent: .*{TRUST}\[evil\]"),
    "a core": ({"agent": AGENT | {"core": {"_target_": "evil.core"}}}, r"agent\.core\._target_=evil\.core"),
    "a nested target": ({"env": MAZE | {"length": EVIL}}, r"env\.length\._target_=os\.system"),
    "a target in a list": (gym(extra=[1, [EVIL]]), r"env\.extra\[1\]\[0\]\._target_=os\.system"),
    "a member": ({"agent": {"_target_": "rl.agents.Population", "members": {"a": EVIL}}}, r"agent\.members\.a\._ta"),
    "a list as target": ({"env": {"_target_": ["os.system"]}}, r"env\._target_="),
    "elsewhere": ({"extra": {"deep": [EVIL]}}, r"extra\.deep\[0\]\._target_=os\.system"),
    "what we import": (
        {"env": {"_target_": "rl.import_module", "name": "evil"}},
        "is no agent, core, encoder, environment",
    ),
    "what writes": ({"env": {"_target_": "rl.checkpoint.save_checkpoint", "path": "x"}}, "is no agent, core"),
    "what imports": ({"env": {"_target_": "envs.single_env.make_batched", "task": "evil:Task"}}, "is no agent, core"),
    "Gymnasium's maker": ({"env": {"_target_": "gymnasium.make_vec", "id": "evil:X-v0"}}, r"trust=\[gymnasium\]"),
    "positional arguments": ({"env": MAZE | {"_args_": [EVIL]}}, "env._args_ may not stand in a stored configuration"),
    "no recursion": ({"env": MAZE | {"_recursive_": False}}, "env._recursive_ may not stand"),
    "an id": (gym(id="evil:CartPole-v1"), rf"env\.id=evil:CartPole-v1: evil is code from .*{TRUST}\[evil\]"),
    "an id that is nested": ({"env": MAZE | {"length": GYM | {"id": "evil:CartPole-v1"}}}, r"env\.length\.id=evil"),
    "an id with dots": (gym(id="evil.deep:CartPole-v1"), r"trust=\[evil\]"),
    "an id of a game": (
        family("atari", id="evil:Game-v5"),
        r"env\.id=evil:Game-v5: evil is code from .*trust=\[evil\]",
    ),
    "a file of a task": (family("mujoco", xml_file="../x.xml"), r"env\.xml_file=\.\./x\.xml: it names a file"),
    "a wrapper of a task": (family("popgym", wrappers=["evil.W"]), r"env\.wrappers\[0\]=evil\.W"),
    "a world": ({"env": WORLDS | {"id": "evil.worlds"}}, r"evil\.worlds is code from outside this project"),
    "a task": (gym(id="RecurrentPPO/TMaze-v0", task="evil:Task"), r"env\.task=evil:Task: evil is code"),
    "a wrapper": (wrapped("os.system"), r"env\.wrappers\[0\]=os\.system: os\.system is code"),
    "one wrapper": (gym(wrappers="os.system"), r"env\.wrappers\[0\]=os\.system"),
    "a wrapper with arguments": (wrapped({"path": "unittest.mock.Mock"}), r"trust=\[unittest\]"),
    "a wrapper as a node": (wrapped({"_target_": "os.system"}), r"wrappers\[0\]=os\.system"),
    "two paths": (wrapped({"path": "evil.W", "_target_": "gymnasium.wrappers.ClipAction"}), r"evil\.W"),
    "a wrapper of worlds": ({"env": WORLDS | {"wrappers": ["evil.W"]}}, r"env\.wrappers\[0\]=evil\.W"),
    "a wrapper that writes": (wrapped({"path": "gymnasium.wrappers.RecordVideo"}), "RecordVideo is no .*wrapper"),
    "a wrapper that imports": (  # it needs a package that may be missing
        wrapped({"path": "gymnasium.wrappers.ArrayConversion", "env_xp": "evil"}),
        "cannot be imported|harmless wrapper",
    ),
    "a file": (gym(id="Ant-v5", xml_file="/somewhere/x.xml"), r"env\.xml_file=/somewhere/x\.xml: it names a file"),
    "a file in the home folder": (gym(deep={"rom": "~x"}), r"env\.deep\.rom=~x: it names a file"),
    "a file of a wrapper": (
        wrapped({"path": "gymnasium.wrappers.ClipAction", "x": "../y"}),
        r"env\.wrappers\[0\]\.x=\.\./y: it names a file",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run folder, in a working folder with a module ``evil`` that must not be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text("import pathlib\npathlib.Path('PWNED').touch()\n")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def write(folder, **changes):
    OmegaConf.save(OmegaConf.create({"seed": 1, "agent": AGENT, "env": MAZE} | changes), folder / "config.yaml")
    return read_stored(folder / "config.yaml")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_named_does_not_run(name, folder):
    changes, words = HOSTILE[name]
    with pytest.raises(ConfigError, match=words):
        check_stored(write(folder, **changes), folder)
    assert not os.path.exists("PWNED")


@pytest.mark.parametrize(
    ("trust", "changes"),
    [
        ((), {}),
        ((), {"env": None}),
        ((), {"env": GYM | {"id": "envs:RecurrentPPO/TMaze-v0"}}),
        ((), {"env": GYM | {"id": "ALE/Pong-v5", "wrappers": ["gymnasium.wrappers.AtariPreprocessing"]}}),
        ((), family("atari", id="ALE/Pong-v5", flicker=0.5)),
        ((), family("memory_gym", id="MysteryPath-Grid-v0", options={"max_steps": 9})),
        ((), family("minigrid", id="MemoryS11")),
        ((), family("mujoco", id="Hopper-v5", hide="positions")),
        ((), family("popgym", wrappers=["gymnasium.wrappers.FlattenObservation"])),
        ((), {"env": GYM | {"wrappers": [{"path": "gymnasium.wrappers.FrameStackObservation", "stack_size": 4}]}}),
        ((), {"env": WORLDS | {"id": "butterfly/pistonball-v6"}}),
        ((), {"agent": {"_target_": "rl.agents.Population", "members": {"a": AGENT}}, "imitation": {"epochs": 2}}),
        (("evil",), {"env": {"_target_": "evil.Env", "file": "/any/where", "wrappers": ["a.path"]}}),
        (("evil",), {"env": GYM | {"id": "evil:Own-v0", "wrappers": ["evil.Wrapper"], "file": "/any/where"}}),
        (("evil.deep",), {"env": GYM | {"id": "evil.deep:Own-v0"}}),
        (("/any/where.xml",), {"env": GYM | {"id": "Ant-v5", "xml_file": "/any/where.xml"}}),
        (("gymnasium",), {"env": GYM | {"wrappers": ["gymnasium.wrappers.RecordVideo"]}}),
    ],
)
def test_what_is_ours_or_trusted_may_run(trust, changes, folder):
    """And even then nothing is imported only to be checked."""
    check_stored(write(folder, **changes), folder, trust)
    assert not os.path.exists("PWNED")


def test_trust_does_not_reach_into_the_run_folder(folder, monkeypatch):
    (folder / "inner.py").write_text("import pathlib\npathlib.Path('PWNED').touch()\n")
    monkeypatch.syspath_prepend(folder)
    for changes in ({"env": {"_target_": "run.inner.Env"}}, {"env": GYM | {"id": "inner:Own-v0"}}):
        with pytest.raises(ConfigError, match="inner lies in the run folder"):
            check_stored(write(folder, **changes), folder, ("run", "inner"))
    (folder / "minigrid.py").write_text("import pathlib\npathlib.Path('PWNED').touch()\n")  # the name of an extra
    with pytest.raises(ConfigError, match="minigrid lies in the run folder"):
        check_stored(write(folder, env=GYM | {"id": "MiniGrid-Empty-5x5-v0"}), folder)
    assert not os.path.exists("PWNED")


def test_entry_points_of_other_packages_need_trust(folder):
    """Gymnasium registers ids of old environments, which make what an argument names."""
    gymnasium.register("Foreign-v0", entry_point="evil:Env")
    try:
        with pytest.raises(ConfigError, match=r"env\.id=Foreign-v0: evil is code from outside"):
            check_stored(write(folder, env=GYM | {"id": "Foreign-v0"}), folder)
        check_stored(write(folder, env=GYM | {"id": "Foreign-v0"}), folder, ("evil",))
    finally:
        del gymnasium.registry["Foreign-v0"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: ${oc.env:HOME}", r"a='\$\{oc\.env:HOME\}' is to be computed: a stored configuration holds plain values"),
        ("a: {b: ['x ${oc.decode:y}']}", r"a\.b\[0\]="),
        (r"a: \\${hydra:x}", "is to be computed"),
        (
            "a: !!python/object/apply:os.system ['touch PWNED']",
            "cannot be read as a configuration: could not determine",
        ),
        ("a: !!python/name:os.system", "cannot be read as a configuration"),
        ("a: &x [1]\nb: *x", r"repeats a part by an alias"),
        ("a: 1\na: 2", "cannot be read as a configuration: found duplicate key a"),
        ("a: [1", "cannot be read as a configuration"),
        ("- a\n- b", "it holds no keys with values"),
    ],
)
def test_a_file_that_is_more_than_plain_values(text, words, folder):
    (folder / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"config\\.yaml.*{words}") as raised:
        read_stored(folder / "config.yaml")
    assert "\n" not in str(raised.value) and not os.path.exists("PWNED")


def test_a_file_that_is_no_text(folder):
    (folder / "config.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ConfigError, match="is no text: it is damaged or no configuration"):
        read_stored(folder / "config.yaml")


@pytest.mark.parametrize("text", ["a${b}", r"\${x}", r"\\${x}", "${a${b}}", "x}${", r"C:\new", "ü 'q' \"w\" $5 #"])
def test_texts_survive_writing_and_reading(text, folder):
    OmegaConf.save(to_config({"run_dir": text, "list": [text, {"x": text}]}), folder / "config.yaml")
    assert to_dict(read_stored(folder / "config.yaml")) == {"run_dir": text, "list": [text, {"x": text}]}


COMMANDS = {
    "evaluate": "run=run",
    "export": "run=run output=out/policy.onnx",
    "record": "run=run output=out/recording",
    "plot": "runs=run output=out/curves.png",
    "train": "resume=run",
    "imitate": "resume=run",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_takes_a_run_folder_refuses_a_hostile_one(name, command, cwd):
    pytest.importorskip({"record": "minari", "export": "onnx"}.get(name, "json"))
    (cwd / "run").mkdir()
    write(cwd / "run", env=GYM | {"wrappers": ["operator.call", "os.system"]})
    ended = command(name, *COMMANDS[name].split())
    place = "run: env.wrappers[0]=operator.call"
    sentence = f"{name}: {place}: operator.call is code from outside this project: {TRUST}[operator]\n"
    assert (ended.code, ended.err) == (1, sentence)


def test_a_run_with_an_environment_of_the_users_own(command, train_maze, tiny, cwd):
    """Trained as the command line names it; afterwards it is data, and has to be trusted again."""
    (cwd / "my_module.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=9)\n"
    )
    try:
        ended = command("train", "env=gymnasium", "env.id=my_module:Mine-v0", *tiny, "run_dir=run")
        assert (ended.code, ended.err) == (0, "")
        assert json.loads((cwd / "run/result.json").read_text())["env"] == "Mine-v0"
        refused = command("evaluate", "run=run", "episodes=2")
        assert refused.code == 1 and refused.err.endswith("it runs only if you trust it, trust=[my_module]\n")
        for trust in ("trust=my_module", "trust=[my_module]"):
            ended = command("evaluate", "run=run", "episodes=2", trust)
            assert (ended.code, ended.err) == (0, "")
        assert "trust=[my_module]" in command("train", "resume=run", "total_steps=16").err
        ended = command("train", "resume=run", "total_steps=16", "trust=[my_module]")
        assert (ended.code, ended.err) == (0, "")
        assert OmegaConf.load(cwd / "run/config.yaml").trust == ["my_module"]
        assert command("evaluate", "run=run", "episodes=2").code == 1  # what the folder says of trust does not count
    finally:
        gymnasium.registry.pop("Mine-v0", None)


LINKS = [("evaluate", "evaluation.json"), ("train", "train.log"), ("train", ".lock"), ("train", "checkpoints")]


@pytest.mark.parametrize(("name", "written"), LINKS)
def test_a_link_out_of_a_run_folder_is_not_written_through(name, written, command, cwd):
    """Unpacked archives may hold links: ``evaluation.json`` would replace a file of the user's home folder."""
    (cwd / "run").mkdir()
    write(cwd / "run")
    (cwd / "home").mkdir()
    victim = cwd / "home" if written == "checkpoints" else cwd / "home/victim"
    if written != "checkpoints":
        victim.write_text("all of it")
    (cwd / "run" / written).symlink_to(victim)
    ended = command(name, *COMMANDS[name].split())
    assert ended.code == 1
    assert ended.err.startswith(f"{name}: ") and f"run/{written} is a link to {victim}, outside" in ended.err
    assert [file.read_text() for file in (cwd / "home").iterdir()] == ["all of it"] * (written != "checkpoints")


def test_links_within_a_run_folder_and_to_one_may_be(folder, tmp_path):
    (folder / "real.log").write_text("")
    (folder / "train.log").symlink_to("real.log")
    (tmp_path / "linked").symlink_to(folder)
    check_links(tmp_path / "linked", ["train.log", "missing"])
    (folder / "loop").symlink_to("loop")
    check_links(folder, ["loop"])
