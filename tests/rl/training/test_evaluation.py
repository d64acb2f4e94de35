"""Evaluation: equal to a loop by hand for every agent, fair, reproducible, and without a trace in the agent."""

from functools import partial
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import Counter, SpaceProbe
from envs.wrapping import ChangedRewards
from rl import cores
from rl.agents import DualHeadRecurrentPPO, Population, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.agents.population import member_seed
from rl.networks.modes import evaluation_mode
from rl.training.evaluation import EpisodeCounter, evaluate
from rl.training.stepping import StepResult, VectorEnvAdapter

LENGTHS = (2, 4, 3, 5)
"""Of the episodes of each row in the loops by hand."""


class Walk(gymnasium.Env):
    """Shows numbers at random; the pair of actions of each step can be read from the return. Ends are truncations in
    odd episodes."""

    observation_space, action_space = spaces.Box(-9.0, 9.0, (3,)), spaces.MultiDiscrete([3, 2])

    def __init__(self, length):
        self.length, self.episode = length, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.episode = 0, self.episode + 1
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        reward = float(action[0] + 3 * action[1] + 1) / 7 ** (self.time - 1)
        ended, cut = self.time == self.length, self.episode % 2 == 1
        return self._observe(), reward, ended and not cut, ended and cut, {}

    def _observe(self):
        return self.np_random.normal(size=3).astype(np.float32)


@pytest.fixture
def make_walks():
    def make(mode):
        return SyncVectorEnv([partial(Walk, length) for length in LENGTHS], autoreset_mode=mode)

    return make


def test_returns_are_those_of_the_environment_and_the_player_is_told_what_it_learns_from():
    envs, told = ChangedRewards(Counter(2, 3), 0.1, 0.15), []
    agent = RecurrentPPO(
        envs.single_observation_space, envs.single_action_space, 4, num_envs=2, num_steps=8, num_minibatches=1, bptt=8
    )
    make = agent.new_actor

    def new_actor(*arguments):
        actor = make(*arguments)
        observe = actor.observe
        actor.observe = lambda rewards, ended: (told.append(rewards[0].item()), observe(rewards, ended))
        return actor

    agent.new_actor = new_actor
    found = evaluate(agent, envs, 4)
    assert found.returns.tolist() == [3.0] * 4  # 0 + 1 + 2
    assert told == pytest.approx([0.0, 0.1, 0.15] * 2)


