"""The frozen teacher of PPO."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.t_maze import TMaze
from rl import cores
from rl.agents import RecurrentPPO
from rl.networks.heads import NOT_EXECUTED
from rl.ppo.teacher import Teacher
from rl.training.stepping import VectorEnvAdapter

T, B = 16, 4
CORES = [getattr(cores, name) for name in cores.__all__]
every_core = pytest.mark.parametrize("core", CORES, ids=lambda core: core.__name__)


@pytest.fixture
def pupil(tmp_path, randomise):
    """An agent with a teacher of random weights, in a T-maze of two steps."""

    def make(core=cores.gru, teacher_kl=0.5, **options):
        envs = TMaze(B, 2)
        options = {"num_envs": B, "num_steps": T, "bptt": 8, "num_minibatches": 2, "seed": 3} | options
        space = envs.single_observation_space, envs.single_action_space
        core = partial(core, hidden_size=8)
        first = RecurrentPPO(*space, core=core, **options)
        randomise(first.network)
        first.save(tmp_path / "first.pt")
        agent = RecurrentPPO(*space, core=core, teacher_kl=teacher_kl, **options | {"seed": 4})
        agent.load_network(tmp_path / "first.pt")
        return agent, VectorEnvAdapter(envs)

    return make


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@every_core
def test_the_teacher_remembers_what_it_would_remember_had_it_played(core, make_network, collect, monkeypatch):
    """Two rollouts in a few pieces each are what a network sees that lives through them step by step."""
    network, other = make_network(core), make_network(core)
    monkeypatch.setattr("rl.ppo.teacher.STEPS", 6)
    buffer, _ = collect(other, 2 * T)
    teacher = Teacher(network, B)
    halves = [
        teacher.follow({name: leaf[half] for name, leaf in buffer.obs.items()}, buffer.starts[half])
        for half in (slice(0, T), slice(T, 2 * T))
    ]
    state, expected = network.initial_state(B), []
    for obs, starts in zip(buffer.obs["obs"], buffer.starts, strict=True):
        params, _, state = network.step({"obs": obs}, state, starts)
        expected.append(params)
    torch.testing.assert_close(torch.cat(halves), torch.stack(expected), rtol=0, atol=1e-5)


def test_the_teacher_has_a_memory_of_its_own(pupil, collect_steps):
    """Whatever the pupil remembers: its stored states do not enter."""
    agent, stepper = pupil()
    obs = collect_steps(agent, stepper, stepper.reset(seed=0))
    before = agent.teacher.state
    targets, _ = agent.targets(obs)
    after, agent.teacher.state = agent.teacher.state, before
    for leaf in agent.buffer.state.values():
        leaf.normal_()
    again, _ = agent.targets(obs)
    assert torch.equal(targets.teacher_params, again.teacher_params)
    assert not torch.equal(before["h"], after["h"])
    assert torch.equal(after["h"], agent.teacher.state["h"])


def test_at_first_teacher_and_pupil_are_one(pupil, collect_steps):
    agent, stepper = pupil(epochs=1, num_minibatches=1)
    agent.learn(collect_steps(agent, stepper, stepper.reset(seed=0)))
    assert agent.last_metrics["ratio_error"] <= 1e-5
    assert abs(agent.last_metrics["teacher_kl"]) <= 1e-6


def test_the_pupil_learns_and_the_teacher_does_not(pupil, collect_steps):
    agent, stepper = pupil()
    teacher, own = weights(agent.teacher.network), weights(agent.network)
    assert same(teacher, own)
    obs = stepper.reset(seed=0)
    for _ in range(3):
        obs = collect_steps(agent, stepper, obs)
        agent.learn(obs)
    assert same(weights(agent.teacher.network), teacher)
    assert not same(weights(agent.network), own)
    assert agent.last_metrics["teacher_kl"] > 1e-6


def test_a_hidden_branch_is_not_held_to_the_teacher(make_network, collect):
    """Where a vote hides the move, nothing has been learned of what the move should have been."""
    network = make_network(cores.gru, action_space=spaces.MultiDiscrete([2, 3]))
    buffer, targets = collect(network, T)
    buffer.actions[3:, :, 0] = NOT_EXECUTED
    targets.teacher_params = buffer.params + 1.0 * torch.arange(5)
    ((mb, _),) = buffer.sequences(targets, 1, None, torch.Generator().manual_seed(0))
    kl = Teacher(network, B).kl(network.head, buffer.params, mb)
    assert (kl[3:, :, 0] == 0).all() and (kl[:3] > 1e-4).all() and (kl[..., 1] > 1e-4).all()


def test_a_divergence_needs_what_the_teacher_said(make_network, collect):
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    teacher = Teacher(network, B)
    ((mb, _),) = buffer.sequences(targets, 1, None, torch.Generator().manual_seed(0))
    params, _, _ = network.unroll(mb.obs, mb.state, mb.starts)
    with pytest.raises(ValueError, match="it has to follow the rollout first"):
        teacher.kl(network.head, params, mb)


def test_the_divergence_is_from_the_policy_to_the_teacher(make_network, collect):
    """The policy is 1/2, 1/2, 0, 0, the teacher 1/4, 3/4, 0, 0: log 2 / 2 + log(2/3) / 2, which has an order."""
    network = make_network(cores.gru)
    buffer, targets = collect(network, T)
    far = -50.0
    targets.teacher_params = torch.tensor([math.log(0.25), math.log(0.75), far, far]).expand(T, B, 4)
    ((mb, _),) = buffer.sequences(targets, 1, None, torch.Generator().manual_seed(0))
    params = torch.tensor([0.0, 0.0, far, far]).expand(T, B, 4)
    kl = Teacher(network, B).kl(network.head, params, mb)
    torch.testing.assert_close(kl, torch.full((T, B, 1), 0.5 * math.log(2) + 0.5 * math.log(2 / 3)))


def test_the_teacher_never_drops_out(make_network, collect):
    """Two teachers, whose networks differ in the mode they are in, say the same."""
    network = make_network(cores.gru, core_options={"num_layers": 2, "dropout": 0.5})
    buffer, _ = collect(network, T)
    said = [Teacher(one, B).follow(buffer.observations(), buffer.starts) for one in (network.train(), network.eval())]
    assert torch.equal(*said)
    network.train()
    assert not any(parameter.requires_grad for parameter in Teacher(network, B).network.parameters())
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())


def test_a_teacher_goes_on_from_what_was_stored(make_network, collect):
    """Weights and, with as many environments, memories; with another number it begins anew."""
    network = make_network(cores.lstm)
    buffer, _ = collect(network, T, start_probability=0.0)
    seen = buffer.observations(), torch.zeros(T, B, dtype=torch.bool)
    first = Teacher(network, B)
    first.follow(*seen)
    stored = first.state_dict()
    other = make_network(cores.lstm)
    with torch.no_grad():
        other.heads.bias += 1.0
    same_size, another_size = Teacher(other, B), Teacher(other, B)
    same_size.load_state_dict(stored, same_size=True)
    another_size.load_state_dict(stored, same_size=False)
    fresh = Teacher(network, B).follow(*seen)
    going_on = first.follow(*seen)
    assert torch.equal(same_size.follow(*seen), going_on)
    assert torch.equal(another_size.follow(*seen), fresh)
    assert not torch.equal(going_on, fresh)


def test_without_a_teacher_the_first_step_is_refused():
    envs = TMaze(B, 2)
    agent = RecurrentPPO(envs.single_observation_space, envs.single_action_space, num_envs=B, teacher_kl=0.1)
    with pytest.raises(ValueError, match=r"teacher_kl=0\.1 needs a teacher: call load_network, or give init_from"):
        agent.act(envs.reset(seed=0)[0])


def test_without_a_weight_no_teacher_is_kept(pupil, collect_steps):
    agent, stepper = pupil(teacher_kl=0.0)
    assert agent.teacher is None
    agent.learn(collect_steps(agent, stepper, stepper.reset(seed=0)))
    assert "teacher_kl" not in agent.last_metrics
    assert "teacher" not in agent.state_dict()


def test_a_checkpoint_holds_the_teacher(pupil, collect_steps, assert_same, tmp_path):
    agent, stepper = pupil(total_steps=1000)
    obs = collect_steps(agent, stepper, stepper.reset(seed=0))
    agent.learn(obs)
    agent.save(tmp_path / "half.pt")
    fresh, _ = pupil(total_steps=1000)
    fresh.teacher = None
    fresh.load(tmp_path / "half.pt")
    rollout = [obs]
    for _ in range(T):
        actions = agent.act(rollout[-1])
        assert np.array_equal(fresh.act(rollout[-1]), actions)
        after = stepper.step(actions)
        for one in (agent, fresh):
            one.observe(after.rewards, after.terminated, after.truncated, after.final_obs)
        rollout.append(after.obs)
    agent.learn(rollout[-1])
    fresh.learn(rollout[-1])
    assert agent.last_metrics["teacher_kl"] > 0
    assert_same(fresh, agent)


def test_steps_that_are_no_steps_leave_no_gap(pupil):
    """The parameters of the teacher lie beside the transitions that they belong to."""
    agent, _ = pupil(core=cores.mlp, num_steps=6, bptt=6, num_minibatches=1, num_envs=B)
    rng = np.random.default_rng(0)
    shape = agent.observation_space.shape
    for t in range(6):
        agent.act(rng.random((B, *shape), dtype=np.float32))
        done, ignored = np.full(B, t == 1), np.array([t == 2, False, False, t == 2])
        agent.observe(np.zeros(B), done, ignored=ignored)
    targets, _ = agent.targets(None)
    assert agent.buffer.size == 5
    expected, *_ = agent.teacher.network.step({"obs": agent.buffer.obs["obs"][:5].flatten(0, 1)}, {}, None)
    torch.testing.assert_close(targets.teacher_params.flatten(0, 1), expected, rtol=0, atol=1e-6)
