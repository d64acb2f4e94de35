"""What constructs an agent, as plain data: arguments, cores, classes; what has no name; what may not be named."""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import RecurrentPPO
from rl.agents.construction import (
    PARTS,
    arguments_from_data,
    describe,
    from_data,
    import_code,
    in_words,
    takes,
    to_data,
)
from rl.trust import UntrustedError

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)


class Twice(list):
    """A list of the user's own."""


class PassesOn(RecurrentPPO):
    def __init__(self, size, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.size = size


class Chooses(RecurrentPPO):
    def __init__(self, observation_space, action_space, size=12):
        super().__init__(observation_space, action_space, size)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, float("inf"), "text", [1, [2.5, "a"]], (1, None), {"a": (1, 2), 3: {}}, FOUR],
    ids=str,
)
def test_values_come_back_from_a_file_of_plain_data(value, tmp_path):
    torch.save({"value": to_data(value)}, tmp_path / "value.pt")
    again = from_data(torch.load(tmp_path / "value.pt", weights_only=True)["value"])
    assert again == value and type(again) is type(value)


def test_numbers_of_numpy_and_sequences_of_other_kinds_become_plain():
    given = [np.float32(0.5), np.int64(3), np.bool_(True), Twice([1]), range(2), torch.device("cpu")]
    assert to_data(given) == [0.5, 3, True, [1], [0, 1], "cpu"]
    assert type(to_data(np.float64(0.5))) is float  # which is a float, too
    array = np.array([[1, 2]], dtype=np.int16)
    assert np.array_equal(from_data(to_data(array)), array) and from_data(to_data(array)).dtype == np.int16


def test_a_core_is_stored_with_the_defaults_of_today():
    data = to_data(partial(cores.lstm, hidden_size=8))
    assert data["call"] == "rl.cores.lstm.lstm"
    assert data["kwargs"] == {
        "hidden_size": 8,
        "num_layers": 1,
        "dropout": 0.0,
        "memory_span": None,
        "forget_bias": None,
    }
    again = from_data(data)
    assert again.func is cores.lstm and again.keywords == data["kwargs"]


def test_arguments_are_known_by_name_and_with_their_defaults():
    arguments = describe(RecurrentPPO, (OBS, FOUR, 8), {"clip": 0.3, "seed": 5})["arguments"]
    assert (arguments["layer_size"], arguments["clip"], arguments["seed"]) == (8, 0.3, 5)
    assert (arguments["gamma"], arguments["num_steps"], arguments["action_names"]) == (0.99, 128, None)
    assert arguments["core"]["call"] == "rl.cores.gru.gru"
    assert "gamma" not in describe(RecurrentPPO, (10, 4), {})["arguments"]  # of sizes other defaults follow
    assert describe(RecurrentPPO, (OBS, FOUR), {"core": cores.mlp}, ["core"])["arguments"].keys().isdisjoint(["core"])


def test_classes_of_others_are_asked_for_no_more_than_they_take():
    """What comes behind ``*args`` is known by the names of the constructor that it is passed on to."""
    assert describe(PassesOn, (3, OBS, FOUR, 8), {})["arguments"].keys() == {
        *("size", "observation_space", "action_space", "layer_size")
    }
    assert describe(Chooses, (OBS, FOUR), {})["arguments"].keys() == {"observation_space", "action_space", "size"}
    assert takes(PassesOn, "num_envs") and takes(PassesOn, "size")
    assert not takes(Chooses, "num_envs")


def core_of_the_test(input_size):
    return cores.mlp(input_size)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: lambda size: cores.gru(size), "<lambda>"),
        (lambda: partial(cores.gru, inner=lambda size: size), "<lambda>"),
        (lambda: type("Local", (), {}), "Local"),
        (lambda: OBS.sample, "a method"),
        (lambda: object(), "a object"),
        (lambda: core_of_the_test, "core_of_the_test"),
    ],
    ids=["lambda", "inside", "local", "method", "object", "main"],
)
def test_what_cannot_be_imported_by_name_is_said_when_it_is_asked_for(make, name, monkeypatch):
    monkeypatch.setattr(core_of_the_test, "__module__", "__main__")
    construction = describe(RecurrentPPO, (OBS, FOUR), {"core": make()})
    with pytest.raises(
        ValueError, match=f"core=.*{name}: it cannot be imported by name, .* load_agent.path, core=.*by hand"
    ):
        arguments_from_data(construction, (), {})
    assert arguments_from_data(construction, (), {"core": cores.mlp})["core"] is cores.mlp


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("os.system", UntrustedError, "os.system is code from outside this project"),
        (
            "rl.checkpoint.save_checkpoint",
            UntrustedError,
            "names rl.checkpoint.save_checkpoint where something of rl.cores or rl.encoders",
        ),
        ("gymnasium.make", UntrustedError, "names gymnasium.make where something of rl.cores or rl.encoders should be"),
        ("envs.t_maze.TMaze", UntrustedError, "where something of rl.cores or rl.encoders should be"),
        ("rl.cores.lstm.partial", ValueError, "rl.cores.lstm.partial"),
        ("rl.cores.lstm.torch", ValueError, "rl.cores.lstm.torch"),
        ("rl.cores.lstm.SATURATE", ValueError, "rl.cores.lstm.SATURATE"),
        ("rl.cores.none.none", ValueError, "which cannot be imported here"),
    ],
)
def test_a_checkpoint_names_nothing_but_cores_and_encoders(path, error, sentence):
    with pytest.raises(error, match=sentence):
        import_code(path, PARTS, ())
    with pytest.raises(error, match=sentence):
        from_data({"call": path, "args": [], "kwargs": {}})


def test_code_of_a_package_that_is_not_trusted_is_not_even_imported(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stranger_of_tests.py").write_text("def core(size):\n    return size\n")
    with pytest.raises(UntrustedError, match="stranger_of_tests"):
        import_code("stranger_of_tests.core", PARTS, ())
    assert "stranger_of_tests" not in sys.modules
    assert import_code("stranger_of_tests.core", PARTS, ("stranger_of_tests",))(3) == 3


@pytest.mark.parametrize(
    "damaged", [{"x": 1}, {"space": {"box": [3]}}, {"call": "rl.cores.gru.gru"}, {"array": 3}, b"1"]
)
def test_damaged_arguments_are_told_in_a_sentence(damaged):
    with pytest.raises(
        ValueError, match=r"where an argument of the agent should be|clip: what the checkpoint says .* damaged"
    ):
        arguments_from_data({"agent": "x", "arguments": {"clip": damaged}}, (), {})


def test_an_agent_in_words():
    words = in_words(describe(RecurrentPPO, (OBS, FOUR, 8), {"core": partial(cores.lstm, hidden_size=16)}))
    assert words == (
        "RecurrentPPO(core=lstm(hidden_size=16, num_layers=1), layer_size=8), "
        "observations Box(-1.0, 1.0, (2,), float32), actions Discrete(4)"
    )
    assert in_words(None) == in_words({"arguments": 3}) == ""
