"""``rl.check_memory``: sound agents pass with every option, members of a population too; agents stay as they are."""

import copy
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import rl
from envs.classic_control import CartPoleNoVelocity
from envs.probes import Counter, SpaceProbe
from envs.state_punishment.environment import StatePunishment
from rl import cores
from rl.agents import Population, RecurrentIQN
from rl.memory_check import check_memory

IQN = {"num_steps": 32, "bptt": 4, "burn_in": 2, "n_step": 2, "batch_size": 16, "capacity": 2000}


@pytest.fixture
def make_iqn(maze):
    def make(**options):
        sizes = IQN | {"num_envs": maze.num_envs, "core": partial(cores.gru, hidden_size=16)}
        return RecurrentIQN(maze.single_observation_space, maze.single_action_space, 16, seed=1, **sizes | options)

    return make


OPTIONS = [
    {"burn_in": 4},
    {"refresh_states": True, "epochs": 2},
    {"bptt": None, "num_minibatches": 2},
    {"state_stride": 8, "core": partial(cores.attention, hidden_size=16, window_size=5)},
    {"separate_critic": True},
    {"recall_coef": 0.1},
    {"recall_coef": 0.1, "recompute_parts": 2, "separate_critic": True},
    {"core": partial(cores.lstm, hidden_size=16, num_layers=2, dropout=0.3)},
    {"previous_action_reward": True, "normalise_observations": True, "normalise_returns": True},
    {"normalise_advantages": False, "target_kl": 1e-9, "value_clip": 0.2, "gamma": 0.9, "gae_lambda": 0.5},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(options))
def test_every_option_passes(options, make_ppo, judge, failing):
    verdicts = judge(make_ppo(**options))
    assert failing(verdicts) == set()
    must = {"unroll_equals_step", "replay_is_exact", "targets_are_right", "nothing_crosses_a_start"}
    assert all(verdicts[name].passed for name in must)


SCALED = {"reward_scale": 3.0, "normalise_returns": True, "n_step": 3, "gamma": 0.5}


@pytest.mark.parametrize(
    "options", [{}, {"burn_in": 0, "normalise_observations": True}, {"capacity": 16, "learning_starts": 0}, SCALED]
)
def test_a_quantile_network_passes_where_it_can_be_judged(options, make_iqn, judge, failing):
    verdicts = judge(make_iqn(**options))
    assert failing(verdicts) == set()
    assert verdicts["replay_is_exact"].passed and verdicts["minibatch_order_is_irrelevant"].passed
    assert verdicts["targets_are_right"].passed
    assert verdicts["every_step_is_trained_once"].finding.startswith("not for this agent")


def test_a_quantile_network_that_forgets_its_stored_states(make_iqn, judge, failing):
    agent = make_iqn()

    class FromZero(type(agent.iqn)):
        def loss(self, network, target, mb, *rest):
            mb.state = {name: torch.zeros_like(leaf) for name, leaf in mb.state.items()}
            return super().loss(network, target, mb, *rest)

    agent.iqn.__class__ = FromZero
    assert failing(judge(agent)) == {"replay_is_exact"}


def test_a_quantile_network_that_takes_truncations_for_terminations(make_iqn, judge, failing):
    agent = make_iqn()

    class Ends(type(agent)):
        def observe(self, rewards, terminated, truncated=False, final_observation=None, ignored=False):
            super().observe(rewards, terminated | truncated, False, None, ignored)

    agent.__class__ = Ends
    verdicts = judge(agent)
    assert failing(verdicts) == {"targets_are_right"}
    assert verdicts["targets_are_right"].finding.startswith("a truncation is taken for a termination")


def test_each_member_of_a_population_is_judged_on_its_own_rows(make_ppo, make_iqn, failing):
    envs = StatePunishment(4, num_agents=2)
    members = {
        "one": lambda *spaces, **rest: rl.DualHeadRecurrentPPO(*spaces, 8, bptt=8, num_minibatches=2, **rest),
        "two": lambda *spaces, **rest: RecurrentIQN(*spaces, 8, **IQN | rest),
    }
    spaces = envs.single_observation_space, envs.single_action_space
    population = Population(*spaces, members, ["one", "two"], num_envs=4, num_steps=32, seed=1)
    verdicts = {verdict.check: verdict for verdict in check_memory(population, envs)}
    assert failing(verdicts) == set()
    assert verdicts["one/replay_is_exact"].passed and verdicts["two/replay_is_exact"].passed
    assert verdicts["one/every_step_is_trained_once"].numbers["steps"] == 2 * 32


