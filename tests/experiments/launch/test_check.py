"""Checking a configuration against signatures."""

import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, Literal, Optional

import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.vector import SyncVectorEnv
from omegaconf import OmegaConf

from envs.t_maze import TMaze
from experiments.launch.check import (
    ConfigError,
    check_node,
    choose_names,
    construct,
    convert,
    import_path,
    load_yaml,
    prepare_output,
    read_list,
    suggest,
    to_dict,
)


def inner(input_size: int, width: int = 3, scale: float = 1.0):
    """A target inside a target."""


def target(
    size: int, rate: float = 0.1, core: Callable = inner, kind: Literal["a", "b"] = "a", where: str | None = None
):
    """A target."""


def open_ended(size: int, **more):
    """A target that takes any key."""
    return {"size": size, **more}


@pytest.mark.parametrize(
    "value, annotation, expected",
    [
        (3, int, 3),
        (1e6, int, 1_000_000),
        (-2.0, int, -2),
        (3, float, 3.0),
        (0.5, float, 0.5),
        (True, bool, True),
        ("x", str, "x"),
        (None, int | None, None),
        (None, Optional[int], None),  # noqa: UP045 (the old form is what is tested)
        (1e3, int | None, 1000),
        (2, float | None, 2.0),
        ("joint", Literal["joint", "per_head"], "joint"),
        (None, Literal["joint"] | None, None),
        (2, Literal[1, 2], 2),
        ([1, 2], list[int], [1, 2]),
        (["a"], Sequence[str], ["a"]),
        ({"a": 1}, dict, {"a": 1}),
        ("anything", Any, "anything"),
        ([None], int | Any, [None]),
    ],
)
def test_convert(value, annotation, expected):
    result = convert(value, annotation, "name")
    assert result == expected and type(result) is type(expected)


@pytest.mark.parametrize(
    "value, annotation, message",
    [
        (1.5, int, "name=1.5 is not a whole number"),
        (True, int, "name=true is not a whole number"),
        (False, float, "name=false is not a number"),
        (float("inf"), int, "name=inf is not a whole number"),
        (float("nan"), int, "name=nan is not a whole number"),
        ("3", int, "name='3' is not a whole number"),
        (3, str, "name=3 is not a text"),
        (1, bool, "name=1 is not true or false"),
        (None, int, "name=null is not a whole number"),
        ("x", int | None, "name='x' is not a whole number or null"),
        ("x", Literal["a", "b"], "name='x' is not 'a' or 'b'"),
        (None, Literal["a"], "name=null is not 'a'"),
        ("text", Sequence[str], "name='text' is not Sequence"),
        ("text", list, "name='text' is not list"),
        ([1], float, "name=[1] is not a number"),
        ({"a": 1}, int, "name={'a': 1} is not a whole number"),
    ],
)
def test_not_converted(value, annotation, message):
    with pytest.raises(ConfigError) as error:
        convert(value, annotation, "name")
    assert str(error.value) == message


def test_core_by_name():
    with pytest.raises(ConfigError, match=r"^agent\.core='gru' has no _target_: choose by name, agent/core=NAME$"):
        convert("gru", Callable[..., object], "agent.core")


def node(**keys):
    return {"_target_": f"{__name__}.target", **keys}


def core(**keys):
    return {"_target_": f"{__name__}.inner", **keys}


