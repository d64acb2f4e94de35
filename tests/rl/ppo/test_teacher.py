"""The frozen teacher of PPO."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.t_maze import TMaze
from envs.witness_vote import WitnessVote
from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentPPO
from rl.agents.actor import Actor
from rl.flat_adam import flat_adam
from rl.networks import make_head
from rl.ppo.teacher import Teacher
from rl.ppo.update import PPO
from rl.training.stepping import VectorEnvAdapter

T, B = 16, 4
CORES = [getattr(cores, name) for name in cores.__all__]
every_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.__name__)


@pytest.fixture
def pupil(tmp_path, randomise):
    """An agent with a teacher of random weights, in a T-maze of two steps."""

    def make(core=cores.gru, teacher_kl=0.5, make=RecurrentPPO, envs=None, **options):
        envs = envs or TMaze(B, 2)
        options = {"num_envs": B, "num_steps": T, "bptt": 8, "num_minibatches": 2, "seed": 3} | options
        space = envs.single_observation_space, envs.single_action_space
        core = partial(core, hidden_size=8)
        first = make(*space, core=core, **options)
        randomise(first.network)
        first.save(tmp_path / "first.pt")
        agent = make(*space, core=core, teacher_kl=teacher_kl, **options | {"seed": 4})
        agent.load_network(tmp_path / "first.pt")
        return agent, VectorEnvAdapter(envs)

    return make


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@every_core
def test_the_teacher_remembers_what_it_would_remember_had_it_played(core, make_network, collect, monkeypatch):
    """Two rollouts in a few pieces each are what a player sees that lives through them step by step."""
    network, other = make_network(core), make_network(core)
    monkeypatch.setattr("rl.ppo.teacher.STEPS", 6)
    buffer, _ = collect(other, 2 * T)
    teacher = Teacher(network, B)
    halves = [
        teacher.follow({name: leaf[half] for name, leaf in buffer.obs.items()}, buffer.starts[half])
        for half in (slice(0, T), slice(T, 2 * T))
    ]
    player = Actor(network, spaces.Box(-1.0, 1.0, (3,)), B)
    expected = []
    for obs, starts in zip(buffer.obs["obs"], buffer.starts.numpy(), strict=True):
        player.starts = starts
        expected.append(player.act({"obs": obs})[0])
    torch.testing.assert_close(torch.cat(halves), torch.stack(expected), rtol=0, atol=1e-5)


def test_the_teacher_has_a_memory_of_its_own(pupil, collect_steps):
    """Whatever the pupil remembers: its stored states do not enter."""
    agent, stepper = pupil()
    obs = collect_steps(agent, stepper, stepper.reset(seed=0))
    before = agent.teacher.state
    targets, _ = agent._targets(obs)
    after, agent.teacher.state = agent.teacher.state, before
    for leaf in agent.buffer.state.values():
        leaf.normal_()
    again, _ = agent._targets(obs)
    assert torch.equal(targets.teacher_params, again.teacher_params)
    assert not torch.equal(before["h"], after["h"])
    assert torch.equal(after["h"], agent.teacher.state["h"])


def test_at_first_teacher_and_pupil_are_one(pupil, collect_steps):
    agent, stepper = pupil(epochs=1, num_minibatches=1)
    agent.train_step(collect_steps(agent, stepper, stepper.reset(seed=0)))
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert abs(agent.last_metrics["teacher_kl"]) <= 1e-6


@every_core
def test_the_pupil_learns_and_the_teacher_does_not(core, pupil, collect_steps):
    agent, stepper = pupil(core)
    teacher, own = weights(agent.teacher.network), weights(agent.network)
    assert same(teacher, own)
    obs = stepper.reset(seed=0)
    for _ in range(3):
        obs = collect_steps(agent, stepper, obs)
        agent.train_step(obs)
    assert same(weights(agent.teacher.network), teacher)
    assert not same(weights(agent.network), own)
    assert agent.last_metrics["teacher_kl"] > 1e-6


def test_a_strong_teacher_holds_its_pupil(pupil, collect_steps):
    """The same updates lead farther from the teacher the less its word weighs."""
    divergence = []
    for teacher_kl in (0.01, 1.0, 100.0):
        agent, stepper = pupil(teacher_kl=teacher_kl, learning_rate=3e-3)
        obs = stepper.reset(seed=0)
        for _ in range(10):
            obs = collect_steps(agent, stepper, obs)
            agent.train_step(obs)
        divergence.append(agent.last_metrics["teacher_kl"])
    assert divergence[0] > 2 * divergence[1] > 100 * divergence[2] > 0


@pytest.mark.parametrize(
    "action_space",
    [spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.Box(-2.0, 3.0, (2,)), spaces.MultiBinary(3)],
    ids=["discrete", "multi-discrete", "box", "multi-binary"],
)
def test_the_gradient_is_that_of_the_loss_written_out(action_space, make_network, collect):
    """One minibatch of whole rollouts: autograd through surrogate, value, entropy and torch's own KL divergence."""
    network, other = (make_network(cores.gru, action_space=action_space) for _ in range(2))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.3 * torch.sin(torch.arange(parameter.numel())).view_as(parameter)
    buffer, targets = collect(network, T)
    teacher = Teacher(other, B)
    targets.teacher_params = teacher.follow(buffer.observations(), buffer.starts)

    ppo = PPO(epochs=1, num_minibatches=1, bptt=None, teacher_kl=0.7, teacher_kl_final=0.3, max_grad_norm=1e9)
    optimizer, seen = flat_adam(network, 1e-3), {}
    before = [parameter.detach().clone() for parameter in network.parameters()]

    params, values, _ = network.unroll(
        buffer.obs, {name: leaf[0] for name, leaf in buffer.state.items()}, buffer.starts
    )
    log_probs, entropies = network.head.evaluate(params, buffer.actions)
    ratio = (log_probs - targets.old_log_probs).sum(-1).exp()
    surrogate = torch.minimum(ratio * targets.advantages, ratio.clamp(0.8, 1.2) * targets.advantages)
    divergence = kl_of_torch(network.head, params, teacher.head, targets.teacher_params)
    loss = -surrogate.mean() + 0.5 * 0.5 * (values - targets.returns).square().mean()
    loss = loss - 0.01 * entropies.sum(-1).mean() + 0.5 * divergence.mean()  # halfway from 0.7 to 0.3
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])

    optimizer.step = lambda: seen.update(gradient=optimizer.param_groups[0]["params"][0].grad.clone())
    shuffle = torch.Generator().manual_seed(0)
    metrics = ppo.update(network, optimizer, buffer, targets, shuffle, 0.5, teacher)
    torch.testing.assert_close(seen["gradient"][: len(expected)], expected, rtol=1e-4, atol=1e-6)
    assert metrics["teacher_kl"] == pytest.approx(divergence.mean().item(), rel=1e-5)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert same(before, network.parameters())