def test_steps_that_are_none_are_left_out(make_ppo, failing):
    """In NEXT_STEP mode rows have steps that only reset them; what is left is of two rows of different lengths."""

    def make(limit):
        return lambda: gymnasium.make("CartPole-v1", max_episode_steps=limit)

    envs = SyncVectorEnv([make(limit) for limit in (3, 5, 7, 9)], autoreset_mode=AutoresetMode.NEXT_STEP)
    agent = make_agent_for(envs, make_ppo)
    verdicts = {verdict.check: verdict for verdict in check_memory(agent, envs)}
    assert failing(verdicts) == set()
    assert verdicts["every_step_is_trained_once"].numbers["steps"] == 4 * 24  # a fourth of the first row is no step
    assert verdicts["targets_are_right"].numbers["truncated"] >= 6 + 4 + 3 + 2


def make_agent_for(envs, make_ppo, **options):
    template = make_ppo()
    sizes = {"bptt": 8, "num_minibatches": 2, "num_steps": 32, "core": partial(cores.gru, hidden_size=8)}
    spaces = envs.single_observation_space, envs.single_action_space
    return type(template)(*spaces, 8, seed=1, num_envs=envs.num_envs, **sizes | options)


@pytest.mark.parametrize("observation", ["image", "dict", "tuple", "discrete"])
def test_every_kind_of_observation(observation, make_ppo, failing):
    envs = SpaceProbe(3, observation, "multi_discrete")
    assert failing({verdict.check: verdict for verdict in check_memory(make_agent_for(envs, make_ppo), envs)}) == set()


def test_scales_that_are_corrected_cost_one_rollout_more(make_ppo, failing):
    """A counter goes beyond what its space declares; the rollout that shows it is played again."""

    class Loud(Counter):
        def _observe(self):
            return super()._observe() * 1e4

    envs = Loud(3, 5, end="truncated")
    verdicts = {verdict.check: verdict for verdict in check_memory(make_agent_for(envs, make_ppo), envs)}
    assert failing(verdicts) == set()
    assert verdicts["replay_is_exact"].passed
    assert verdicts["observations_are_in_scale"].passed is None


def test_an_episode_is_cut_where_none_is_truncated(make_ppo, failing):
    envs = Counter(3, 1000)
    verdicts = {verdict.check: verdict for verdict in check_memory(make_agent_for(envs, make_ppo), envs)}
    assert failing(verdicts) == set()
    assert verdicts["targets_are_right"].numbers["truncated"] == 1
    assert verdicts["starts_follow_ends"].numbers["starts"] == 3 + 1


@pytest.mark.filterwarnings("ignore:.*precision lowered.*")
def test_an_agent_that_plays_one_environment(make_ppo, failing):
    env = gymnasium.make("CartPole-v1")
    template = make_ppo()
    agent = type(template)(env.observation_space, env.action_space, 8, num_steps=32, bptt=8, num_minibatches=2, seed=1)
    assert failing({verdict.check: verdict for verdict in rl.check_memory(agent, env)}) == set()


def test_an_agent_in_mid_rollout_stays_as_it_is(make_ppo, maze, judge, failing):
    """Its weights, memories, generators, what it has collected, and the action that waits for its outcome."""
    agent = make_ppo(normalise_returns=True, normalise_observations=True)
    obs, _ = maze.reset(seed=1)
    for _ in range(5):
        obs, rewards, terminated, truncated, info = maze.step(agent.act(obs))
        agent.observe(rewards, terminated, truncated, info.get("final_obs"))
    agent.act(obs)
    before = copy.deepcopy([agent.state_dict(), agent.buffer.leaves(), agent.buffer.size, agent.pending_action])
    assert failing(judge(agent)) == set()
    after = [agent.state_dict(), agent.buffer.leaves(), agent.buffer.size, agent.pending_action]
    assert flat(before) == flat(after)
    assert not {"step", "unroll"} & vars(agent.network).keys() and not {"loss", "targets"} & vars(agent.ppo).keys()
    assert (maze.elapsed_steps == 0).all()


def flat(value):
    """Plain lists of nested tensors and arrays."""
    if isinstance(value, dict):
        return {key: flat(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [flat(part) for part in value]
    return value.tolist() if isinstance(value, (torch.Tensor, np.ndarray)) else value


def test_an_agent_that_plays_is_judged_as_one_that_trains(make_ppo, judge, failing):
    agent = make_ppo()
    agent.training = False
    assert failing(judge(agent)) == set()
    assert not agent.training


def test_a_seed_repeats(make_ppo, judge):
    one, other = judge(make_ppo()), judge(make_ppo())
    assert {name: verdict.numbers for name, verdict in one.items()} == {
        name: verdict.numbers for name, verdict in other.items()
    }


def test_what_cannot_be_checked_is_refused(make_ppo, maze):
    with pytest.raises(ValueError, match="they must be as many as the agent plays, 4"):
        check_memory(make_ppo(), CartPoleNoVelocity(3))
    agent = make_ppo()
    other = type("Foreign", (), {"num_envs": 4})()
    with pytest.raises(ValueError, match="it must be one of this package"):
        check_memory(other, maze)
    assert rl.check_memory is check_memory and agent.num_envs == 4
