"""Evaluation: fair, reproducible, and without a trace in the agent."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import Counter, EchoCue, SpaceProbe
from envs.single_env import SingleEnv
from rl import cores
from rl.agents import RecurrentPPO
from rl.training.evaluation import Evaluation, evaluate
from rl.training.stepping import VectorEnvAdapter


@pytest.fixture
def make_agent():
    """An untrained agent whose policy depends strongly on what it sees and remembers."""

    def make(envs, core=cores.gru, **options):
        agent = RecurrentPPO(
            envs.single_observation_space,
            envs.single_action_space,
            8,
            seed=0,
            core=partial(core, hidden_size=8),
            num_envs=3,
            num_steps=8,
            bptt=4,
            num_minibatches=1,
            **options,
        )
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():  # the fresh policy is almost uniform, which would hide everything
            for parameter in agent.network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            agent.network.heads.bias[:-1].zero_()
        return agent

    return make


@pytest.fixture
def played_actions():
    """The list that the actions of each further step of an agent's network go to."""

    def watch(agent):
        seen, original = [], agent.network.head.to_environment
        agent.network.head.to_environment = lambda actions: seen.append(actions.tolist()) or original(actions)
        return seen

    return watch


def test_every_environment_plays_the_same_number_of_episodes(make_agent):
    """Rows of 1 and 4 steps with returns 0 and 0+1+2+3 = 6. 5 episodes are rounded up to 3 for each of both."""
    envs = Counter(2, [1, 4])
    result = evaluate(make_agent(envs), envs, 5, seed=0)
    assert sorted(result.returns) == [0, 0, 0, 6, 6, 6]
    assert sorted(result.lengths) == [1, 1, 1, 4, 4, 4]
    assert result.mean == 3.0
    assert result.stderr == pytest.approx(3 * np.sqrt(6 / 5) / np.sqrt(6))  # deviation 3 * sqrt(6 / 5), over sqrt(6)


@pytest.mark.parametrize(("episodes", "played"), [(1, 2), (2, 2), (3, 4), (4, 4)])
def test_the_number_of_episodes_is_rounded_up(make_agent, episodes, played):
    envs = Counter(2, [1, 4])
    assert len(evaluate(make_agent(envs), envs, episodes, seed=0).returns) == played


def test_late_resets_count_neither_as_steps_nor_as_episodes(make_agent):
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n) for n in (1, 4)]
    envs = SyncVectorEnv(made, autoreset_mode=AutoresetMode.NEXT_STEP)
    result = evaluate(make_agent(envs), envs, 6, seed=0)
    assert sorted(result.returns) == [0, 0, 0, 6, 6, 6]
    assert sorted(result.lengths) == [1, 1, 1, 4, 4, 4]


def test_a_single_episode_has_no_standard_error():
    assert Evaluation(np.array([2.0]), np.array([3]), np.array([0])).stderr == 0.0
    two = Evaluation(np.array([1.0, 3.0]), np.array([3, 3]), np.array([0, 1]))
    assert two.stderr == pytest.approx(np.sqrt(2) / np.sqrt(2))


@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("memory", [False, True])
def test_evaluation_equals_a_loop_by_hand(make_agent, played_actions, memory, previous):
    """Without memory every step is a start for the network, and nothing of the step before is fed."""
    envs = SpaceProbe(4, episode_length=12)
    agent = make_agent(envs, previous_action_reward=previous)
    seen, expected = played_actions(agent), []
    result = evaluate(agent, SpaceProbe(4, episode_length=12), 4, seed=7, memory=memory)

    network, stepper = agent.network, VectorEnvAdapter(envs)
    state, starts = network.initial_state(4), torch.ones(4, dtype=torch.bool)
    fed = {"previous_action": torch.zeros(4, 1, dtype=torch.int64), "previous_reward": torch.zeros(4, 1)}
    obs, returns = stepper.reset(7), np.zeros(4)
    for _ in range(12):
        inputs = {"obs": torch.from_numpy(obs)} | (fed if previous else {})
        with torch.no_grad():
            params, _, state = network.step(inputs, state, starts)
        actions = params.argmax(-1)
        expected.append(actions.unsqueeze(1).tolist())
        after = stepper.step(actions.numpy())
        returns, obs = returns + after.rewards, after.obs
        if memory:
            starts = torch.zeros(4, dtype=torch.bool)
            fed = {
                "previous_action": actions.unsqueeze(1) + 1,
                "previous_reward": torch.from_numpy(after.rewards).unsqueeze(1),
            }
    assert result.returns.tolist() == pytest.approx(returns.tolist())
    assert seen == expected
    assert 0 < np.mean(expected) < 1