def kl_of_torch(head, params, other, other_params):
    """KL(policy || teacher) of each step, ``[T, B]``, by torch.distributions."""
    d = torch.distributions
    if isinstance(head, type(make_head(spaces.MultiBinary(1)))):
        pairs = [(d.Bernoulli(logits=params), d.Bernoulli(logits=other_params))]
    elif isinstance(head, type(make_head(spaces.Box(0.0, 1.0, (1,))))):
        pairs = [(d.Normal(params, head.log_std.exp()), d.Normal(other_params, other.log_std.exp()))]
    else:
        columns = zip(params.split(head.sizes, -1), other_params.split(head.sizes, -1), strict=True)
        pairs = [(d.Categorical(logits=own), d.Categorical(logits=theirs)) for own, theirs in columns]
    parts = [d.kl_divergence(*pair) for pair in pairs]
    return sum(part if part.dim() == 2 else part.sum(-1) for part in parts)


def test_a_hidden_branch_is_not_held_to_the_teacher(pupil, collect_steps):
    """Where a vote hides the move, no one has learned what the move should have been."""
    agent, stepper = pupil(make=DualHeadRecurrentPPO, envs=WitnessVote(B, 2, 2))
    obs = collect_steps(agent, stepper, stepper.reset(seed=0))
    agent.buffer.actions[:T, :, 0] = -1
    targets, _ = agent._targets(obs)
    others = targets.teacher_params + 1.0 * torch.arange(targets.teacher_params.shape[-1])
    kl = agent.network.head.kl(agent.buffer.params[:T], agent.buffer.actions[:T], agent.teacher.head, others)
    assert (kl[..., 0] == 0).all() and (kl[..., 1] > 0.01).all()


