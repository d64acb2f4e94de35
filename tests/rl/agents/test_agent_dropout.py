"""Dropout of a rollout: replayed as it was played, whatever comes in between, and never the same twice."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)


@pytest.fixture(params=["gru", "lstm", "mingru"])
def make(make_agent, request):
    """An agent with two layers and dropout between them, which learns in one pass over whole sequences."""

    def make(num_steps=12, dropout=0.3, **options):
        options = {"bptt": None, "num_minibatches": 1, "epochs": 1, "normalise_advantages": False} | options
        layers = {"num_layers": 2, "dropout": dropout}
        return make_agent((OBS, FOUR), core=request.param, core_options=layers, num_steps=num_steps, **options)

    return make


def begin_anew(agent, play_turns):
    agent.reset()


def begin_an_epoch(agent, play_turns):
    agent.start_epoch_action(epoch=1)


def switch_learning_off_and_on(agent, play_turns):
    agent.training = False
    agent.training = True


def play_without_learning(agent, play_turns):
    agent.training = False
    play_turns(agent, 3, seed=1)
    agent.training = True


def drop_an_action(agent, play_turns):
    agent.act(np.zeros(2))
    agent.reset()


def lose_a_step(agent, play_turns):
    agent.act(np.zeros(2))
    agent.observe(0.0, False, ignored=True)


def evaluate_with_an_actor(agent, play_turns):
    agent.network.eval()
    actor = agent.new_actor(1, 0)
    for _ in range(3):
        actor.act(np.zeros((1, 2)), greedy=True)
        actor.observe(np.zeros(1), np.array([False]))
    agent.network.train()


INTERRUPTIONS = [
    *(begin_anew, begin_an_epoch, switch_learning_off_and_on, play_without_learning, drop_an_action, lose_a_step),
    evaluate_with_an_actor,
]


@pytest.mark.parametrize("interrupt", INTERRUPTIONS, ids=lambda interrupt: interrupt.__name__)
def test_a_rollout_that_was_interrupted_is_replayed_exactly(make, play_turns, interrupt):
    """Large weights, so that a wrong mask shows in the probability ratio."""
    agent = make()
    with torch.no_grad():
        for parameter in agent.network.parameters():
            parameter.mul_(2)
        agent.network.heads.weight[:-1].mul_(50)
    play_turns(agent, 5)
    interrupt(agent, play_turns)
    play_turns(agent, 7, terminated=[3])
    if interrupt is lose_a_step:
        assert agent.buffer.ignored.any()
    agent.learn()
    assert agent.updates == 1
    assert agent.last_metrics["ratio_error"] < 1e-5


@pytest.mark.parametrize("dropout", [0.3, 0.0])
def test_two_epochs_see_different_masks(make, next_outputs, dropout):
    """The same observations after each reset: without dropout nothing differs."""
    agent, epochs = make(num_steps=100, dropout=dropout), []
    for _ in range(3):
        outputs = []
        for turn in range(4):
            outputs.append(next_outputs(agent, np.full(2, 0.2 * turn)))
            agent.actor.observe(np.zeros(1), np.array([False]))
        epochs.append(torch.stack(outputs))
        agent.reset()
    alike = [torch.equal(epochs[one], epochs[other]) for one, other in ((0, 1), (0, 2), (1, 2))]
    assert alike == [dropout == 0.0] * 3


@pytest.mark.parametrize("dropout", [0.3, 0.0])
def test_two_seeds_see_different_masks(make, next_outputs, dropout):
    """With equal weights and observations: without dropout nothing differs."""
    first, second = make(seed=1, dropout=dropout), make(seed=2, dropout=dropout)
    second.network.load_state_dict(first.network.state_dict())
    outputs = [torch.cat([next_outputs(agent, np.ones(2)) for _ in range(4)]) for agent in (first, second)]
    assert torch.equal(*outputs) == (dropout == 0.0)


def test_the_environments_of_one_agent_see_different_masks(make, next_outputs):
    agent = make(num_envs=4)
    outputs = next_outputs(agent, np.ones((4, 2)))
    assert len({tuple(row) for row in outputs.tolist()}) == 4


def test_the_steps_of_one_episode_see_different_masks(make_agent, next_outputs):
    """Of a core without weights on its past, so that the same observation would give the same output."""
    layers = {"num_layers": 2, "dropout": 0.3}
    agent = make_agent((OBS, FOUR), core="mingru", core_options=layers, num_envs=1)
    agent.network.actor.core.layers[0].bias.data.fill_(50.0)  # the gate is open: nothing is kept
    agent.network.actor.core.layers[1].bias.data.fill_(50.0)
    outputs = [next_outputs(agent, np.ones((1, 2))) for _ in range(4)]
    assert len({tuple(row) for step in outputs for row in step.tolist()}) > 1


def test_a_loaded_agent_goes_on_with_its_masks(make, next_outputs, play_turns):
    agent, other = make(seed=1), make(seed=2)
    play_turns(agent, 5)
    other.load_state_dict(agent.state_dict())
    assert torch.equal(next_outputs(agent, np.ones(2)), next_outputs(other, np.ones(2)))
