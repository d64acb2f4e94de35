from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import Population, RecurrentIQN, RecurrentPPO
from rl.training.distributed import Ranks
from rl.training.sharing import OWN, join, keep_equal, put_own, take_own, without_own

SPACE, ACTIONS = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(2)
SMALL = {"core": partial(cores.gru, hidden_size=4), "layer_size": 4, "num_steps": 4}
PPO = partial(RecurrentPPO, bptt=4, num_minibatches=1, normalise_observations=True, normalise_returns=True, **SMALL)
IQN = partial(RecurrentIQN, bptt=2, burn_in=0, learning_starts=1, batch_size=2, **SMALL)


def make(kind, seed):
    if kind is not Population:
        return kind(SPACE, ACTIONS, num_envs=2, seed=seed)
    return Population(SPACE, ACTIONS, {"a": PPO, "b": IQN}, ["a", "b"], num_envs=2, num_steps=4, seed=seed)


def play(agent, seed, updates=2):
    """Play noise, whose truths differ from shard to shard, and learn."""
    random = np.random.default_rng(seed)
    for _ in range(updates):
        for _ in range(4):
            agent.act(random.uniform(-1, 1, (2, 3)).astype(np.float32))
            agent.observe(random.normal(size=2), random.random(2) < 0.1)
        agent.learn(random.uniform(-1, 1, (2, 3)).astype(np.float32))


def run(count, work):
    ranks = Ranks()
    shards = ranks.deal(count)
    return ranks.run([partial(work, shard) for shard in shards], shards)


def leaves(value, name=""):
    if isinstance(value, torch.Tensor):
        yield name, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from leaves(part, f"{name}.{key}")


def same(one, other):
    one, other = dict(leaves(one)), dict(leaves(other))
    return one.keys() == other.keys() and all(torch.equal(leaf, other[name]) for name, leaf in one.items())


@pytest.mark.parametrize("kind", [PPO, IQN, Population])
def test_agents_of_several_shards_stay_one(kind):
    agents = [make(kind, seed) for seed in (1, 2, 3)]
    assert not same(agents[0].network.state_dict(), agents[1].network.state_dict())
    before = {name: leaf.clone() for name, leaf in agents[0].network.state_dict().items()}

    def work(shard):
        agent = agents[shard.index]
        join(agent, shard)
        play(agent, shard.index)

    run(3, work)
    first, *others = (agent.state_dict() for agent in agents)
    assert not same(before, agents[0].network.state_dict())
    for other in others:
        assert same(put_own(other, take_own(first)), first)  # they differ in nothing but what is their own
        assert not same(other, first)
    assert {agent.env_steps for agent in agents} == {2 * 4 * 2 * 3}
    metrics = agents[0].last_metrics
    assert metrics and all(agent.last_metrics == metrics for agent in agents)


def test_own_and_shared_make_a_whole():
    one, other = make(PPO, 1), make(PPO, 2)
    play(one, 1)
    state, own = one.state_dict(), take_own(other.state_dict())
    assert set(own) == {"generators", "memories", "return_scale"} <= set(OWN)
    whole = put_own(state, own)
    assert same(whole["network"], state["network"]) and same(whole["memories"], own["memories"])
    other.load_state_dict(whole)
    assert other.env_steps == one.env_steps


@pytest.mark.parametrize("kind", [PPO, IQN, Population])
def test_weights_alone_go_into_an_agent_of_other_rows(kind):
    one, other = make(kind, 1), make(kind, 2)
    play(one, 1)
    generators = [member.actor.generator.get_state() for member in members(other)]
    other.load_state_dict(without_own(one.state_dict()))
    assert same(one.network.state_dict(), other.network.state_dict())
    assert other.env_steps == one.env_steps
    assert all(
        torch.equal(member.actor.generator.get_state(), before)
        for member, before in zip(members(other), generators, strict=True)
    )


def members(agent):
    return list(agent.members.values()) if isinstance(agent, Population) else [agent]


def test_an_agent_that_knows_of_no_shards_is_refused():
    class Foreign:
        pass

    def work(shard):
        join(Foreign(), shard)

    with pytest.raises(ValueError, match="Foreign cannot learn in several shards"):
        run(2, work)


def test_a_fault_in_one_shard_is_one_in_all():
    """A reward that is too large in one of them: the others do not learn from their own either."""
    agents, faults = [make(PPO, seed) for seed in (1, 2)], []

    def work(shard):
        agent = agents[shard.index]
        join(agent, shard)
        play(agent, shard.index, updates=1)
        before = {name: leaf.clone() for name, leaf in agent.network.state_dict().items()}
        for _ in range(4):
            agent.act(np.zeros((2, 3), np.float32))
            agent.observe(np.full(2, 1e38 if shard.index else 0.0), False)
        with pytest.raises(FloatingPointError) as caught:
            agent.learn(np.zeros((2, 3), np.float32))
        faults.append(str(caught.value))
        assert same(before, agent.network.state_dict())

    run(2, work)
    assert len(faults) == 2


def test_rollouts_with_gaps_shrink_to_the_shortest():
    """An ignored step in one shard: all of them train as many steps, so that none waits for a minibatch."""
    agents = [make(PPO, seed) for seed in (1, 2)]

    def work(shard):
        agent = agents[shard.index]
        join(agent, shard)
        for step in range(4):
            agent.act(np.zeros((2, 3), np.float32))
            agent.observe(np.ones(2), False, ignored=[shard.index == 1 and step == 2, False])
        agent.learn(np.zeros((2, 3), np.float32))

    run(2, work)
    assert {agent.env_steps for agent in agents} == {3 * 2 * 2}
    assert same(agents[0].network.state_dict(), agents[1].network.state_dict())


@pytest.mark.parametrize("kind", [PPO, IQN, Population])
def test_copies_that_have_become_different_are_brought_together(kind, caplog):
    """Without a word as long as they are equal."""
    agents, shown = [make(kind, seed) for seed in (1, 2)], []

    def work(shard):
        agent = agents[shard.index]
        join(agent, shard)
        play(agent, shard.index)
        shard.gather(None)
        keep_equal(agent, shard)
        shown.append([record.message for record in caplog.records if "different" in record.message])
        shard.gather(None)
        if shard.index == 1:
            for member in members(agent):
                (vector,) = member.optimizer.param_groups[0]["params"]
                member.optimizer.state[vector]["exp_avg"][0] += 1e-7
                with torch.no_grad():
                    vector[0] += 1e-6
                for leaf in member.network.buffers():
                    if leaf.is_floating_point():
                        leaf += 1e-6
        shard.gather(None)
        before = deepcopy(take_own(agent.state_dict()))
        keep_equal(agent, shard)
        assert same(before, take_own(agent.state_dict()))  # what each environment has stays its own

    run(2, work)
    assert shown == [[], []]
    assert "have become different from shard to shard" in caplog.text
    first, second = (agent.state_dict() for agent in agents)
    assert same(put_own(second, take_own(first)), first)
