"""Every file under ``conf/`` composes and runs; agents, cores and environments swap freely."""

from pathlib import Path

import gymnasium
import pytest
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf

import experiments.launch.build
from experiments import train
from experiments.launch.arguments import check_keys, rewrite_overrides
from experiments.launch.build import build
from experiments.launch.check import check_node
from experiments.launch.sentences import describe
from rl.training.trainer import Trainer

ROOT = Path(__file__).parents[1]


def names(folder):
    return sorted(path.stem for path in (ROOT / "conf" / folder).glob("*.yaml"))


AGENTS = [name for name in names("agent") if name != "population"]  # that one is made of the others
PRESETS = ("quick", "standard", "full", "production")  # sizes alone, for any agent, core and environment
CORES, ENVS = names("agent/core"), names("env")
EXPERIMENTS = [name for name in names("experiment") if name not in PRESETS]
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
AT_RUN_TIME = {"agent": ("num_envs", "num_steps", "total_steps", "seed", "device"), "core": ("input_size",)}
CONTINUOUS = ("brax", "mountain_car_no_velocity", "mujoco", "pendulum_no_velocity")
NEEDS = {  # a package of an extra, and what must be larger than SMALL
    "atari": ("ale_py",),
    "brax": ("brax",),
    "memory_gym": ("memory_gym",),
    "minigrid": ("minigrid",),
    "mujoco": ("mujoco",),
    "pettingzoo": ("mpe2", "num_envs=3"),
    "popgym": ("popgym",),
    "state_punishment": ("gymnasium", "num_envs=3"),
}
EXTRAS = {  # how names of experiments begin, and the packages that these need
    "atari": "ale_py",
    "brax": "brax",
    "memory_gym": "memory_gym",
    "minigrid": "minigrid",
    "mujoco": "mujoco",
    "popgym": "popgym",
}


def small(agent):
    """Overrides for one update of a small network."""
    own = QUANTILES if agent == "recurrent_iqn" else ("bptt=4", "num_minibatches=1", "epochs=1")
    return *SMALL, *(f"++agent.{option}" for option in own)


@pytest.fixture(autouse=True)
def two_evaluation_copies(monkeypatch):
    monkeypatch.setattr(experiments.launch.build, "EVALUATION_ENVS", 2)


@pytest.fixture
def composed(tmp_path):
    """``composed(override, ...)``: the configuration that ``experiments.train`` gets."""
    with initialize_config_module("conf", version_base="1.3"):

        def make(*overrides):
            config = compose("train", [*overrides, f"run_dir={tmp_path}"])
            check_keys(config, "train")
            return config

        yield make


def one_update(config, run_dir):
    """The agent after one rollout and one update."""
    parts = build(config)
    agent, envs, evaluation_envs, settings = parts.agent, parts.envs, parts.evaluation_envs, parts.settings
    trainer = Trainer(agent, envs, run_dir, settings.total_steps, settings.seed)
    trainer.obs = trainer.envs.reset(settings.seed)
    before = [parameter.detach().clone() for parameter in agent.network.parameters()]
    trainer.collect()
    agent.learn(trainer.obs)
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
    assert describe(raised.value, "train").endswith("use Discrete or MultiDiscrete (one axis)")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment(experiment, composed, tmp_path):
    """It starts at its own sizes, shrunk to one update of one epoch."""
    pytest.importorskip(next((EXTRAS[family] for family in EXTRAS if experiment.startswith(family)), "gymnasium"))
    config = composed(f"experiment={experiment}", "evaluate_every=null", "stop_at_threshold=false", "final_episodes=1")
    quantiles = {"bptt": 4, "learning_starts": 1, "learning_rate_schedule": "constant"}
    shrunk = quantiles if config.agent._target_.endswith("IQN") else {"epochs": 1}
    OmegaConf.set_struct(config, False)
    config.agent.update(shrunk)
    config.total_steps = config.num_envs * config.num_steps
    made = one_update(config, tmp_path)
    assert made.env_steps == config.total_steps


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_go_with_everything(preset, core, composed):
    """Each with each core, each with each environment, the agents in turn: it sets no key that one does not take."""
    first = PRESETS.index(preset) + CORES.index(core)
    for turn, env in list(enumerate(ENVS))[first % len(PRESETS) :: len(PRESETS)]:
        agent = AGENTS[(turn + CORES.index(core)) % len(AGENTS)]
        config = composed(f"experiment={preset}", f"agent={agent}", f"agent/core={core}", f"env={env}")
        node = OmegaConf.to_container(config.agent)
        chosen = (OmegaConf.load(ROOT / f"conf/{name}.yaml")._target_ for name in (f"agent/{agent}", f"env/{env}"))
        assert (node["_target_"], config.env._target_) == tuple(chosen)
        assert check_node(node, "agent", AT_RUN_TIME["agent"])["core"]["_target_"] == f"rl.cores.{core}"


@pytest.mark.parametrize("env", ENVS)
def test_presets_start(env, composed, tmp_path):
    """Networks of a preset's own sizes do one update: every preset, core, agent and environment once at least."""
    package, *_ = NEEDS.get(env, ("gymnasium",))
    pytest.importorskip(package)
    turn = ENVS.index(env)
    able = [agent for agent in AGENTS if agent != "recurrent_iqn" or env not in CONTINUOUS]
    agent, core, preset = able[turn % len(able)], CORES[turn % len(CORES)], PRESETS[turn % len(PRESETS)]
    chosen = f"experiment={preset}", f"agent={agent}", f"agent/core={core}", f"env={env}"
    one_update(composed(*chosen, *one_rollout(agent)), tmp_path)


