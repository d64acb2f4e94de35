"""What a command line may say."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.launch.arguments import check_keys, load_defaults, rewrite_overrides
from experiments.launch.check import ConfigError

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("agent.clip=0.1", "++agent.clip=0.1"),
        ("agent.core.hidden_size=3", "++agent.core.hidden_size=3"),
        ("seed=1.5", "seed=1.5"),  # a dot in the value
        ("agent/core=gru", "agent/core=gru"),
        ("hydra.job.name=x", "hydra.job.name=x"),
        ("+agent.clip=0.1", "+agent.clip=0.1"),
        ("~agent.clip", "~agent.clip"),
        ("agent.clip", "agent.clip"),  # no value
        ("agent@agent.members.first=recurrent_iqn", "agent@agent.members.first=recurrent_iqn"),
        ("--config-dir=my.conf", "--config-dir=my.conf"),
        ("resume=null", "resume=null"),
        ("resume=", "resume="),
    ],
)
def test_keys_below_the_top_may_be_added(argument, expected):
    assert list(rewrite_overrides([argument])) == [expected]


def test_there_must_be_a_run_to_resume(tmp_path, monkeypatch):
    """The last of several counts."""
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    there = f"resume={tmp_path}"
    for resumed, rewritten in ((there, there), (f"resume=~/{tmp_path.name}", there), ("resume=null", "resume=null")):
        arguments = ["resume=nowhere", resumed, "seed=2"]
        assert list(rewrite_overrides(arguments)) == ["resume=nowhere", rewritten, "seed=2"]
    with pytest.raises(ConfigError, match=r"^resume=nowhere: there is no run in that folder \(no config\.yaml\)$"):
        list(rewrite_overrides(arguments[:1]))
    assert list(rewrite_overrides(["resume=a b,c"], sweeping=True)) == ["resume='a b',c"]  # each run looks for its own


def test_keys_of_the_yaml_file_and_its_groups():
    keys = dict.fromkeys([key for key in load_defaults("record") if key not in ("defaults", "hydra")])
    check_keys(OmegaConf.create(keys | {"env": None}), "record")
    check_keys(OmegaConf.create(keys), "record")  # a group of which nothing need be chosen
    with pytest.raises(ConfigError, match=r"^there is no key 'seet'; did you mean seed\?$"):
        check_keys(OmegaConf.create(keys | {"seet": 1}), "record")
    del keys["greedy"]
    with pytest.raises(ConfigError, match=r"^greedy is missing$"):
        check_keys(OmegaConf.create(keys), "record")
    keys = dict.fromkeys([key for key in load_defaults("train") if key not in ("defaults", "hydra")])
    with pytest.raises(ConfigError, match=r"^agent is missing$"):
        check_keys(OmegaConf.create(keys | {"env": 1}), "train")
