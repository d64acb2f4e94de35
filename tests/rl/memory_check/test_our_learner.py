"""Copies of agents: they learn on their own, and nothing that was put in their way for a while is left."""

import pytest
import torch

from rl.agents import RecurrentIQN
from rl.memory_check.network_subject import NetworkSubject
from rl.memory_check.our_learner import copy_agent, patched


def play(agent, envs, steps):
    obs, _ = envs.reset(seed=1)
    for _ in range(steps):
        obs, rewards, terminated, truncated, info = envs.step(agent.act(obs))
        agent.observe(rewards, terminated, truncated, info.get("final_obs"))
    return obs


def test_a_copy_learns_and_the_agent_does_not(make_ppo, maze):
    agent = make_ppo()
    play(agent, maze, 5)
    before = [parameter.detach().clone() for parameter in agent.network.parameters()]
    twin = copy_agent(agent)
    assert twin.buffer is None and agent.buffer.size == 5
    assert twin.learn(play(twin, maze, agent.num_steps)) != 0.0
    assert all(map(torch.equal, agent.network.parameters(), before))
    assert not all(map(torch.equal, twin.network.parameters(), before))
    (vector,) = twin.optimizer.param_groups[0]["params"]
    assert torch.equal(vector, torch.cat([parameter.flatten() for parameter in twin.network.parameters()]))


def test_a_copy_of_a_large_replay_is_small(maze):
    agent = RecurrentIQN(maze.single_observation_space, maze.single_action_space, 8, num_envs=4, num_steps=32, seed=1)
    play(agent, maze, 5)
    twin = copy_agent(agent)
    assert len(agent.buffer) == 20 and len(twin.buffer) == 0
    assert agent.buffer.size == 25_000 and twin.buffer.size == 112  # two sequences of 27 entries, and as many ends


def test_what_was_patched_is_as_it_was_even_after_a_fault():
    class Thing:
        kind = 1

        def __init__(self):
            self.own = 2

    thing = Thing()
    with pytest.raises(ZeroDivisionError), patched(thing, kind=3, own=4):
        assert (thing.kind, thing.own) == (3, 4)
        raise ZeroDivisionError
    assert (thing.kind, vars(thing)) == (1, {"own": 2})


def test_a_network_takes_features_for_observations(make_ppo):
    """Encoded first and then played, it gives what it gives for the observations."""
    network = make_ppo(separate_critic=True, normalise_observations=True).network
    subject = NetworkSubject(network, "agent")
    obs, starts = {"obs": torch.randn(6, 3, 4)}, torch.rand(6, 3) < 0.3
    state = subject.initial_state(3)
    with torch.no_grad():
        inputs = subject.encode(obs)
        params, values, after = network.unroll(obs, state, starts)
        outputs, same = subject.unroll(inputs, state, starts)
    assert set(inputs) == {"actor", "critic"} and not torch.equal(inputs["actor"], inputs["critic"])
    assert torch.equal(outputs, torch.cat([params, values.unsqueeze(-1)], -1))
    assert all(torch.equal(leaf, after[name]) for name, leaf in same.items())
    assert not any("features" in vars(trunk) for trunk in subject.trunks.values())
