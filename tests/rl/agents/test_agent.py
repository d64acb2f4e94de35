"""What every recurrent agent shares: acting and observing, the action that waits, memories, counters."""

import pickle
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter
from envs.single_env import SingleEnv
from rl.agents import RecurrentIQN

OBS, FOUR = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(4)
NOTHING, NEVER = np.zeros(3), np.zeros(3, dtype=bool)
BRANCHES = spaces.MultiDiscrete([2, 3], start=[1, 4])


def pickle_and_load(agent):
    """A copy as another process gets it."""
    return pickle.loads(pickle.dumps(agent))


@pytest.fixture
def make(make_agent, learner):
    """A learner of either kind."""
    return partial(make_agent, kind=learner)


@pytest.fixture
def three_envs(make):
    """A learner in three environments that waits for an outcome."""
    agent = make((OBS, FOUR), num_envs=3)
    agent.act(np.zeros((3, 2)))
    return agent


# ------------------------------------------------------------------------------------------------------ what act gives


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.Discrete(2, start=5), BRANCHES], ids=str)
def test_actions_lie_in_the_space_of_the_environment_in_both_forms(make, space):
    batched, single = make((OBS, space), num_envs=3), make((OBS, space))
    whole = spaces.Tuple([space] * 3)
    for turn in range(8):
        obs = np.random.default_rng(turn).uniform(-1, 1, (3, 2))
        actions = batched.act(obs)
        assert actions.shape == (3, *(space.shape or ()))
        assert whole.contains(tuple(actions))
        batched.observe(NOTHING, NEVER)
        action = single.act(obs[0])
        assert space.contains(action)
        assert isinstance(action, int if isinstance(space, spaces.Discrete) else np.ndarray)
        single.observe(0.0, False)


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2, 3)), spaces.MultiBinary(3)], ids=str)
def test_actions_that_are_arrays_come_whole(make_agent, space):
    """Those that only recurrent PPO has."""
    batched, single = make_agent((OBS, space), num_envs=3), make_agent((OBS, space))
    assert batched.act(np.zeros((3, 2))).shape == (3, *space.shape)
    action = single.act(np.zeros(2))
    assert space.contains(action)
    assert action.dtype == space.dtype


@pytest.mark.parametrize("options", [{}, {"previous_action_reward": True, "normalise_returns": True}], ids=len)
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_single_form_and_batched_form_of_one_are_the_same_code(
    make, train_batched, train_single, same_weights, end, options
):
    keywords = {"episode_length": 3, "end": end}
    envs, env = Counter(1, **keywords), SingleEnv("envs.probes:Counter", **keywords)
    batched, single = make(envs, num_envs=1, **options), make(env, **options)
    train_batched(batched, envs, 3)
    train_single(single, env, 3)
    assert same_weights(batched, single)
    assert batched.updates == single.updates > 0
    assert batched.env_steps == single.env_steps == 24


@pytest.mark.parametrize("copy", [deepcopy, pickle_and_load])
def test_a_copy_learns_as_the_original_does(make, train_batched, same_weights, copy):
    agent = make(Counter(2, episode_length=3), num_envs=2)
    train_batched(agent, Counter(2, episode_length=3), 2)
    twin, before = copy(agent), copy(agent)
    for one in (agent, twin):
        train_batched(one, Counter(2, episode_length=3), 2)
    assert same_weights(agent, twin) and not same_weights(agent, before)
    assert agent.updates == twin.updates > before.updates > 0


def test_many_environments_are_one_forward_pass(make):
    agent = make((OBS, FOUR), num_envs=32)
    calls, step = [], agent.network.step
    agent.network.step = lambda *args: calls.append(args[0]["obs"].shape) or step(*args)
    assert agent.act(np.zeros((32, 2))).shape == (32,)
    agent.observe(np.zeros(32), np.zeros(32, dtype=bool))
    assert calls == [(32, 2)]


def test_acting_builds_no_graph(make, play_turns):
    agent = make((OBS, FOUR), num_steps=100)
    play_turns(agent, 20)
    tensors = [*agent.actor.state.values(), *agent.buffer.state.values(), agent.buffer.actions]
    assert all(tensor.grad_fn is None and not tensor.requires_grad for tensor in tensors)


def test_forbidden_actions_are_never_taken(make):
    space = spaces.Dict({"numbers": OBS, "action_mask": spaces.MultiBinary(4)})
    agent = make((space, FOUR), num_envs=2)
    mask, seen = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=np.int8), [set(), set()]
    for _ in range(24):
        for row, action in enumerate(agent.act({"numbers": np.zeros((2, 2)), "action_mask": mask})):
            seen[row].add(int(action))
        agent.observe(np.zeros(2), np.zeros(2, dtype=bool))
    assert seen == [{0, 3}, {1, 2}]
    agent.learn()
    assert agent.updates > 0


# ------------------------------------------------------------------------------------------------------ calls in order


