"""A seed decides everything that an agent draws, and nothing else is drawn from."""

import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from envs.probes import ConstantReward, SpaceProbe


@pytest.fixture
def make(make_agent, learner):
    """A learner of either kind."""
    return partial(make_agent, kind=learner)


def test_a_seed_decides_everything(make, train_batched, same_weights):
    def trained(seed):
        envs = SpaceProbe(3, "dict", "multi_discrete")
        agent = make(envs, num_envs=3, seed=seed)
        train_batched(agent, envs, 3)
        assert agent.updates > 0
        return agent

    first, again, other = trained(1), trained(1), trained(2)
    assert same_weights(first, again)
    assert not same_weights(first, other)


def test_agents_made_in_threads_have_the_weights_of_their_seeds(make, same_weights):
    """The global generator, from which initialisation draws, is one for all of them."""
    envs = ConstantReward(1)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: make(envs, num_envs=1, seed=seed), range(16)))
    assert all(same_weights(agent, make(envs, num_envs=1, seed=seed)) for seed, agent in enumerate(together))


def test_without_a_seed_agents_differ(make, same_weights):
    one, other = (make(ConstantReward(1), num_envs=64, seed=None) for _ in range(2))
    assert not same_weights(one, other)
    assert one.shuffle.initial_seed() != other.shuffle.initial_seed()
    assert one.actor.generator.initial_seed() != other.actor.generator.initial_seed()


@pytest.mark.parametrize("generator", ["shuffle", "actor.generator"])
def test_sampling_and_shuffling_have_generators_of_their_own(make, train_batched, same_weights, generator):
    """With equal weights, another seed of one of them alone leads elsewhere."""

    def trained(change):
        envs = SpaceProbe(3)
        agent = make(envs, num_envs=3)
        drawn = agent.shuffle if generator == "shuffle" else agent.actor.generator
        if change:
            drawn.manual_seed(99)
        train_batched(agent, envs, 3)
        return agent

    assert not same_weights(trained(False), trained(True))


@pytest.mark.parametrize("seed", [None, 3])
def test_global_random_streams_are_left_alone(make, train_batched, global_streams, seed):
    torch.manual_seed(11)
    np.random.seed(12)
    random.seed(13)
    before = global_streams()
    envs = SpaceProbe(3, "dict", "multi_discrete")
    train_batched(make(envs, num_envs=3, seed=seed, previous_action_reward=True), envs, 2)
    assert global_streams() == before
