"""Agents whose steps are recorded and replayed learn what those do whose steps run plainly: on a device without numbers
of its own, with a tape in place of a CUDA graph.
"""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.classic_control import CartPoleNoVelocity
from envs.t_maze import TMaze
from rl import cores, graphs
from rl.agents import RecurrentPPO
from rl.ppo import PPO
from tests.tape import Tape

B, T = 3, 8
BOX, FOUR = spaces.Box(-3.0, 3.0, (3,)), spaces.Discrete(4)
OPTIONS = {"num_envs": B, "num_steps": T, "bptt": 4, "num_minibatches": 2, "epochs": 3, "layer_size": 8, "seed": 3}


@pytest.fixture
def tape(shadow, request, monkeypatch):
    """Record what runs on the shadow device."""
    Tape.shadow, Tape.made, Tape.replays = request.config.shadow, [], 0
    monkeypatch.setattr(graphs, "Recording", Tape)
    monkeypatch.setattr(graphs, "can_record", lambda device: device.type == "shadow")
    yield Tape
    Tape.made = []


def make(device, space=BOX, action_space=FOUR, core=cores.gru, core_options=None, **options):
    memory = partial(core, hidden_size=8, **(core_options or {}))
    return RecurrentPPO(space, action_space, device=str(device), core=memory, **OPTIONS | options)


def play(agent, iterations=3, seed=0):
    """Learn from random observations, with ends of either kind."""
    rng, metrics = np.random.default_rng(seed), []

    def observe():
        return rng.uniform(-3.0, 3.0, (B, 3)).astype(np.float32)

    obs = observe()
    for _ in range(iterations * T):
        agent.act(obs)
        obs, (terminated, truncated) = observe(), rng.random((2, B)) < 0.2
        agent.observe(rng.normal(size=B), terminated, truncated, observe())
        if agent.learn(obs):
            metrics.append(agent.last_metrics)
    return metrics


def check_equal(found, expected):
    for name, leaf in expected.network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name].cpu(), leaf.cpu(), rtol=0, atol=1e-6)
    for name, leaf in expected.actor.state.items():
        torch.testing.assert_close(found.actor.state[name].cpu(), leaf.cpu(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        *({"core": getattr(cores, name), "core_options": {"num_layers": 2}} for name in cores.__all__),
        {
            "total_steps": 96,
            "learning_rate_schedule": "linear",
            "clip_schedule": "cosine",
            "entropy_coef_schedule": "linear",
        },
        {"learning_rate_schedule": "adaptive", "desired_kl": 1e-3},
        {"separate_critic": True, "normalise_observations": True, "normalise_returns": True, "refresh_states": True},
        {"core_options": {"num_layers": 2, "dropout": 0.3}, "burn_in": 4, "value_clip": 0.2, "target_kl": 0.003},
        {"action_space": spaces.Box(-1.0, 1.0, (2,)), "previous_action_reward": True, "ratio": "per_head"},
        {"action_space": spaces.Box(-1.0, 1.0, (2,)), "noise_correlation": 0.8},
        {"action_space": spaces.MultiDiscrete([2, 3]), "num_minibatches": 4, "bptt": 8, "num_envs": B},
    ],
    ids=[*cores.__all__, "schedules", "adaptive", "scales", "dropout-burn-in", "box-fed", "noise", "uneven"],
)
def test_learning(options, tape, device):
    if options.get("num_minibatches") == 4:
        options = options | {"num_minibatches": 2}  # three sequences in two minibatches: of two shapes
    expected, found = make(device, graphs=False, **options), make(device, **options)
    right = play(expected)
    assert not tape.made
    other = play(found)
    assert tape.replays > 8
    for before, after in zip(right, other, strict=True):
        assert after == pytest.approx(before, abs=1e-5)
    check_equal(found, expected)


def test_a_new_optimiser_state_is_recorded_anew(tape, device, tmp_path):
    """A graph holds the memory of the moments that it was recorded with."""
    agent = make(device)
    play(agent)
    agent.save(tmp_path / "agent.pt")
    recorded = len(tape.made)
    agent.load(tmp_path / "agent.pt")
    play(agent, seed=1)
    assert len(tape.made) > recorded
    again = make(device, graphs=False)
    again.load(tmp_path / "agent.pt")
    play(again, seed=1)
    check_equal(agent, again)


def test_a_copy_records_anew():
    """A graph holds the places of the tensors that it was recorded with, which are not those of a copy."""
    recorded = graphs.Recorded(dict, list)
    recorded.held, recorded.seen, recorded.recordings = [torch.ones(1)], {"shapes"}, {"shapes": object()}
    twin = deepcopy(recorded)
    assert (twin.held, twin.seen, twin.recordings) == ([], set(), {})
    assert (twin.function, twin.anchors, twin.enabled) == (dict, list, True)
    assert len(recorded.held) == len(recorded.seen) == len(recorded.recordings) == 1


def test_a_loss_that_reads_a_number_runs_plainly(tape, device, caplog):
    def read(loss, *arguments):
        value, metrics = loss(*arguments)
        assert value.item() == value.item()
        return value, metrics

    agent, plain = make(device), make(device, graphs=False)
    for each in (agent, plain):
        each.ppo.loss = partial(read, each.ppo.loss)
    play(agent)
    assert sum("cannot be recorded" in message for message in caplog.messages) == 1
    play(plain)
    check_equal(agent, plain)


@pytest.mark.parametrize("kind", [partial(TMaze, length=3), CartPoleNoVelocity], ids=["t_maze", "cartpole"])
@pytest.mark.parametrize("fed", [False, True])
def test_a_whole_rollout(kind, fed, tape, device):
    """Nothing passes between host and device: the tape would not hold it."""
    agents = []
    for recorded in (False, True):
        envs = kind(B, device=str(device))
        space, action_space = envs.single_observation_space, envs.single_action_space
        agent = make(device, space, action_space, graphs=recorded, previous_action_reward=fed)
        obs = envs.reset(seed=1)[0]
        for _ in range(4):
            obs = agent.collect(envs, obs).obs
            agent.learn(obs)
        agents.append(agent)
        assert bool(tape.made) is recorded
    check_equal(*reversed(agents))
    assert agents[1].rollout.recorded.recordings


@pytest.mark.parametrize("recorded", [False, True])
def test_a_loss_of_ones_own_is_recorded_only_if_it_says_so(recorded, with_own_loss, tape, device, monkeypatch):
    monkeypatch.setattr(RecurrentPPO, "algorithm", with_own_loss(PPO, recorded))
    agent, plain = make(device), make(device, graphs=False)
    play(agent)
    step = agent.ppo._step
    assert bool(step.recorded.recordings) is recorded
    play(plain)
    check_equal(agent, plain)
