"""A ladder of tiny environments with known answers: where an agent fails, look there before any further."""

import pytest
import torch

from envs.probes import ActionReward, ConstantReward, DelayedReward, EchoCue, SignReward, SpaceProbe
from rl.agents import DualHeadRecurrentPPO, RecurrentPPOLSTM
from rl.training.evaluation import evaluate

LEARN = {"num_envs": 16, "num_steps": 8, "bptt": 8, "num_minibatches": 2, "epochs": 4, "learning_rate": 0.02}


def test_the_value_of_a_constant_reward_becomes_that_reward(make_agent, train_batched, value_of):
    envs = ConstantReward(16)
    agent = make_agent(envs, core="mlp", **LEARN)
    train_batched(agent, envs, 20)
    torch.testing.assert_close(value_of(agent, [0.0]), torch.tensor([1.0]), atol=0.05, rtol=0)


def test_the_value_depends_on_the_observation(make_agent, train_batched, value_of):
    envs = SignReward(16)
    agent = make_agent(envs, core="mlp", **LEARN)
    train_batched(agent, envs, 20)
    torch.testing.assert_close(value_of(agent, [-1.0], [1.0]), torch.tensor([-1.0, 1.0]), atol=0.1, rtol=0)


def test_the_rewarded_action_is_learned(make_agent, train_batched):
    envs = ActionReward(16)
    agent = make_agent(envs, core="mlp", **LEARN)
    train_batched(agent, envs, 15)
    assert evaluate(agent, ActionReward(16), 64, seed=0, greedy=False).mean >= 0.9


def test_the_value_of_a_delayed_reward_is_discounted(make_agent, train_batched, value_of):
    envs = DelayedReward(16)
    agent = make_agent(envs, core="mlp", **LEARN, gamma=0.6)
    train_batched(agent, envs, 30)
    torch.testing.assert_close(value_of(agent, [0.0], [1.0]), torch.tensor([0.6, 1.0]), atol=0.07, rtol=0)


@pytest.mark.parametrize(("kind", "core"), [(DualHeadRecurrentPPO, "gru"), (RecurrentPPOLSTM, "lstm")])
def test_memory_solves_what_needs_memory(make_agent, train_batched, kind, core):
    envs = EchoCue(16)
    agent = make_agent(envs, kind, core, **LEARN)
    train_batched(agent, envs, 30)
    assert evaluate(agent, EchoCue(16), 128, seed=0).mean >= 0.95
    assert evaluate(agent, EchoCue(16), 128, seed=0, memory=False).mean <= 0.75


def test_without_memory_nothing_solves_what_needs_memory(make_agent, train_batched):
    envs = EchoCue(16)
    agent = make_agent(envs, core="mlp", **LEARN)
    train_batched(agent, envs, 30)
    assert evaluate(agent, EchoCue(16), 512, seed=0).mean <= 0.65  # 0.5 +- 0.02 by guessing


def test_options_do_not_keep_an_agent_from_learning(make_agent, train_batched):
    envs = SpaceProbe(16, "box", "multi_discrete")
    options = {"separate_critic": True, "previous_action_reward": True, "ratio": "per_head"}
    agent = make_agent(envs, **LEARN, **options)
    train_batched(agent, envs, 20)
    assert evaluate(agent, SpaceProbe(16, "box", "multi_discrete"), 64, seed=0).mean >= 0.9
