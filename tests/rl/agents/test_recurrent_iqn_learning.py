"""Recurrent IQN on a ladder of tiny environments with known answers: where it fails, look there before any further."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import ActionReward, ConstantReward, Counter, DelayedReward, EchoCue, SignReward, SpaceProbe
from envs.single_env import SingleEnv
from rl.training.evaluation import evaluate
from rl.training.stepping import VectorEnvAdapter

LEARN = {"num_envs": 16, "bptt": 4, "batch_size": 64, "n_step": 1, "learning_rate": 0.01, "target_interval": 10}
LEARN |= {"total_steps": 2000, "replay_ratio": 4.0, "num_quantiles": 8, "num_target_quantiles": 8}


def test_the_value_of_a_constant_reward_becomes_that_reward(make_iqn, train_batched, value_of):
    envs = ConstantReward(16)
    agent = make_iqn(envs, core="mlp", **LEARN)
    train_batched(agent, envs, 15)
    torch.testing.assert_close(value_of(agent, [0.0]), torch.tensor([1.0]), atol=0.1, rtol=0)


class Loud(SignReward):
    """Its rewards are -100 and 100."""

    def _advance(self, actions):
        rewards, ended = super()._advance(actions)
        return 100.0 * rewards, ended


@pytest.mark.parametrize(("kind", "normalise"), [(SignReward, False), (Loud, True)])
def test_the_value_depends_on_the_observation(make_iqn, train_batched, value_of, kind, normalise):
    """With normalised returns whatever the size of the rewards."""
    agent = make_iqn(kind(16), core="mlp", normalise_returns=normalise, **LEARN)
    train_batched(agent, kind(16), 15)
    torch.testing.assert_close(value_of(agent, [-1.0], [1.0]), torch.tensor([-1.0, 1.0]), atol=0.15, rtol=0)


def test_the_rewarded_action_is_learned(make_iqn, train_batched):
    envs = ActionReward(16)
    agent = make_iqn(envs, core="mlp", **LEARN)
    train_batched(agent, envs, 15)
    assert evaluate(agent, ActionReward(16), 64, seed=0).mean == 1.0
    assert evaluate(agent, ActionReward(16), 640, seed=0, greedy=False).mean >= 0.95  # epsilon is 0.05 in the end


@pytest.mark.parametrize(("n_step", "rescaling"), [(1, True), (3, False)])
def test_the_value_of_a_delayed_reward_is_discounted(make_iqn, train_batched, value_of, n_step, rescaling):
    """0.6, then 1; on the scale of h(x) = sqrt(x + 1) - 1 + x / 1000 these are 0.2655 and 0.4152."""
    envs = DelayedReward(16)
    agent = make_iqn(envs, core="mlp", **{**LEARN, "n_step": n_step}, gamma=0.6, value_rescaling=rescaling)
    train_batched(agent, envs, 20)
    expected = torch.tensor([0.2655, 0.4152] if rescaling else [0.6, 1.0])
    torch.testing.assert_close(value_of(agent, [0.0], [1.0]), expected, atol=0.07, rtol=0)


@pytest.mark.parametrize(
    ("late", "end", "expected"),
    [
        (False, "terminated", [1.75, 1.5, 1.0]),
        (False, "truncated", [2.0, 2.0, 2.0]),
        (True, "truncated", [2.0, 2.0, 2.0]),
    ],
)
def test_what_is_cut_is_worth_what_would_have_followed(make_iqn, value_of, late, end, expected):
    """Reward 1 in every step, episodes of 3, gamma = 1/2: a cut is no end, also where resets come late."""
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=3, end=end)] * 16
    envs = SyncVectorEnv(made, autoreset_mode=AutoresetMode.NEXT_STEP) if late else Counter(16, 3, end)
    agent = make_iqn(envs, core="mlp", **{**LEARN, "n_step": 2}, gamma=0.5, layer_size=16)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(30):
        for _ in range(8):
            after = stepper.step(agent.act(obs))
            ones = np.ones(16, dtype=np.float32)
            agent.observe(ones, after.terminated, after.truncated, after.final_obs, after.ignored)
            obs = after.obs
        agent.learn(obs)
    envs.close()
    got = value_of(agent, *([count, 0.0] for count in range(3)))
    torch.testing.assert_close(got, torch.tensor(expected), atol=0.12, rtol=0)


def test_memory_solves_what_needs_memory(make_iqn, train_batched):
    envs = EchoCue(16)
    agent = make_iqn(envs, **LEARN)
    train_batched(agent, envs, 25)
    assert evaluate(agent, EchoCue(16), 128, seed=0).mean >= 0.95
    assert evaluate(agent, EchoCue(16), 128, seed=0, memory=False).mean <= 0.75


def test_without_memory_nothing_solves_what_needs_memory(make_iqn, train_batched):
    envs = EchoCue(16)
    agent = make_iqn(envs, core="mlp", **LEARN)
    train_batched(agent, envs, 25)
    assert evaluate(agent, EchoCue(16), 512, seed=0).mean <= 0.65  # 0.5 +- 0.02 by guessing


def test_options_do_not_keep_an_agent_from_learning(make_iqn, train_batched):
    options = {"dueling": True, "priority_exponent": 0.6, "burn_in": 2, "target_interval": 1, "target_share": 0.05}
    envs = SpaceProbe(16, "box", "multi_discrete")
    agent = make_iqn(envs, **LEARN | {"learning_rate": 0.02} | options)
    train_batched(agent, envs, 20)
    assert evaluate(agent, SpaceProbe(16, "box", "multi_discrete"), 64, seed=0).mean >= 0.9
