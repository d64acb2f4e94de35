"""``python -m experiments.sweep`` as a whole: to the end, killed and begun again, stopped by a signal; bad input."""

import json
import os
import signal
import time

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from experiments.launch.arguments import rewrite_overrides
from experiments.sweeps.study import JOURNAL

pytest.importorskip("optuna")

BASE = (
    "env=t_maze",
    "env.length=2",
    "num_envs=4",
    "num_steps=16",
    "evaluate_every=64",
    "evaluate_episodes=4",
    "agent.bptt=8",
    "agent.num_minibatches=2",
    "agent.core.hidden_size=4",
    "agent.layer_size=4",
    "search=ppo_few",
    "search.agent.epochs.high=2",
    "startup_trials=2",
    "study=study",
)
SHORT = (*BASE, "total_steps=192", "trials=3")
LONG = (*BASE, "total_steps=12_800", "checkpoint_every=64", "trials=2", "pruner=null")


def read_trials(cwd):
    return json.loads((cwd / "study/trials.json").read_text())


def wait_until(true, child, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def checkpoints(cwd):
    return sorted(cwd.glob("study/trials/*/seed1/checkpoints/last.pt"))


def flat(*overrides):
    with initialize_config_module("conf", version_base="1.3"):
        return OmegaConf.to_container(compose("train", list(rewrite_overrides(list(overrides)))))


def test_a_search_ends_with_a_table_and_a_preset(process, cwd, command):
    child = process("sweep", *SHORT, "seeds=2", "workers=2")
    out, err = child.communicate(timeout=240)
    assert child.returncode == 0, err
    trials = read_trials(cwd)
    finished = [trial for trial in trials if trial["state"] in ("done", "pruned")]
    done = [trial for trial in trials if trial["state"] == "done"]
    assert len(finished) == 3 and done
    best = max(done, key=lambda trial: trial["value"])
    for trial in done:
        results = [json.loads((cwd / "study" / trial["folder"] / f"seed{n}/result.json").read_text()) for n in (1, 2)]
        returns = [[point["return"] for point in result["evaluations"]][-3:] for result in results]
        assert trial["value"] == pytest.approx(sum(map(sum, returns)) / 6)
        assert trial["env_steps"] == 2 * 192
    table = (cwd / "study/trials.md").read_text()
    assert table.startswith("| trial | state | value | seconds | agent.learning_rate |") and table in out + table
    preset = (cwd / "study/experiment/best.yaml").read_text()
    assert preset.startswith("# @package _global_\n# python -m experiments.train experiment=best\n# Expected: ")
    assert "python -m experiments.train --config-dir=study experiment=best seed=101" in out
    settings = [f"{key}={value}" for key, value in best["settings"].items()]
    wanted = flat(*(each for each in BASE if each.partition("=")[0] not in OF_SEARCH), "total_steps=192", *settings)
    trained = command("train", "--config-dir=study", "experiment=best", "seed=101", "run_dir=fresh", "final_episodes=2")
    assert (trained.code, trained.err) == (0, "")
    config = OmegaConf.to_container(OmegaConf.load(cwd / "fresh/config.yaml"))
    assert {key: config[key] for key in ("num_envs", "total_steps", "evaluate_every")} == {
        key: wanted[key] for key in ("num_envs", "total_steps", "evaluate_every")
    }
    assert config["agent"].items() >= {key: value for key, value in wanted["agent"].items() if key != "core"}.items()
    assert config["agent"]["core"].items() >= wanted["agent"]["core"].items()


OF_SEARCH = ("search", "search.agent.epochs.high", "startup_trials", "study")


def test_a_killed_search_goes_on(process, cwd):
    """What was running is told dead, its settings are the next, and its runs go on from their checkpoints."""
    child = process("sweep", *LONG, "workers=2")
    wait_until(lambda: len(checkpoints(cwd)) == 2, child)
    child.kill()
    child.wait()
    assert not (cwd / "study/trials.json").exists()
    again = process("sweep", *LONG, "workers=2")
    out, err = again.communicate(timeout=280)
    assert again.returncode == 0, err
    trials = read_trials(cwd)
    assert [trial["state"] for trial in trials] == ["repeated", "repeated", "done", "done"]
    assert [trial["folder"] for trial in trials] == ["trials/0000", "trials/0001"] * 2
    assert [trial["settings"] for trial in trials[:2]] == [trial["settings"] for trial in trials[2:]]
    for place in ("0000", "0001"):
        said = (cwd / f"study/trials/{place}/seed1/train.log").read_text()
        assert said.count("parameters, run folder") == 2 and "Stopped by SIGTERM" in said  # saved when it was killed
    assert "2 trials" in out or "best: trial" in out


def test_a_signal_lets_the_trials_save_and_be_the_next(process, cwd):
    child = process("sweep", *LONG, "workers=2")
    wait_until(lambda: len(checkpoints(cwd)) == 2, child)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 143
    assert err.strip().splitlines()[-1] == (
        f"sweep: stopped by SIGTERM after 0 of 2 trials; study={cwd / 'study'} goes on with them"
    )
    for path in checkpoints(cwd):
        assert "Stopped by SIGTERM" in (path.parents[1] / "train.log").read_text()
        assert not (path.parents[1] / ".lock").exists()
    lines = [json.loads(line) for line in (cwd / "study" / JOURNAL).read_text().splitlines()]
    again = [line for line in lines if line.get("user_attr", {}).get("again")]
    assert len(again) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resume=study"], "resume=study: there is no run in that folder (no config.yaml)"),
        (["run_dir=x"], "run_dir=x: each trial has a folder of its own, leave run_dir out"),
        (["evaluate_every=null"], "evaluate_every=null: the value of a trial is the mean of its last evaluations"),
        (["trials=0"], "trials=0: it must be a whole number of at least 1"),
        (["trials=x"], "trials='x' is not a whole number"),
        (["seeds=0"], "seeds=0: it must be a whole number of at least 1"),
        (["workers=0"], "workers=0: it must be a whole number of at least 1"),
        (["minutes=-1"], "minutes=-1.0: it must be a number of at least 0"),
        (["threads=auto"], "threads=auto: runs side by side disturb the measurement, give a number"),
        (["sampler=grid"], "sampler='grid': it must be one of 'tpe', 'random'"),
        (["pruner=all"], "pruner='all': it must be one of 'median', 'hyperband', None"),
        (["search=pppo"], "there is no search=pppo; did you mean ppo?"),
        (["trails=3"], "there is no key 'trails'; did you mean trials"),
        (["agent.clip=-1"], "clip=-1.0: it must be a number of at least 1e-12"),
        (
            ["search.agent.learning_rat.low=1", "search.agent.learning_rat.high=2"],
            "search: there is no key 'agent.learning_rat'; did you mean learning_rate",
        ),
        (
            ["search.agent.gae_lambda.high=2"],
            "search.agent.gae_lambda: gae_lambda=2.0: it must be a number from 0 to 1",
        ),
        (["search.agent.gae_lambda.low=2"], "search.agent.gae_lambda.low=2: it must be below high=1.0"),
        (["search.total_steps.choices=[1,2]"], "search.total_steps: it is the same in all trials"),
        (["study=run"], "study=run is the folder of a run: choose another"),
        (["study=other"], "study=other holds other files and no study: choose another"),
    ],
)
def test_bad_input_is_told_before_any_work(arguments, words, command, cwd):
    (cwd / "run").mkdir()
    (cwd / "run/config.yaml").touch()
    (cwd / "other").mkdir()
    (cwd / "other/notes.txt").touch()
    ended = command("sweep", *BASE[:-1], *arguments)
    assert ended.code == 1 and ended.err.startswith(f"sweep: {words}") and ended.err.count("\n") == 1, ended.err
    assert sorted(os.listdir(cwd)) == ["other", "run"]


def test_trials_that_cannot_be_cut_are_told(process, cwd):
    """Numbers that do not fit each other may fit with other values: the trial fails, and one sentence says why."""
    child = process("sweep", *SHORT[:-1], "trials=1", "search.agent.bptt.low=17", "search.agent.bptt.high=19")
    _, err = child.communicate(timeout=120)
    assert child.returncode == 1
    assert "sweep: all of 1 trials have failed, the last one so: train: bptt=1" in err.splitlines()[-1]
    assert (cwd / "study/trials.md").read_text().count("failed") == 1


def test_another_study_is_not_mixed_in(command, cwd, process):
    child = process("sweep", *SHORT[:-1], "trials=1")
    assert child.wait(120) == 0
    ended = command("sweep", *SHORT[:-1], "trials=2", "env.length=3")
    assert ended.code == 1 and "study holds runs of other arguments: " in ended.err
