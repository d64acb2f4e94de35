"""A mixed population in one world: trained, reported, stopped, resumed and evaluated by the commands."""

import json
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from experiments.train import average_by_member
from rl.agents import Population
from rl.training.evaluation import Evaluation
from rl.training.metrics import GLOSSARY

PPO = ("bptt=4", "num_minibatches=1", "epochs=1")
QUANTILES = ("bptt=2", "n_step=1", "batch_size=2", "learning_starts=1", "epsilon=0.1", "epsilon_min=0.1")
MEMBERS = {"first": PPO, "second": QUANTILES, "third": PPO}
WORLD = (
    "agent=population",
    "agent@agent.members.second=recurrent_iqn",
    "+agent@agent.members.third=recurrent_ppo_lstm",
    "agent.seats=[first,second,third]",
    "env=state_punishment",
    "env.size=4",
    "env.view_radius=1",
    "env.initial_resources=1",
    "env.actions=simple",
    "env.max_turns=4",
    "num_envs=6",
    "num_steps=4",
    "final_episodes=6",
    "evaluate_every=null",
    *(
        f"agent.members.{name}.{option}"
        for name, options in MEMBERS.items()
        for option in ("layer_size=4", "core.hidden_size=4", *options)
    ),
)


@pytest.fixture
def train(command, cwd):
    """``train(override, ...)``: the run folder of a training that ended well."""

    def run(folder, *overrides):
        ended = command("train", *overrides)
        assert (ended.code, ended.err) == (0, ""), ended.err
        return cwd / folder

    return run


def test_two_types_share_a_world(train, command):
    """Two kinds of PPO and a quantile network, one agent of each world each; every tag is explained."""
    folder = train("run", *WORLD, "total_steps=96", "evaluate_every=48", "evaluate_episodes=6", "run_dir=run")
    result = json.loads((folder / "result.json").read_text())
    assert (result["agent"], result["core"], result["env_steps"]) == ("Population", "gru, gru, lstm", 96)
    means = result["member_return_means"]
    assert list(means) == list(MEMBERS)
    assert sum(means.values()) / 3 == pytest.approx(result["eval_return_mean"])
    reader = EventAccumulator(str(folder))
    reader.Reload()
    tags = reader.Tags()["scalars"]
    assert {"losses/first/policy_loss", "losses/second/quantile_loss", "eval/third/episodic_return"} <= set(tags)
    assert {"Agent_2/individual_score", "Total/total_individual_score", "Global/average_punishment_level"} <= set(tags)
    own = [tag for tag in tags if tag.startswith(("charts/", "losses/", "eval/", "diagnostics/"))]
    plain = {tag: "/".join(part for part in tag.split("/") if part not in MEMBERS) for tag in own}
    assert all(any(fnmatch(tag, entry) for entry in GLOSSARY) for tag in plain.values()), plain

    ended = command("evaluate", "run=run", "episodes=6")
    assert (ended.code, ended.err) == (0, ""), ended.err
    assert "Population after 96 steps" in ended.out


def test_returns_of_members_by_hand():
    """Two worlds of three seats: rows 0, 2, 3 and 5 are played by the first member."""
    population = object.__new__(Population)
    population.seats, population.members = ["first", "second", "first"], {"first": None, "second": None}
    rows = np.array([5, 4, 3, 2, 1, 0, 4])
    returns = np.array([1.0, 10.0, 2.0, 3.0, 20.0, 6.0, 60.0])
    assert average_by_member(population, Evaluation(returns, returns, rows)) == {"first": 3.0, "second": 30.0}
    assert average_by_member("another agent", Evaluation(returns, returns, rows)) == {}


def test_a_stopped_population_goes_on_exactly(train):
    whole = train("whole", *WORLD, "total_steps=96", "run_dir=whole")
    train("parts", *WORLD, "total_steps=48", "run_dir=parts")
    parts = train("parts", "resume=parts", "total_steps=96")
    kept = [torch.load(folder / "checkpoints/last.pt", weights_only=True)["agent"] for folder in (whole, parts)]
    for name in MEMBERS:
        first, second = (agent[name]["network"] for agent in kept)
        assert first.keys() == second.keys() and all(torch.equal(leaf, second[key]) for key, leaf in first.items())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("agent.members.first.learning_rte=1", "there is no key 'agent.members.first.learning_rte'; did you mean"),
        ("agent.members.first.seed=3", "agent.members.first.seed is set by the command itself"),
        ("agent.members.first.bptt=long", "agent.members.first.bptt='long' is not a whole number or null"),
        ("agent.seats=[first,second]", "agent.seats has 2 names, but a world of this environment has 3 agents"),
        ("agent.seats=[]", "agent.seats has 0 names, but a world of this environment has 3 agents"),
        ("init_from=run", "init_from=run: Population has no single network to begin with"),
        ("agent.seats=[first,second,second]", "must name every member, and no other: there are first, second, third"),
        ("num_envs=4", "num_envs=4: it must be a multiple of num_agents=3"),
        ("agent@agent.members.fourth=recurrent_iqn", "Could not override 'agent@agent.members.fourth'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(command, override, message):
    ended = command("train", *WORLD, "total_steps=24", override)
    assert ended.code != 0 and message in ended.err and len(ended.err.strip().splitlines()) == 1, ended.err
