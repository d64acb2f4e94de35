"""A training run: what it leaves behind, stopping, dying, going on, sweeps."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from fnmatch import fnmatch
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer

from envs import workers
from envs.t_maze import TMaze
from rl.checkpoint import as_arrays
from rl.training import threads
from rl.training.metrics import GLOSSARY

ROLLOUT = 8  # steps in an update of a tiny run
DOCUMENTED = {
    *("agent", "core", "env", "seed", "parameters", "env_steps", "wall_seconds", "steps_per_second"),
    *("train_return_mean", "eval_return_mean", "eval_return_stderr", "eval_episodes", "memory_zeroed_return_mean"),
}


@pytest.fixture(autouse=True)
def ordered_events(monkeypatch):
    """Event files of one second are told apart by a counter, and read in the order of names."""
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(10))


def events(folder):
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return reader


def steps(folder, tag):
    return [point.step for point in events(folder).Scalars(tag)]


def values(folder, tag):
    return [point.value for point in events(folder).Scalars(tag)]


def result(folder):
    return json.loads((folder / "result.json").read_text())


def checkpoint(folder):
    return torch.load(folder / "checkpoints/last.pt", weights_only=True)


def train(command, tiny, *arguments):
    ended = command("train", "env=t_maze", "env.length=2", *tiny, *arguments)
    assert (ended.code, ended.err) == (0, ""), ended.err
    return ended


# ------------------------------------------------------------------------------------------------------ the run folder


@pytest.fixture
def finished(command, tiny, cwd):
    """Forty updates, so that episodes end, with two evaluations."""
    train(command, tiny, "total_steps=320", "evaluate_every=160", "evaluate_episodes=4", "threshold=-9", "run_dir=run")
    return cwd / "run"


def test_run_folder(finished):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    events_files = {name for name in names if name.startswith("events.out.tfevents.")}
    assert events_files
    assert names - events_files == {"config.yaml", "train.log", "result.json", "checkpoints/last.pt"}

    config = OmegaConf.load(finished / "config.yaml")
    assert config.env == {"_target_": "envs.t_maze.TMaze", "length": 2, "passive": True}  # defaults too
    assert (config.seed, config.total_steps, config.agent.bptt) == (1, 320, 4)

    lines = (finished / "train.log").read_text().splitlines()
    assert "RecurrentPPOLSTM" in lines[0] and "run" in lines[0]
    assert [line.split()[0] for line in lines[1:-1]] == [str(step) for step in range(32, 321, 32)]
    assert lines[-1].startswith("return ") and "after 320 steps" in lines[-1]

    content = checkpoint(finished)
    assert content["agent"]["env_steps"] == 320 and content["agent"]["updates"] == 40


def test_result(finished):
    found = result(finished)
    assert found.keys() >= DOCUMENTED
    assert (found["agent"], found["core"], found["env"]) == ("RecurrentPPOLSTM", "lstm", "TMaze")
    assert (found["seed"], found["env_steps"], found["total_steps"], found["eval_episodes"]) == (1, 320, 320, 2)
    assert found["threads"] == 1
    weights = checkpoint(finished)["agent"]["network"]
    assert found["parameters"] == sum(leaf.numel() for leaf in weights.values())
    assert 0 < found["training_seconds"] < found["wall_seconds"]
    assert found["steps_per_second"] == pytest.approx(320 / found["training_seconds"])
    returns = "train_return_mean", "eval_return_mean", "memory_zeroed_return_mean"
    assert all(-3 <= found[name] <= 1 for name in returns) and found["eval_return_stderr"] >= 0
    assert (found["optimal_return"], found["memoryless_return"]) == (1.0, 0.5)
    assert [point["env_steps"] for point in found["evaluations"]] == [160, 320]
    assert found["threshold"] == -9 and found["steps_to_threshold"] == 160
    assert 0 < found["seconds_to_threshold"] < found["training_seconds"]


def test_curves(finished):
    reader = events(finished)
    tags = [tag for tag in reader.Tags()["scalars"] if not tag.startswith("hparam/")]
    assert all(any(fnmatch(tag, known) for known in GLOSSARY) for tag in tags), tags
    elsewhere = {"losses/entropy_*", "losses/teacher_kl", "hparam/*"}
    elsewhere |= {"charts/epsilon", "losses/quantile_loss", "losses/q_mean"}
    assert {tag for tag in set(GLOSSARY) - set(tags) if not tag.startswith("imitation/")} == elsewhere
    for tag in ("losses/policy_loss", "charts/SPS", "diagnostics/ratio_error"):
        assert [point.step for point in reader.Scalars(tag)] == list(range(ROLLOUT, 321, ROLLOUT))
    assert [point.step for point in reader.Scalars("eval/episodic_return")] == [160, 320]
    recorded = [point["return"] for point in result(finished)["evaluations"]]
    assert [point.value for point in reader.Scalars("eval/episodic_return")] == pytest.approx(recorded)


def test_configuration_in_tensorboard(finished):
    reader = events(finished)
    text = reader.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    config = OmegaConf.load(finished / "config.yaml")
    stored = OmegaConf.create(re.search(r"```yaml\n(.*)```", text, re.DOTALL)[1])
    assert stored == OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    content = HParamsPluginData.FromString(reader.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    table = content.session_start_info.hparams
    assert table["agent.core.hidden_size"].number_value == 4
    assert table["env._target_"].string_value == "envs.t_maze.TMaze"
    assert values(finished, "hparam/eval_return_mean") == pytest.approx([result(finished)["eval_return_mean"]])


def test_stop_at_threshold(command, tiny, cwd):
    sizes = "total_steps=320", "evaluate_every=160", "evaluate_episodes=4", "run_dir=run"
    train(command, tiny, *sizes, "threshold=-9", "stop_at_threshold=true")
    assert result(cwd / "run")["env_steps"] == 160
    train(command, tiny, *sizes[:-1], "threshold=9", "stop_at_threshold=true", "run_dir=other")
    found = result(cwd / "other")
    assert (found["env_steps"], found["steps_to_threshold"], found["seconds_to_threshold"]) == (320, None, None)


def test_seeds(command, tiny, cwd):
    """The seed alone decides a run."""
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        train(command, tiny, "total_steps=24", f"seed={seed}", f"run_dir={name}")
    a, b, c = (values(cwd / name, "losses/value_loss") for name in "abc")
    assert a == b != c


def test_cfg_job(command):
    """``--cfg job`` prints what would run and runs nothing."""
    ended = command("train", "agent/core=gru", "env=t_maze", "env.length=7", "agent.clip=0.1", "--cfg", "job")
    assert ended.code == 0 and ended.err == ""
    config = OmegaConf.create(ended.out)
    assert config.agent.core._target_ == "rl.cores.gru"
    assert (config.env.length, config.agent.clip) == (7, 0.1)


# ------------------------------------------------------------------------------------------------------------- going on


def same_weights(one, other):
    one, other = checkpoint(one)["agent"], checkpoint(other)["agent"]
    assert one["network"].keys() == other["network"].keys()
    return all(torch.equal(leaf, other["network"][name]) for name, leaf in one["network"].items())


def test_resume_goes_on_as_if_it_had_never_stopped(command, tiny, cwd):
    options = "agent.normalise_observations=true", "agent.normalise_returns=true"
    train(command, tiny, *options, "total_steps=160", "run_dir=whole")
    train(command, tiny, *options, "total_steps=80", "run_dir=parts")
    assert not same_weights(cwd / "whole", cwd / "parts")
    assert command("train", f"resume={cwd / 'parts'}", "total_steps=160").code == 0
    assert same_weights(cwd / "whole", cwd / "parts")
    whole, parts = result(cwd / "whole"), result(cwd / "parts")
    same = "env_steps", "train_return_mean", "eval_return_mean", "memory_zeroed_return_mean", "total_steps"
    assert {name: whole[name] for name in same} == {name: parts[name] for name in same}
    for tag in ("losses/policy_loss", "losses/grad_norm", "charts/episodic_return", "charts/episodic_length"):
        assert steps(cwd / "whole", tag) == steps(cwd / "parts", tag)
        assert values(cwd / "whole", tag) == values(cwd / "parts", tag)
    assert OmegaConf.load(cwd / "parts/config.yaml").total_steps == 160


def test_curves_of_a_run_that_died_after_its_checkpoint(command, tiny, cwd):
    """What was logged after the checkpoint is not shown twice."""
    run = cwd / "run"
    train(command, tiny, "total_steps=40", "run_dir=run")
    shutil.copy(run / "checkpoints/last.pt", cwd / "early.pt")
    assert command("train", "resume=run", "total_steps=80").code == 0
    shutil.copy(cwd / "early.pt", run / "checkpoints/last.pt")
    (run / "result.json").unlink()
    assert command("train", "resume=run", "total_steps=64").code == 0
    assert steps(run, "losses/policy_loss") == list(range(ROLLOUT, 65, ROLLOUT))
    assert result(run)["env_steps"] == 64


def test_resume_of_a_finished_run(command, tiny, cwd):
    """Nothing is left to do: the same result again."""
    train(command, tiny, "total_steps=40", "run_dir=run")
    before, weights = result(cwd / "run"), checkpoint(cwd / "run")["agent"]["network"]
    assert command("train", "resume=run").code == 0
    after = result(cwd / "run")
    assert {key: after[key] for key in DOCUMENTED} == {key: before[key] for key in DOCUMENTED}
    assert all(torch.equal(leaf, weights[name]) for name, leaf in checkpoint(cwd / "run")["agent"]["network"].items())


def test_resume_with_other_settings(command, tiny, cwd):
    """Hyperparameters may change, and so may the number of environments."""
    train(command, tiny, "total_steps=40", "run_dir=run")
    changes = "agent.learning_rate=1e-4", "num_envs=4", "total_steps=72"
    assert command("train", "resume=run", *changes).code == 0
    config = OmegaConf.load(cwd / "run/config.yaml")
    assert (config.agent.learning_rate, config.num_envs, config.agent.bptt) == (1e-4, 4, 4)
    assert steps(cwd / "run", "losses/policy_loss") == [8, 16, 24, 32, 40, 56, 72]
    assert values(cwd / "run", "charts/learning_rate")[-1] == pytest.approx(1e-4)


def wait_for_checkpoint(child, folder, seconds=120):
    """Until the run in ``child`` has saved itself once."""
    end = time.monotonic() + seconds
    while not (folder / "checkpoints/last.pt").exists():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def test_kill_and_resume(process, command, tiny, cwd):
    run = cwd / "run"
    endless = "env=t_maze", "env.length=2", *tiny, "total_steps=10_000_000", "checkpoint_every=32", f"run_dir={run}"
    child = process("train", *endless)
    wait_for_checkpoint(child, run)
    child.send_signal(signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    saved = checkpoint(run)["agent"]["env_steps"]
    assert saved >= 32 and saved % 32 == 0 and not (run / "result.json").exists()

    end = saved + 5 * ROLLOUT
    ended = command("train", f"resume={run}", f"total_steps={end}")
    assert ended.code == 0, ended.err
    assert result(run)["env_steps"] == checkpoint(run)["agent"]["env_steps"] == end
    for tag in ("losses/policy_loss", "charts/SPS"):
        assert steps(run, tag) == list(range(ROLLOUT, end + 1, ROLLOUT))
    train(command, tiny, f"total_steps={end}", "run_dir=whole")
    assert same_weights(run, cwd / "whole")


def test_interrupt(process, command, tiny, cwd):
    run = cwd / "run"
    endless = "env=t_maze", "env.length=2", *tiny, "total_steps=10_000_000", "checkpoint_every=32", f"run_dir={run}"
    child = process("train", *endless)
    wait_for_checkpoint(child, run)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    stopped = result(run)["env_steps"]
    assert f"stopped at step {stopped}; go on with resume={run}" in out
    assert stopped == checkpoint(run)["agent"]["env_steps"] and 0 < stopped < 10_000_000
    assert steps(run, "losses/policy_loss") == list(range(ROLLOUT, stopped + 1, ROLLOUT))
    assert command("train", f"resume={run}", f"total_steps={stopped + ROLLOUT}").code == 0
    assert steps(run, "losses/policy_loss")[-2:] == [stopped, stopped + ROLLOUT]


# ------------------------------------------------------------------------------------------------ threads and processes


def test_threads_by_measurement(command, tiny, cwd, monkeypatch):
    """Ten updates, of which the first seven are timed; a resumed run measures anew."""
    monkeypatch.setattr(threads, "available_cores", lambda: 2)
    try:
        train(command, tiny, "total_steps=80", "threads=auto", "run_dir=run")
        assert result(cwd / "run")["threads"] in (1, 2)
        assert OmegaConf.load(cwd / "run/config.yaml").threads == "auto"
        assert command("train", "resume=run", "total_steps=160").code == 0
        said = re.findall(r"updates: \S+ s on 1 thread, \S+ s on 2: (.) threads?", (cwd / "run/train.log").read_text())
        assert len(said) == 2 and result(cwd / "run")["threads"] == int(said[1])
        assert torch.get_num_threads() == 1
        assert command("evaluate", "run=run", "episodes=2").code == 0
        train(command, tiny, "threads=2", "run_dir=other")
        assert result(cwd / "other")["threads"] == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


class Frail(gymnasium.Env):
    """Takes 2 ms for a step; the one that is number ``fails_at`` of its life fails, or ends the process."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fails_at=None, dies_at=None):
        self.fails_at, self.dies_at, self.life = fails_at, dies_at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.life += 1
        time.sleep(2e-3)
        if self.life == self.fails_at:
            raise ValueError("the simulator has failed")
        if self.life == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.reset()[0], float(action), self.life % 5 == 0, False, {}


