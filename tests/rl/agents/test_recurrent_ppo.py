"""Acting, storing and training of the agents, in the batched and in the single form."""

import random
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import ActionReward, ConstantReward, Counter, DelayedReward, EchoCue, SignReward, SpaceProbe
from envs.same_step_autoreset import SameStepAutoreset
from envs.single_env import SingleEnv
from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentPPO, RecurrentPPOLSTM
from rl.training.evaluation import evaluate
from rl.training.stepping import VectorEnvAdapter

OBSERVATIONS = ("box", "image", "image_last", "discrete", "dict", "tuple")
ACTIONS = ("discrete", "multi_discrete", "multi_binary", "box")
SMALL = {"num_steps": 8, "bptt": 4, "num_minibatches": 2, "epochs": 2}


@pytest.fixture
def make_agent():
    """An agent with 8 units for an environment; ``num_envs`` in the options makes the batched form."""

    def make(envs, kind=RecurrentPPO, core="gru", seed=0, layer_size=8, hidden_size=8, **options):
        observation_space = getattr(envs, "single_observation_space", envs.observation_space)
        action_space = getattr(envs, "single_action_space", envs.action_space)
        made = partial(getattr(cores, core), hidden_size=hidden_size)
        return kind(observation_space, action_space, layer_size, seed=seed, core=made, **{**SMALL, **options})

    return make


@pytest.fixture
def train(collect_steps):
    """``updates`` updates of the batched form; the metrics of each."""

    def run(agent, envs, updates, seed=0):
        stepper, metrics = VectorEnvAdapter(envs), []
        obs = stepper.reset(seed)
        for _ in range(updates):
            obs = collect_steps(agent, stepper, obs)
            agent.train_step(obs)
            metrics.append(agent.last_metrics)
        return metrics

    return run


@pytest.fixture
def train_single():
    """The same for the single form, as a client plays a plain Gymnasium environment."""

    def run(agent, env, updates, seed=0):
        metrics, (obs, _) = [], env.reset(seed=seed)
        for _ in range(updates):
            for _ in range(agent.num_steps):
                action = agent.take_action(obs)
                if isinstance(env.action_space, spaces.MultiDiscrete):
                    action = np.array(np.unravel_index(action, env.action_space.nvec))
                obs, reward, terminated, truncated, _ = env.step(action)
                agent.add_memory_ppo(reward, terminated, truncated, obs)
                if terminated or truncated:
                    obs, _ = env.reset()
            agent.train_step(obs)
            metrics.append(agent.last_metrics)
        return metrics

    return run


@pytest.fixture
def same_parameters():
    """Whether two agents have bit-identical parameters and buffers."""

    def compare(one, other):
        mine, theirs = one.network.state_dict(), other.network.state_dict()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)

    return compare


@pytest.fixture
def fix_value():
    """Makes an agent's value the same number everywhere."""

    def fix(agent, value):
        with torch.no_grad():
            agent.network.heads.weight[-1].zero_()
            agent.network.heads.bias[-1].fill_(value)

    return fix


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


# -------------------------------------------------------------------------------------- every space, core and form


@pytest.mark.parametrize("core", cores.__all__)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("kind", [DualHeadRecurrentPPO, RecurrentPPOLSTM])
def test_every_space_with_every_core_acts_trains_and_replays_exactly(
    make_agent, train, train_single, kind, observation, action, core
):
    envs = SpaceProbe(3, observation, action)
    batched = make_agent(envs, kind, core, num_envs=3, epochs=1)
    before = [parameter.clone() for parameter in batched.network.parameters()]
    (metrics,) = train(batched, envs, 1)
    assert metrics["ratio_error"] <= 1e-5
    assert batched.env_steps == 8 * 3
    assert any(not torch.equal(old, new) for old, new in zip(before, batched.network.parameters(), strict=True))

    env = SingleEnv("envs.probes:SpaceProbe", observation=observation, action=action)
    single = make_agent(env, kind, core, epochs=1)
    (metrics,) = train_single(single, env, 1)
    assert metrics["ratio_error"] <= 1e-5
    assert single.env_steps == 8


