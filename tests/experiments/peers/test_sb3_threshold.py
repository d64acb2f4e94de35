"""sb3-contrib until it has solved its task, where it is installed."""

import json

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")


SETTINGS = ("seed", "n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "n_envs")


def test_sb3_threshold_has_the_settings_of_the_zoo():
    from experiments.peers import sb3_threshold

    agent = sb3_threshold.make_agent(seed=3)
    assert [getattr(agent, name) for name in SETTINGS] == [3, 32, 256, 20, 0.98, 0.8, 0.0, 8]
    rates = (
        [agent.lr_schedule(left) for left in (1.0, 0.25, -0.1)],
        [agent.clip_range(left) for left in (1.0, 0.25, -1)],
    )
    assert rates == (pytest.approx([1e-3, 2.5e-4, 0.0]), pytest.approx([0.2, 0.05, 0.0]))
    assert (agent.env.gamma, agent.env.norm_obs, agent.env.norm_reward, agent.env.training) == (0.98, True, True, True)
    policy = agent.policy
    assert (policy.lstm_actor.hidden_size, policy.lstm_critic.hidden_size) == (64, 64)
    for head in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net):
        assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU"] and head[0].out_features == 64
    assert not policy.ortho_init


def test_sb3_threshold_evaluates_without_moving_the_moments(monkeypatch):
    from experiments.peers import sb3_threshold

    monkeypatch.setattr(sb3_threshold, "COPIES", 3)
    agent = sb3_threshold.make_agent(seed=1)
    env = sb3_threshold.make_evaluation_env(agent.env, seed=2)
    agent.env.reset()
    agent.env.obs_rms.mean, agent.env.obs_rms.var = np.array([1.0, 2.0]), np.array([4.0, 4.0])
    first = env.reset()
    assert np.abs(first - [-0.5, -1.0]).max() < 0.03  # normalised as training is
    obs, rewards, _, _ = env.step(np.zeros(3, dtype=np.int64))
    assert rewards.tolist() == [1.0, 1.0, 1.0]
    assert agent.env.obs_rms.mean.tolist() == [1.0, 2.0] and not np.array_equal(obs, first)
    assert np.array_equal(env.reset(), first)


def test_sb3_threshold_ends_when_solved_or_out_of_steps(monkeypatch):
    from experiments.peers import sb3_threshold

    class Agent:
        """256 steps in each rollout."""

        env, rollout_buffer, n_steps = "env", "buffer", 32

        def __init__(self):
            self.num_timesteps, self.progress = 0, []

        def _setup_learn(self, total_timesteps):
            return total_timesteps, "callback"

        def collect_rollouts(self, env, callback, buffer, n_rollout_steps):
            assert (env, callback, buffer, n_rollout_steps) == ("env", "callback", "buffer", 32)
            self.num_timesteps += 256

        def _update_current_progress_remaining(self, steps, total):
            self.progress.append(steps / total)

        def train(self):
            assert self.progress[-1] == self.num_timesteps / 100_000

    def solved(max_steps, *means):
        asked, answers = [], iter(means)

        def evaluate(agent, env, n_eval_episodes, deterministic, warn):
            assert (env, n_eval_episodes, deterministic) == ("copies", 100, True)
            asked.append(agent.num_timesteps)
            return next(answers), 0.0

        monkeypatch.setattr(sb3_threshold, "evaluate_policy", evaluate)
        found = sb3_threshold.solve(Agent(), "copies", max_steps, 5000)
        assert found.pop("training_seconds") > 0.0
        return asked, found

    asked, found = solved(100_000, 20.0, 474.9, 475.0)
    assert asked == [5120, 10240, 15104]  # the first whole rollouts beyond 5, 10 and 15 thousand
    assert found == {"env_steps": 15104, "eval_return": 475.0, "solved": True}
    asked, found = solved(6000, 20.0, 30.0)
    assert asked == [5120, 6144] and found == {"env_steps": 6144, "eval_return": 30.0, "solved": False}


def test_sb3_threshold_end_to_end(monkeypatch, capsys):
    from experiments.peers import sb3_threshold

    monkeypatch.setattr(sb3_threshold, "COPIES", 2)
    monkeypatch.setattr(sb3_threshold, "EPISODES", 4)
    sb3_threshold.main(["--seed", "1", "--max-steps", "300", "--evaluate-every", "200"])
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"env_steps", "eval_return", "solved", "training_seconds"}
    assert (found["env_steps"], found["solved"]) == (512, False) and 5 < found["eval_return"] < 475
    with pytest.raises(SystemExit):
        sb3_threshold.main(["--seed", "1", "--evaluate-every", "0"])
    assert "must be at least 1" in capsys.readouterr().err
