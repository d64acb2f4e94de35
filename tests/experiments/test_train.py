"""``python -m experiments.train``: what a run leaves behind, sweeps, the network of another run."""

import inspect
import re
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from envs.t_maze import TMaze
from experiments import train
from experiments.launch.evaluations import Evaluations
from rl.checkpoint import as_arrays
from rl.shards import ALONE
from rl.training.evaluation import Evaluation
from rl.training.metrics import GLOSSARY
from rl.training.trainer import Trainer

ROLLOUT = 8  # steps in an update of a tiny run
DOCUMENTED = {
    *("agent", "core", "env", "seed", "parameters", "env_steps", "wall_seconds", "steps_per_second"),
    *("train_return_mean", "eval_return_mean", "eval_return_stderr", "eval_episodes", "memory_zeroed_return_mean"),
}


@pytest.fixture
def finished(train_maze, cwd):
    """Forty updates, so that episodes end, with two evaluations."""
    train_maze("total_steps=320", "evaluate_every=160", "evaluate_episodes=4", "threshold=-9", "run_dir=run")
    return cwd / "run"


def test_run_folder(finished, run_of):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    events_files = {name for name in names if name.startswith("events.out.tfevents.")}
    assert events_files
    checkpoints = {"checkpoints/last.pt", "checkpoints/best.pt"}
    assert names - events_files == {"config.yaml", "train.log", "result.json", "card.md", *checkpoints}

    config = OmegaConf.load(finished / "config.yaml")
    wrappers = {"frame_skip": 1, "frame_stack": 1, "scale_rewards": 1.0, "clip_rewards": None}
    own = {"length": 2, "passive": True, "device": None, "render_mode": None}  # defaults too
    assert config.env == {"_target_": "envs.t_maze.TMaze", **own, **wrappers}
    assert (config.seed, config.total_steps, config.agent.bptt) == (1, 320, 4)

    lines = (finished / "train.log").read_text().splitlines()
    assert "RecurrentPPOLSTM" in lines[0] and "run" in lines[0]
    assert lines[1:3] == ["observation 'obs': vector of 4, as it is", "actions: one of 3"]
    assert lines[3].startswith("rollout: ")
    assert [line.split()[0] for line in lines[4:-1]] == [str(step) for step in range(32, 321, 32)]
    assert lines[-1].startswith("return ") and "after 320 steps" in lines[-1]

    content = run_of(finished).checkpoint
    assert content["agent"]["env_steps"] == 320 and content["agent"]["updates"] == 40


def test_result(finished, run_of):
    found = run_of(finished).result
    assert found.keys() >= DOCUMENTED
    assert (found["agent"], found["core"], found["env"]) == ("RecurrentPPOLSTM", "lstm", "TMaze")
    assert (found["seed"], found["env_steps"], found["total_steps"], found["eval_episodes"]) == (1, 320, 320, 2)
    assert found["threads"] == 1
    weights = run_of(finished).checkpoint["agent"]["network"]
    assert found["parameters"] == sum(leaf.numel() for leaf in weights.values())
    assert 0 < found["training_seconds"] < found["wall_seconds"]
    assert found["steps_per_second"] == pytest.approx(320 / found["training_seconds"])
    returns = "train_return_mean", "eval_return_mean", "memory_zeroed_return_mean"
    assert all(-3 <= found[name] <= 1 for name in returns) and found["eval_return_stderr"] >= 0
    assert (found["optimal_return"], found["memoryless_return"]) == (1.0, 0.5)
    assert [point["env_steps"] for point in found["evaluations"]] == [160, 320]
    assert found["threshold"] == -9 and found["steps_to_threshold"] == 160
    assert 0 < found["seconds_to_threshold"] < found["training_seconds"]