@pytest.mark.parametrize("action", ACTIONS)
def test_actions_lie_in_the_space_of_the_environment_in_both_forms(make_agent, action):
    envs = SpaceProbe(3, "box", action)
    space = envs.single_action_space
    batched, single = make_agent(envs, num_envs=3), make_agent(envs)
    for trial in range(20):
        obs = np.random.default_rng(trial).uniform(-1, 1, (3, 2)).astype(np.float32)
        assert envs.action_space.contains(batched.take_action(obs))
        batched.add_memory_ppo(np.zeros(3), np.zeros(3, dtype=bool))
        alone = single.take_action(obs[0])
        single.add_memory_ppo(0.0, False)
        if action == "multi_discrete":
            assert type(alone) is int
            assert alone in range(6)
        elif action == "discrete":
            assert type(alone) is int
            assert alone in range(2)
        else:
            assert space.contains(alone)


def test_spaces_with_a_start_are_offset_on_the_way_out_only(make_agent):
    space = spaces.Discrete(2, start=5)
    single = RecurrentPPO(spaces.Discrete(3, start=-1), space, seed=0, **SMALL)
    batched = RecurrentPPO(spaces.Discrete(3, start=-1), space, seed=0, num_envs=2, **SMALL)
    for _ in range(8):
        assert single.take_action(-1) in (5, 6)
        single.add_memory_ppo(0.0, False)
        assert set(batched.take_action(np.array([-1, 1]))) <= {5, 6}
        batched.add_memory_ppo(np.zeros(2), np.zeros(2, dtype=bool))
    assert set(batched.buffer.actions.flatten().tolist()) == {0, 1}
    single.train_step()
    batched.train_step()


def test_multi_discrete_codes_of_the_single_form_respect_starts():
    """MultiDiscrete([2, 3], start=[1, 4]): the pair (2, 5) is 1, 1 without starts, code 1 * 3 + 1 = 4."""
    agent = RecurrentPPO(spaces.Box(-1, 1, (2,)), spaces.MultiDiscrete([2, 3], start=[1, 4]), seed=0)
    with torch.no_grad():
        agent.network.heads.bias[:-1].copy_(torch.tensor([0.0, 99.0, 0.0, 99.0, 0.0]))
    assert agent.take_action(np.zeros(2)) == 4
    assert agent.get_dual_action() == (1, 1)


# ---------------------------------------------------------------------------------------------------- reproduction


@pytest.mark.parametrize("action", ["multi_discrete", "box", "multi_binary"])
def test_a_seed_decides_everything(make_agent, train, same_parameters, action):
    def trained(seed):
        envs = SpaceProbe(3, "dict", action)
        agent = make_agent(envs, num_envs=3, seed=seed)
        train(agent, envs, 3)
        return agent

    first, again, other = trained(1), trained(1), trained(2)
    assert same_parameters(first, again)
    assert not same_parameters(first, other)


def test_without_a_seed_agents_differ(make_agent, same_parameters):
    envs = ConstantReward(1)
    assert not same_parameters(make_agent(envs, seed=None), make_agent(envs, seed=None))


def test_the_seed_of_sampling_and_of_shuffling_matters(make_agent, train, same_parameters):
    """With equal weights, another shuffling alone or another sampling alone leads elsewhere."""

    def trained(change=None):
        envs = SpaceProbe(3)
        agent = make_agent(envs, num_envs=3)
        if change is not None:
            change(agent).manual_seed(99)
        train(agent, envs, 3)
        return agent

    plain = trained()
    assert not same_parameters(plain, trained(lambda agent: agent.shuffle))
    assert not same_parameters(plain, trained(lambda agent: agent.actor.generator))


def test_actors_of_one_network_sample_by_their_own_seed(make_agent):
    """Of 64 fair coins two seeds agree on all with probability 2 ** -64."""
    agent = make_agent(ConstantReward(1))

    def sampled(seed):
        actor = agent.new_actor(64, seed)
        return actor.act(actor.inputs(np.zeros((64, 1))))[2]

    assert torch.equal(sampled(1), sampled(1))
    assert not torch.equal(sampled(1), sampled(2))
    assert not torch.equal(sampled(None), sampled(None))


@pytest.mark.parametrize("seed", [None, 3])
def test_global_random_streams_are_left_alone(make_agent, train, seed):
    torch.manual_seed(11)
    np.random.seed(12)
    random.seed(13)
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    envs = SpaceProbe(3, "dict", "multi_discrete")
    agent = make_agent(envs, num_envs=3, seed=seed, separate_critic=True)
    train(agent, envs, 2)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(legacy=False), before[1])
    assert before[2] == random.getstate()


