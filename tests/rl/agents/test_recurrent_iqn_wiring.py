"""Whole calls of ``agent.learn`` beside the slow update of ``tests/rl/iqn/reference.py``: what the agent passes on."""

from copy import deepcopy

import pytest
import torch

from envs.probes import Counter
from rl.training.stepping import VectorEnvAdapter
from tests.rl.iqn.reference import SlowIQN

TOLERANCE = 5e-6  # of the largest weight
BASE = {"total_steps": 200, "learning_rate_schedule": "linear", "learning_rate": 0.01, "priority_exponent": 0.7}
BASE |= {"burn_in": 2, "target_interval": 3, "target_share": 0.5, "max_grad_norm": 0.5, "value_rescaling": True}
BASE |= {"previous_action_reward": True, "normalise_returns": True, "replay_ratio": 0.8, "capacity": 600}


@pytest.fixture
def make_envs():
    """Three environments whose episodes are cut after 3, 5 and 7 steps."""
    return lambda: Counter(3, [3, 5, 7], "truncated")


@pytest.fixture
def learn_beside(make_iqn, collect_steps, make_envs):
    """Five rollouts and what is learned of them, by both; the weights of the slow one."""

    def learn(**options):
        agent = make_iqn(make_envs(), num_envs=3, **BASE | options)
        slow, stepper = SlowIQN(agent.iqn, agent.network, agent.target), VectorEnvAdapter(make_envs())
        obs, owed, updates = stepper.reset(0), 0.0, 0
        for _ in range(5):
            before = int(agent.buffer.added)
            obs = collect_steps(agent, stepper, obs)
            replay, played = deepcopy(agent.buffer), int(agent.buffer.added) - before
            draws = [torch.Generator().set_state(g.get_state()) for g in (agent.shuffle, agent.actor.generator)]
            agent.learn(obs)
            if len(replay) < agent.iqn.learning_starts:
                continue
            owed += played * agent.iqn.replay_ratio / (2 * 4)  # of two sequences of four steps
            count, owed = int(owed), owed % 1
            progress = agent.env_steps / 200
            variance = agent.return_scale.moments.var.item() if agent.return_scale else None
            expected, priorities = slow.update(replay, count, updates, *draws, progress, variance)
            updates += count
            assert {name: agent.last_metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
            replay.priorities[list(priorities)] = torch.tensor([*priorities.values()], dtype=torch.float64)
            torch.testing.assert_close(agent.buffer.priorities, replay.priorities, rtol=1e-3, atol=0)
        assert agent.updates == updates > 0
        for mine, theirs in ((agent.network, slow.network), (agent.target, slow.target)):
            for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
                assert (one.double() - other).abs().max() <= TOLERANCE * max(1.0, other.abs().max())
        return torch.nn.utils.parameters_to_vector(slow.parameters).detach()

    return learn


@pytest.mark.parametrize(
    "option",
    [
        {"capacity": 60},
        {"learning_starts": 40},
        {"replay_ratio": 1.1},
        {"normalise_returns": False},
    ],
    ids=str,
)
def test_every_option_changes_the_weights_as_the_equations_say(learn_beside, option):
    base, changed = learn_beside(), learn_beside(**option)
    assert (base - changed).abs().max() > 100 * TOLERANCE