def test_two_actions_in_a_row_are_refused_and_change_nothing(make):
    agent = make((OBS, FOUR))
    agent.act(np.zeros(2))
    waiting, state = agent.pending_action, {name: leaf.clone() for name, leaf in agent.actor.state.items()}
    with pytest.raises(RuntimeError, match=r"act \(take_action\) was called twice without observe"):
        agent.act(np.ones(2))
    assert all(torch.equal(leaf, state[name]) for name, leaf in agent.actor.state.items())
    assert np.array_equal(agent.pending_action, waiting)
    agent.observe(1.0, False)
    assert agent.rollout_size == 1


def test_an_outcome_without_an_action_is_refused(make):
    agent = make((OBS, FOUR))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"observe \(add_memory_ppo\) was called without act"):
            agent.observe(1.0, False)
        agent.act(np.zeros(2))
        agent.observe(1.0, False)
    assert agent.rollout_size == 2


def test_the_action_that_waits_shows_all_its_branches(make):
    """Numbers of the branches from zero on, ``[B, branches]``, in either form."""
    single, batched = make((OBS, BRANCHES)), make((OBS, BRANCHES), num_envs=3)
    assert single.pending_action is None
    action = single.act(np.zeros(2))
    assert single.pending_action.tolist() == [(action - [1, 4]).tolist()]
    single.observe(0.0, False)
    assert single.pending_action is None
    actions = batched.act(np.zeros((3, 2)))
    assert batched.pending_action.tolist() == (actions - [1, 4]).tolist()


def test_learning_between_an_action_and_its_outcome_is_refused(make, play_turns):
    """The outcome would be stored with an older action. What waits stays, and so does the rollout."""
    agent = make((OBS, FOUR))
    play_turns(agent, 8)
    agent.act(np.zeros(2))
    with pytest.raises(RuntimeError, match=r"learn \(train_step\) was called while an action waits for its outcome"):
        agent.learn()
    assert agent.rollout_size == 8
    assert agent.pending_action is not None
    agent.observe(9.0, False)
    agent.learn()
    assert (agent.env_steps, agent.updates > 0) == (9, True)


def test_an_action_without_outcome_is_dropped_by_a_reset(make, play_turns):
    """It leaves no trace: what is stored then is what an agent stores that did not act in between."""
    agent, twin = make((OBS, FOUR)), make((OBS, FOUR))
    for other in (agent, twin):
        play_turns(other, 2)
    agent.act(np.ones(2))
    for other in (agent, twin):
        other.reset()
    assert agent.pending_action is None
    with pytest.raises(RuntimeError, match="without act"):
        agent.observe(1.0, False)
    for other in (agent, twin):
        play_turns(other, 2)
    assert agent.rollout_size == twin.rollout_size >= 3


@pytest.mark.parametrize("shape", [(3,), (2, 2), (0, 2), ()])
def test_an_observation_of_another_size_is_refused_and_changes_nothing(make, shape):
    agent = make((OBS, FOUR))
    state = {name: leaf.clone() for name, leaf in agent.actor.state.items()}
    with pytest.raises(ValueError, match=r"observation 'obs' has shape .*, but \(1, 2\) is expected"):
        agent.act(np.zeros(shape))
    assert all(torch.equal(leaf, state[name]) for name, leaf in agent.actor.state.items())
    assert agent.pending_action is None
    agent.act(np.zeros(2))


# ------------------------------------------------------------------------------------------------------------ outcomes


@pytest.mark.parametrize("reward", [float("nan"), float("inf"), -float("inf"), None])
def test_a_reward_that_is_no_number_is_refused_and_may_be_given_again(make, reward):
    agent = make((OBS, FOUR))
    agent.act(np.zeros(2))
    with pytest.raises(ValueError, match=f"rewards={reward}: they must be finite, but environment 0 sent another one"):
        agent.observe(reward, True)
    assert agent.rollout_size == 0
    assert agent.actor.starts.tolist() == [False]
    agent.observe(2.0, True)
    assert agent.rollout_size == 1
    assert agent.actor.starts.tolist() == [True]


def test_the_environment_with_the_bad_reward_is_named(three_envs):
    with pytest.raises(ValueError, match="environment 2 sent another one"):
        three_envs.observe(np.array([0.0, 1.0, np.nan]), NEVER)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rewards", (np.zeros(2), NEVER)),
        ("rewards", (np.zeros(1), NEVER)),  # one reward in an array is not spread over all environments
        ("terminated", (NOTHING, np.zeros(4, dtype=bool))),
        ("truncated", (NOTHING, NEVER, np.zeros(2, dtype=bool))),
        ("ignored", (NOTHING, NEVER, False, None, np.zeros(2, dtype=bool))),
    ],
)
def test_an_outcome_of_a_wrong_shape_is_refused_and_may_be_given_again(three_envs, name, arguments):
    with pytest.raises(ValueError, match=rf"{name} has shape .* but \(3,\) is expected"):
        three_envs.observe(*arguments)
    three_envs.observe(NOTHING, NEVER)
    assert three_envs.rollout_size == 3


