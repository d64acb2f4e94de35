"""Light speed learns what training learns."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Generator
from torch.distributions import Categorical

from experiments.benchmark.light_speed import LightSpeed
from experiments.peers.recurrent_ppo import make_training


@pytest.fixture(params=["lstm", "gru"])
def light(request, small):
    """Light speed of a tiny w1 in one minibatch, with old log-probabilities such that the clip matters."""
    run = make_training(small(num_envs=8, num_minibatches=1, hidden_size=8), request.param, bptt=8)
    run()
    return LightSpeed(run)


def away(log_probs):
    """Other log-probabilities, so that ratios lie on both sides of the clip range and inside it."""
    return log_probs + 0.4 * torch.randn(log_probs.shape, generator=Generator().manual_seed(1))


def test_the_output_gradient_is_that_of_the_loss(light):
    ppo, (mb,) = light.agent.ppo, light.minibatches
    mb = replace(
        mb,
        old_log_probs=away(mb.old_log_probs).double(),
        advantages=mb.advantages.double(),
        returns=mb.returns.double(),
    )
    ppo.value_coef, ppo.entropy_coef = 0.7, 0.3
    out = torch.randn(*mb.returns.shape, 3, dtype=torch.float64, requires_grad=True)  # [L, N, A + 1]
    policy, values = Categorical(logits=out[..., :-1]), out[..., -1]
    ratio = (policy.log_prob(mb.actions[..., 0]) - mb.old_log_probs[..., 0]).exp()
    clipped = ratio.clamp(1 - ppo.clip, 1 + ppo.clip)
    gains = ratio * mb.advantages, clipped * mb.advantages
    assert 0.1 < (gains[1] < gains[0]).double().mean() < 0.9  # the clip holds some of them
    policy_loss = -torch.minimum(*gains).mean()
    value_loss = 0.5 * (values - mb.returns).square().mean()
    loss = policy_loss + ppo.value_coef * value_loss - ppo.entropy_coef * policy.entropy().mean()
    (wanted,) = torch.autograd.grad(loss, out)
    torch.testing.assert_close(light.compute_output_gradient(out.detach(), mb), wanted, atol=1e-12, rtol=1e-9)


def test_light_speed_learns_what_training_learns(light):
    """One minibatch through both from the same weights: the same gradient, clipped alike, and the same new weights."""
    run, agent = light.run, light.agent
    ppo, optimizer = agent.ppo, agent.optimizer
    ppo.entropy_coef, ppo.max_grad_norm = 0.1, 0.01  # both matter
    agent.network.heads.weight.data[:-1].mul_(100.0)  # away from a uniform policy, whose entropy has no slope
    run.collect()
    targets, _ = agent.targets(run.obs)
    targets.old_log_probs = away(targets.old_log_probs)
    ((minibatch, _),) = agent.buffer.sequences(targets, 1, ppo.bptt, Generator().manual_seed(0))
    assert minibatch.starts[1:].any()  # an episode starts inside a sequence
    (vector,) = optimizer.param_groups[0]["params"]
    before, moments = vector.detach().clone(), deepcopy(optimizer.state_dict())

    light.learn(minibatch)
    gradient, scale, after = vector.grad.clone(), optimizer.grad_scale.clone(), vector.detach().clone()
    assert gradient.norm() == pytest.approx(0.01) and scale > 10.0 and not torch.equal(after, before)

    vector.data.copy_(before)
    optimizer.load_state_dict(moments)
    ppo.update(agent.network, optimizer, agent.buffer, targets, Generator().manual_seed(0), 0.0)
    torch.testing.assert_close(gradient, vector.grad, atol=1e-8, rtol=1e-4)
    torch.testing.assert_close(scale, optimizer.grad_scale, atol=0, rtol=1e-5)
    torch.testing.assert_close(after, vector.detach(), atol=1e-7, rtol=0)


def test_light_speed_plays_and_counts_steps(light, monkeypatch):
    """Two iterations of 8 x 16 steps in four seconds of its clock."""
    stepped, step = [], light.run.envs.step
    monkeypatch.setattr(light.run.envs, "step", lambda actions: stepped.append(actions.copy()) or step(actions))
    clock = SimpleNamespace(perf_counter=iter([0.0, 1.0, 2.0, 4.0]).__next__)
    monkeypatch.setattr("experiments.benchmark.light_speed.time", clock)
    assert light.measure(3.0) == 2 * 8 * 16 / 4.0
    assert len(stepped) == 2 * 16 and {action for actions in stepped for action in actions} == {0, 1}
