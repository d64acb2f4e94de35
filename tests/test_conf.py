"""Every file under ``conf/`` composes and runs; agents, cores and environments swap freely."""

import importlib
import tomllib
from pathlib import Path

import gymnasium
import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf

import experiments.build
from experiments import train
from experiments.build import build
from experiments.config import check_node
from experiments.launch import check_keys, sentence
from rl.trainer import Trainer

ROOT = Path(__file__).parents[1]


def names(folder):
    return sorted(path.stem for path in (ROOT / "conf" / folder).glob("*.yaml"))


AGENTS = [name for name in names("agent") if name != "population"]  # that one is made of the others
CORES, ENVS, EXPERIMENTS = names("agent/core"), names("env"), names("experiment")
SMALL = (
    "num_envs=2",
    "num_steps=4",
    "total_steps=8",
    "evaluate_every=null",
    "final_episodes=1",
    "++agent.layer_size=4",
    "++agent.core.hidden_size=4",
)
QUANTILES = ("bptt=2", "burn_in=0", "n_step=1", "batch_size=2", "learning_starts=1")
CONTINUOUS = ("mountain_car_no_velocity", "pendulum_no_velocity")
NEEDS = {  # a package of an extra, and what must be larger than SMALL
    "pettingzoo": ("mpe2", "num_envs=3"),
    "state_punishment": ("gymnasium", "num_envs=3"),
}


def small(agent):
    """Overrides for one update of a small network."""
    own = QUANTILES if agent == "recurrent_iqn" else ("bptt=4", "num_minibatches=1", "epochs=1")
    return *SMALL, *(f"++agent.{option}" for option in own)


@pytest.fixture(autouse=True)
def two_evaluation_copies(monkeypatch):
    monkeypatch.setattr(experiments.build, "EVALUATION_ENVS", 2)


