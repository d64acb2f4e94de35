"""``python -m experiments.evaluate``."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments import evaluate
from experiments.launch import evaluations
from experiments.launch.build import SETTINGS
from experiments.launch.evaluations import EVALUATION_SEED, FINAL_SEED, OWN_SEED
from rl.training.evaluation import Evaluation
from rl.training.run import checkpoint_path

NUMBERS = {"mean": 3, "stderr": 3, "mean_length": 1}  # digits behind the point, as printed


@pytest.fixture
def run_dir(command, tiny, cwd):
    arguments = "env=t_maze", *tiny, "total_steps=160", "final_episodes=20", "seed=3", "run_dir=run"
    assert command("train", *arguments).code == 0
    return cwd / "run"


def test_four_rows(run_dir, command):
    checkpoint = (run_dir / "checkpoints/last.pt").read_bytes()
    ended = command("evaluate", "run=run", "episodes=20", "seed=1003")
    assert (ended.code, ended.err) == (0, "")
    rows = json.loads((run_dir / "evaluation.json").read_text())
    kinds = [("greedy", "kept"), ("greedy", "zeroed"), ("sampled", "kept"), ("sampled", "zeroed")]
    assert [(row["policy"], row["memory"]) for row in rows] == kinds
    assert all(row["episodes"] == 20 and 1 <= row["mean_length"] <= 22 for row in rows)
    assert len({row["mean"] for row in rows[1:]}) == 3  # sampling is no greedy play, and memory counts

    head, columns, *printed = [line for line in ended.out.splitlines() if line]
    assert "RecurrentPPOLSTM after 160 steps, run" in head
    assert columns.split()[:2] == ["policy", "memory"]
    assert [line.split() for line in printed] == [
        [row["policy"], row["memory"], f"{row['mean']:.3f}", f"{row['stderr']:.3f}", "20", f"{row['mean_length']:.1f}"]
        for row in rows
    ]

    result = json.loads((run_dir / "result.json").read_text())  # the same seed and number of episodes
    assert (rows[0]["mean"], rows[0]["stderr"]) == (result["eval_return_mean"], result["eval_return_stderr"])
    assert rows[1]["mean"] == result["memory_zeroed_return_mean"]
    assert (run_dir / "checkpoints/last.pt").read_bytes() == checkpoint


def test_a_seed_repeats_and_leaves_no_files_about(run_dir, command, cwd):
    def means(seed):
        assert command("evaluate", f"run={run_dir}/", "episodes=6", f"seed={seed}").code == 0
        return [row["mean"] for row in json.loads((run_dir / "evaluation.json").read_text())]

    assert means(1) == means(1) != means(2)
    assert [path.name for path in cwd.iterdir()] == ["run"]


def test_elsewhere_beside_as_trained(run_dir, command):
    """The same agent in the environment of the run and in a longer one: eight rows, two returns in each line."""
    assert command("evaluate", "run=run", "episodes=8", "seed=4").code == 0
    plain = json.loads((run_dir / "evaluation.json").read_text())
    ended = command("evaluate", "run=run", "episodes=8", "seed=4", "env.length=1", "env.passive=true")
    assert (ended.code, ended.err) == (0, "")
    rows = json.loads((run_dir / "evaluation.json").read_text())
    trained, there = rows[:4], rows[4:]
    known = {"env_steps": 160, "seed": 4, "optimal_return": 1.0, "memoryless_return": 0.5}
    assert trained == [row | {"overrides": []} | known for row in plain]
    assert all(row["overrides"] == ["env.length=1", "env.passive=true"] for row in there)
    assert all(row["mean_length"] <= 4 < other["mean_length"] for row, other in zip(there, trained, strict=True))
    assert "elsewhere: env.length=1, env.passive=true" in ended.out
    printed = [line.split() for line in ended.out.splitlines()[-4:]]
    for line, row, other in zip(printed, trained, there, strict=True):
        numbers = [f"{each[key]:.{digits}f}" for each in (row, other) for key, digits in NUMBERS.items()]
        assert line == [row["policy"], row["memory"], *numbers, "8"]


def test_elsewhere_is_what_a_sweep_is_about(run_dir, command, monkeypatch):
    """The value of the command is that of the last place named."""
    seen = []
    run = evaluate.run
    monkeypatch.setattr(evaluate, "run", lambda config: seen.append(run(config)))
    assert command("evaluate", "run=run", "episodes=8", "env=t_maze", "env.length=1").code == 0
    rows = json.loads((run_dir / "evaluation.json").read_text())
    chosen = ["env._target_=envs.t_maze.TMaze", "env.length=1", "env.device=null"]
    assert seen == [rows[4]["mean"]] and rows[4]["overrides"] == chosen
    assert rows[4]["policy"] == "greedy" and rows[0]["mean"] != rows[4]["mean"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("env.lenght=100", "there is no key 'env.lenght'; did you mean length?"),
        ("env.length=0", "length=0: it must be a whole number of at least 1"),
        ("env.passive=false", "env.passive=false: the actions there are Discrete(4), those of the agent Discrete(3)"),
        ("~env.length", "~env.length: there is no such key to remove here; give a value, env.length=VALUE"),
    ],
)
def test_an_elsewhere_that_cannot_be_is_refused_before_anything_is_played(
    run_dir, command, monkeypatch, override, sentence
):
    monkeypatch.setattr(evaluate, "evaluate_agent", None)
    ended = command("evaluate", "run=run", override)
    assert (ended.code, ended.out, ended.err) == (1, "", f"evaluate: {sentence}\n")
    assert not (run_dir / "evaluation.json").exists()


def test_every_setting_arrives(tmp_path, monkeypatch, capsys):
    """At the parts, which are those of the stored run on the given device, and at all four evaluations."""
    agent = {"_target_": "rl.agents.RecurrentPPO", "image_encoding": "categories"}
    nodes = {"agent": agent, "env": {"_target_": "envs.t_maze.TMaze"}}
    stored = dict.fromkeys(SETTINGS, 1) | nodes | {"device": "cpu"}
    OmegaConf.save(OmegaConf.create(stored), tmp_path / "config.yaml")
    done, asked = [], []
    agent = SimpleNamespace(load=done.append, model_name="Agent", env_steps=8)
    settings = SimpleNamespace()
    parts = SimpleNamespace(
        agent=agent, evaluation_envs="evaluation", settings=settings, close=lambda: done.append("closed")
    )

    def build(config, playing):
        given = {key: config[key] for key in stored}
        assert given == stored | {"device": "other", "evaluation_envs": 4} and playing
        return parts

    def evaluate_agent(agent, envs, episodes, seed, *, memory, greedy, max_steps, progress):
        assert done[-1] == tmp_path / "checkpoints/last.pt" and progress.startswith("greedy" if greedy else "sampled")
        asked.append((agent, envs, episodes, seed, memory, greedy, max_steps))
        return Evaluation(np.array([1.0, 3.0]) * len(asked), np.array([2, 6]), np.array([0, 1]), cut=1)

    monkeypatch.setattr(evaluate, "build", build)
    monkeypatch.setattr(evaluate, "choose_checkpoint", lambda config: checkpoint_path(config.run))
    monkeypatch.setattr(evaluate, "evaluate_agent", evaluate_agent)
    values = {"run": str(tmp_path), "episodes": 7, "seed": 5, "device": "other", "evaluation_envs": 4, "max_steps": 6}
    assert evaluate.run(OmegaConf.create(values | {"memory_zeroed": True})) == 2.0  # greedy, with memory
    kinds = [(memory, greedy) for greedy in (True, False) for memory in (True, False)]
    assert asked == [(agent, "evaluation", 7, OWN_SEED + 5, *kind, 6) for kind in kinds]
    assert done == [tmp_path / "checkpoints/last.pt", "closed"]
    rows = json.loads((tmp_path / "evaluation.json").read_text())
    numbers = {"mean": 8.0, "stderr": 4.0, "episodes": 2, "episodes_cut": 1, "mean_length": 4.0}
    assert rows[3] == {"policy": "sampled", "memory": "zeroed", "checkpoint": "last.pt"} | numbers
    assert capsys.readouterr().out.endswith(
        "\n1 of 2 evaluation episodes had not ended after 6 steps and count with their return so far: raise max_steps, "
        "or give max_steps=null for no bound\n"
    )
    asked.clear()
    assert evaluate.run(OmegaConf.create(values | {"memory_zeroed": False})) == 2.0
    assert [memory for *_, memory, _, _ in asked] == [True, True]


def test_the_chosen_checkpoint_plays(chosen, command, cwd):
    ended = command("evaluate", "run=run", "episodes=2", chosen.argument)
    assert (ended.code, ended.err) == (0, "")
    assert f"RecurrentPPOLSTM after {chosen.env_steps} steps, {chosen.file}\n" in ended.out
    rows = json.loads((cwd / "run/evaluation.json").read_text())
    found = [(row["mean"], row["mean_length"], row["checkpoint"]) for row in rows]
    named = Path(chosen.file).name if chosen.file.startswith("run/") else chosen.file  # those elsewhere by their path
    assert found == [(chosen.total, 6.0, named)] * 4


@pytest.mark.parametrize("name", ["evaluate", "record", "export", "watch", "check_memory"])
def test_a_checkpoint_that_is_not_there_is_refused_in_one_sentence(train_maze, command, cwd, monkeypatch, name):
    """By every command that plays a run."""
    monkeypatch.setattr("experiments.record.import_minari", lambda: None)
    monkeypatch.setattr("experiments.watch.import_pillow", lambda: None)
    train_maze("run_dir=run")
    output = {"record": ["output=x"], "export": ["output=x.pt2"]}.get(name, [])
    missing = "run/checkpoints/best.pt is not there, as where a run was not evaluated during its training"
    for argument, reason in (("best", missing), ("x.pt", "there is no such file")):
        ended = command(name, "run=run", f"checkpoint={argument}", *output)
        sentence = f"checkpoint={argument}: {reason}; it must be last, best or the path of a checkpoint"
        assert ended == (1, "", f"{name}: {sentence}\n")
    assert [path.name for path in cwd.iterdir()] == ["run"]


def test_no_episode_of_training_is_played_again(train_maze, command, monkeypatch):
    """Those that chose the best checkpoint of a run with the same seed would flatter it."""
    seeds, play = [], evaluations.evaluate

    def note(agent, envs, episodes, seed, **options):
        seeds.append(seed)
        return play(agent, envs, episodes, seed, **options)

    monkeypatch.setattr(evaluations, "evaluate", note)
    evaluated = "evaluate_every=80", "evaluate_episodes=5", "evaluate_memory_zeroed=false"
    train_maze("total_steps=160", "seed=1", *evaluated, "run_dir=run")
    assert {*seeds} == {EVALUATION_SEED + 1, EVALUATION_SEED + 1 + FINAL_SEED}
    seeds.clear()
    assert command("evaluate", "run=run", "episodes=5").code == 0
    assert {*seeds} == {EVALUATION_SEED + 1 + OWN_SEED}
