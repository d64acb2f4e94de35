"""``python -m experiments.train resume=RUN_DIR``: stopping, dying, going on."""

import csv
import shutil
import signal

import pytest
from omegaconf import OmegaConf

ROLLOUT = 8  # steps in an update of a tiny run


def test_resume_goes_on_as_if_it_had_never_stopped(train_maze, command, cwd, run_of):
    options = "agent.normalise_observations=true", "agent.normalise_returns=true"
    train_maze(*options, "total_steps=160", "run_dir=whole")
    train_maze(*options, "total_steps=80", "run_dir=parts")
    assert not run_of(cwd / "whole").network_equals(run_of(cwd / "parts"))
    assert command("train", f"resume={cwd / 'parts'}", "total_steps=160").code == 0
    assert run_of(cwd / "whole").network_equals(run_of(cwd / "parts"))
    whole, parts = run_of(cwd / "whole").result, run_of(cwd / "parts").result
    same = "env_steps", "train_return_mean", "eval_return_mean", "memory_zeroed_return_mean", "total_steps"
    assert {name: whole[name] for name in same} == {name: parts[name] for name in same}
    for tag in ("losses/policy_loss", "losses/grad_norm", "charts/episodic_return", "charts/episodic_length"):
        assert run_of(cwd / "whole").steps(tag) == run_of(cwd / "parts").steps(tag)
        assert run_of(cwd / "whole").values(tag) == run_of(cwd / "parts").values(tag)
    assert OmegaConf.load(cwd / "parts/config.yaml").total_steps == 160


def test_curves_of_a_run_that_died_after_its_checkpoint(train_maze, command, cwd, run_of):
    """What was logged after the checkpoint is not shown twice."""
    run = cwd / "run"
    train_maze("total_steps=40", "run_dir=run")
    shutil.copy(run / "checkpoints/last.pt", cwd / "early.pt")
    assert command("train", "resume=run", "total_steps=80").code == 0
    shutil.copy(cwd / "early.pt", run / "checkpoints/last.pt")
    (run / "result.json").unlink()
    assert command("train", "resume=run", "total_steps=64").code == 0
    assert run_of(run).steps("losses/policy_loss") == list(range(ROLLOUT, 65, ROLLOUT))
    assert run_of(run).result["env_steps"] == 64


def test_resume_of_a_finished_run(train_maze, command, cwd, run_of):
    """Nothing is left to do, which is said: the same result again, beside the picture that was drawn of it."""
    train_maze("total_steps=40", "run_dir=run")
    before = run_of(cwd / "run")
    assert before.result and before.network
    (cwd / "run/card.png").write_bytes(b"drawn")
    ended = command("train", "resume=run")
    assert ended.code == 0 and "nothing is left to train: it has the 40 steps asked for" in ended.out
    after = run_of(cwd / "run")
    assert after.result == before.result and after.network_equals(before)
    assert (cwd / "run/card.png").read_bytes() == b"drawn"
    assert command("train", "resume=run", "total_steps=48").code == 0
    assert not (cwd / "run/card.png").exists()  # it lacks what was trained since


def test_resume_with_other_settings(train_maze, command, cwd, run_of):
    """Hyperparameters may change, and so may the number of environments."""
    train_maze("total_steps=40", "run_dir=run")
    changes = "agent.learning_rate=1e-4", "num_envs=4", "total_steps=72"
    assert command("train", "resume=run", *changes).code == 0
    config = OmegaConf.load(cwd / "run/config.yaml")
    assert (config.agent.learning_rate, config.num_envs, config.agent.bptt) == (1e-4, 4, 4)
    assert run_of(cwd / "run").steps("losses/policy_loss") == [8, 16, 24, 32, 40, 56, 72]
    assert run_of(cwd / "run").values("charts/learning_rate")[-1] == pytest.approx(1e-4)


def test_kill_and_resume(wait_for_checkpoint, train_maze, process, command, tiny, cwd, run_of):
    run = cwd / "run"
    endless = "env=t_maze", "env.length=2", *tiny, "total_steps=10_000_000", "checkpoint_every=32", f"run_dir={run}"
    child = process("train", *endless, "observers=[csv]")
    wait_for_checkpoint(child, run)
    child.send_signal(signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    assert (run / ".lock").exists()  # of a process that is gone: it is in nobody's way
    (run / f"checkpoints/.last.pt.{child.pid}").touch()
    saved = run_of(run).checkpoint["agent"]["env_steps"]
    assert saved >= 32 and saved % 32 == 0 and not (run / "result.json").exists()
    with (run / "progress.csv").open("a") as file:  # it had come further, and was killed in the middle of a row
        file.write(f"{saved + 800}\n{saved + 808},0.")

    end = saved + 5 * ROLLOUT
    ended = command("train", f"resume={run}", f"total_steps={end}")
    assert ended.code == 0, ended.err
    assert not (run / ".lock").exists() and not (run / f"checkpoints/.last.pt.{child.pid}").exists()
    assert run_of(run).result["env_steps"] == run_of(run).checkpoint["agent"]["env_steps"] == end
    for tag in ("losses/policy_loss", "charts/SPS"):
        assert run_of(run).steps(tag) == list(range(ROLLOUT, end + 1, ROLLOUT))
    with (run / "progress.csv").open(newline="") as file:
        assert [int(row["env_steps"]) for row in csv.DictReader(file)] == list(range(ROLLOUT, end + 1, ROLLOUT))
    train_maze(f"total_steps={end}", "run_dir=whole")
    assert run_of(run).network_equals(run_of(cwd / "whole"))


def test_interrupt(wait_for_checkpoint, process, command, tiny, cwd, run_of):
    run = cwd / "run"
    endless = "env=t_maze", "env.length=2", *tiny, "total_steps=10_000_000", "checkpoint_every=32", f"run_dir={run}"
    child = process("train", *endless)
    wait_for_checkpoint(child, run)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    stopped = run_of(run).checkpoint["agent"]["env_steps"]
    line = f"stopped by SIGINT at step {stopped}; resume=run goes on with it\n"
    assert (child.returncode, err) == (130, f"train: {line}")
    assert (run / "train.log").read_text().endswith(f"S{line[1:]}")
    assert 0 < stopped < 10_000_000 and not (run / "result.json").exists()
    assert run_of(run).steps("losses/policy_loss") == list(range(ROLLOUT, stopped + 1, ROLLOUT))
    assert command("train", f"resume={run}", f"total_steps={stopped + ROLLOUT}").code == 0
    assert run_of(run).steps("losses/policy_loss")[-2:] == [stopped, stopped + ROLLOUT]


def test_a_resumed_run_no_longer_needs_the_one_that_it_began_with(train_maze, command, cwd, run_of):
    train_maze("run_dir=first")
    train_maze("init_from=first", "run_dir=second")
    shutil.rmtree(cwd / "first")
    ended = command("train", "resume=second", "total_steps=16")
    assert (ended.code, ended.err) == (0, "")
    assert run_of("second").result["env_steps"] == 16