def test_a_refused_final_observation_may_be_given_again(make):
    agent = make((OBS, FOUR))
    agent.act(np.zeros(2))
    with pytest.raises(ValueError, match="is expected"):
        agent.observe(1.0, False, True, np.zeros(3))
    agent.observe(1.0, False, True, np.zeros(2))
    assert agent.rollout_size == 1


# ------------------------------------------------------------------------------------------------------------ memories


@pytest.mark.parametrize("previous", [False, True])
def test_the_past_of_an_episode_matters(make, next_outputs, previous):
    seen = []
    for first in (-1.0, 1.0):
        agent = make((OBS, FOUR), previous_action_reward=previous)
        agent.act(np.full(2, first))
        agent.observe(0.0, False)
        seen.append(next_outputs(agent, np.full(2, 0.5)))
    assert not torch.equal(*seen)


@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("end", ["reset", "terminated", "truncated"])
def test_nothing_of_an_episode_leaks_into_the_next(make, play_turns, next_outputs, end, previous):
    """Two agents of one seed see different first episodes; the second begins as that of an agent without a past."""
    seen = []
    for seed, turns in ((None, 0), (1, 4), (2, 5)):
        agent = make((OBS, FOUR), num_steps=100, previous_action_reward=previous)
        play_turns(agent, turns, seed=seed)
        if end == "reset":
            agent.reset()
        elif turns:
            agent.act(np.ones(2))
            agent.observe(1.0, end == "terminated", end == "truncated")
        seen.append(next_outputs(agent, np.full(2, 0.5)))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_an_ignored_step_leaves_no_trace_in_the_memory(make, next_outputs):
    """Nor does what it was told of: reward and action are not fed either, for an episode starts."""
    fresh, agent = (make((OBS, FOUR), num_envs=1, previous_action_reward=True) for _ in range(2))
    agent.act(np.ones((1, 2)))
    agent.observe(5.0, False, ignored=True)
    assert torch.equal(next_outputs(agent, np.zeros((1, 2))), next_outputs(fresh, np.zeros((1, 2))))
    assert agent.learn() == 0.0
    assert agent.env_steps == 0


# ------------------------------------------------------------------------------------------------ counters and sizes


def test_the_share_of_training_done_follows_the_steps_of_all_environments(make, train_batched):
    agent = make(Counter(3), num_envs=3, total_steps=40)
    assert agent.progress == 0.0
    train_batched(agent, Counter(3), 1)
    assert (agent.env_steps, agent.progress) == (24, 24 / 40)
    train_batched(agent, Counter(3), 1)
    assert (agent.env_steps, agent.progress) == (48, 1.0)  # not beyond the end


def test_without_an_end_of_training_nothing_is_ever_done(make, train_batched):
    agent = make(Counter(3), num_envs=3)
    train_batched(agent, Counter(3), 1)
    assert (agent.env_steps, agent.progress) == (24, 0.0)


def test_learning_returns_its_mean_loss(make, play_turns):
    agent = make((OBS, FOUR))
    assert agent.learn() == 0.0
    assert agent.last_metrics == {}
    play_turns(agent, 8)
    loss = agent.learn()
    assert type(loss) is float
    assert loss == agent.last_metrics["loss"] != 0.0
    assert all(np.isfinite(value) for value in agent.last_metrics.values())


def test_sizes_and_names_of_an_agent(make, learner):
    agent = make((OBS, FOUR), num_envs=3)
    assert agent.model_name == learner.__name__
    assert (agent.num_envs, agent.num_steps, agent.batched) == (3, 8, True)
    assert agent.num_parameters == sum(parameter.numel() for parameter in agent.network.parameters()) > 0
    assert agent.device == torch.device("cpu")
    single = make((OBS, FOUR))
    assert (single.num_envs, single.batched) == (1, False)


def test_inputs_to_try_the_network_with_are_those_of_all_environments(make):
    agent = make((spaces.Dict({"a": OBS, "b": FOUR}), FOUR), num_envs=3, previous_action_reward=True)
    shapes = {name: tuple(leaf.shape) for name, leaf in agent.example_inputs().items()}
    assert shapes == {"a": (3, 2), "b": (3,), "previous_action": (3, 1), "previous_reward": (3, 1)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_envs": -1}, "num_envs=-1"),
        ({"num_envs": 2, "num_steps": 0}, "num_steps=0"),
        ({"total_steps": -1}, "total_steps=-1"),
        ({"layer_size": 0}, "layer_size=0"),
        ({"epsilon": 2.0}, "epsilon=2.0"),
        ({"epsilon_min": -1.0}, "epsilon_min=-1.0"),
        ({"action_names": ["one", "two"]}, "action_names"),
    ],
    ids=str,
)
def test_impossible_options_are_refused_in_a_sentence(make, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make((OBS, FOUR), **options)


def test_unknown_options_are_refused(make):
    with pytest.raises(TypeError, match="momentum"):
        make((OBS, FOUR), momentum=0.9)


def test_quantile_networks_take_no_actions_that_are_arrays():
    with pytest.raises(ValueError, match="is not supported by quantile networks"):
        RecurrentIQN(OBS, spaces.Box(-1, 1, (2,)))
