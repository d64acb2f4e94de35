"""Shared by the tests of agents: small agents, their training in both forms, what the tests ask of them."""

import random
from functools import partial

import numpy as np
import pytest
import torch

from rl import cores
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.training.stepping import VectorEnvAdapter

SMALL_PPO = {"num_steps": 8, "bptt": 4, "num_minibatches": 2, "epochs": 2}
SMALL_IQN = {
    "num_steps": 8,
    "bptt": 4,
    "burn_in": 0,
    "n_step": 2,
    "batch_size": 8,
    "learning_starts": 8,
    "capacity": 600,
}
SMALL_IQN |= {"num_cosines": 8, "num_action_quantiles": 4, "num_quantiles": 4, "replay_ratio": 1.0}


@pytest.fixture(params=[RecurrentPPO, RecurrentIQN], ids=lambda kind: kind.__name__)
def learner(request):
    """Each of the two learners that share what ``rl.agents.agent.RecurrentAgent`` does."""
    return request.param


@pytest.fixture
def make_agent():
    """An agent with 8 units for an environment, or for two spaces; ``num_envs`` makes the batched form."""

    def make(envs, kind=RecurrentPPO, core="gru", seed=0, layer_size=8, hidden_size=8, core_options=None, **options):
        if isinstance(envs, tuple):
            observation_space, action_space = envs
        else:
            observation_space = getattr(envs, "single_observation_space", envs.observation_space)
            action_space = getattr(envs, "single_action_space", envs.action_space)
        small = SMALL_IQN if issubclass(kind, RecurrentIQN) else SMALL_PPO
        memory = partial(getattr(cores, core), hidden_size=hidden_size, **(core_options or {}))
        return kind(observation_space, action_space, layer_size, seed=seed, core=memory, **small | options)

    return make


@pytest.fixture
def train_batched(collect_steps):
    """``updates`` rollouts of the batched form and what is learned from them; the metrics of each."""

    def train(agent, envs, updates, seed=0):
        stepper, metrics = VectorEnvAdapter(envs), []
        obs = stepper.reset(seed)
        for _ in range(updates):
            obs = collect_steps(agent, stepper, obs)
            agent.learn(obs)
            metrics.append(agent.last_metrics)
        return metrics

    return train


@pytest.fixture
def train_single():
    """The same for the single form in a plain Gymnasium environment, which takes what ``act`` returns."""

    def train(agent, env, updates, seed=0):
        metrics, (obs, _) = [], env.reset(seed=seed)
        for _ in range(updates):
            for _ in range(agent.num_steps):
                obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
                agent.observe(reward, terminated, truncated, obs)
                if terminated or truncated:
                    obs, _ = env.reset()
            agent.learn(obs)
            metrics.append(agent.last_metrics)
        return metrics

    return train


@pytest.fixture
def play_turns():
    """Turns on random observations, paid 0, 1, 2 in turn; episodes terminate after the turns named. The actions."""

    def play(agent, turns, terminated=(), seed=0):
        generator, actions = np.random.default_rng(seed), []
        shape = (agent.num_envs,) * agent.batched + agent.observation_space.shape
        for turn in range(turns):
            actions.append(agent.act(generator.standard_normal(shape)))
            agent.observe(float(turn % 3), turn in terminated)
        return actions

    return play


@pytest.fixture
def copy_weights():
    """Weights and buffers of an agent's network by name, as they are now."""
    return lambda agent: {name: value.clone() for name, value in agent.network.state_dict().items()}


@pytest.fixture
def same_weights(copy_weights):
    """Whether two agents, or an agent and a copy of weights, have bit-identical weights and buffers."""

    def compare(one, other):
        mine, theirs = (part if isinstance(part, dict) else copy_weights(part) for part in (one, other))
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    return compare


@pytest.fixture
def next_outputs():
    """What an agent's network makes of its next step on an observation: policy parameters or values, ``[B, ...]``."""

    def ask(agent, observation):
        params, values, _ = agent.actor.step(agent.actor.inputs(observation), greedy=True)
        return torch.cat([params, values.unsqueeze(1)], dim=1)

    return ask


@pytest.fixture
def value_of():
    """The value of observations ``[B, ...]`` at the start of episodes."""

    def ask(agent, *observations):
        actor = agent.new_actor(len(observations), 0)
        _, values, _ = actor.step(actor.inputs(np.array(observations, dtype=np.float32)))
        return values

    return ask


@pytest.fixture
def fix_value():
    """Makes the value of a recurrent PPO agent the same number everywhere."""

    def fix(agent, value):
        with torch.no_grad():
            agent.network.heads.weight[-1].zero_()
            agent.network.heads.bias[-1].fill_(value)

    return fix


@pytest.fixture
def force_branches():
    """Makes the policy of a recurrent PPO agent choose these branches (nearly) always."""

    def force(agent, *branches):
        chosen = [torch.eye(n)[branch] for n, branch in zip(agent.network.head.sizes, branches, strict=True)]
        with torch.no_grad():
            agent.network.heads.weight[:-1].zero_()
            agent.network.heads.bias[:-1].copy_(50 * torch.cat(chosen))

    return force


@pytest.fixture
def sharpen():
    """Makes the policy deterministic but not constant, and the values and memories large enough to tell apart."""

    def draw(agent):
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in agent.network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            agent.network.heads.weight[:-1].mul_(1e6)

    return draw


@pytest.fixture
def watch_updates():
    """Records what each update of a recurrent PPO agent learns from, of its first environment."""

    def attach(agent):
        seen, update = [], agent.ppo.update

        def watched(network, optimizer, buffer, targets, *rest):
            size = buffer.size
            columns = ("rewards", "terminated", "truncated", "starts")
            seen.append({name: getattr(buffer, name)[:size, 0].tolist() for name in columns})
            seen[-1]["returns"] = targets.returns[:, 0].tolist()
            return update(network, optimizer, buffer, targets, *rest)

        agent.ppo.update = watched
        return seen

    return attach


@pytest.fixture
def global_streams():
    """The states of all global random streams."""

    def read():
        _, keys, *rest = np.random.get_state()
        return torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()

    return read


@pytest.fixture
def make_iqn(make_agent):
    """A recurrent IQN of the size that ``make_agent`` makes."""
    return partial(make_agent, kind=RecurrentIQN)


@pytest.fixture
def with_own_loss():
    """``with_own_loss(PPO, says_so)``: an algorithm with a loss of one's own; only one that says so is recorded."""

    def make(algorithm, says_so):
        class Fading(algorithm):
            """A term whose weight is a number of Python, as one writes it who knows nothing of graphs."""

            weight = 1.0

            def loss(self, *arguments):
                loss, metrics = super().loss(*arguments)
                self.weight *= 0.5
                return loss * (1.0 + self.weight), metrics

        class Constant(algorithm):
            records_loss = True

            def loss(self, *arguments):
                loss, metrics = super().loss(*arguments)
                return 2.0 * loss, metrics

        return Constant if says_so else Fading

    return make


@pytest.fixture
def check_collect_is_refused():
    """An agent that waits for an outcome, that plays, and environments that lie elsewhere are refused."""

    def check(make, envs):
        agent = make()
        agent.act(envs.show().numpy())
        with pytest.raises(RuntimeError, match="whose last action has its outcome"):
            agent.collect(envs, envs.show())
        agent.training = False
        with pytest.raises(RuntimeError, match="in training"):
            agent.collect(envs, envs.show())
        envs.device = "meta"
        with pytest.raises(ValueError, match="they must lie on the agent's device, cpu"):
            make().collect(envs, envs.show())

    return check