@pytest.fixture
def composed(tmp_path):
    """``composed(override, ...)``: the configuration that ``experiments.train`` gets."""
    with initialize_config_module("conf", version_base="1.3"):

        def make(*overrides):
            output = f"hydra.runtime.output_dir={tmp_path}"
            config = compose("train", [*overrides, output], return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            del config.hydra
            check_keys(config, "train")
            return config

        yield make


def one_update(config, run_dir):
    """The agent after one rollout and one update."""
    parts = build(config)
    agent, envs, evaluation_envs, settings = parts.agent, parts.envs, parts.evaluation_envs, parts.settings
    trainer = Trainer(agent, envs, run_dir, settings["total_steps"], settings["seed"])
    trainer.obs = trainer.envs.reset(settings["seed"])
    before = [parameter.detach().clone() for parameter in agent.network.parameters()]
    trainer.collect()
    agent.train_step(trainer.obs)
    changed = [not now.equal(then) for now, then in zip(agent.network.parameters(), before, strict=True)]
    assert any(changed)
    envs.close()
    evaluation_envs.close()
    return agent


def test_nothing_is_missing():
    """The groups have the members that the README names; the rest of this module goes through what it finds."""
    assert {"recurrent_ppo_lstm", "dual_head_recurrent_ppo", "recurrent_iqn"} <= set(AGENTS)
    assert {"mlp", "rnn", "gru", "lstm"} <= set(CORES)
    tasks = {name for name in gymnasium.registry if name.startswith("RecurrentPPO/")}
    targets = {OmegaConf.load(ROOT / f"conf/env/{name}.yaml")._target_.rpartition(".")[2] for name in ENVS}
    assert {f"RecurrentPPO/{target}-v0" for target in targets} >= tasks
    assert {"t_maze_10", "cartpole_no_velocity"} <= set(EXPERIMENTS)


@pytest.mark.parametrize("env", ENVS)
def test_every_environment(env, composed, tmp_path):
    """A whole run of the command, from its configuration to its result."""
    package, *larger = NEEDS.get(env, ("gymnasium",))
    pytest.importorskip(package)
    able = [agent for agent in AGENTS if agent != "recurrent_iqn" or env not in CONTINUOUS]
    agent, core = able[ENVS.index(env) % len(able)], CORES[ENVS.index(env) % len(CORES)]
    mean = train.run(composed(f"env={env}", f"agent={agent}", f"agent/core={core}", *small(agent), *larger))
    assert mean == mean  # not NaN
    assert (tmp_path / "result.json").is_file() and (tmp_path / "checkpoints/last.pt").is_file()


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("env", ["pendulum_no_velocity", "repeat_previous", "witness_vote"])
def test_swapping(agent, core, env, composed, tmp_path):
    """Continuous, discrete and two-branched actions, each with every agent and every core."""
    if agent == "recurrent_iqn" and env in CONTINUOUS:
        pytest.skip("no quantile network has continuous actions")
    config = composed(f"agent={agent}", f"agent/core={core}", f"env={env}", *small(agent))
    made = one_update(config, tmp_path)
    assert type(made).__name__ == config.agent._target_.rpartition(".")[2]
    windows, spaces = {"keys", "values", "age"}, {"conv", "ssm"}
    special = {"mlp": set(), "lstm": {"h", "c"}, "attention": windows, "mamba": spaces, "jamba": windows | spaces}
    leaves = special.get(core, {"h"})
    assert set(made.actor.state) == leaves


@pytest.mark.parametrize("env", ENVS)
def test_quantile_networks_take_every_environment_with_discrete_actions(env, composed, tmp_path):
    """And say in one sentence that they do not take the others."""
    package, *larger = NEEDS.get(env, ("gymnasium",))
    pytest.importorskip(package)
    config = composed(f"env={env}", "agent=recurrent_iqn", *small("recurrent_iqn"), *larger)
    if env not in CONTINUOUS:
        one_update(config, tmp_path)
        return
    with pytest.raises(HydraException) as raised:
        build(config)
    assert sentence(raised.value, "train").endswith("use Discrete or MultiDiscrete (one axis)")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment(experiment, composed, tmp_path):
    """It starts at its own sizes, shrunk to one update of one epoch."""
    config = composed(f"experiment={experiment}", "evaluate_every=null", "final_episodes=1")
    quantiles = {"bptt": 4, "learning_starts": 1, "anneal_learning_rate": False}
    shrunk = quantiles if config.agent._target_.endswith("IQN") else {"epochs": 1}
    OmegaConf.set_struct(config, False)
    config.agent.update(shrunk)
    config.total_steps = config.num_envs * config.num_steps
    made = one_update(config, tmp_path)
    assert made.env_steps == config.total_steps


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_header(experiment):
    lines = (ROOT / f"conf/experiment/{experiment}.yaml").read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert lines[0] == "# @package _global_"
    assert f"# python -m experiments.train experiment={experiment}" in header
    assert "Expected" in header


def nodes():
    """Every node with a ``_target_`` in ``conf/``: the file, the path inside it, the node, what comes at run time."""
    given = {"agent": ("num_envs", "num_steps", "total_steps", "seed", "device"), "core": ("input_size",)}
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(path))
        if "_target_" in content:
            yield pytest.param(content, given.get(path.parent.name, ("num_envs",)), id=str(path.relative_to(ROOT)))


@pytest.mark.parametrize("node, given", list(nodes()))
def test_keys_stand_in_signatures(node, given):
    plain = {key: value for key, value in node.items() if key != "defaults"}
    assert check_node(plain, "node", given).items() >= plain.items()


def test_scripts_can_be_called():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    folder = ROOT / "experiments"
    sources = [path.relative_to(folder) for path in folder.rglob("*.py") if "def main()" in path.read_text()]
    commands = {".".join(path.with_suffix("").parts) for path in sources}
    assert {target.split(":")[0].removeprefix("experiments.") for target in scripts.values()} == commands
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_rows_of_the_learning_table(composed):
    """Every row names an experiment, and its overrides compose and build; those without any are tested above."""
    table = OmegaConf.load(ROOT / "conf/learning_table.yaml").table
    assert len(table) >= 10
    for row in table.values():
        assert row.experiment in EXPERIMENTS
    for experiment, *overrides in {(row.experiment, *row.overrides) for row in table.values() if "overrides" in row}:
        added = [f"++{override}" if "." in override.partition("=")[0] else override for override in overrides]
        build(composed(f"experiment={experiment}", *added))