@pytest.mark.parametrize("options", [{}, {"previous_action_reward": True, "normalise_returns": True}])
@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_single_form_and_batched_form_of_one_are_the_same_code(
    make_agent, train, train_single, same_parameters, core, options
):
    for end in ("terminated", "truncated"):
        keywords = {"episode_length": 3, "end": end}
        envs, env = Counter(1, **keywords), SingleEnv("envs.probes:Counter", **keywords)
        batched, single = make_agent(envs, core=core, num_envs=1, **options), make_agent(env, core=core, **options)
        train(batched, envs, 3)
        train_single(single, env, 3)
        assert same_parameters(batched, single)
        assert batched.env_steps == single.env_steps == 24


# -------------------------------------------------------------------------------------------------- learning probes

LEARN = {"num_envs": 16, "num_steps": 8, "bptt": 8, "num_minibatches": 2, "epochs": 4, "learning_rate": 0.02}


@pytest.fixture
def value_of():
    """The value of observations ``[B, ...]`` at the start of episodes."""

    def ask(agent, *observations):
        actor = agent.new_actor(len(observations), 0)
        _, values, _ = actor.act(actor.inputs(np.array(observations, dtype=np.float32)))
        return values

    return ask


@pytest.mark.parametrize("kind", [DualHeadRecurrentPPO, RecurrentPPOLSTM])
def test_the_value_of_a_constant_reward_becomes_that_reward(make_agent, train, value_of, kind):
    envs = ConstantReward(16)
    agent = make_agent(envs, kind, "mlp", **LEARN)
    train(agent, envs, 20)
    torch.testing.assert_close(value_of(agent, [0.0]), torch.tensor([1.0]), atol=0.05, rtol=0)


def test_the_value_depends_on_the_observation(make_agent, train, value_of):
    envs = SignReward(16)
    agent = make_agent(envs, core="mlp", **LEARN)
    train(agent, envs, 20)
    torch.testing.assert_close(value_of(agent, [-1.0], [1.0]), torch.tensor([-1.0, 1.0]), atol=0.1, rtol=0)


def test_the_rewarded_action_is_learned(make_agent, train):
    envs = ActionReward(16)
    agent = make_agent(envs, core="mlp", **LEARN)
    train(agent, envs, 15)
    assert evaluate(agent, ActionReward(16), 64, seed=0, greedy=False).mean >= 0.9


def test_the_value_of_a_delayed_reward_is_discounted(make_agent, train, value_of):
    envs = DelayedReward(16)
    agent = make_agent(envs, core="mlp", **LEARN, gamma=0.6)
    train(agent, envs, 30)
    torch.testing.assert_close(value_of(agent, [0.0], [1.0]), torch.tensor([0.6, 1.0]), atol=0.07, rtol=0)


@pytest.mark.parametrize("core", ["gru", "lstm", "rnn"])
def test_memory_solves_what_needs_memory(make_agent, train, core):
    envs = EchoCue(16)
    agent = make_agent(envs, core=core, **LEARN)
    train(agent, envs, 40)
    assert evaluate(agent, EchoCue(16), 128, seed=0).mean >= 0.95
    assert evaluate(agent, EchoCue(16), 128, seed=0, memory=False).mean <= 0.75


def test_without_memory_nothing_solves_what_needs_memory(make_agent, train):
    envs = EchoCue(16)
    agent = make_agent(envs, core="mlp", **LEARN)
    train(agent, envs, 40)
    assert evaluate(agent, EchoCue(16), 512, seed=0).mean <= 0.65  # 0.5 +- 0.02 by guessing


@pytest.mark.parametrize("option", [{"separate_critic": True}, {"previous_action_reward": True}, {"ratio": "per_head"}])
def test_options_do_not_keep_an_agent_from_learning(make_agent, train, option):
    envs = SpaceProbe(16, "box", "multi_discrete")
    agent = make_agent(envs, **LEARN, **option)
    train(agent, envs, 20)
    assert evaluate(agent, SpaceProbe(16, "box", "multi_discrete"), 64, seed=0).mean >= 0.9