@pytest.fixture
def frail(command, tiny, monkeypatch):
    """``frail(override, ...)`` trains on :class:`Frail`, with a core to spare; no process may be left."""
    monkeypatch.setitem(gymnasium.registry, "Frail-v0", gymnasium.envs.registration.EnvSpec("Frail-v0", Frail))
    monkeypatch.setattr(workers, "available_cores", lambda: 2)

    def run(*arguments):
        ended = command("train", "env=gymnasium", "env.id=Frail-v0", *tiny, *arguments)
        assert multiprocessing.active_children() == []
        return ended

    return run


def test_slow_environments_get_workers_by_themselves(frail, command, cwd):
    for mode in ("auto", "sync"):
        ended = frail(f"env.vectorization_mode={mode}", "total_steps=24", f"run_dir={mode}")
        assert (ended.code, ended.err) == (0, "")
    log = (cwd / "auto/train.log").read_text()
    assert log.count(": worker processes are used") == 2  # to train and to evaluate
    assert same_weights(cwd / "auto", cwd / "sync")
    assert result(cwd / "auto")["eval_return_mean"] == result(cwd / "sync")["eval_return_mean"]
    assert command("evaluate", "run=auto", "episodes=2").code == 0
    assert multiprocessing.active_children() == []


@pytest.mark.filterwarnings("ignore::UserWarning")  # with which Gymnasium shows the traceback of the worker
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("env.fails_at=7",), "the simulator has failed"),
        (("env.dies_at=7",), "a worker process of the environments has died"),
        (("agent.learning_rate=-1",), "learning_rate=-1.0: it must be a number of at least 1e-12"),
    ],
)
def test_workers_end_after_a_fault(frail, arguments, sentence):
    """In the environment, of a worker, and while the agent is made."""
    ended = frail("env.vectorization_mode=async", "total_steps=80", *arguments)
    assert (ended.code, ended.err) == (1, f"train: {sentence}\n")