def test_curves(finished, run_of):
    reader = run_of(finished).events
    tags = [tag for tag in reader.Tags()["scalars"] if not tag.startswith("hparam/")]
    assert all(any(fnmatch(tag, known) for known in GLOSSARY) for tag in tags), tags
    elsewhere = {"losses/entropy_*", "losses/teacher_kl", "losses/recall_loss", "hparam/*"}
    elsewhere |= {"charts/epsilon", "losses/quantile_loss", "losses/q_mean"}
    elsewhere |= {"diagnostics/gradient_share_older_than_*"}  # stands for several
    elsewhere |= {"diagnostics/dead_features"}  # of an encoder with a layer
    assert "diagnostics/gradient_share_older_than_1" in tags
    assert {tag for tag in set(GLOSSARY) - set(tags) if not tag.startswith("imitation/")} == elsewhere
    for tag in ("losses/policy_loss", "charts/SPS", "diagnostics/ratio_error"):
        assert [point.step for point in reader.Scalars(tag)] == list(range(ROLLOUT, 321, ROLLOUT))
    assert [point.step for point in reader.Scalars("eval/episodic_return")] == [160, 320]
    recorded = [point["return"] for point in run_of(finished).result["evaluations"]]
    assert [point.value for point in reader.Scalars("eval/episodic_return")] == pytest.approx(recorded)