@pytest.mark.parametrize("preset", PRESETS)
def test_quantile_networks_start_with_every_preset(preset, composed, tmp_path):
    config = composed(f"experiment={preset}", "agent=recurrent_iqn", *one_rollout("recurrent_iqn"))
    assert type(one_update(config, tmp_path)).__name__ == "RecurrentIQN"


def one_rollout(agent):
    """Overrides that shrink a preset to one update, but leave its network as it is."""
    own = ("learning_starts=1", "capacity=1") if agent == "recurrent_iqn" else ("epochs=1", "num_minibatches=1")
    return "num_envs=6", "num_steps=32", "evaluate_every=null", *(f"++agent.{option}" for option in own)


def test_command_line_before_preset_before_defaults(composed):
    """In whatever order the command line names them."""
    chosen = ["experiment=full", "agent=recurrent_iqn", "agent/core=mamba", "env=t_maze", "env.length=30"]
    chosen += ["num_envs=12", "agent.core.hidden_size=48", "agent.learning_rate=4e-4"]
    for order in (chosen, chosen[::-1], chosen[4:] + chosen[:4]):
        config = composed(*rewrite_overrides(order))
        agent = config.agent
        assert agent._target_.endswith("RecurrentIQN") and agent.core._target_ == "rl.cores.mamba"
        assert config.env._target_.endswith("TMaze") and config.env.length == 30
        assert (config.num_envs, agent.core.hidden_size, agent.learning_rate) == (12, 48, 4e-4)
        assert (config.total_steps, agent.layer_size, config.num_steps) == (5_000_000, 128, 64)  # of the preset
        assert (config.evaluate_episodes, config.threads) == (100, 1)  # defaults
    agent = composed("agent=recurrent_iqn").agent
    assert "learning_rate" not in agent and "hidden_size" not in agent.core


def test_sizes_grow_from_preset_to_preset(composed):
    configs = [composed(f"experiment={preset}") for preset in PRESETS]
    for sizes in (
        [config.total_steps for config in configs],
        [config.num_envs * config.num_steps for config in configs],
        [config.agent.core.hidden_size for config in configs],
    ):
        assert sizes == sorted(set(sizes))
    for config in configs:
        assert config.num_envs % 60 == 0  # worlds of 2, 3, 4, 5, 6 or 10 agents


@pytest.mark.parametrize("preset", PRESETS)
def test_rollouts_of_a_preset_can_be_cut(preset, composed):
    """At its own numbers of environments and steps, in worlds of several agents."""
    chosen = "agent=dual_head_recurrent_ppo", "env=state_punishment", "agent.core.hidden_size=4"
    parts = build(composed(f"experiment={preset}", *chosen))
    assert parts.envs.num_envs == parts.agent.num_envs == parts.config.num_envs >= 60
    parts.close()


@pytest.mark.parametrize(
    "mistyped, words",
    {
        "experiment=quik": "there is no experiment=quik; did you mean quick?",
        "totl_steps=8": "there is no key 'totl_steps'; did you mean total_steps",
        "agent.core.hidden_sise=8": "there is no key 'agent.core.hidden_sise'; did you mean hidden_size?",
        "agent.learning_rat=1": "there is no key 'agent.learning_rat'; did you mean learning_rate",
        "env.lenght=8": "there is no key 'env.lenght'; did you mean length?",
        "agent=population": "there is no key 'agent.core'",
    }.items(),
)
def test_mistyped_beside_a_preset(mistyped, words, composed):
    """One sentence; a population has no sizes of its own to set, so it is refused too."""
    with pytest.raises((HydraException, ValueError)) as raised:
        build(composed(*rewrite_overrides(["experiment=quick", "env=t_maze", mistyped])))
    assert words in describe(raised.value, "train")


@pytest.mark.parametrize("experiment", [*EXPERIMENTS, *PRESETS])
def test_experiment_header(experiment):
    lines = (ROOT / f"conf/experiment/{experiment}.yaml").read_text().splitlines()
    header = "\n".join(line for line in lines if line.startswith("#"))
    assert lines[0] == "# @package _global_"
    assert f"# python -m experiments.train experiment={experiment}" in header
    assert "Expected" in header


def nodes():
    """Every node with a ``_target_`` in ``conf/``: the file, the path inside it, the node, what comes at run time."""
    for path in sorted((ROOT / "conf").rglob("*.yaml")):
        content = OmegaConf.to_container(OmegaConf.load(path))
        if "_target_" in content:
            given = AT_RUN_TIME.get(path.parent.name, ("num_envs",))
            yield pytest.param(content, given, id=str(path.relative_to(ROOT)))


@pytest.mark.parametrize("node, given", list(nodes()))
def test_keys_stand_in_signatures(node, given):
    plain = {key: value for key, value in node.items() if key != "defaults"}
    assert check_node(plain, "node", given).items() >= plain.items()


def test_rows_of_the_learning_table(composed):
    """Every row names an experiment, and its overrides compose and build; those without any are tested above."""
    table = OmegaConf.load(ROOT / "conf/learning_table.yaml").table
    assert len(table) >= 10
    for row in table.values():
        assert row.experiment in EXPERIMENTS
    for experiment, *overrides in {(row.experiment, *row.overrides) for row in table.values() if "overrides" in row}:
        added = [f"++{override}" if "." in override.partition("=")[0] else override for override in overrides]
        build(composed(f"experiment={experiment}", *added))