@pytest.fixture
def with_workers(process, tiny, cwd):
    """An endless run of its own process, once it has been saved, and the numbers of its worker processes."""
    children = Path("/proc/self/task") / str(os.getpid()) / "children"
    if not children.exists():
        pytest.skip("needs the children of a process from /proc")
    task = "env=gymnasium", "env.vectorization_mode=async", *tiny
    child = process("train", *task, "total_steps=10_000_000", "checkpoint_every=32", f"run_dir={cwd / 'run'}")
    wait_for_checkpoint(child, cwd / "run")
    numbers = [int(number) for number in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    assert len(numbers) == 2 + 50  # to train and to evaluate
    return child, numbers


def test_interrupt_of_a_run_with_workers(with_workers, cwd):
    """Ctrl-C reaches the workers as well, which must not keep the run from finishing its update.

    All of them hold the pipes of the run: they close when the last one has ended.
    """
    child, numbers = with_workers
    for number in [*numbers, child.pid]:
        os.kill(number, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert "stopped at step" in out and (cwd / "run/result.json").exists()


def test_workers_end_with_a_killed_run(with_workers):
    child, _ = with_workers
    child.kill()
    child.communicate(timeout=60)  # the workers hold its pipes, and have ended when those close
    assert child.returncode == -signal.SIGKILL


# --------------------------------------------------------------------------------------------------------------- sweeps


def test_sweep(command, tiny, cwd):
    choices = "agent=recurrent_ppo_lstm,dual_head_recurrent_ppo", "seed=1,2"
    ended = command("train", "--multirun", *choices, "env=t_maze", *tiny, "hydra.sweep.dir=sweep")
    assert ended.code == 0, ended.err
    results = [path.parent for path in (cwd / "sweep").glob("*/result.json")]
    assert len(results) == 4
    found = {(run["agent"], run["seed"]) for run in map(result, results)}
    assert found == {(agent, seed) for agent in ("RecurrentPPOLSTM", "DualHeadRecurrentPPO") for seed in (1, 2)}
    configs = [OmegaConf.load(path) for path in (cwd / "sweep").glob("*/config.yaml")]
    assert sorted(config.seed for config in configs) == [1, 1, 2, 2]


def test_a_failing_job_does_not_stop_a_sweep(command, tiny, cwd):
    ended = command("train", "-m", "env=t_maze", *tiny, "seed=1,-1,2", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    assert "'seed=-1'" in ended.err  # which job
    assert ended.err.endswith("train: seed=-1: it must be a number from 0 to 2147483648\n")
    assert "Traceback" not in ended.err
    seeds = [result(path.parent)["seed"] for path in (cwd / "sweep").glob("*/result.json")]
    assert sorted(seeds) == [1, 2]


def test_the_last_observation_belongs_to_the_state(command, tiny, cwd):
    """A checkpoint holds what a seeded environment needs to go on: its state, and what it shows."""
    train(command, tiny, "total_steps=40", "run_dir=run")
    content = checkpoint(cwd / "run")
    env = TMaze(2, length=2)
    env.reset(seed=5)
    env.load_state_dict(as_arrays(content["envs"]))
    np.testing.assert_array_equal(env._observe(), content["obs"])


# ------------------------------------------------------------------------------------------- the network of another run


def test_a_teacher_is_followed_and_resumed(command, cwd, tiny):
    train(command, tiny, "run_dir=first")
    pupil = "init_from=first", "agent.teacher_kl=0.5", "total_steps=24", "run_dir=second"
    train(command, tiny, *pupil)
    kl = values(cwd / "second", "losses/teacher_kl")
    assert len(kl) > 1 and all(0 <= value < 1 for value in kl)
    teacher = checkpoint(cwd / "second")["agent"]["teacher"]["network"]
    assert all(torch.equal(leaf, teacher[name]) for name, leaf in network(cwd / "first").items())
    seen = steps(cwd / "second", "losses/teacher_kl")
    assert command("train", "resume=second", "total_steps=48").code == 0
    assert len(steps(cwd / "second", "losses/teacher_kl")) > len(seen)


def test_a_teacher_has_to_be_named(command, cwd, tiny):
    ended = command("train", "env=t_maze", "env.length=2", *tiny, "agent.teacher_kl=0.5")
    assert ended.code == 1 and ended.err.endswith(
        "teacher_kl=0.5 needs a teacher: call load_network, or give init_from=RUN_DIR\n"
    )
    assert len(ended.err.splitlines()) == 1


def network(folder):
    return checkpoint(folder)["agent"]["network"]


@pytest.mark.parametrize("agent", ["recurrent_ppo_lstm", "recurrent_iqn"])
def test_a_run_begins_with_the_network_of_another(command, cwd, tiny, agent):
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
    first, second = network(cwd / "first"), network(cwd / "second")
    assert all(torch.allclose(leaf, second[name], atol=1e-9) for name, leaf in first.items())
    assert command("train", *line, *frozen, "run_dir=fresh").code == 0
    fresh = network(cwd / "fresh")
    assert not all(torch.allclose(leaf, fresh[name], atol=1e-3) for name, leaf in first.items())
    if agent == "recurrent_iqn":
        target = checkpoint(cwd / "second")["agent"]["target"]
        assert all(torch.allclose(leaf, target[name], atol=1e-9) for name, leaf in first.items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("init_from=nowhere",), "init_from=nowhere: there is no checkpoint at nowhere"),
        (("init_from=first", "agent.core.hidden_size=5"), "init_from=first: the checkpoint is of another network"),
        (("init_from=first", "agent/core=gru"), "init_from=first: the checkpoint is of another network"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(command, cwd, tiny, arguments, message):
    train(command, tiny, "run_dir=first")
    ended = command("train", "env=t_maze", "env.length=2", *tiny, *arguments, "run_dir=second")
    assert ended.code == 1 and message in ended.err and len(ended.err.splitlines()) == 1