# -------------------------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("core", ["gru", "lstm", "rnn"])
@pytest.mark.parametrize("separate_critic", [False, True])
def test_rows_of_the_rollout_hold_what_belongs_together(make_agent, collect_steps, core, separate_critic):
    """Row b counts 0, 1, ... length[b] - 1 and begins anew; the reward of a step is the count it was taken at."""
    lengths = np.array([2, 3, 5])
    envs = Counter(3, lengths)
    agent = make_agent(envs, core=core, num_envs=3, separate_critic=separate_critic)
    stepper = VectorEnvAdapter(envs)
    collect_steps(agent, stepper, stepper.reset(0))
    buffer, counts = agent.buffer, np.arange(8)[:, None] % lengths  # [8, 3]
    assert np.array_equal(buffer.obs["obs"][..., 0], counts)
    assert np.array_equal(buffer.obs["obs"][..., 1], np.tile([0, 1, 2], (8, 1)))
    assert np.array_equal(buffer.starts, counts == 0)
    assert np.array_equal(buffer.terminated, counts == lengths - 1)
    assert np.array_equal(buffer.rewards, counts)
    assert not buffer.truncated.any()
    assert not buffer.ignored.any()

    state = agent.network.initial_state(3)
    for t in range(8):  # the stored state is the one before the step, and before the clearing that starts[t] asks for
        for name, leaf in state.items():
            torch.testing.assert_close(buffer.state[name][t], leaf)
        with torch.no_grad():
            obs = {name: leaf[t] for name, leaf in buffer.obs.items()}
            params, values, state = agent.network.step(obs, state, buffer.starts[t])
        torch.testing.assert_close(buffer.params[t], params)
        torch.testing.assert_close(buffer.values[t], values)


def test_memories_go_on_from_one_rollout_to_the_next(make_agent, collect_steps):
    """Episodes of 5 steps, rollouts of 8: the second rollout begins at count 3 with the state after count 2."""
    envs = Counter(2, 5)
    agent = make_agent(envs, num_envs=2, learning_rate=1e-12)
    stepper = VectorEnvAdapter(envs)
    obs = collect_steps(agent, stepper, stepper.reset(0))
    carried = {name: leaf.clone() for name, leaf in agent.actor.state.items()}
    agent.train_step(obs)
    collect_steps(agent, stepper, obs)
    assert agent.buffer.obs["obs"][:, 0, 0].tolist() == [3, 4, 0, 1, 2, 3, 4, 0]
    assert agent.buffer.starts[:, 0].tolist() == [False, False, True, False, False, False, False, True]
    assert carried["h"].abs().max() > 1e-3
    assert torch.equal(agent.buffer.state["h"][0], carried["h"])


# ---------------------------------------------------------------------------------------------------- what comes after


@pytest.mark.parametrize(
    ("end", "one_episode"),
    [
        # v = 4, gamma = 1/2, reward 1, lambda = 1: before a cut 1 + 4/2 = 3, then 1 + 3/2 = 2.5, then 1 + 2.5/2 = 2.25
        ("truncated", [2.25, 2.5, 3.0]),
        # before a termination 1, then 1 + 1/2 = 1.5, then 1 + 1.5/2 = 1.75; termination wins where both are set
        ("terminated", [1.75, 1.5, 1.0]),
        ("both", [1.75, 1.5, 1.0]),
    ],
)
def test_returns_equal_those_worked_out_by_hand(make_agent, fix_value, end, one_episode):
    envs = Counter(2, 3, end)
    agent = make_agent(envs, num_envs=2, gamma=0.5, gae_lambda=1.0)
    fix_value(agent, 4.0)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(8):
        after = stepper.step(agent.take_action(obs))
        agent.add_memory_ppo(np.ones(2), after.terminated, after.truncated, after.final_obs)
        obs = after.obs
    targets, _ = agent._targets(obs)
    last = [2.5, 3.0]  # the rollout ends within the third episode: 1 + 4/2 = 3, 1 + 3/2 = 2.5
    expected = torch.tensor(one_episode * 2 + last)
    torch.testing.assert_close(targets.returns, expected.unsqueeze(1).expand(8, 2))


def test_lambda_and_advantages_by_hand(make_agent, fix_value):
    """v = 4, gamma = 1/2, lambda = 1/2, reward 1, two steps, then a cut.

    Both deltas are 1 + 2 - 4 = -1; advantages -1 + 1/4 * -1 = -1.25 and -1; returns 2.75 and 3.
    """
    envs = Counter(1, 2, "truncated")
    agent = make_agent(
        envs, num_envs=1, gamma=0.5, gae_lambda=0.5, num_steps=2, bptt=2, num_minibatches=1, normalise_advantages=False
    )
    fix_value(agent, 4.0)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(2):
        after = stepper.step(agent.take_action(obs))
        agent.add_memory_ppo(np.ones(1), after.terminated, after.truncated, after.final_obs)
    targets, _ = agent._targets(after.obs)
    assert targets.advantages[:, 0].tolist() == pytest.approx([-1.25, -1.0])
    assert targets.returns[:, 0].tolist() == pytest.approx([2.75, 3.0])