@pytest.mark.parametrize("core", [cores.gru, cores.lstm, cores.rnn])
def test_the_memory_makes_a_difference(make_agent, played_actions, core):
    """Or the loop by hand could not tell the two apart."""
    envs = SpaceProbe(16, episode_length=8)
    agent = make_agent(envs, core)
    seen = played_actions(agent)
    evaluate(agent, envs, 16, seed=7)
    with_memory = list(seen)
    seen.clear()
    evaluate(agent, envs, 16, seed=7, memory=False)
    assert with_memory[0] == seen[0]
    assert with_memory != seen


def test_a_core_without_memory_scores_the_same_without_it(make_agent):
    envs = SpaceProbe(8)
    agent = make_agent(envs, core=cores.mlp)
    results = [evaluate(agent, envs, 16, seed=7, memory=memory).returns for memory in (True, False)]
    assert results[0].tolist() == results[1].tolist()


def test_evaluation_leaves_no_trace(make_agent):
    """Not in weights, moments, counters, memories, generators, the rollout, the network's mode or global streams."""
    envs = SpaceProbe(3)
    agent = make_agent(envs, normalise_observations=True, normalise_returns=True, previous_action_reward=True)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for step in range(11):  # a training, then 3 steps of the next rollout
        after = stepper.step(agent.take_action(obs))
        agent.add_memory_ppo(after.rewards, after.terminated, after.truncated, after.final_obs)
        obs = after.obs
        if step == 7:
            agent.train_step(obs)

    def flatten(value):
        if isinstance(value, dict):
            return [leaf for key in sorted(value, key=str) for leaf in flatten(value[key])]
        if isinstance(value, (list, tuple)):
            return [leaf for part in value for leaf in flatten(part)]
        return [value.clone() if isinstance(value, torch.Tensor) else value]

    def snapshot():
        buffer = agent.buffer
        rollout = [buffer.size, buffer.obs, buffer.state, buffer.actions, buffer.rewards, buffer.starts]
        return flatten([agent.state_dict(), rollout, torch.get_rng_state(), agent.network.training])

    before, numpy_before = snapshot(), np.random.get_state(legacy=False)
    for options in ({"greedy": True}, {"greedy": False}, {"memory": False}):
        evaluate(agent, SpaceProbe(5), 10, seed=3, **options)
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)
    after = snapshot()
    assert len(before) == len(after) > 30
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("greedy", [True, False])
def test_a_seed_decides_an_evaluation(make_agent, greedy):
    agent = make_agent(SpaceProbe(1))
    first, again, other = (
        evaluate(agent, SpaceProbe(4), 32, seed=seed, greedy=greedy).returns.tolist() for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_a_seed_decides_the_sampled_actions(make_agent, played_actions):
    """Counters know no chance: what differs is the agent's."""
    agent = make_agent(Counter(1))
    with torch.no_grad():
        agent.network.heads.weight[:-1].zero_()
    played = []
    for seed in (3, 3, 4):
        agent.network.head.__dict__.pop("to_environment", None)
        seen = played_actions(agent)
        evaluate(agent, Counter(4), 8, seed=seed, greedy=False)
        played.append(seen)
    assert played[0] == played[1]
    assert played[0] != played[2]


def test_greedy_takes_the_likeliest_action_and_sampling_does_not(make_agent, played_actions):
    """With logits 0 and 1 greedy is always 1; a sampling agent plays 1 with probability e / (1 + e) = 0.73."""
    envs = EchoCue(64)
    agent = make_agent(envs)
    with torch.no_grad():
        agent.network.heads.weight[:-1].zero_()
        agent.network.heads.bias[:-1].copy_(torch.tensor([0.0, 1.0]))
    seen = played_actions(agent)
    evaluate(agent, envs, 64, seed=0)
    assert np.unique(seen).tolist() == [1]
    seen.clear()
    evaluate(agent, envs, 64 * 8, seed=0, greedy=False)
    assert np.mean(seen) == pytest.approx(0.731, abs=0.06)  # 1024 draws: standard error 0.014


def test_dropout_acts_in_training_and_not_in_evaluation(make_agent):
    envs = SpaceProbe(3)
    agent = make_agent(envs, core=partial(cores.gru, num_layers=2, dropout=0.5))
    modes = []
    original = agent.network.step
    agent.network.step = lambda *args: modes.append(agent.network.training) or original(*args)
    evaluate(agent, envs, 3, seed=0)
    assert modes
    assert not any(modes)
    assert agent.network.training
    agent.network.eval()
    evaluate(agent, envs, 3, seed=0)
    assert not agent.network.training


def test_an_error_of_the_environment_leaves_the_network_in_training_mode(make_agent):
    envs = Counter(2)
    agent = make_agent(envs)

    def broken(actions):
        raise OSError("the simulator is gone")

    envs.step = broken
    with pytest.raises(OSError, match="simulator"):
        evaluate(agent, envs, 2, seed=0)
    assert agent.network.training
