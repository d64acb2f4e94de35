"""``python -m experiments.train observers=[...]``."""

import csv
import json
import sys
from collections import defaultdict
from itertools import count
from threading import get_ident
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from experiments.launch.run_folder import load_run_config
from rl.training import trainer

EVALUATED = "evaluate_every=8", "evaluate_episodes=2", "evaluation_share=null"  # all are played


def rows_of(folder):
    with (folder / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_the_tags_and_steps_of_tensorboard(train_maze, cwd, run_of):
    train_maze("observers=[csv]", "total_steps=16", *EVALUATED, "run_dir=run")
    rows, run = rows_of(cwd / "run"), run_of("run")
    assert {*rows[0]} - {"env_steps"} == {tag for tag in run.tags if not tag.startswith("hparam/")}
    for tag in ("losses/entropy", "eval/episodic_return", "charts/SPS"):
        points = [(int(row["env_steps"]), pytest.approx(float(row[tag]), rel=1e-5)) for row in rows if row[tag]]
        assert points == list(zip(run.steps(tag), run.values(tag), strict=True))
    assert [int(row["env_steps"]) for row in rows] == [8, 8, 16, 16]
    assert OmegaConf.load("run/config.yaml").observers == {"csv": {"_target_": "rl.training.observers.CSV"}}


def test_a_resumed_run_is_watched_on_and_learns_the_same(train_maze, command, cwd, run_of):
    train_maze("total_steps=24", *EVALUATED, "run_dir=alone")
    train_maze("observers=[csv]", "total_steps=16", *EVALUATED, "run_dir=run")
    assert command("train", "resume=run", "total_steps=24").code == 0
    assert [int(row["env_steps"]) for row in rows_of(cwd / "run")] == [8, 8, 16, 16, 24, 24]
    assert run_of("run").network_equals(run_of("alone"))
    assert command("train", "resume=run", "total_steps=32", "observers=[]").code == 0  # nobody watches any more
    assert rows_of(cwd / "run")[-1]["env_steps"] == "24" and OmegaConf.load("run/config.yaml").observers == {}
    assert command("train", "resume=alone", "total_steps=32", "observers=[csv]").code == 0
    assert [int(row["env_steps"]) for row in rows_of(cwd / "alone")] == [32, 32]


def test_the_first_of_several_shards_is_watched_and_all_end_at_the_same_plateau(train_maze, cwd, run_of):
    """Nothing improves by a hundred, so the second evaluation is one too many; all shards say so, or hang."""
    patient = "patience=1", "min_delta=100", "total_steps=64", *EVALUATED
    train_maze("shards=2", "observers=[csv]", *patient, "run_dir=run")
    assert [int(row["env_steps"]) for row in rows_of(cwd / "run")] == [8, 8, 16, 16]
    found = run_of("run").result
    assert (found["env_steps"], found["stop_reason"]) == (16, "plateau")
    said = (cwd / "run/train.log").read_text()
    assert said.count("the last 1 evaluations were not better than the best one before them by more than") == 1


def test_all_shards_go_by_the_clock_of_the_first(train_maze, cwd, run_of, monkeypatch):
    """That of the other one is a hundred times as fast, or as slow; by its own it would end elsewhere, or hang."""
    rates = defaultdict(lambda: 100.0 ** len(rates))
    ticks = defaultdict(count)

    def read_clock():
        thread = get_ident()
        return rates[thread] * next(ticks[thread])

    monkeypatch.setattr(trainer, "time", SimpleNamespace(perf_counter=read_clock))
    train_maze("shards=2", "total_steps=64", "max_seconds=4", "run_dir=run")
    found = run_of("run").result
    assert (found["env_steps"], found["training_seconds"]) in ((32, 4.0), (8, 100.0))
    assert found["stop_reason"] == "max_seconds"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("observers=[cvs]",), "there is no observers=cvs; did you mean csv?"),
        (("observers=[wandb]",), "the observer wandb needs the package wandb: pip install 'recurrent-ppo[wandb]'"),
        (("observers=[wandb]", "observers.wandb.projekt=x"), "there is no key 'observers.wandb.projekt'"),
        (("observers.csv.x=1",), "observers.csv has no _target_"),
        (("observers.x._target_=rl.training.Metrics.say",), "observers.x"),
        (("observers.x._target_=collections.Counter",), "has not begin, report and end"),
        (
            ("patience=1", "evaluate_every=null"),
            "patience=1: it counts evaluations, so evaluate_every must be a number",
        ),
    ],
)
def test_what_cannot_watch_is_refused_before_anything_is_written(command, tiny, cwd, monkeypatch, arguments, sentence):
    monkeypatch.setitem(sys.modules, "wandb", None)
    ended = command("train", "env=t_maze", *tiny, *arguments, "run_dir=run")
    assert ended.code == 1 and ended.err.count("\n") == 1 and sentence in ended.err
    assert not (cwd / "run").exists()


def test_an_observer_that_fails_does_not_end_the_run(train_maze, cwd, monkeypatch):
    monkeypatch.setattr("rl.training.observers.CSV.report", lambda *_: 1 / 0)
    train_maze("observers=[csv]", "total_steps=16", "run_dir=run")
    assert json.loads((cwd / "run/result.json").read_text())["env_steps"] == 16
    assert (cwd / "run/train.log").read_text().count(
        "observer csv has failed: ZeroDivisionError: division by zero"
    ) == 1


def test_a_run_folder_may_name_our_observers_and_no_others(train_maze, command, cwd):
    train_maze("observers=[csv]", "run_dir=run")
    assert load_run_config("run").observers.csv._target_ == "rl.training.observers.CSV"
    config = OmegaConf.load("run/config.yaml")
    config.observers = {"bell": {"_target_": "evil.Bell"}}
    OmegaConf.save(config, "run/config.yaml")
    for arguments in (("train", "resume=run", "total_steps=16"), ("evaluate", "run=run")):
        ended = command(*arguments)
        assert ended.code == 1 and "observers.bell._target_=evil.Bell" in ended.err and "trust=[evil]" in ended.err


def test_a_new_run_in_the_folder_forgets_the_old_one(train_maze, cwd):
    train_maze("observers=[csv]", "run_dir=run")
    train_maze("run_dir=run", "overwrite=true")
    assert not (cwd / "run/progress.csv").exists()


def test_help_shows_the_observers(command):
    shown = command("train", "observers=[csv,wandb]", "--help").out
    assert "[csv], mlflow, [wandb]" in shown and "observers.wandb.project=recurrent-ppo" in shown
    job = OmegaConf.create(command("train", "observers=[wandb]", "--cfg", "job").out)
    assert job.observers.wandb == {"_target_": "rl.training.observers.WandB", "project": "recurrent-ppo", "group": None}


def test_a_preset_of_ones_own_may_choose_observers(command, cwd):
    (cwd / "conf/experiment").mkdir(parents=True)
    chosen = "# @package _global_\ndefaults:\n  - override /observers: [csv]\n"
    (cwd / "conf/experiment/mine.yaml").write_text(chosen)
    job = OmegaConf.create(command("train", "--config-dir=conf", "experiment=mine", "--cfg", "job").out)
    assert job.observers == {"csv": {"_target_": "rl.training.observers.CSV"}}
