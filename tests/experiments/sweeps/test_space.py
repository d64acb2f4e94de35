"""The settings that a search varies: ranges and choices from YAML, and every wrong one in a sentence."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

import conf
from experiments.launch.build import SETTINGS
from experiments.launch.check import ConfigError
from experiments.sweeps.space import list_corners, read_space, write_override

optuna = pytest.importorskip("optuna")
SPACES = sorted(path.stem for path in (Path(conf.__file__).parent / "search").glob("*.yaml"))


def space_of(**search):
    return {each.key: each for each in read_space(OmegaConf.create(search))}


def test_ranges_and_choices():
    """A range is one of whole numbers if both of its ends are; null takes a setting out."""
    agent = {
        "clip": {"low": 0.1, "high": 0.4},
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "epochs": {"low": 2, "high": 8, "step": 2},
        "core": {"hidden_size": {"choices": [8, 16]}},
        "gamma": None,
    }
    space = space_of(num_envs={"low": 1, "high": 64, "log": True}, agent=agent)
    distributions = optuna.distributions
    assert {key: each.distribution for key, each in space.items()} == {
        "num_envs": distributions.IntDistribution(1, 64, log=True),
        "agent.clip": distributions.FloatDistribution(0.1, 0.4),
        "agent.learning_rate": distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "agent.epochs": distributions.IntDistribution(2, 8, step=2),
        "agent.core.hidden_size": distributions.CategoricalDistribution([8, 16]),
    }
    assert space["agent.epochs"].values == [2, 8] and space["agent.core.hidden_size"].values == [8, 16]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (0.3, "search.agent.clip=0.3: it must have low and high, or choices, or be null"),
        ({"low": 0.1}, "search.agent.clip.high is missing: a range that agent.clip has not yet needs low and high"),
        ({"low": "a", "high": 1}, "search.agent.clip.low='a': it must be a number"),
        ({"low": True, "high": 1}, "search.agent.clip.low=True: it must be a number"),
        ({"low": 0.1, "high": float("inf")}, "search.agent.clip.high=inf: it must be a number"),
        ({"low": 2, "high": 2}, "search.agent.clip.low=2: it must be below high=2"),
        ({"low": 0, "high": 2, "log": True}, "search.agent.clip.low=0: it must be above 0 with log=true"),
        ({"low": 1, "high": 2, "log": "no"}, "search.agent.clip.log='no' is not true or false"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "search.agent.clip.step=2: it must be left out with log=true"),
        ({"low": 1, "high": 9, "step": 9}, "search.agent.clip.step=9: it must be above 0 and at most 8"),
        ({"low": 1, "high": 9, "step": 0.5}, "search.agent.clip.step=0.5 is not a whole number or null"),
        ({"low": 1, "high": 9, "step": 3}, "search.agent.clip.step=3: it must lead from low=1 to high=9"),
        ({"low": 1, "hihg": 9}, "search.agent.clip: hihg does not belong to a range; there are high, log, low, step"),
        ({"choices": [1], "low": 9}, "search.agent.clip: low does not belong to a list of choices; there are choices"),
        ({"choices": []}, "search.agent.clip.choices=[]: it must be a list of one or more plain values"),
        ({"choices": [[1]]}, "search.agent.clip.choices=[[1]]: it must be a list of one or more plain values"),
    ],
)
def test_a_bad_range_is_told(part, words):
    with pytest.raises(ConfigError) as raised:
        space_of(agent={"clip": part})
    assert str(raised.value) == words


def test_nothing_to_vary_is_told():
    for search in (None, OmegaConf.create({"agent": {"clip": None}})):
        with pytest.raises(ConfigError, match=r"^search: there is nothing to vary"):
            read_space(search)


@pytest.mark.parametrize("key", sorted({*SETTINGS} - {"num_envs", "num_steps"}))
def test_what_makes_another_task_stays_the_same(key):
    with pytest.raises(ConfigError, match=rf"^search\.{key}: it is the same in all trials; what can be varied is"):
        space_of(**{key: {"low": 1, "high": 2}})


def test_what_another_process_wrote_down_is_in_range():
    space = space_of(num_envs={"choices": [2, 4]}, agent={"clip": {"low": 0.1, "high": 0.4}})
    clip, envs = space["agent.clip"], space["num_envs"]
    assert [clip.holds(value) for value in (0.1, 0.25, 0.4, 0.5, "x", None)] == [True, True, True, False, False, False]
    assert [envs.holds(value) for value in (2, 4, 3, "rm")] == [True, True, False, False]


@pytest.mark.parametrize(
    "value", [None, True, False, 3, 0.1, 1e-5, "joint", "null", "1", "a b", "${oc.env:HOME}", "a'b"]
)
def test_a_setting_is_read_back_as_it_was(value):
    parsed = OverridesParser.create().parse_override(write_override("agent.ratio", value))
    read = parsed.value()
    assert OmegaConf.to_container(OmegaConf.create({"key": read}), resolve=True)["key"] == value
    assert type(read) is type(value) or isinstance(value, str)


def test_every_value_is_tried_before_any_work():
    space = read_space(
        OmegaConf.create({"num_envs": {"choices": [1, 2, 3]}, "agent": {"clip": {"low": 0.1, "high": 1.0}}})
    )
    assert list_corners(space) == [
        ["num_envs=1", "agent.clip=0.1"],
        ["num_envs=2", "agent.clip=1.0"],
        ["num_envs=3", "agent.clip=0.1"],
    ]


@pytest.mark.parametrize("name", SPACES)
def test_spaces_that_come_along(name):
    path = Path(conf.__file__).parent / "search" / f"{name}.yaml"
    assert len(read_space(OmegaConf.load(path))) >= 4
    assert path.read_text().startswith("# ")
