"""From a fault to a sentence."""

from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from experiments.launch.sentences import describe

ROOT = Path(__file__).parents[3]


def test_errors_are_told_in_one_line():
    assert describe(ValueError("first\n   second "), "train") == "first second"
    assert describe(ValueError(), "train") == "ValueError"
    assert describe(KeyError("name"), "train") == "missing entry 'name'"
    for gone in (EOFError(), BrokenPipeError("pipe")):
        assert describe(gone, "train") == "a worker process of the environments has died"
    unknown = ValueError("Key 'totl_steps' is not in struct\n    full_key: totl_steps.x\n    object_type=dict")
    assert describe(unknown, "train") == "there is no key 'totl_steps.x'; did you mean total_steps or num_steps?"
    assert describe(ValueError("no such value\n    full_key: seed\n    object_type=dict"), "train") == "no such value"
    wrapped = InstantiationException("Error in call to target 'rl.agents.RecurrentPPO'")
    wrapped.__cause__ = ValueError("bptt=3: it must divide num_steps=4")
    assert describe(wrapped, "train") == "bptt=3: it must divide num_steps=4"
    plain = ValueError("the sentence")
    plain.__cause__ = OSError("what it was made of")
    assert describe(plain, "train") == "the sentence"


def test_files_and_keys_that_faults_name():
    assert describe(FileNotFoundError(2, "No such file", "x/y"), "train") == "x/y: No such file"
    assert describe(OSError("no space left"), "train") == "no space left"
    merge = OmegaConf.create({"a": {"b": 1}})
    with pytest.raises(OmegaConfBaseException) as raised:
        merge.merge_with({"a": {"b": {"c": {1, 2}}}})
    assert describe(raised.value, "train").startswith("a.b.c: ")


def test_a_working_folder_that_hydra_cannot_write_into(cwd, monkeypatch):
    (cwd / "a${b}").mkdir()
    monkeypatch.chdir(cwd / "a${b}")
    assert "${ in its name" in describe(InterpolationKeyError("Interpolation key 'b' not found"), "train")
