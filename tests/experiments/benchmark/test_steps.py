"""What is learned from so many steps: which runs are started, and what is told of them."""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module

from experiments.benchmark import peers, steps
from experiments.launch.check import ConfigError


@pytest.fixture
def composed():
    """The configuration of a run of the preset."""
    with initialize_config_module("conf", version_base="1.3"):
        return compose("train", [word.replace("agent.", "++agent.") for word in steps.PRESET])


def test_three_runs_of_the_same_seed(started):
    lines = started(
        {"env_steps": 60416, "total_steps": 60_000, "eval_return_mean": 0.75, "training_seconds": 4.0},
        {"env_steps": 60416, "eval_return": 0.5, "training_seconds": 16.0},
    )
    rows = steps.make_rows()
    found = [row.measure(2) for row in rows]
    assert found[0] == found[1] == {"env_steps": 60416, "eval_return": 0.75, "steps_per_second": 15104.0}
    assert found[2] == {"env_steps": 60416, "eval_return": 0.5, "steps_per_second": 3776.0}
    for line, core in zip(lines[:2], ([], steps.LSTM), strict=True):
        assert line[:-1] == ["experiments.train", *steps.PRESET, *core, "seed=3"]
        assert not Path(line[-1].removeprefix("run_dir=")).exists()
    assert lines[2] == ["experiments.peers.sb3_steps", "--seed", "3", "--steps", "60000"]


def test_without_sb3_contrib_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="sb3_contrib is not installed: pip install 'recurrent-ppo"):
        steps.make_rows()


@pytest.mark.parametrize("overrides", [[], steps.LSTM], ids=["GRU", "LSTM"])
def test_the_preset_is_trained(overrides):
    """One rollout of it, and ten episodes."""
    found = steps.learn([*overrides, "total_steps=1024", "final_episodes=10"], round=0)
    assert found["env_steps"] == 1024 and -1.0 <= found["eval_return"] < 0.2 and found["steps_per_second"] > 0.0


def test_sizes_of_both_sides_are_alike(composed):
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_steps

    config, agent = composed, sb3_steps.make_agent(seed=1)
    own = config.agent
    assert (agent.n_envs, agent.n_steps, agent.batch_size) == (config.num_envs, config.num_steps, 64 * 16 // 8)
    assert own.num_minibatches == 8 and agent.learning_rate == own.learning_rate
    ppo = {"epochs": 4, "gamma": 0.99, "gae_lambda": 0.95, "entropy_coef": 0.01}
    assert (agent.n_epochs, agent.gamma, agent.gae_lambda, agent.ent_coef) == tuple(ppo.values())
    assert not ppo.keys() & own.keys()  # those are the defaults
    assert agent.policy.lstm_actor.hidden_size == own.core.hidden_size == 64


def test_sb3_steps_end_to_end(monkeypatch, capsys):
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_steps

    monkeypatch.setattr(sb3_steps, "COPIES", 2)
    monkeypatch.setattr(sb3_steps, "EPISODES", 4)
    sb3_steps.main(["--seed", "1", "--steps", "1000"])
    found = json.loads(capsys.readouterr().out)
    assert found["env_steps"] == 1024 and -1.0 <= found["eval_return"] < 0.2 and found["training_seconds"] > 0.0
    with pytest.raises(SystemExit):
        sb3_steps.main(["--seed", "1", "--steps", "0"])
    assert "must be at least 1" in capsys.readouterr().err