def group(members: dict, size: int, seats: int | None = None):
    """A target with several targets by name inside it."""
    return {name: make(size=size) for name, make in members.items()}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The targets of this module, under the name that they have here."""
    module = types.ModuleType(__name__)
    module.target, module.inner, module.open_ended, module.group = target, inner, open_ended, group
    module.one_of_a_kind, module.fixed = one_of_a_kind, fixed
    monkeypatch.setitem(sys.modules, __name__, module)


def test_check_node_converts_all_the_way_down_and_fills_in_defaults():
    given = core(_partial_=True, width=1e2, scale=2)
    checked = check_node(node(rate=1, core=given), "agent", given=("size",))
    assert checked == node(rate=1.0, core={**given, "width": 100, "scale": 2.0}, kind="a", where=None)
    assert type(checked["core"]["width"]) is int and type(checked["rate"]) is type(checked["core"]["scale"]) is float
    assert type(given["width"]) is float  # what came in is left alone
    assert "rate" not in check_node(
        node(), "agent", given=("size", "rate")
    )  # nor are defaults of what the command sets


@pytest.mark.parametrize(
    "keys, message",
    [
        ({"rat": 1}, "there is no key 'agent.rat'; did you mean rate?"),
        ({"zzz": 1}, "there is no key 'agent.zzz'; there are core, kind, rate, where"),
        ({"size": 1}, "agent.size is set by the command itself; leave it out"),
        ({"rate": "x"}, "agent.rate='x' is not a number"),
        ({"kind": "c"}, "agent.kind='c' is not 'a' or 'b'"),
        ({"core": core(widht=1)}, "there is no key 'agent.core.widht'; did you mean width?"),
        ({"core": core(width=1.5)}, "agent.core.width=1.5 is not a whole number"),
        ({"core": core(input_size=1)}, "agent.core.input_size is set by the command itself; leave it out"),
    ],
)
def test_check_node_names_the_key(keys, message):
    with pytest.raises(ConfigError) as error:
        check_node(node(**keys), "agent", given=("size",))
    assert str(error.value) == message


def test_check_node_without_a_usable_target():
    with pytest.raises(ConfigError, match=r"^agent has no _target_$"):
        check_node({"size": 1}, "agent")
    for path, reason in {
        "nowhere.at.all": "cannot be imported: No module named 'nowhere'",
        "rl.agents.Nobody": "cannot be imported: module 'rl.agents' has no attribute 'Nobody'",
        "plain": "cannot be imported",
        "rl.agents": "cannot be called",
    }.items():
        with pytest.raises(ConfigError, match=rf"^env\._target_={path} {reason}"):
            check_node({"_target_": path}, "env")


def test_open_ended_target_takes_any_key():
    checked = check_node({"_target_": f"{__name__}.open_ended", "size": 2.0, "extra": "x"}, "env")
    assert (checked["size"], checked["extra"]) == (2, "x")


def test_nearest():
    assert suggest("totl_steps", ["total_steps", "seed"]) == "; did you mean total_steps?"
    assert suggest("zz", ["b", "a"]) == "; there are a, b"
    assert suggest("zz", []) == ""


def test_targets_by_name_are_called_with_what_the_command_sets():
    """They lack it in the configuration, must not name it there, and get it when the target around them calls them."""
    members = {"first": node(rate=1), "second": node(kind="b")}
    whole = {"_target_": f"{__name__}.group", "members": members}
    checked = check_node(whole, "agent", given=("size",))
    assert checked["members"]["first"] == node(rate=1.0, kind="a", where=None, _partial_=True)
    assert checked["seats"] is None and "size" not in checked
    made, complete = construct(OmegaConf.create(whole), "agent", size=3)
    assert list(made) == ["first", "second"] and complete == checked
    with pytest.raises(ConfigError, match=r"^agent\.members\.second\.size is set by the command itself; leave it out$"):
        check_node(whole | {"members": members | {"second": node(size=1)}}, "agent", given=("size",))


def test_construct_calls_the_target_with_what_was_checked():
    """Interpolations resolved, types made right."""
    there = {"_target_": f"{__name__}.open_ended", "size": 2.0, "rate": "${there}", "there": 1.5}
    made, complete = construct(OmegaConf.create(there), "agent", more=3)
    assert made == {"size": 2, "rate": 1.5, "there": 1.5, "more": 3} and type(made["size"]) is int
    assert complete == there | {"size": 2, "rate": 1.5}


def test_a_list_or_a_single_value():
    for value, expected in (([1, 2], [1, 2]), (3, [3]), ("gru", ["gru"]), ({"a": 1, "b": 2}, ["a", "b"])):
        assert read_list(OmegaConf.create({"key": value}).key, "key") == expected
    for value in ([], None, {}):
        with pytest.raises(ConfigError, match=r"^key is empty$"):
            read_list(value, "key")


def test_names_are_chosen_among_those_that_are_allowed():
    assert choose_names(["b", "a", "b"], "abc", "keys", "letter") == ["b", "a", "b"]
    assert choose_names("b", {"a": 1, "b": 2}, "keys", "letter") == ["b"]
    with pytest.raises(ConfigError, match=r"^keys: there is no letter 'grau'; did you mean gru\?$"):
        choose_names(["lstm", "grau"], iter(["gru", "lstm"]), "keys", "letter")


def test_a_file_is_going_to_be_written(tmp_path):
    assert prepare_output(f"{tmp_path}/deep/er/file", "output") == tmp_path / "deep/er/file"
    assert (tmp_path / "deep/er").is_dir()
    (tmp_path / "file").write_text("")
    assert prepare_output(f"{tmp_path}/file", "output") == tmp_path / "file"
    for path in (f"{tmp_path}/file/below", f"{tmp_path}/deep"):
        with pytest.raises(ConfigError, match=rf"^output={path} cannot be written"):
            prepare_output(path, "output")


def test_what_holds_no_keys_is_refused(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "keys.yaml").write_text("a: ${b}\nb: [1, {c: 2}]\n")
    with pytest.raises(ConfigError, match=r"list\.yaml holds no keys with values$"):
        load_yaml(tmp_path / "list.yaml")
    assert to_dict(load_yaml(tmp_path / "keys.yaml")) == {"a": [1, {"c": 2}], "b": [1, {"c": 2}]}
    with pytest.raises(ConfigError, match=r"^\[1\] is given where keys with values should be$"):
        to_dict(OmegaConf.create([1]))


def test_dotted_paths():
    assert import_path("experiments.launch.check.suggest") is suggest
    with pytest.raises(ValueError):
        import_path("plain")


def test_a_core_need_not_say_that_it_is_called_later():
    node = {"_target_": "rl.agents.RecurrentPPO", "core": {"_target_": "rl.cores.gru", "hidden_size": 8}}
    spaces = {"observation_space": None, "action_space": None}
    assert check_node(node, "agent", given=spaces)["core"]["_partial_"] is True


def one_of_a_kind(sutton_barto_reward: bool = False):
    """A function that makes one environment."""
    return CartPoleEnv(sutton_barto_reward)


def fixed():
    """A function that takes no argument, and always makes three rows."""
    return TMaze(3)


def test_a_target_of_the_environments_may_make_one_or_all_of_them():
    """A class of one takes no ``num_envs``; what it does take is the same for each copy."""
    for target in ("gymnasium.envs.classic_control.CartPoleEnv", f"{__name__}.one_of_a_kind"):
        node = OmegaConf.create({"_target_": target, "sutton_barto_reward": True})
        envs, complete = construct(node, "env", num_envs=3)
        assert isinstance(envs, SyncVectorEnv) and envs.num_envs == 3
        assert len({id(env.unwrapped) for env in envs.envs}) == 3
        assert all(env.unwrapped._sutton_barto_reward for env in envs.envs)
        assert complete["sutton_barto_reward"] is True and "num_envs" not in complete
    assert construct(OmegaConf.create({"_target_": "envs.t_maze.TMaze"}), "env", num_envs=2)[0].num_envs == 2
    assert construct(OmegaConf.create({"_target_": f"{__name__}.fixed"}), "env", num_envs=3)[0].num_envs == 3
    with pytest.raises(ValueError, match=r"fixed made 3 environments, where 2 are needed: let it take num_envs$"):
        construct(OmegaConf.create({"_target_": f"{__name__}.fixed"}), "env", num_envs=2)
