"""``python -m experiments.evaluate``."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiments import evaluate
from experiments.launch.build import SETTINGS
from rl.training.evaluation import Evaluation
from rl.training.run import checkpoint_path


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


def test_every_setting_arrives(tmp_path, monkeypatch, capsys):
    """At the parts, which are those of the stored run on the given device, and at all four evaluations."""
    nodes = {"agent": {"_target_": "rl.agents.RecurrentPPO"}, "env": {"_target_": "envs.t_maze.TMaze"}}
    stored = dict.fromkeys(SETTINGS, 1) | nodes | {"device": "cpu"}
    OmegaConf.save(OmegaConf.create(stored), tmp_path / "config.yaml")
    done, asked = [], []
    agent = SimpleNamespace(load=done.append, model_name="Agent", env_steps=8)
    settings = SimpleNamespace(set_threads=lambda: done.append("threads"))
    parts = SimpleNamespace(
        agent=agent, evaluation_envs="evaluation", settings=settings, close=lambda: done.append("closed")
    )

    def build(config, playing):
        given = {key: config[key] for key in stored}
        assert given == stored | {"device": "other", "evaluation_envs": 4} and playing
        return parts

    def evaluate_agent(agent, envs, episodes, seed, *, memory, greedy, max_steps, progress):
        assert done[-1] == "threads" and progress.startswith("greedy" if greedy else "sampled")
        asked.append((agent, envs, episodes, seed, memory, greedy, max_steps))
        return Evaluation(np.array([1.0, 3.0]) * len(asked), np.array([2, 6]), np.array([0, 1]), cut=1)

    monkeypatch.setattr(evaluate, "build", build)
    monkeypatch.setattr(evaluate, "find_newest", checkpoint_path)
    monkeypatch.setattr(evaluate, "evaluate_agent", evaluate_agent)
    values = {"run": str(tmp_path), "episodes": 7, "seed": 5, "device": "other", "evaluation_envs": 4, "max_steps": 6}
    assert evaluate.run(OmegaConf.create(values | {"memory_zeroed": True})) == 2.0  # greedy, with memory
    kinds = [(memory, greedy) for greedy in (True, False) for memory in (True, False)]
    assert asked == [(agent, "evaluation", 7, 5, *kind, 6) for kind in kinds]
    assert done == [tmp_path / "checkpoints/last.pt", "threads", "closed"]
    rows = json.loads((tmp_path / "evaluation.json").read_text())
    numbers = {"mean": 8.0, "stderr": 4.0, "episodes": 2, "episodes_cut": 1, "mean_length": 4.0}
    assert rows[3] == {"policy": "sampled", "memory": "zeroed"} | numbers
    assert capsys.readouterr().out.endswith(
        "\n1 of 2 evaluation episodes had not ended after 6 steps and count with their return so far: raise max_steps, "
        "or give max_steps=null for no bound\n"
    )
    asked.clear()
    assert evaluate.run(OmegaConf.create(values | {"memory_zeroed": False})) == 2.0
    assert [memory for *_, memory, _, _ in asked] == [True, True]