def test_configuration_in_tensorboard(finished, run_of):
    reader = run_of(finished).events
    text = reader.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    config = OmegaConf.load(finished / "config.yaml")
    stored = OmegaConf.create(re.search(r"```yaml\n(.*)```", text, re.DOTALL)[1])
    assert stored == OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    content = HParamsPluginData.FromString(reader.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    table = content.session_start_info.hparams
    assert table["agent.core.hidden_size"].number_value == 4
    assert table["env._target_"].string_value == "envs.t_maze.TMaze"
    assert run_of(finished).values("hparam/eval_return_mean") == pytest.approx(
        [run_of(finished).result["eval_return_mean"]]
    )


def test_stop_at_threshold(train_maze, cwd, run_of):
    sizes = "total_steps=320", "evaluate_every=160", "evaluate_episodes=4", "run_dir=run"
    train_maze(*sizes, "threshold=-9", "stop_at_threshold=true")
    assert run_of(cwd / "run").result["env_steps"] == 160
    train_maze(*sizes[:-1], "threshold=9", "stop_at_threshold=true", "run_dir=other")
    found = run_of(cwd / "other").result
    assert (found["env_steps"], found["steps_to_threshold"], found["seconds_to_threshold"]) == (320, None, None)


def test_the_last_evaluation_reaches_the_threshold_too(train_maze, run_of):
    """A return that is exactly the threshold is enough."""
    train_maze("final_episodes=20", "run_dir=run")
    mean = run_of("run").result["eval_return_mean"]
    train_maze("final_episodes=20", f"threshold={mean}", "run_dir=other")
    found = run_of("other").result
    assert (found["eval_return_mean"], found["steps_to_threshold"], found["evaluations"]) == (mean, 8, [])


def test_every_setting_arrives(train_maze, monkeypatch, cwd):
    """At the trainer, and at the evaluations between updates and at the end, whose seeds were not seen before."""
    noted, evaluations = {}, []

    class Noted(Trainer):
        def __init__(self, *arguments, **options):
            noted.update(inspect.signature(Trainer).bind(*arguments, **options).arguments)
            super().__init__(*arguments, **options)

    class NotedEvaluations(Evaluations):
        def play(self, episodes, seed, name):
            evaluations.append((self.envs, episodes, seed))
            return super().play(episodes, seed, name)

    monkeypatch.setattr(train, "Trainer", Noted)
    monkeypatch.setattr(train, "Evaluations", NotedEvaluations)
    sizes = "seed=5", "total_steps=16", "evaluate_every=8", "evaluate_episodes=3", "final_episodes=7"
    try:
        train_maze(
            *sizes,
            "threshold=9",
            "stop_at_threshold=true",
            "patience=4",
            "min_delta=0.5",
            "max_seconds=600",
            "checkpoint_every=24",
            "threads=2",
            "env_timeout=9",
            "run_dir=run",
        )
    finally:
        torch.set_num_threads(1)
    agent, envs, _ = (noted.pop(name) for name in ("agent", "envs", "evaluate"))
    options = {"seed": 5, "total_steps": 16, "evaluate_every": 8, "threshold": 9.0, "stop_at_threshold": True}
    options |= {"evaluation_share": None, "lends_envs": False, "patience": 4, "min_delta": 0.5, "max_seconds": 600.0}
    options |= {"run_dir": cwd / "run", "checkpoint_every": 24, "threads": 2, "env_timeout": 9.0, "shards": ALONE}
    assert noted == options
    assert agent.env_steps == 16 and envs.num_envs == 2
    (playground,) = {envs for envs, _, _ in evaluations}
    assert playground is not envs
    assert [rest for _, *rest in evaluations] == [[3, 5], [3, 5], [7, 1005]]


def test_the_result_tells_evaluations_apart(train_maze, monkeypatch, run_of):
    """With memory 1 and 3, so mean 2 and standard error 1; without it 0 and 1; 1/8 in training."""

    def play(*_):
        return tuple(Evaluation(np.array(returns), np.ones(2), np.arange(2)) for returns in ([1.0, 3.0], [0.0, 1.0]))

    monkeypatch.setattr(Evaluations, "play", play)
    monkeypatch.setattr(Trainer, "recent_return", 0.125)
    train_maze("threshold=2", "run_dir=run")
    found = run_of("run").result
    names = "eval_return_mean", "eval_return_stderr", "eval_episodes", "memory_zeroed_return_mean", "train_return_mean"
    assert [found[name] for name in names] == [2.0, 1.0, 2, 0.5, 0.125]
    assert found["steps_to_threshold"] == 8 and found["member_return_means"] == {}


def test_seeds(train_maze, cwd, run_of):
    """The seed alone decides a run."""
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        train_maze("total_steps=24", f"seed={seed}", f"run_dir={name}")
    a, b, c = (run_of(cwd / name).values("losses/value_loss") for name in "abc")
    assert a == b != c


def test_cfg_job(command):
    """``--cfg job`` prints what would run and runs nothing."""
    ended = command("train", "agent/core=gru", "env=t_maze", "env.length=7", "agent.clip=0.1", "--cfg", "job")
    assert ended.code == 0 and ended.err == ""
    config = OmegaConf.create(ended.out)
    assert config.agent.core._target_ == "rl.cores.gru"
    assert (config.env.length, config.agent.clip) == (7, 0.1)


def test_the_last_observation_belongs_to_the_state(train_maze, cwd, run_of):
    """A checkpoint holds what a seeded environment needs to go on: its state, and what it shows."""
    train_maze("total_steps=40", "run_dir=run")
    content = run_of(cwd / "run").checkpoint
    env = TMaze(2, length=2)
    env.reset(seed=5)
    env.load_state_dict(as_arrays(content["envs"]))
    np.testing.assert_array_equal(env._observe(), content["obs"])


def test_sweep(command, tiny, cwd, run_of):
    choices = "agent=recurrent_ppo_lstm,dual_head_recurrent_ppo", "seed=1,2"
    ended = command("train", "--multirun", *choices, "env=t_maze", *tiny, "hydra.sweep.dir=sweep")
    assert ended.code == 0, ended.err
    results = [run_of(path.parent).result for path in (cwd / "sweep").glob("*/result.json")]
    assert len(results) == 4
    found = {(result["agent"], result["seed"]) for result in results}
    assert found == {(agent, seed) for agent in ("RecurrentPPOLSTM", "DualHeadRecurrentPPO") for seed in (1, 2)}
    configs = [OmegaConf.load(path) for path in (cwd / "sweep").glob("*/config.yaml")]
    assert sorted(config.seed for config in configs) == [1, 1, 2, 2]


@pytest.mark.slow
def test_a_failing_job_does_not_stop_a_sweep(command, tiny, cwd, run_of):
    ended = command("train", "-m", "env=t_maze", *tiny, "seed=1,-1,2", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    assert "'seed=-1'" in ended.err  # which job
    fault = "seed=-1: it must be a number from 0 to 2147483648"
    assert ended.err.startswith(f"job 1 failed: {fault}; the other jobs go on\n")
    assert ended.err.endswith(f"train: {fault}; jobs that failed: 1; jobs done: 0, 2\n")
    assert "Traceback" not in ended.err
    seeds = [run_of(path.parent).result["seed"] for path in (cwd / "sweep").glob("*/result.json")]
    assert sorted(seeds) == [1, 2]


def test_a_teacher_is_followed_and_resumed(train_maze, command, cwd, run_of):
    train_maze("run_dir=first")
    pupil = "init_from=first", "agent.teacher_kl=0.5", "total_steps=24", "run_dir=second"
    train_maze(*pupil)
    kl = run_of(cwd / "second").values("losses/teacher_kl")
    assert len(kl) > 1 and all(0 <= value < 1 for value in kl)
    teacher = run_of(cwd / "second").checkpoint["agent"]["teacher"]["network"]
    assert all(torch.equal(leaf, teacher[name]) for name, leaf in run_of(cwd / "first").network.items())
    seen = run_of(cwd / "second").steps("losses/teacher_kl")
    assert command("train", "resume=second", "total_steps=48").code == 0
    assert len(run_of(cwd / "second").steps("losses/teacher_kl")) > len(seen)


def test_a_teacher_has_to_be_named(command, tiny):
    ended = command("train", "env=t_maze", "env.length=2", *tiny, "agent.teacher_kl=0.5")
    assert ended.code == 1 and ended.err.endswith(
        "teacher_kl=0.5 needs a teacher: call load_network, or give init_from=RUN_DIR\n"
    )
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("agent", ["recurrent_ppo_lstm", "recurrent_iqn"])
def test_a_run_begins_with_the_network_of_another(command, cwd, tiny, agent, run_of):
    """Nothing is learned in a run that makes no update worth the name, so what it saves is what it began with."""
    quantiles = "agent.bptt=2", "agent.n_step=1", "agent.batch_size=2", "agent.learning_starts=1"
    small = (
        tiny if agent != "recurrent_iqn" else (*(o for o in tiny if "epochs" not in o and "mini" not in o), *quantiles)
    )
    line = "env=t_maze", "env.length=2", f"agent={agent}", *small
    assert command("train", *line, "seed=7", "run_dir=first").code == 0
    frozen = "agent.learning_rate=1e-12", "agent.max_grad_norm=1e-12"
    ended = command("train", *line, *frozen, "init_from=first", "run_dir=second")
    assert (ended.code, ended.err) == (0, ""), ended.err
    first, second = run_of(cwd / "first").network, run_of(cwd / "second").network
    assert all(torch.allclose(leaf, second[name], atol=1e-9) for name, leaf in first.items())
    assert command("train", *line, *frozen, "run_dir=fresh").code == 0
    fresh = run_of(cwd / "fresh").network
    assert not all(torch.allclose(leaf, fresh[name], atol=1e-3) for name, leaf in first.items())
    if agent == "recurrent_iqn":
        target = run_of(cwd / "second").checkpoint["agent"]["target"]
        assert all(torch.allclose(leaf, target[name], atol=1e-9) for name, leaf in first.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("init_from=nowhere",), "init_from=nowhere: there is no checkpoint at nowhere"),
        (
            ("init_from=first", "agent.core.hidden_size=5"),
            "init_from=first: first/checkpoints/last.pt: the checkpoint is of another network",
        ),
        (
            ("init_from=first", "agent/core=gru"),
            "init_from=first: first/checkpoints/last.pt: the checkpoint is of another network",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_refused(train_maze, command, tiny, arguments, message):
    train_maze("run_dir=first")
    ended = command("train", "env=t_maze", "env.length=2", *tiny, *arguments, "run_dir=second")
    assert ended.code == 1 and message in ended.err and len(ended.err.splitlines()) == 1