@pytest.mark.parametrize("core", ["gru", "lstm", "mlp"])
@pytest.mark.parametrize("previous", [False, True])
def test_final_observations_are_valued_under_the_state_that_followed_the_episode(
    make_agent, collect_steps, sharpen, core, previous
):
    """lambda = 0 and gamma = 1: returns[t] - rewards[t] is the bootstrap of step t, also where rows end at other times.

    The final observation of a Counter is [length, row], the reward before it length - 1.
    """
    lengths = [2, 3, 5]
    envs = Counter(3, lengths, "truncated")
    agent = make_agent(envs, core=core, num_envs=3, gamma=1.0, gae_lambda=0.0, previous_action_reward=previous)
    sharpen(agent)
    stepper = VectorEnvAdapter(envs)
    shown = collect_steps(agent, stepper, stepper.reset(0))
    targets, _ = agent._targets(shown)
    bootstraps, buffer = targets.returns - buffer_rewards(agent), agent.buffer

    state, going_on = agent.network.initial_state(3), torch.zeros(3, dtype=torch.bool)
    for t in range(8):
        obs = {name: leaf[t] for name, leaf in buffer.obs.items()}
        with torch.no_grad():
            _, _, state = agent.network.step(obs, state, buffer.starts[t])
            following = {"obs": obs["obs"] + torch.tensor([1.0, 0.0])}  # had every episode gone on
            if previous:
                following["previous_action"] = buffer.actions[t] + 1
                following["previous_reward"] = buffer.rewards[t].unsqueeze(1)
            _, values, _ = agent.network.step(following, state, going_on)
        torch.testing.assert_close(bootstraps[t], values, rtol=1e-4, atol=1e-4)
    assert buffer.truncated.sum() == 4 + 2 + 1


def buffer_rewards(agent):
    return agent.buffer.rewards[: agent.buffer.size]


def test_termination_beside_truncation_in_one_step(make_agent, fix_value):
    """Rows: terminated, truncated, both, neither. v = 4, gamma = 1/2, reward 1: 1, 3, 1, 3."""
    agent = make_agent(Counter(4), num_envs=4, gamma=0.5, num_steps=1, bptt=1)
    fix_value(agent, 4.0)
    obs = np.zeros((4, 2), dtype=np.float32)
    agent.take_action(obs)
    flags = np.array([1, 0, 1, 0], dtype=bool), np.array([0, 1, 1, 0], dtype=bool)
    agent.add_memory_ppo(np.ones(4), *flags, obs)
    targets, _ = agent._targets(obs)
    assert targets.returns[0].tolist() == [1.0, 3.0, 1.0, 3.0]
    assert agent.actor.starts.tolist() == [True, True, True, False]


def test_a_truncation_without_final_observation_takes_the_last_value_known(make_agent, sharpen):
    envs = Counter(2, 3, "truncated")
    agent = make_agent(envs, num_envs=2, gamma=1.0, gae_lambda=0.0)
    sharpen(agent)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(8):
        after = stepper.step(agent.take_action(obs))
        agent.add_memory_ppo(after.rewards, after.terminated, after.truncated)
        obs = after.obs
    targets, _ = agent._targets(None)
    bootstraps = targets.returns - buffer_rewards(agent)
    for t in (2, 5, 7):  # two truncations, and the end of the rollout, for which nothing was shown either
        torch.testing.assert_close(bootstraps[t], targets.old_values[t])
    torch.testing.assert_close(bootstraps[3], targets.old_values[4])


def test_truncations_of_a_rollout_are_forgotten_with_it(make_agent, sharpen):
    """The first rollout is cut at its sixth step, which the second, of four steps, does not have.

    There is no final observation in the second, so V of the last observation stands in.
    """
    agent = make_agent(SingleEnv("envs.probes:Counter"), num_steps=4, gamma=1.0, gae_lambda=0.0)
    for turns, final in ((6, np.full(2, 0.5)), (4, None)):
        sharpen(agent)
        for turn in range(turns):
            agent.take_action(np.full(2, 0.1 * turn))
            agent.add_memory_ppo(0.0, False, turn in (3, turns - 1), final)
        if final is not None:
            agent.train_step()
    targets, _ = agent._targets(None)
    assert targets.returns[3] == targets.old_values[3]


# ------------------------------------------------------------------------------------------- NEXT_STEP environments


class FixedStarts:
    """In place of a generator: first B different states, then always the same one, in whatever order rows are reset."""

    def __init__(self):
        self.first = True

    def uniform(self, low, high, size):
        columns = np.linspace(low, high, size[1]) if self.first else np.full(size[1], 0.01)
        self.first = False
        return np.tile(columns, (size[0], 1))


