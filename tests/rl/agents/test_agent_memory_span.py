"""The span of a fresh memory: from the agent's option, or from the sequences that it learns from, to the gates."""

from functools import partial
from math import log

import pytest
from gymnasium import spaces

from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM

OBS, TWO = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)
KINDS = {
    "ppo": (RecurrentPPO, {"core": partial(cores.lstm, hidden_size=4)}),
    "lstm": (RecurrentPPOLSTM, {"core": partial(cores.lstm, hidden_size=4)}),
    "dual_head": (DualHeadRecurrentPPO, {"core": partial(cores.lstm, hidden_size=4)}),
    "iqn": (RecurrentIQN, {"core": partial(cores.lstm, hidden_size=4)}),
}


def longest(core):
    """Steps that the slowest unit of an LSTM lasts."""
    (layer,) = core.layers
    return round(1.0 + layer.bias_ih[4:8].max().exp().item(), 3)


@pytest.fixture
def make():
    """An agent of a kind, in eight environments."""

    def build(kind, **options):
        agent, usual = KINDS[kind]
        return agent(OBS, TWO, num_envs=8, **usual | options)

    return build


def core_of(agent):
    network = agent.network
    return network.actor.core if hasattr(network, "actor") else network.trunk.core


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_memory_lasts_as_long_as_sequences(kind, make):
    assert longest(core_of(make(kind, num_steps=24, bptt=12))) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_that_is_given_wins(kind, make):
    assert longest(core_of(make(kind, num_steps=24, bptt=12, memory_span=50))) == 50


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_that_the_core_is_given_wins(kind, make):
    core = partial(cores.lstm, hidden_size=4, forget_bias=log(6.0))
    assert longest(core_of(make(kind, num_steps=24, bptt=12, core=core, memory_span=50))) == 7


def test_sequences_may_be_whole_rollouts(make):
    assert longest(core_of(make("ppo", num_steps=24, bptt=None))) == 24


def test_the_core_of_a_critic_has_the_span_too(make):
    agent = make("ppo", num_steps=24, bptt=12, separate_critic=True)
    assert longest(agent.network.critic.core) == 12
    other = partial(cores.lstm, hidden_size=4)
    agent = make("ppo", num_steps=24, bptt=12, separate_critic=True, critic_core=other, memory_span=30)
    assert longest(agent.network.critic.core) == 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_that_cannot_be_is_refused(kind, make):
    with pytest.raises(ValueError, match="memory_span=1: it must be a number of at least 2"):
        make(kind, memory_span=1)
