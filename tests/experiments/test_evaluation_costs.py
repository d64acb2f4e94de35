"""What evaluations cost a run: how many environments, episodes and steps they have, and what is left out."""

import json
import math
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.t_maze import TMaze
from experiments import train
from experiments.launch.arguments import load_defaults
from experiments.tables.learning_text import format_table, summarise_row
from rl.training.trainer import Trainer


class Hint(gymnasium.Env):
    """Shows noise; an episode has 3 steps and pays 1 in each."""

    length = 3

    def __init__(self):
        self.observation_space, self.action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.time += 1
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 1.0, self.time >= self.length, False, {}


class Endless(Hint):
    length = 10**9


class SometimesEndless(Hint):
    """Of two seeds that follow each other one ends."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.length = 3 if seed % 2 else 10**9
        return super().reset(seed=seed, options=options)


class OnlyOne(Hint):
    """There can be one at a time, as with a game server that has a port."""

    alive = 0

    def __init__(self):
        super().__init__()
        if OnlyOne.alive:
            raise OSError(98, "Address already in use")
        OnlyOne.alive = 1

    def close(self):
        OnlyOne.alive = 0


class OneVector(TMaze):
    """Several in one process, which can exist only once and cannot be put back where it was."""

    open = 0

    def __init__(self, num_envs: int, length: int, device: str | None = None):
        super().__init__(num_envs, length, device=device)
        if OneVector.open:
            raise OSError(98, "Address already in use")
        OneVector.open = 1

    def __getattribute__(self, name):
        if name == "state_dict":
            raise AttributeError(name)
        return super().__getattribute__(name)

    def close(self, **options):
        OneVector.open = 0


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for kind in (Hint, Endless, SometimesEndless, OnlyOne):
        monkeypatch.setitem(
            gymnasium.registry, f"{kind.__name__}-v0", gymnasium.envs.registration.EnvSpec(f"{kind.__name__}-v0", kind)
        )


@pytest.fixture
def train_on(command, tiny, run_of, cwd):
    """``train_on("Hint-v0", ...)``: its ``result.json`` and what it said."""

    def call(id, *arguments):
        ended = command("train", "env=gymnasium", f"env.id={id}", *tiny, "run_dir=run", *arguments)
        assert (ended.code, ended.err) == (0, ""), ended.err
        return run_of("run").result, ended.out

    return call


# ------------------------------------------------------------------------------------------------------ without an end


@pytest.mark.parametrize(
    ("id", "episodes", "returns"), [("Endless-v0", 2, [20.0, 20.0]), ("SometimesEndless-v0", 3, [20.0, 3.0, 3.0])]
)
def test_an_environment_that_never_ends_is_evaluated_within_a_bound(train_on, id, episodes, returns):
    """The second row of the latter ends after 3 steps; of 4 episodes the first row plays one, for it never ends it."""
    arguments = "evaluate_every=8", "total_steps=16", "evaluation_max_steps=20", "seed=1", "evaluate_episodes=2"
    result, said = train_on(id, *arguments, f"final_episodes={len(returns) + (episodes == 3)}")
    assert result["eval_return_mean"] == pytest.approx(np.mean(returns))
    assert (result["eval_episodes"], result["eval_episodes_cut"]) == (len(returns), returns.count(20.0))
    assert said.count("had not ended after 20 steps and count with their return so far") == 1
    assert load_defaults("train").evaluation_max_steps == load_defaults("evaluate").max_steps == 10_000


def test_so_is_it_by_the_other_commands(train_on, command):
    train_on("Endless-v0", "evaluation_max_steps=5")
    ended = command("evaluate", "run=run", "episodes=2", "max_steps=20", "memory_zeroed=false")
    assert ended.code == 0 and "2 of 2 evaluation episodes had not ended after 20 steps" in ended.out
    assert [row["episodes_cut"] for row in json.loads(Path("run/evaluation.json").read_text())] == [2, 2]
    pytest.importorskip("minari")
    ended = command("record", "run=run", "episodes=2", "max_steps=20", "output=recorded")
    assert (ended.code, ended.err) == (
        1,
        "record: no episode has ended within max_steps=20 steps: raise it, or give max_steps=null for no bound\n",
    )


# ------------------------------------------------------------------------------------------- one that exists only once


def test_an_environment_that_may_exist_only_once(train_on, command):
    """It is trained, evaluated in between and in the end, and played by another command."""
    arguments = "num_envs=1", "total_steps=16", "evaluate_every=8", "evaluate_episodes=3", "final_episodes=3"
    result, said = train_on("OnlyOne-v0", *arguments)
    assert said.count("evaluations borrow the environments of training, whose open episodes are cut for it") == 1
    assert (result["eval_return_mean"], result["eval_episodes"], len(result["evaluations"])) == (3.0, 3, 2)
    ended = command("evaluate", "run=run", "episodes=3")
    assert (ended.code, ended.err, OnlyOne.alive) == (0, "", 0)
    ended = command("train", "resume=run", "total_steps=24")
    assert (ended.code, ended.err, OnlyOne.alive) == (0, "", 0)


def test_a_vector_that_may_exist_only_once(command, tiny, run_of, monkeypatch):
    monkeypatch.setattr(train, "_OneVector", OneVector, raising=False)
    line = "env=t_maze", "env.length=2", "env._target_=experiments.train._OneVector"
    shared = *line, *tiny, "evaluate_every=8", "evaluate_episodes=3", "total_steps=16", "run_dir=run"
    ended = command("train", *shared)
    assert ended.code == 1 and "Address already in use" in ended.err
    ended = command("train", *shared, "evaluation_envs=0")
    assert (ended.code, ended.err) == (0, "") and OneVector.open == 0
    assert len(run_of("run").result["evaluations"]) == 2


def test_environments_of_ours_have_copies_to_evaluate_in(train_maze, run_of):
    """Also if one alone trains: training does not depend on when it is evaluated."""
    shared = "num_envs=1", "total_steps=32", "agent.num_minibatches=1"
    train_maze(*shared, "evaluate_every=8", "evaluate_episodes=3", "run_dir=often")
    train_maze(*shared, "run_dir=never")
    assert run_of("often").network_equals(run_of("never"))
    assert len(run_of("often").result["evaluations"]) >= 1


# ---------------------------------------------------------------------------------------------- what may be left out


def test_the_final_evaluation_may_be_left_out(train_maze, run_of, monkeypatch):
    """Then the result holds null, and the command returns what training brought."""
    returned, original = [], train.run
    monkeypatch.setattr(train, "run", lambda config: returned.append(original(config)))
    monkeypatch.setattr(Trainer, "recent_return", 0.125)
    ended = train_maze("final_episodes=0", "threshold=-9", "run_dir=run")
    result = run_of("run").result
    names = "eval_return_mean", "eval_return_stderr", "memory_zeroed_return_mean", "steps_to_threshold"
    assert [result[name] for name in names] == [None] * 4
    assert (result["eval_episodes"], result["eval_episodes_cut"], result["member_return_means"]) == (0, 0, {})
    assert "no final evaluation, after 8 steps" in ended.out
    monkeypatch.setattr(Trainer, "recent_return", None)
    train_maze("final_episodes=0", "run_dir=other")
    assert returned[0] == 0.125 and math.isnan(returned[1])
    line = format_table({"row": summarise_row({}, [result | {"optimal_return": None}], [])}).splitlines()[2]
    assert "| - | - |" in line


def test_the_control_without_memory_may_be_left_out(train_maze, run_of):
    ended = train_maze("evaluate_memory_zeroed=false", "evaluate_every=8", "final_episodes=3", "run_dir=run")
    run = run_of("run")
    assert run.result["memory_zeroed_return_mean"] is None and run.result["eval_episodes"] == 3
    assert "eval/episodic_return" in run.tags
    assert not {"eval/episodic_return_memory_zeroed", "diagnostics/memory_gap"} & run.tags
    assert "memory zeroed" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "share"),
    [((), 0.25), (("evaluation_share=null",), None), (("threshold=9",), None), (("evaluation_envs=0",), None)],
)
def test_evaluations_take_a_quarter_of_the_time_unless_more_than_curves_depends_on_them(
    train_maze, run_of, monkeypatch, arguments, share
):
    shares, original = [], Trainer.__init__

    def noted(self, *given, **options):
        shares.append(options["evaluation_share"])
        original(self, *given, **options)

    monkeypatch.setattr(Trainer, "__init__", noted)
    ended = train_maze("evaluate_every=8", "evaluate_episodes=2", "total_steps=16", "run_dir=run", *arguments)
    assert shares == [share]
    seconds = run_of("run").result["evaluation_seconds"]
    assert 0 < seconds < run_of("run").result["wall_seconds"]
    assert f"evaluations before it took {seconds:.1f} s, {seconds / run_of('run').result['wall_seconds']:.0%} of" in (
        ended.out
    )