def cart_poles(max_episode_steps):
    envs = CartPoleVectorEnv(3, max_episode_steps=max_episode_steps)
    envs._np_random = FixedStarts()
    return envs


def counters(end, mode):
    """Rows that end after 2, 3 and 5 steps, in Gymnasium's own vector form of single environments."""
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end=end) for n in (2, 3, 5)]
    return SyncVectorEnv(made, autoreset_mode=mode)


PAIRS = {
    "cart pole that falls": lambda: (cart_poles(500), SameStepAutoreset(cart_poles(500))),
    "cart pole that is cut": lambda: (cart_poles(7), SameStepAutoreset(cart_poles(7))),
    "counter that is cut": lambda: [
        counters("truncated", mode) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    ],
    "counter that terminates": lambda: [
        counters("terminated", mode) for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    ],
}


@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("pair", PAIRS)
def test_late_resets_leave_no_trace_in_the_rollout(make_agent, collect_steps, sharpen, pair, previous):
    """Row for row what the same environment gives when it resets at once; the one with most resets limits the size."""
    late, prompt = PAIRS[pair]()
    options = {"num_envs": 3, "bptt": None, "num_minibatches": 1, "previous_action_reward": previous, "gamma": 0.9}
    agent = make_agent(late, num_steps=40, **options)
    sharpen(agent)
    stepper = VectorEnvAdapter(late)
    shown = collect_steps(agent, stepper, stepper.reset(None))
    assert agent.buffer.ignored.any()
    resets = agent.buffer.ignored.sum(0)
    targets, _ = agent._targets(shown)
    size = agent.buffer.size
    assert size == 40 - resets.max()
    if not pair.startswith("cart"):
        assert resets.min() < resets.max()  # the rows have a different number of gaps

    twin = make_agent(prompt, num_steps=size, **options)
    sharpen(twin)
    stepper = VectorEnvAdapter(prompt)
    expected, _ = twin._targets(collect_steps(twin, stepper, stepper.reset(None)))
    mine, theirs = agent.buffer, twin.buffer
    for name in mine.obs:
        assert torch.equal(mine.obs[name][:size], theirs.obs[name])
    for name in ("actions", "rewards", "starts", "terminated", "truncated", "ignored"):
        assert torch.equal(getattr(mine, name)[:size], getattr(theirs, name)), name
    counts = ~theirs.starts  # where an episode starts, the state is cleared before use
    for name in mine.state:
        torch.testing.assert_close(mine.state[name][:size][counts], theirs.state[name][counts])
    torch.testing.assert_close(targets.returns, expected.returns, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(targets.old_values, expected.old_values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(targets.old_log_probs, expected.old_log_probs, rtol=1e-4, atol=1e-4)


def test_late_resets_train_with_an_exact_replay_and_count_transitions_only(make_agent, train):
    envs = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point", max_episode_steps=6)
    agent = make_agent(envs, num_envs=4, num_steps=16, epochs=1)
    metrics = train(agent, envs, 3)
    assert max(row["ratio_error"] for row in metrics) <= 1e-5
    # episodes of 6 steps, each followed by an ignored one: the 7th, 14th, 21st, 28th, 35th and 42nd step, so 2 of the
    # 16 in each of the three rollouts
    assert agent.env_steps == 4 * 3 * (16 - 2)


# ------------------------------------------------------------------------------------------ previous action and reward


def test_previous_action_and_reward_are_fed_but_not_across_starts(make_agent, collect_steps, train):
    """Counter rewards 0, 1, 2; actions are shifted by one so that 0 means that there was none."""
    envs = Counter(2, 3)
    agent = make_agent(envs, num_envs=2, previous_action_reward=True, epochs=1)
    stepper = VectorEnvAdapter(envs)
    shown = collect_steps(agent, stepper, stepper.reset(0))
    buffer = agent.buffer
    assert buffer.obs["previous_reward"][:, 0, 0].tolist() == [0, 0, 1, 0, 0, 1, 0, 0]
    previous = buffer.obs["previous_action"][..., 0]
    for t in range(8):
        if t % 3 == 0:
            assert previous[t].tolist() == [0, 0]
        else:
            assert torch.equal(previous[t], buffer.actions[t - 1, :, 0] + 1)
    agent.train_step(shown)
    assert agent.last_metrics["ratio_error"] <= 1e-5
    collect_steps(agent, stepper, shown)
    assert agent.buffer.obs["previous_reward"][:, 0, 0].tolist() == [1, 0, 0, 1, 0, 0, 1, 0]  # goes on at count 2


@pytest.mark.parametrize("action", ACTIONS)
def test_previous_actions_of_every_kind_are_replayed_exactly(make_agent, train, action):
    envs = SpaceProbe(3, "dict", action)
    agent = make_agent(envs, num_envs=3, previous_action_reward=True, epochs=1)
    assert max(row["ratio_error"] for row in train(agent, envs, 3)) <= 1e-5


# ------------------------------------------------------------------------------------------------------ other options


def test_an_agent_loaded_into_another_width_begins_new_episodes(make_agent, train, tmp_path):
    """Weights and counters are taken over; memories and running sums belong to environments that are gone."""
    wide = make_agent(Counter(3, 7), num_envs=3, normalise_returns=True)
    train(wide, Counter(3, 7), 2)  # 16 steps end at count 1, where the running sum is 0 + 1
    assert wide.return_scale.running.abs().max() > 0
    wide.save(tmp_path / "agent.pt")
    narrow = make_agent(Counter(2, 7), num_envs=2, normalise_returns=True, seed=1)
    obs = np.zeros((2, 2))
    narrow.take_action(obs)
    narrow.add_memory_ppo(np.zeros(2), np.zeros(2, dtype=bool))
    narrow.load(tmp_path / "agent.pt")
    assert narrow.env_steps == 48
    assert narrow.actor.starts.tolist() == [True, True]
    assert not narrow.actor.state["h"].any()
    assert narrow.return_scale.running.tolist() == [0.0, 0.0]
    assert torch.equal(narrow.return_scale.moments.var, wide.return_scale.moments.var)


def test_a_separate_critic_shares_nothing_with_the_policy(make_agent, train):
    envs = SpaceProbe(3)
    agent = make_agent(envs, core="lstm", num_envs=3, separate_critic=True, epochs=1)
    assert set(agent.actor.state) == {"h", "c", "critic.h", "critic.c"}
    obs = {"obs": torch.rand(5, 3, 2)}
    _, values, _ = agent.network.unroll(obs, agent.network.initial_state(3), torch.zeros(5, 3, dtype=torch.bool))
    trunk = list(agent.network.actor.parameters())
    assert not any(grad is not None for grad in torch.autograd.grad(values.sum(), trunk, allow_unused=True))
    assert train(agent, envs, 1)[0]["ratio_error"] <= 1e-5


def test_moments_change_in_training_only_and_are_saved(make_agent, collect_steps, tmp_path):
    """2 rows of counts 0 to 3, twice: the first number has mean 1.5 and variance 1.25, the row number 0.5 and 0.25."""

    def snapshot(agent):
        parts = agent.network.state_dict() | agent.return_scale.state_dict()
        return {name: value.clone() for name, value in parts.items()}

    def equal(one, other):
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    envs = Counter(2, 4)
    agent = make_agent(envs, num_envs=2, normalise_observations=True, normalise_returns=True)
    moments = agent.network.actor.encoder.parts[0].moments
    stepper, fresh = VectorEnvAdapter(envs), snapshot(agent)
    shown = collect_steps(agent, stepper, stepper.reset(0))
    assert equal(snapshot(agent), fresh)
    agent.train_step(shown)
    assert moments.count == 16
    torch.testing.assert_close(moments.mean, torch.tensor([1.5, 0.5]))
    torch.testing.assert_close(moments.var, torch.tensor([1.25, 0.25]))
    trained = snapshot(agent)
    assert all(not torch.equal(trained[name], fresh[name]) for name in agent.return_scale.state_dict())

    evaluate(agent, Counter(3, 4), 6, seed=0)
    agent.training = False
    collect_steps(agent, stepper, shown)
    assert equal(snapshot(agent), trained)

    agent.save(tmp_path / "agent.pt")
    other = make_agent(envs, num_envs=2, seed=9, normalise_observations=True, normalise_returns=True)
    assert not equal(snapshot(other), trained)
    other.load(tmp_path / "agent.pt")
    assert equal(snapshot(other), trained)


def test_a_separate_critic_keeps_moments_of_its_own(make_agent, train):
    envs = Counter(2, 4)
    agent = make_agent(envs, num_envs=2, normalise_observations=True, separate_critic=True)
    train(agent, envs, 2)
    for trunk in (agent.network.actor, agent.network.critic):
        torch.testing.assert_close(trunk.encoder.parts[0].moments.mean, torch.tensor([1.5, 0.5]))


def test_replay_is_exact_while_moments_move(make_agent, train):
    envs = SpaceProbe(3, "dict")
    agent = make_agent(envs, num_envs=3, normalise_observations=True, normalise_returns=True, epochs=1)
    assert max(row["ratio_error"] for row in train(agent, envs, 4)) <= 1e-5


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return(make_agent, fix_value):
    """gamma = 1/2, rewards 2, 2, episodes of two steps: running returns 2, 3, 2, 3; mean 2.5, variance 1/4.

    So rewards become 2 / 0.5 = 4. With v = 0 and lambda = 1 the returns of an episode are 4 + 4/2 = 6 and 4.
    """
    envs = Counter(1, 2)
    agent = make_agent(
        envs, num_envs=1, gamma=0.5, gae_lambda=1.0, normalise_returns=True, num_steps=4, bptt=4, num_minibatches=1
    )
    fix_value(agent, 0.0)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(4):
        after = stepper.step(agent.take_action(obs))
        agent.add_memory_ppo(np.full(1, 2.0), after.terminated)
        obs = after.obs
    targets, _ = agent._targets(obs)
    torch.testing.assert_close(targets.returns[:, 0], torch.tensor([6.0, 4.0, 6.0, 4.0]), rtol=1e-5, atol=1e-5)


def test_annealing_follows_the_environment_steps(make_agent, train):
    """48 of 96 steps are over before the third update, so half of the learning rate is left there."""
    envs = Counter(3)
    agent = make_agent(envs, num_envs=3, total_steps=96, learning_rate=0.01, anneal_learning_rate=True)
    rates = [row["learning_rate"] for row in train(agent, envs, 4)]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_action_masks_forbid_actions():
    space = spaces.Dict({"numbers": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(4)})
    agent = RecurrentPPO(space, spaces.Discrete(4), 8, seed=0, num_envs=2, **SMALL)
    mask = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=np.int8)
    seen = [set(), set()]
    for _ in range(8):
        actions = agent.take_action({"numbers": np.zeros((2, 2)), "action_mask": mask})
        for row in (0, 1):
            seen[row].add(int(actions[row]))
        agent.add_memory_ppo(np.zeros(2), np.zeros(2, dtype=bool))
    assert seen[0] <= {0, 3}
    assert seen[1] <= {1, 2}
    agent.train_step()
    assert agent.last_metrics["ratio_error"] <= 1e-5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_envs": 2, "bptt": 3}, "bptt=3 does not divide num_steps=8"),
        ({"num_envs": 2, "num_minibatches": 9}, "num_minibatches=9 is more than the 4 sequences"),
        ({"num_envs": 2, "state_stride": 3}, "state_stride=3 must divide bptt=4"),
        ({"num_envs": 2, "state_stride": 2, "burn_in": 3}, "burn_in=3"),
        ({"state_stride": 2}, "it must be 1"),
        ({"num_envs": -1}, "num_envs=-1"),
        ({"num_envs": 2, "num_steps": 0}, "num_steps=0"),
        ({"total_steps": -1}, "total_steps=-1"),
        ({"layer_size": 0}, "layer_size=0"),
        ({"epsilon": 2.0}, "epsilon=2.0"),
        ({"epsilon_min": -1.0}, "epsilon_min=-1.0"),
        ({"action_names": ["one", "two"]}, "action_names"),
        ({"ratio": "both"}, "ratio='both'"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(options, sentence):
    options = {**SMALL, **options}
    with pytest.raises(ValueError, match=sentence):
        RecurrentPPO(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), **options)


def test_no_environments_are_refused():
    with pytest.raises(ValueError, match="num_envs=0"):
        RecurrentPPO(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), **SMALL, num_envs=0)


def test_a_rollout_without_a_single_transition_of_one_environment_is_not_trained(make_agent):
    agent = make_agent(Counter(2), num_envs=2, num_steps=1, bptt=None, num_minibatches=1)
    agent.take_action(np.zeros((2, 2)))
    agent.add_memory_ppo(np.zeros(2), np.zeros(2, dtype=bool), ignored=np.array([True, False]))
    agent.train_step(np.zeros((2, 2)))


def test_burn_in_longer_than_a_rollout_of_the_single_form(make_agent):
    """bptt may exceed num_steps in the single form, and so may burn_in: there is then nothing to warm up with."""
    agent = make_agent(SingleEnv("envs.probes:Counter"), num_steps=4, bptt=16, burn_in=8)
    for _ in range(4):
        agent.take_action(np.zeros(2))
        agent.add_memory_ppo(0.0, False)
    assert np.isfinite(agent.train_step())
