"""Environments as users write them, from the command line: they train, or one sentence says why not."""

import json
import os
import re
import sys
from pathlib import Path

import gymnasium
import pytest
import torch

ENVIRONMENTS = '''
import os
import time
import gymnasium
import numpy as np
import torch
from gymnasium import spaces

class Hint(gymnasium.Env):
    """The hint seen at t = 0 is to be named in step 3."""
    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.hint = 0, int(self.np_random.integers(2))
        return self.observe(), {}

    def observe(self):
        return np.array([self.hint if self.t == 0 else 0, self.t / 3], np.float32)

    def reward(self, action):
        return float(action == self.hint) if self.t == 3 else 0.0

    def step(self, action):
        self.t += 1
        return self.observe(), self.reward(action), self.t == 3, False, {}

class Broken(Hint):
    count, table = 0, None
    def reward(self, action):
        self.count += 1
        return self.table[action] if self.count > 10 else 0.0

class Array(Hint):
    def reward(self, action):
        return np.array([super().reward(action)])

class Own(Hint):
    """Has entries of its own in info, under names that mean something elsewhere."""
    def step(self, action):
        *result, _ = super().step(action)
        return *result, {"ignored": 3 if action else 0, "final_obs": "none", "list": [1] * self.t}

class Masked(Hint):
    action_space = spaces.Discrete(4)
    def info(self):
        return {"action_mask": np.array([1, 1, 0, 0], np.int8)}
    def reset(self, **options):
        return super().reset(**options)[0], self.info()
    def step(self, action):
        if action > 1:
            raise ValueError(f"illegal action {action}")
        return *super().step(action)[:4], self.info()

class Drawing(Hint):
    """Shows the hint beside a graph, of which no tensor can be made."""
    space = spaces.Graph(spaces.Box(0, 1, (2,)), None)
    observation_space = spaces.Dict(hint=Hint.observation_space, sketch=space)
    def observe(self):
        return {"hint": super().observe(), "sketch": spaces.GraphInstance(np.zeros((self.t, 2)), None, None)}

class Wandering(Hint):
    """Leaves the working folder, and turns gradients off, as simulators with a network of their own do."""
    def __init__(self):
        os.chdir("/")
        torch.set_grad_enabled(False)

class Hanging(Hint):
    count = 0
    def reward(self, action):
        self.count += 1
        if self.count > 10:
            time.sleep(3600)
        return 0.0

class Moody:
    """A core that fails."""
    def __init__(self, input_size):
        assert False, "no mood"

for kind in (Broken, Array, Own, Masked, Drawing, Wandering, Hanging):
    gymnasium.register(f"users/{kind.__name__}-v0", kind)
'''


@pytest.fixture
def module(tmp_path_factory, monkeypatch):
    """The name of a module of the user; the environments in it are named after it."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "module_of_a_user.py").write_text(ENVIRONMENTS)
    monkeypatch.syspath_prepend(folder)
    yield "module_of_a_user"
    sys.modules.pop("module_of_a_user", None)
    for id in [id for id in gymnasium.registry if id.startswith("users/")]:
        del gymnasium.registry[id]


def line_of(text):
    """The number of the first line with a text."""
    return next(number for number, line in enumerate(ENVIRONMENTS.splitlines(), 1) if text in line)


@pytest.fixture
def train(command, tiny, module):
    """``train(name, ...)`` on an environment of the user, with evaluations of two episodes."""

    def call(name, *arguments):
        chosen = "env=gymnasium", f"env.id={module}:users/{name}-v0", "env.vectorization_mode=sync"
        begun = () if "resume=run" in arguments else (*tiny, *chosen, "run_dir=run")
        return command("train", *begun, *arguments)

    return call


def test_a_fault_in_a_step_is_told_and_what_was_learned_is_saved(train):
    """Ten steps of each of two copies go well: two rollouts of eight steps."""
    ended = train("Broken", "total_steps=1000")
    assert ended.code == 1
    *_, last = ended.err.strip().splitlines()
    place = rf"\(.*/module_of_a_user.py, line {line_of('self.table[action]')}, in reward\)"
    assert re.fullmatch(
        r"train: module_of_a_user:users/Broken-v0 failed in step 11 of copy 0: TypeError: 'NoneType' object is not "
        rf"subscriptable {place}; saved up to step 16; go on with resume=.*/run; HYDRA_FULL_ERROR=1 shows the whole .*",
        last,
    )
    assert "Traceback" not in ended.err
    assert Path("run/checkpoints/last.pt").exists()


@pytest.mark.parametrize("name", ["Array", "Own", "Masked"])
def test_what_users_bring_trains(train, name):
    """A reward in an array; entries of info with names of ours; illegal actions, which the environment refuses."""
    ended = train(name, "total_steps=200")
    assert ended.code == 0, ended.err
    assert json.loads(Path("run/result.json").read_text())["env_steps"] == 200


def test_what_is_no_array_and_is_left_out_is_not_saved_either(train):
    ended = train("Drawing", "agent.ignore_leaves=[sketch]", "evaluate_every=8")
    assert ended.code == 0, ended.err
    assert train("Drawing", "resume=run", "total_steps=16", "trust=[module_of_a_user]").code == 0


def test_what_an_environment_does_to_its_process_does_no_harm(command, train, cwd):
    try:
        assert train("Wandering").code == 0
        os.chdir(cwd)
        ended = train("Wandering", "init_from=run", "run_dir=next")
        assert ended.code == 0, ended.err
        os.chdir(cwd)
        ended = command("evaluate", "run=next", "episodes=2", "trust=[module_of_a_user]")
        assert ended.code == 0 and (cwd / "next/evaluation.json").exists(), ended.err
    finally:
        torch.set_grad_enabled(True)


def test_a_mask_that_is_left_alone_lets_illegal_actions_through(train):
    ended = train("Masked", "env.action_mask=ignore", "total_steps=200")
    assert ended.code == 1 and "ValueError: illegal action" in ended.err


def test_a_step_that_hangs_ends_the_run(train):
    ended = train("Hanging", "total_steps=1000", "env_timeout=0.3")
    assert ended.code == 1
    assert "step 11 of copy 0: StepTimeout: it took longer than env_timeout=0.3 s (" in ended.err
    assert f"module_of_a_user.py, line {line_of('sleep(3600)')}, in reward); saved up to step 16; go on" in ended.err
    assert train("Hanging", "env_timeout=0", "overwrite=true").err.endswith(
        "env_timeout=0.0: it must be a number of at least 0.001\n"
    )


def test_a_core_of_the_user_that_fails_is_told_too(train):
    ended = train("Array", "agent.core._target_=module_of_a_user.Moody", "~agent.core.hidden_size")
    assert ended.code == 1
    place = f"module_of_a_user.py, line {line_of('no mood')}, in __init__); HYDRA_FULL_ERROR=1"
    assert "train: AssertionError: no mood (" in ended.err and place in ended.err
