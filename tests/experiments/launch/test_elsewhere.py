"""Environments changed by overrides."""

import numpy as np
import pytest
from gymnasium import spaces
from omegaconf import OmegaConf

from experiments.launch.check import ConfigError
from experiments.launch.elsewhere import check_spaces, list_overrides, override_env

MAZE = {"_target_": "envs.t_maze.TMaze", "length": 10}


def test_overrides_as_they_are_written():
    given = OmegaConf.create(
        {"length": 3, "passive": False, "limit": None, "inner": {"deep": 1e-3}, "wrappers": ["a.B"]}
    )
    words = ["env.length=3", "env.passive=false", "env.limit=null", "env.inner.deep=0.001", "env.wrappers=['a.B']"]
    assert list_overrides(given) == words
    assert list_overrides(None) == list_overrides(OmegaConf.create({})) == []
    with pytest.raises(ConfigError, match="env=5: set its keys"):
        list_overrides(5)


def test_keys_are_changed_and_added_and_whole_environments_replaced():
    stored = OmegaConf.create({"env": MAZE, "seed": 1})
    changed = override_env(stored, OmegaConf.create({"length": 100, "passive": True}))
    assert changed == {"env": MAZE | {"length": 100, "passive": True}, "seed": 1}
    other = {"_target_": "envs.t_maze.TMaze", "passive": False}
    assert override_env(stored, OmegaConf.create(other)).env == other
    assert stored == {"env": MAZE, "seed": 1}
    with pytest.raises(ConfigError, match="no environment: it was made of a recording"):
        override_env(OmegaConf.create({"env": None}), OmegaConf.create({"length": 100}))


def test_spaces_that_differ_are_told_in_one_line():
    box, two, three = spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(2), spaces.Discrete(3)
    check_spaces((box, two), (spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(2)), ["env.x=1"])
    bounds = spaces.Box(np.arange(40.0).reshape(2, 20), np.full((2, 20), 50.0), dtype=np.float64)
    for there, what in (((bounds, two), "observations"), ((box, three), "actions")):
        with pytest.raises(ConfigError) as raised:
            check_spaces(there, (box, two), ["env.x=1", "env.y=2"])
        sentence = str(raised.value)
        assert sentence.startswith(f"env.x=1, env.y=2: the {what} there are ") and "\n" not in sentence
        assert sentence.endswith(f"those of the agent {(box, two)[what == 'actions']}")
