"""``torchrun -m experiments.train``: several ranks compute what one process with the same shards does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

MANY = """
import json, sys
from hydra.core.global_hydra import GlobalHydra
from experiments import train
for words in json.load(open(sys.argv[1])):
    sys.argv[1:] = words
    GlobalHydra.instance().clear()
    train.main()
"""
CORES = "gru", "lstm", "mingru", "mlp"
SMALL = (
    *("num_envs=4", "num_steps=8", "total_steps=96", "evaluate_every=32", "checkpoint_every=32", "evaluate_episodes=5"),
    *("final_episodes=5", "evaluation_envs=4", "evaluation_share=null", "agent.layer_size=4"),
)
PPO = *SMALL, "agent.bptt=4", "agent.num_minibatches=2", "agent.epochs=2", "agent.normalise_returns=true"
AGENTS = {
    "ppo": (*PPO, "env=t_maze", "env.length=2", "agent.normalise_observations=true", "agent.target_kl=0.05"),
    "dual": (*PPO, "agent=dual_head_recurrent_ppo", "env=witness_vote"),
    "iqn": (
        *(*SMALL, "agent=recurrent_iqn", "env=t_maze", "env.length=2", "agent.bptt=4", "agent.burn_in=2"),
        *("agent.batch_size=16", "agent.learning_starts=16", "agent.priority_exponent=0.6"),
    ),
}
TIMES = "charts/SPS"


def words_of(agent, core):
    sizes = () if core == "mlp" else ("agent.core.hidden_size=4",)
    return [*AGENTS[agent], f"agent/core={core}", *sizes, "shards=2"]


@pytest.fixture
def torchrun(cwd, child_environment):
    """``torchrun(2, "-m", "experiments.train", ...)`` starts ranks; give options of torchrun as ``options=``."""
    started = []

    def start(world, *words, options=()):
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        line = [*line, *options, *words]
        started.append(subprocess.Popen(line, cwd=cwd, env=child_environment, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for child in started:
        if child.poll() is None:
            kill_all(child)
        child.communicate()


def ranks_of(child):
    """The processes of the ranks, in their order."""
    found = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    rank = {}
    for pid in found:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        numbers = [entry.partition(b"=")[2] for entry in environment if entry.startswith(b"RANK=")]
        if numbers:
            rank[int(numbers[0])] = int(pid)
    return [rank[number] for number in sorted(rank)]


def kill_all(child):
    """Kill torchrun and its ranks, which are in sessions of their own."""
    for pid in (*ranks_of(child), child.pid):
        os.kill(pid, signal.SIGKILL)
    child.wait()


def differences(one, other, name=""):
    """The names of what differs between two checkpoints, clocks left out."""
    if "seconds" in name:
        return []
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        return [found for key in one for found in differences(one[key], other[key], f"{name}.{key}")]
    if isinstance(one, list):
        assert len(one) == len(other), name
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, pair in pairs for found in differences(*pair, f"{name}[{index}]")]
    equal = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if equal else [name]


def assert_same_run(one, other):
    """Weights, moments, memories, generators and curves are the same, bit for bit."""
    assert differences(one.checkpoint, other.checkpoint) == []
    assert one.tags == other.tags and TIMES in one.tags
    for tag in one.tags - {TIMES}:
        assert (tag, one.steps(tag), one.values(tag)) == (tag, other.steps(tag), other.values(tag))


@pytest.mark.parametrize("agent", list(AGENTS))
def test_two_ranks_are_one(torchrun, command, cwd, run_of, agent):
    (cwd / "many.py").write_text(MANY)
    (cwd / "lines.json").write_text(json.dumps([[*words_of(agent, core), f"run_dir=two-{core}"] for core in CORES]))
    out, _ = (child := torchrun(2, "many.py", "lines.json")).communicate(timeout=300)
    assert child.returncode == 0, out
    for core in CORES:
        assert command("train", *words_of(agent, core), f"run_dir=one-{core}").code == 0
        one, two = run_of(cwd / f"one-{core}"), run_of(cwd / f"two-{core}")
        assert_same_run(one, two)
        (other,) = one.checkpoint["others"]  # the second shard has played other episodes
        assert differences(other["agent"]["generators"], one.checkpoint["agent"]["generators"])
        assert one.result["env_steps"] == 96
        same = "eval_return_mean", "eval_episodes", "train_return_mean", "memory_zeroed_return_mean"
        assert {name: one.result[name] for name in same} == {name: two.result[name] for name in same}
        assert one.result["eval_episodes"] == 5


LONG = [*words_of("ppo", "gru"), "total_steps=40000", "checkpoint_every=640", "evaluate_every=null"]


def test_a_run_that_was_killed_goes_on_with_another_number_of_ranks(
    command, torchrun, process, cwd, run_of, wait_for_checkpoint
):
    """Killed with two ranks, killed with one, and at last with two again: as if nothing had happened."""
    short = [word for word in LONG if not word.startswith("total_steps")] + ["total_steps=6400"]
    assert command("train", *short, "run_dir=straight").code == 0
    child = torchrun(2, "-m", "experiments.train", *LONG, "run_dir=run")
    wait_for_checkpoint(child, cwd / "run")
    kill_all(child)
    before = run_of(cwd / "run").checkpoint["agent"]["env_steps"]
    child = process("train", "resume=run")
    while child.poll() is None and run_of(cwd / "run").checkpoint["agent"]["env_steps"] == before:
        time.sleep(0.05)
    assert child.poll() is None
    child.kill()
    child.wait()
    after = run_of(cwd / "run").checkpoint["agent"]["env_steps"]
    assert before < after < 6400, "the machine was too slow or too fast for this test"
    child = torchrun(2, "-m", "experiments.train", "resume=run", "total_steps=6400")
    out, _ = child.communicate(timeout=300)
    assert child.returncode == 0, out
    assert differences(run_of(cwd / "run").checkpoint, run_of(cwd / "straight").checkpoint) == []


def test_a_signal_to_one_rank_stops_all_after_the_same_update(command, torchrun, cwd, run_of, wait_for_checkpoint):
    child = torchrun(2, "-m", "experiments.train", *LONG, "run_dir=run")
    wait_for_checkpoint(child, cwd / "run")
    os.kill(ranks_of(child)[1], signal.SIGTERM)
    out, _ = child.communicate(timeout=120)
    stopped = run_of(cwd / "run").checkpoint["agent"]["env_steps"]
    for rank in (0, 1):
        assert f"train, rank {rank}: stopped by SIGTERM at step {stopped}; resume=run goes on with it" in out
    assert command("train", "resume=run", f"total_steps={stopped + 320}").code == 0
    assert command("train", *LONG, f"total_steps={stopped + 320}", "run_dir=straight").code == 0
    assert differences(run_of(cwd / "run").checkpoint, run_of(cwd / "straight").checkpoint) == []


def test_ranks_end_with_torchrun(torchrun, cwd, run_of, wait_for_checkpoint):
    """They would go on for ever otherwise, and hold their folder."""
    child = torchrun(2, "-m", "experiments.train", *LONG, "run_dir=run")
    wait_for_checkpoint(child, cwd / "run")
    os.kill(child.pid, signal.SIGKILL)
    out, _ = child.communicate(timeout=60)  # the ranks hold the pipe until they have ended
    assert "train, rank 0: stopped by SIGTERM at step" in out
    assert len(run_of(cwd / "run").checkpoint["others"]) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_ends_the_others_with_a_sentence(torchrun, cwd, run_of, wait_for_checkpoint, rank):
    child = torchrun(2, "-m", "experiments.train", *LONG, "run_dir=run")
    wait_for_checkpoint(child, cwd / "run")
    os.kill(ranks_of(child)[rank], signal.SIGKILL)
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 1
    lost = "another of the 2 ranks has ended, or has not answered for rank_timeout=120 s"
    good = f"{cwd}/run/checkpoints/last.pt is as it was, go on with resume={cwd}/run"
    assert f"train, rank {1 - rank}: {lost}; {good}" in out, out
    assert len(run_of(cwd / "run").checkpoint["others"]) == 1  # whole, and not of one rank alone


@pytest.mark.parametrize("folder", ["run_dir=run", "seed=1"])
def test_torchrun_starts_a_run_again_from_its_last_checkpoint(command, torchrun, cwd, run_of, folder):
    words = [word for word in LONG if not word.startswith("total_steps")] + ["total_steps=6400", folder]
    child = torchrun(2, "-m", "experiments.train", *words, options=["--max-restarts=1"])
    end = time.monotonic() + 120
    while not (found := list(cwd.glob("**/checkpoints/last.pt"))):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.01)
    run = found[0].parents[1]
    os.kill(ranks_of(child)[1], signal.SIGKILL)
    out, _ = child.communicate(timeout=300)
    assert child.returncode == 0, out
    assert f"torchrun has started this run again: it goes on from its last checkpoint in {run}" in out
    assert [path.parents[1] for path in cwd.glob("**/config.yaml")] == [run.parent]  # no second folder
    assert command("train", *words, "run_dir=straight").code == 0
    assert differences(run_of(run).checkpoint, run_of(cwd / "straight").checkpoint) == []


def test_another_number_of_shards_keeps_what_was_learned(command, cwd, run_of):
    words = words_of("ppo", "lstm")
    assert command("train", *words, "run_dir=run").code == 0
    before = run_of(cwd / "run").checkpoint["agent"]
    ended = command("train", "resume=run", "shards=4", "evaluation_envs=4", "total_steps=128")
    assert ended.code == 0, ended.err
    assert "environments begin new episodes on other seeds" in ended.out
    after = run_of(cwd / "run").checkpoint
    assert (before["env_steps"], after["agent"]["env_steps"]) == (96, 128)
    assert (len(after["others"]), after["agent"]["num_envs"]) == (3, 1)
    assert after["agent"]["updates"] == before["updates"] + 1


def test_shards_that_do_not_fit_the_ranks_of_a_resumed_run(torchrun, command, cwd, run_of):
    words = [word for word in words_of("ppo", "gru") if word not in ("num_envs=4", "shards=2", "evaluation_envs=4")]
    assert command("train", *words, "num_envs=12", "evaluation_envs=12", "shards=4", "run_dir=run").code == 0
    child = torchrun(3, "-m", "experiments.train", "resume=run", "total_steps=288")
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 0, out
    assert "4 shards cannot be dealt out to 3 ranks, so there are 3 shards now: what was learned is kept" in out
    assert len(run_of(cwd / "run").checkpoint["others"]) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["shards=3"], "num_envs=4: it must be a multiple of the 3 shards"),
        (["shards=4", "num_envs=4", "evaluation_envs=6"], "evaluation_envs=6: it must be a multiple of the 4 shards"),
        (["shards=0"], "shards=0: it must be a whole number of at least 1"),
        (["shards=two"], "shards='two' is not a whole number or null"),
        (["rank_timeout=0"], "rank_timeout=0"),
        (["rank_timeout=soon"], "rank_timeout='soon' is not a number"),
    ],
)
def test_refusals(command, cwd, words, sentence):
    ended = command("train", *words_of("ppo", "gru"), *words, "run_dir=run")
    assert ended.code == 1
    assert sentence in ended.err, ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (cwd / "run").exists()


def test_ranks_that_cannot_be_served_are_told_once(torchrun, cwd):
    child = torchrun(2, "-m", "experiments.train", *words_of("ppo", "gru"), "shards=3", "run_dir=run")
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "train, rank 0: shards=3: it must be a multiple of the 2 ranks" in out, out
    assert not (cwd / "run").exists()
    child = torchrun(2, "-m", "experiments.train", *words_of("ppo", "gru"), "--multirun", "seed=1,2")
    out, _ = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "--multirun does not go with torchrun" in out, out


@pytest.mark.parametrize(
    ("name", "words"), [("evaluate", ["run=run"]), ("imitate", ["data=x"]), ("plot", ["runs=[run]"])]
)
def test_other_commands_are_not_for_torchrun(command, monkeypatch, name, words):
    """Each rank would do the whole of it, and write over what the others write."""
    for variable, value in {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(variable, value)
    ended = command(name, *words)
    sentence = "torchrun is for experiments.train alone: start this command without it"
    assert (ended.code, ended.err) == (1, f"{name}, rank 1: {sentence}\n")