def spread(agent, seed=9):
    """Weights far from those of a fresh policy, which is almost uniform and would hide everything."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in agent.network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return agent


SPACES = Walk.observation_space, Walk.action_space
SMALL = {"layer_size": 8, "num_steps": 8, "seed": 0}
PPO = {**SMALL, "bptt": 4, "num_minibatches": 1}
GRU, LSTM = partial(cores.gru, hidden_size=8), partial(cores.lstm, hidden_size=8, num_layers=2, dropout=0.5)


def population(num_envs):
    """Members of two kinds with other weights; one is fed its previous action and reward, the other is not."""
    members = {
        "one": partial(RecurrentPPO, core=GRU, **{key: PPO[key] for key in ("layer_size", "bptt", "num_minibatches")}),
        "other": partial(RecurrentIQN, layer_size=8, core=LSTM, epsilon=0.5, previous_action_reward=True),
    }
    agent = Population(*SPACES, members, ["other", "one"], num_envs=num_envs, num_steps=8, seed=0)
    for seed, member in enumerate(agent.members.values()):
        spread(member, seed)
    return agent


AGENTS = {
    "lstm": lambda n: spread(RecurrentPPOLSTM(*SPACES, core=LSTM, num_envs=n, **PPO)),
    "dual_head": lambda n: spread(
        DualHeadRecurrentPPO(*SPACES, core=GRU, num_envs=n, previous_action_reward=True, **PPO)
    ),
    "iqn": lambda n: spread(
        RecurrentIQN(*SPACES, core=GRU, num_envs=n, epsilon=0.5, previous_action_reward=True, **SMALL)
    ),
    "population": population,
}


class HandPlayer:
    """A network of an agent with memories that are kept here, for some rows of the environments."""

    def __init__(self, agent, rows, seed, greedy, memory):
        self.agent, self.rows, self.greedy, self.memory = agent, rows, greedy, memory
        self.generator = torch.Generator().manual_seed(seed)
        self.state = agent.network.initial_state(len(rows))
        self.fed = {"previous_action": torch.zeros(len(rows), 2, dtype=torch.int64), "previous_reward": None}

    def act(self, obs, starts, rewards):
        network, starts = self.agent.network, torch.from_numpy(starts[self.rows])
        if not self.memory:
            starts = torch.ones(len(self.rows), dtype=torch.bool)
        inputs = {"obs": torch.from_numpy(obs[self.rows])}
        if self.agent.feed_previous:
            self.fed["previous_reward"] = torch.from_numpy(rewards[self.rows]).unsqueeze(1)
            inputs |= {name: torch.where(starts.unsqueeze(1), 0, leaf) for name, leaf in self.fed.items()}
        with torch.no_grad():
            params, _, self.state = network.step(inputs, self.state, starts)
            actions = network.head.mode(params) if self.greedy else network.head.sample(params, self.generator)
        self.fed["previous_action"] = actions + 1
        return actions.numpy()


def play_by_hand(agent, mode, quota, seed, greedy, memory):
    """Returns and lengths of ``quota`` episodes of each row, in the order in which they end, with nothing of ours but
    networks."""
    count = len(LENGTHS)
    members = [(agent, np.arange(count), seed)]
    if isinstance(agent, Population):  # whose members draw noise of their own
        places = (("one", [1, 3]), ("other", [0, 2]))
        members = [(agent.members[name], np.array(rows), member_seed(seed, i)) for i, (name, rows) in enumerate(places)]
    players = [HandPlayer(*member, greedy, memory) for member in members]
    envs = [Walk(length) for length in LENGTHS]
    obs = np.stack([env.reset(seed=seed + row)[0] for row, env in enumerate(envs)])
    starts, rewards, returns = np.ones(count, dtype=bool), np.zeros(count, np.float32), np.zeros(count)
    over, finished = [False] * count, []
    while min(env.episode for env in envs) <= quota:
        actions = np.empty((count, 2), dtype=np.int64)
        for player in players:
            actions[player.rows] = player.act(obs, starts, rewards)
        for row, env in enumerate(envs):
            starts[row] = over[row] and mode == AutoresetMode.NEXT_STEP
            if starts[row]:  # the action is lost
                obs[row], rewards[row], over[row] = env.reset()[0], 0.0, False
                continue
            obs[row], rewards[row], terminated, truncated, _ = env.step(actions[row])
            returns[row] += rewards[row]
            over[row] = terminated or truncated
            if over[row]:
                if env.episode < quota:
                    finished.append((returns[row], env.time, row))
                returns[row] = 0.0
                if mode == AutoresetMode.SAME_STEP:
                    obs[row], starts[row], over[row] = env.reset()[0], True, False
    return finished


def actors_of(agent):
    return [member.actor for member in getattr(agent, "members", {"": agent}).values()]


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("kind", AGENTS)
def test_evaluation_equals_a_loop_by_hand(make_walks, kind, mode, memory):
    """Three episodes in each of four rows, which end at different steps; as many rows as the agent trains on.

    The agent is amid a rollout, whose memories stay as they are.
    """
    agent, envs = AGENTS[kind](4), VectorEnvAdapter(make_walks(mode))
    obs = envs.reset(1)
    for _ in range(3):
        step = envs.step(agent.act(obs))
        agent.observe(step.rewards, step.terminated, step.truncated, step.final_obs, step.ignored)
        obs = step.obs
    memories = flatten([actor.state_dict() for actor in actors_of(agent)])
    for greedy in (True, False):
        result = evaluate(agent, make_walks(mode), 12, seed=5, greedy=greedy, memory=memory)
        with evaluation_mode(agent.network):
            returns, lengths, rows = zip(*play_by_hand(agent, mode, 3, 5, greedy, memory), strict=True)
        assert result.rows.tolist() == list(rows)
        assert result.lengths.tolist() == list(lengths) == [LENGTHS[row] for row in rows]
        assert result.returns.tolist() == pytest.approx(list(returns), abs=1e-6)
        assert sorted(rows) == sorted([0, 1, 2, 3] * 3)
    assert_alike(memories, flatten([actor.state_dict() for actor in actors_of(agent)]))


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize("kind", AGENTS)
def test_memory_and_sampling_make_a_difference(make_walks, kind, mode):
    """Or the loop by hand could not tell them apart."""
    agent, results = AGENTS[kind](4), set()
    for memory in (True, False):
        for greedy in (True, False):
            result = evaluate(agent, make_walks(mode), 12, seed=5, greedy=greedy, memory=memory)
            results.add(tuple(result.returns.tolist()))
    assert len(results) == 4


# ------------------------------------------------------------------------------------------------------ fair and exact


@pytest.fixture
def make_agent():
    """An untrained agent whose policy depends strongly on what it sees and remembers."""

    def make(envs, core=cores.gru, **options):
        spaces_of = envs.single_observation_space, envs.single_action_space
        return spread(RecurrentPPO(*spaces_of, core=partial(core, hidden_size=8), num_envs=3, **PPO, **options))

    return make


def test_a_core_without_memory_scores_the_same_without_it(make_agent):
    envs = SpaceProbe(8)
    agent = make_agent(envs, core=cores.mlp)
    results = [evaluate(agent, envs, 16, seed=7, memory=memory).returns for memory in (True, False)]
    assert results[0].tolist() == results[1].tolist()


@pytest.mark.parametrize("greedy", [True, False])
def test_a_seed_decides_an_evaluation(make_agent, greedy):
    agent = make_agent(SpaceProbe(1))
    first, again, other = (
        evaluate(agent, SpaceProbe(4), 32, seed=seed, greedy=greedy).returns.tolist() for seed in (3, 3, 4)
    )
    assert first == again != other


def test_the_seed_goes_to_the_environments_and_to_the_sampling(make_agent):
    """Where the environments are the same for all seeds, sampled actions still differ by it."""

    class Unseeded(SpaceProbe):
        def reset(self, *, seed=None, options=None):
            return super().reset(seed=0, options=options)

    agent = make_agent(SpaceProbe(1))
    one, other = (evaluate(agent, Unseeded(4), 32, seed=seed, greedy=False).returns.tolist() for seed in (3, 4))
    assert one != other
    one, other = (evaluate(agent, Unseeded(4), 32, seed=seed, greedy=True).returns.tolist() for seed in (3, 4))
    assert one == other


# ------------------------------------------------------------------------------------------------------ without a trace


def flatten(value):
    """The leaves of what a checkpoint may hold, copied."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in flatten(value[key])]
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in flatten(part)]
    return [value.clone() if isinstance(value, torch.Tensor) else value]