def test_the_weight_is_annealed():
    for final, expected in ((0.0, 0.25), (None, 1.0), (0.6, 0.7)):
        assert PPO(teacher_kl=1.0, teacher_kl_final=final)._annealed(left=0.25).teacher_kl == pytest.approx(expected)


def test_without_a_teacher_the_first_step_is_refused():
    envs = TMaze(B, 2)
    agent = RecurrentPPO(envs.single_observation_space, envs.single_action_space, num_envs=B, teacher_kl=0.1)
    with pytest.raises(ValueError, match=r"teacher_kl=0\.1 needs a teacher: call load_network, or give init_from"):
        agent.take_action(envs.reset(seed=0)[0])


def test_without_a_weight_no_teacher_is_kept(pupil, collect_steps):
    agent, stepper = pupil(teacher_kl=0.0)
    assert agent.teacher is None
    agent.train_step(collect_steps(agent, stepper, stepper.reset(seed=0)))
    assert "teacher_kl" not in agent.last_metrics
    assert "teacher" not in agent.state_dict()


def test_a_checkpoint_holds_the_teacher(pupil, collect_steps, assert_same, tmp_path):
    agent, stepper = pupil(total_steps=1000)
    obs = collect_steps(agent, stepper, stepper.reset(seed=0))
    agent.train_step(obs)
    agent.save(tmp_path / "half.pt")
    fresh, _ = pupil(total_steps=1000)
    fresh.teacher = None
    fresh.load(tmp_path / "half.pt")
    rollout = [obs]
    for _ in range(T):
        after = stepper.step(agent.take_action(rollout[-1]))
        agent.add_memory_ppo(after.rewards, after.terminated, after.truncated, after.final_obs)
        assert np.array_equal(
            fresh.take_action(rollout[-1]),
            agent.actor.network.head.to_environment(agent.buffer.actions[agent.buffer.size - 1].numpy()),
        )
        fresh.add_memory_ppo(after.rewards, after.terminated, after.truncated, after.final_obs)
        rollout.append(after.obs)
    agent.train_step(rollout[-1])
    fresh.train_step(rollout[-1])
    assert agent.last_metrics["teacher_kl"] > 0
    assert_same(fresh, agent)


def test_steps_that_are_no_steps_leave_no_gap(pupil):
    """The parameters of the teacher lie beside the transitions that they belong to."""
    agent, _ = pupil(core=cores.mlp, num_steps=6, bptt=6, num_minibatches=1, num_envs=B)
    rng = np.random.default_rng(0)
    shape = agent.observation_space.shape
    for t in range(6):
        agent.take_action(rng.random((B, *shape), dtype=np.float32))
        done, ignored = np.full(B, t == 1), np.array([t == 2, False, False, t == 2])
        agent.add_memory_ppo(np.zeros(B), done, ignored=ignored)
    targets, _ = agent._targets(None)
    assert agent.buffer.size == 5
    expected, *_ = agent.teacher.network.step({"obs": agent.buffer.obs["obs"][:5].flatten(0, 1)}, {}, None)
    torch.testing.assert_close(targets.teacher_params.flatten(0, 1), expected, rtol=0, atol=1e-6)
