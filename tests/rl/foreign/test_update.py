"""From the same weights and the same rollout an update of sb3-contrib and one of ours lead to the same weights."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rl

ROWS, STEPS, SIZE = 4, 32, 3


class Chances(gymnasium.Env):
    """Observations, rewards and terminations are drawn; no episode is cut."""

    observation_space, action_space = spaces.Box(-5.0, 5.0, (SIZE,)), spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.draw(), {}

    def step(self, action):
        return self.draw(), float(self.np_random.normal()), self.np_random.random() < 0.1, False, {}

    def draw(self):
        return self.np_random.normal(size=SIZE).astype(np.float32)


@pytest.mark.parametrize(("normalised", "share"), [(False, 1e-3), (True, 0.02)])
def test_an_update_is_that_of_sb3(normalised, share, tmp_path, monkeypatch):
    """Three epochs of one minibatch, which sb3 cuts at no chance place here.

    Its normalised advantages are divided by the deviation of a sample, n - 1, ours by that of all, n. Each difference
    is a share of how far the weights moved.
    """
    sb3_contrib = pytest.importorskip("sb3_contrib")
    from stable_baselines3.common.env_util import make_vec_env

    options = {"n_steps": STEPS, "batch_size": ROWS * STEPS, "n_epochs": 3, "learning_rate": 1e-3, "ent_coef": 0.01}
    options |= {"normalize_advantage": normalised, "policy_kwargs": {"lstm_hidden_size": 8, "net_arch": [7]}}
    envs = make_vec_env(Chances, n_envs=ROWS, seed=1)
    model = sb3_contrib.RecurrentPPO("MlpLstmPolicy", envs, **options, seed=1, device="cpu")
    with torch.no_grad():
        model.policy.action_net.weight.mul_(100.0)  # or what the memory holds would hardly move the policy
    model.save(tmp_path / "before.zip")
    monkeypatch.setattr(np.random, "randint", lambda *_: 0)
    model.learn(ROWS * STEPS)
    monkeypatch.undo()
    model.save(tmp_path / "after.zip")

    agent = rl.from_sb3(tmp_path / "before.zip", num_envs=ROWS, seed=1)
    agent.training = True
    before = {name: leaf.clone() for name, leaf in agent.network.state_dict().items()}
    assert (agent.ppo.num_minibatches, agent.ppo.bptt, agent.ppo.epochs) == (1, STEPS, 3)
    names = ("observations", "actions", "rewards", "episode_starts")  # those it has sorted by rows are [B * T, ...]
    played = {name: getattr(model.rollout_buffer, name) for name in names}
    played = {name: part.reshape(ROWS, STEPS, -1).swapaxes(0, 1) for name, part in played.items() if name != "rewards"}
    rewards = model.rollout_buffer.rewards  # [T, B]
    ends = np.concatenate([played["episode_starts"][1:, :, 0], model._last_episode_starts[None]]).astype(bool)
    assert ends.any() and not ends.all()
    for obs, action, reward, ended in zip(played["observations"], played["actions"], rewards, ends, strict=True):
        monkeypatch.setattr(agent.network.head, "sample", lambda *_, a=action: torch.from_numpy(a).long())
        agent.act(obs)
        agent.observe(reward, ended)
    agent.learn(model._last_obs)

    expected = rl.from_sb3(tmp_path / "after.zip").network.state_dict()
    for name, weight in agent.network.named_parameters():
        moved = (expected[name] - before[name]).abs().max()
        assert moved > 1e-4 and (weight - expected[name]).abs().max() <= share * moved, name
