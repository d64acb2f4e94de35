"""Playing without learning: ``training = False``, and the actors that evaluation plays with."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter, SpaceProbe
from rl.training.evaluation import evaluate

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)


@pytest.fixture
def make(make_agent, learner):
    """A learner of either kind."""
    return partial(make_agent, kind=learner)


@pytest.fixture
def memory_of():
    """All that an agent plays on with, as it is now."""

    def copy(agent):
        actor = agent.actor
        state = {name: leaf.tolist() for name, leaf in actor.state.items()}
        previous = {name: leaf.tolist() for name, leaf in actor.previous.items()}
        return state, actor.starts.tolist(), previous, actor.generator.get_state().tolist()

    return copy


# ----------------------------------------------------------------------------------------------------- training = False


def test_playing_without_learning_stores_and_learns_nothing(make, play_turns, copy_weights, same_weights):
    agent = make((OBS, FOUR), normalise_observations=True, normalise_returns=True)
    agent.training = False
    before, scale = copy_weights(agent), {n: v.clone() for n, v in agent.return_scale.state_dict().items()}
    for _ in range(2):
        play_turns(agent, 9)
        assert agent.learn() == 0.0
        agent.reset()
    assert agent.rollout_size == agent.updates == agent.env_steps == 0
    assert same_weights(agent, before)
    assert all(torch.equal(value, scale[name]) for name, value in agent.return_scale.state_dict().items())


def test_a_rollout_is_not_learned_from_while_playing_without_learning(make, play_turns, copy_weights, same_weights):
    agent = make((OBS, FOUR))
    play_turns(agent, 8)
    before = copy_weights(agent)
    agent.training = False
    assert agent.learn() == 0.0
    assert same_weights(agent, before)
    agent.training = True
    assert agent.learn() != 0.0
    assert agent.env_steps == 8


def test_playing_without_learning_is_greedy_and_needs_no_outcomes(make):
    """Of 400 environments that see the same all take the best action; in training they would not."""
    agent = make((OBS, FOUR), num_envs=400)
    agent.training = False
    obs = np.full((400, 2), 0.5)
    assert all(len(set(agent.act(obs).tolist())) == 1 for _ in range(3))
    agent.training = True
    assert len(set(agent.act(obs).tolist())) == 4


@pytest.mark.parametrize("num_envs", [None, 3])
def test_playing_without_outcomes_is_as_playing_with_them_until_a_reset(make, num_envs):
    """The memories after each step, in the single form and in the batched one."""
    silent, told = make((OBS, FOUR), num_envs=num_envs), make((OBS, FOUR), num_envs=num_envs)
    observations, states = np.random.default_rng(0).standard_normal((6, num_envs or 1, 2)), []
    for agent in (silent, told):
        agent.training = False
        states.append([])
        for _ in range(2):
            for obs in observations:
                agent.act(obs)
                states[-1].append(agent.actor.state["h"].tolist())
                if agent is told:
                    agent.observe(0.0, False)
            agent.reset()
    assert states[0] == states[1]
    assert states[0][:6] == states[0][6:] and states[0][0] != states[0][1]


def test_an_agent_that_is_fed_its_reward_asks_for_it(make):
    agent = make((OBS, FOUR), previous_action_reward=True)
    agent.training = False
    agent.act(np.zeros(2))
    with pytest.raises(RuntimeError, match="fed the reward of its previous action"):
        agent.act(np.zeros(2))
    agent.observe(1.0, False)
    agent.act(np.zeros(2))
    agent.reset()
    agent.act(np.zeros(2))


def test_learning_goes_on_after_playing_without_outcomes(make, play_turns, next_outputs):
    """As for an agent that has not played yet: nothing waits, nothing is stored, an episode starts."""
    agent, fresh = make((OBS, FOUR)), make((OBS, FOUR))
    agent.training = False
    agent.act(np.ones(2))
    agent.training = True
    assert agent.pending_action is None
    assert agent.rollout_size == 0
    assert torch.equal(next_outputs(agent, np.zeros(2)), next_outputs(fresh, np.zeros(2)))
    play_turns(agent, 8)
    assert agent.learn() != 0.0
    assert agent.env_steps == 8


def test_an_episode_ends_the_memory_also_when_nothing_is_learned(make, next_outputs):
    agent, fresh = make((OBS, FOUR)), make((OBS, FOUR))
    for player in (agent, fresh):
        player.training = False
    agent.act(np.ones(2))
    remembered = agent.actor.state["h"].clone()
    agent.observe(0.0, True)
    assert torch.equal(next_outputs(agent, np.zeros(2)), next_outputs(fresh, np.zeros(2)))
    assert not torch.equal(agent.actor.state["h"], remembered)


def test_the_outcome_of_an_action_played_without_learning_is_not_stored(make):
    agent = make((OBS, FOUR))
    agent.training = False
    agent.act(np.zeros(2))
    agent.training = True
    with pytest.raises(RuntimeError, match="without act"):
        agent.observe(1.0, False)
    assert agent.rollout_size == 0


def test_a_switch_begins_an_episode_but_saying_the_same_again_does_not(make):
    agent = make((OBS, FOUR))
    for training, starts in ((True, False), (False, True), (False, False), (True, True), (True, False)):
        agent.act(np.zeros(2))
        agent.observe(0.0, False)
        agent.training = training
        assert agent.actor.starts.tolist() == [starts]
        assert agent.training == agent.network.training == training


def test_turns_played_without_learning_within_an_episode_do_not_spoil_the_replay(make_agent, play_turns):
    agent = make_agent((OBS, FOUR), epochs=1, num_minibatches=1)
    with torch.no_grad():
        for parameter in agent.network.parameters():
            parameter.mul_(3)
    for training, turns in ((True, 3), (False, 5), (True, 5)):
        agent.training = training
        play_turns(agent, turns, seed=turns)
    assert agent.buffer.truncated[:8, 0].tolist() == [False, False, True, False, False, False, False, False]
    agent.learn()
    assert agent.last_metrics["ratio_error"] <= 1e-5


# --------------------------------------------------------------------------------------------------------------- actors


@pytest.mark.parametrize("memory", [True, False])
def test_an_actor_plays_with_memories_and_a_generator_of_its_own(make, play_turns, memory_of, memory):
    """Also one of as many environments, with the seed of the agent, as evaluation asks for in mid-episode."""
    agent = make((OBS, FOUR), num_envs=3, previous_action_reward=True)
    play_turns(agent, 3)
    agent.act(np.zeros((3, 2)))
    before = memory_of(agent)
    actor = agent.new_actor(3, 0, memory)
    for _ in range(2):
        actor.act(np.ones((3, 2)))
        actor.observe(np.ones(3), np.array([False, True, False]))
    assert memory_of(agent) == before
    assert agent.pending_action is not None


def test_an_actor_plays_with_the_weights_of_the_agent_as_they_change(make, play_turns):
    agent = make((OBS, FOUR), learning_rate=0.1)
    values = []
    for _ in range(2):
        actor = agent.new_actor(2, 1)
        values.append(actor.step(actor.inputs(np.ones((2, 2))))[1])
        play_turns(agent, 8)
        agent.learn()
    assert values[0].shape == (2,)
    assert not torch.equal(*values)


def test_actors_sample_by_their_own_seed(make):
    """Of 64 draws among 4 actions two seeds agree on all with a probability of next to nothing."""
    agent = make((OBS, FOUR))

    def sampled(seed):
        return agent.new_actor(64, seed).act(np.zeros((64, 2))).tolist()

    assert sampled(1) == sampled(1)
    assert sampled(1) != sampled(2)
    assert sampled(None) != sampled(None)


def test_an_actor_without_memory_forgets_each_step(make):
    agent = make((OBS, FOUR), previous_action_reward=True)
    seen = []
    for first in (-1.0, 1.0):
        actor = agent.new_actor(1, 0, memory=False)
        actor.act(np.full((1, 2), first), greedy=True)
        actor.observe(np.full(1, first), np.array([False]))
        seen.append(actor.step(actor.inputs(np.zeros((1, 2))))[0])
    assert torch.equal(*seen)


def test_an_evaluation_in_mid_episode_leaves_no_trace(make, train_batched, memory_of, same_weights):
    """With as many environments as the agent has: it goes on as one that was not evaluated."""
    agents = [make(Counter(3, 7), num_envs=3, previous_action_reward=True, normalise_returns=True) for _ in range(2)]
    for evaluated, agent in enumerate(agents):
        train_batched(agent, Counter(3, 7), 1)
        if evaluated:
            evaluate(agent, Counter(3, 4), 6, seed=0)
            assert agent.training
        train_batched(agent, Counter(3, 7), 1)
    assert memory_of(agents[0]) == memory_of(agents[1])
    assert same_weights(*agents)


def test_dropout_is_off_in_evaluation_and_on_again_in_training(make):
    envs = SpaceProbe(4)
    agent = make(envs, num_envs=4, core="lstm", core_options={"num_layers": 2, "dropout": 0.5})
    obs = envs.reset(seed=0)[0]

    def outputs():
        actor = agent.new_actor(4, 0)
        return actor.step(actor.inputs(obs))[0]

    seen, step = [], agent.network.step
    agent.network.step = lambda *args: seen.append(step(*args)[0]) or step(*args)
    evaluate(agent, SpaceProbe(4), 4, seed=0)
    agent.network.step = step
    in_training = outputs()
    agent.training = False
    assert torch.equal(outputs(), seen[0])
    assert not torch.equal(in_training, seen[0])