def assert_alike(before, after):
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_evaluation_leaves_no_trace(make_agent):
    """Not in weights, moments, counters, memories, generators, the rollout, the network's mode or global streams."""
    envs = VectorEnvAdapter(SpaceProbe(3))
    agent = make_agent(envs.envs, normalise_observations=True, normalise_returns=True, previous_action_reward=True)
    obs = envs.reset(0)
    for number in range(11):  # a training, then 3 steps of the next rollout
        step = envs.step(agent.act(obs))
        agent.observe(step.rewards, step.terminated, step.truncated, step.final_obs, step.ignored)
        obs = step.obs
        if number == 7:
            agent.learn(obs)

    def snapshot():
        buffer = agent.buffer
        rollout = [buffer.size, buffer.obs, buffer.state, buffer.actions, buffer.rewards, buffer.starts]
        return flatten([agent.state_dict(), rollout, torch.get_rng_state(), agent.network.training])

    before, numpy_before = snapshot(), np.random.get_state(legacy=False)
    for options in ({"greedy": True}, {"greedy": False}, {"memory": False}):
        evaluate(agent, SpaceProbe(3), 10, seed=3, **options)  # as many rows as the agent trains on
    np.testing.assert_equal(np.random.get_state(legacy=False), numpy_before)
    assert len(before) > 30
    assert_alike(before, snapshot())


# --------------------------------------------------------------------------------------------------- the network's mode


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [None, OSError, KeyboardInterrupt])
def test_the_network_plays_in_evaluation_mode_and_is_put_back_whatever_happens(make_agent, training, fails):
    envs, modes = Counter(2, 2), []
    agent, original = make_agent(envs), envs.step
    agent.network.train(training)

    def step(actions):
        modes.append(agent.network.training)
        if fails:
            raise fails
        return original(actions)

    envs.step = step
    if fails:
        with pytest.raises(fails):
            evaluate(agent, envs, 2, seed=0)
    else:
        evaluate(agent, envs, 2, seed=0)
    assert modes and not any(modes)
    assert agent.network.training == training


def test_each_member_of_a_population_is_put_back_as_it_was():
    """One learns, the other only plays; the module around their networks is made anew when it is asked for."""
    agent = population(4)
    agent.members["other"].training = False
    evaluate(agent, SyncVectorEnv([partial(Walk, 2)] * 4, autoreset_mode=AutoresetMode.SAME_STEP), 4, seed=0)
    assert agent.members["one"].training and not agent.members["other"].training


def test_each_part_of_a_network_is_put_back_as_it_was():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout())
    network[1].eval()
    with evaluation_mode(network):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, True, False]


def test_a_failing_reset_leaves_the_network_as_it_was(make_agent):
    envs = Counter(2)
    agent = make_agent(envs)
    envs.reset = SimpleNamespace  # fails: it knows no seed that could be unpacked
    with pytest.raises(TypeError):
        evaluate(agent, envs, 2, seed=0)
    assert agent.network.training


def test_steps_without_an_agent_count_since_the_last_one_with_one():
    """Three in a row end it, three in all do not."""

    def step(ignored):
        no = np.zeros(1, bool)
        return StepResult(None, np.ones(1, np.float32), no, no, None, np.array([ignored]))

    counter = EpisodeCounter(np.array([1]), max_steps=3)
    for ignored in (True, True, False, True, True):
        counter.add(step(ignored))
        assert counter.left.tolist() == [1]
    counter.add(step(True))
    assert counter.left.tolist() == [0] and counter.finished == []


def test_an_evaluation_without_an_episode_is_told():
    """The one row that counts waits for another one of its world, which plays on."""
    counter, waits = EpisodeCounter(np.array([1, 0]), max_steps=5), np.array([True, False])
    for _ in range(5):
        counter.add(StepResult(None, np.zeros(2), np.zeros(2, bool), np.zeros(2, bool), None, waits))
    assert not counter.left.any()
    with pytest.raises(ValueError, match=r"^no episode that counts has ended within max_steps=5: raise it$"):
        counter.get_evaluation()
