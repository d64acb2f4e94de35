"""Recurrent IQN in the batched and in the single form: acting, storing, learning, checkpoints, clients."""

import inspect
import random
from copy import deepcopy
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import ActionReward, ConstantReward, Counter, DelayedReward, EchoCue, SignReward, SpaceProbe
from envs.repeat_previous import RepeatPrevious
from envs.single_env import SingleEnv
from rl import cores
from rl.agents import RecurrentIQN
from rl.training.evaluation import evaluate
from rl.training.metrics import Metrics
from rl.training.stepping import VectorEnvAdapter
from rl.training.trainer import Trainer

OBSERVATIONS = ("box", "image", "image_last", "discrete", "dict", "tuple")
SMALL = {"num_steps": 8, "bptt": 4, "burn_in": 0, "n_step": 2, "batch_size": 8, "learning_starts": 8, "capacity": 600}
SMALL |= {"replay_ratio": 1.0, "num_cosines": 8, "num_action_quantiles": 4, "num_quantiles": 4}
FEATURES, TURNS = 6, 5


@pytest.fixture
def make_agent():
    """An agent with 8 units for an environment; ``num_envs`` in the options makes the batched form."""

    def make(envs, core="gru", seed=0, layer_size=8, hidden_size=8, **options):
        observation_space = getattr(envs, "single_observation_space", envs.observation_space)
        action_space = getattr(envs, "single_action_space", envs.action_space)
        core = partial(getattr(cores, core), hidden_size=hidden_size)
        return RecurrentIQN(observation_space, action_space, layer_size, seed=seed, core=core, **{**SMALL, **options})

    return make


@pytest.fixture
def train(collect_steps):
    """``calls`` of train_step in the batched form; the losses."""

    def run(agent, envs, calls, seed=0):
        stepper, losses = VectorEnvAdapter(envs), []
        obs = stepper.reset(seed)
        for _ in range(calls):
            obs = collect_steps(agent, stepper, obs)
            losses.append(agent.train_step(obs))
        return losses

    return run


@pytest.fixture
def train_single():
    """The same for the single form, as a client plays a plain Gymnasium environment."""

    def run(agent, env, calls, seed=0):
        losses, (obs, _) = [], env.reset(seed=seed)
        for _ in range(calls):
            for _ in range(agent.num_steps):
                action = agent.take_action(obs)
                if isinstance(env.action_space, spaces.MultiDiscrete):
                    action = np.array(np.unravel_index(action, env.action_space.nvec))
                obs, reward, terminated, truncated, _ = env.step(action)
                agent.add_memory_ppo(reward, terminated, truncated, obs)
                if terminated or truncated:
                    obs, _ = env.reset()
            losses.append(agent.train_step(obs))
        return losses

    return run


@pytest.fixture
def same():
    """Whether two agents have bit-identical networks, target networks included."""

    def compare(one, other):
        pairs = [(one.network, other.network), (one.target, other.target)]
        states = [(mine.state_dict(), theirs.state_dict()) for mine, theirs in pairs]
        return all(torch.equal(mine[name], theirs[name]) for mine, theirs in states for name in mine)

    return compare


@pytest.fixture
def value_of():
    """The best value of observations ``[B, ...]`` at the start of episodes."""

    def ask(agent, *observations):
        actor = agent.new_actor(len(observations), 0)
        _, values, _ = actor.act(actor.inputs(np.array(observations, dtype=np.float32)))
        return values

    return ask


# --------------------------------------------------------------------------------------- every space, core and form


PAIRS = {(observation, "gru") for observation in OBSERVATIONS} | {("tuple", core) for core in cores.__all__}


@pytest.mark.parametrize("action", ["discrete", "multi_discrete"])
@pytest.mark.parametrize(("observation", "core"), sorted(PAIRS))
def test_every_space_and_every_core_acts_and_trains(make_agent, train, train_single, observation, action, core):
    envs = SpaceProbe(3, observation, action)
    batched = make_agent(envs, core, num_envs=3, previous_action_reward=True, normalise_observations=True)
    before = [parameter.clone() for parameter in batched.network.parameters()]
    assert train(batched, envs, 2)[-1] > 0
    assert batched.env_steps == 2 * 8 * 3
    changed = [not torch.equal(old, new) for old, new in zip(before, batched.network.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2
    env = SingleEnv("envs.probes:SpaceProbe", observation=observation, action=action)
    single = make_agent(env, core, burn_in=2)
    assert train_single(single, env, 2)[-1] > 0
    assert single.env_steps == 16


def test_everything_lies_on_the_device_asked_for(make_agent, train, tmp_path, device):
    """And a checkpoint comes back onto it."""
    options = {"previous_action_reward": True, "normalise_observations": True, "priority_exponent": 0.6, "burn_in": 2}
    envs = SpaceProbe(3, "dict", "multi_discrete")
    agent, other = (make_agent(envs, num_envs=3, device=str(device), seed=seed, **options) for seed in (0, 1))
    assert train(agent, envs, 3)[-1] > 0
    agent.save(tmp_path / "agent.pt")
    other.load(tmp_path / "agent.pt")
    for made in (agent, other):
        tensors = [*made.network.parameters(), *made.target.parameters(), *made.buffer.obs.values()]
        assert {leaf.device.type for leaf in [*tensors, *made.buffer.state.values()]} == {device.type}
    assert train(other, envs, 1)[-1] > 0


@pytest.mark.parametrize("action", ["discrete", "multi_discrete"])
def test_actions_lie_in_the_space_of_the_environment_in_both_forms(make_agent, action):
    envs = SpaceProbe(3, "box", action)
    batched, single = make_agent(envs, num_envs=3), make_agent(envs)
    for trial in range(20):
        obs = np.random.default_rng(trial).uniform(-1, 1, (3, 2)).astype(np.float32)
        assert envs.action_space.contains(batched.take_action(obs))
        batched.add_memory_ppo(np.zeros(3), np.zeros(3, dtype=bool))
        alone = single.take_action(obs[0])
        assert type(alone) is int
        assert alone in range(6 if action == "multi_discrete" else 2)
        if action == "multi_discrete":
            assert alone == np.ravel_multi_index(single.get_dual_action(), (2, 3))
        single.add_memory_ppo(0.0, False)
        assert single.get_dual_action() is None


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2)], ids=str)
def test_other_action_spaces_are_refused_in_a_sentence(space):
    with pytest.raises(ValueError, match="is not supported by quantile networks: use Discrete or MultiDiscrete"):
        RecurrentIQN(spaces.Box(-1, 1, (2,)), space)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"total_steps": -1}, "total_steps=-1"),
        ({"state_stride": 0}, "state_stride=0"),
        ({"exploration": 1.5}, "exploration=1.5"),
        ({"epsilon": 2.0}, "epsilon=2.0"),
        ({"epsilon_min": -1.0}, "epsilon_min=-1.0"),
        ({"gamma": 2.0}, "gamma=2.0"),
        ({"layer_size": 0}, "layer_size=0"),
        ({"action_names": ["one", "two"]}, "action_names"),
    ],
)
def test_impossible_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        RecurrentIQN(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), **options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="momentum"):
        RecurrentIQN(spaces.Box(-1, 1, (2,)), spaces.Discrete(2), momentum=0.9)


# ------------------------------------------------------------------------------------------------------ reproduction


def test_a_seed_decides_everything(make_agent, train, same):
    def trained(seed):
        envs = SpaceProbe(3, "dict", "multi_discrete")
        agent = make_agent(envs, num_envs=3, seed=seed, priority_exponent=0.6)
        train(agent, envs, 4)
        assert agent.updates > 0
        return agent

    first, again, other = trained(1), trained(1), trained(2)
    assert same(first, again)
    assert not same(first, other)


def test_without_a_seed_agents_differ(make_agent, same):
    envs = ConstantReward(1)
    assert not same(make_agent(envs, seed=None), make_agent(envs, seed=None))


def test_exploration_and_drawing_have_generators_of_their_own(make_agent, train, same):
    def trained(change=None):
        envs = SpaceProbe(3)
        agent = make_agent(envs, num_envs=3)
        if change is not None:
            change(agent).manual_seed(99)
        train(agent, envs, 3)
        return agent

    plain = trained()
    assert not same(plain, trained(lambda agent: agent.shuffle))
    assert not same(plain, trained(lambda agent: agent.actor.generator))


@pytest.mark.parametrize("seed", [None, 3])
def test_global_random_streams_are_left_alone(make_agent, train, seed):
    torch.manual_seed(11)
    np.random.seed(12)
    random.seed(13)
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    envs = SpaceProbe(3, "dict", "multi_discrete")
    train(make_agent(envs, num_envs=3, seed=seed, previous_action_reward=True, priority_exponent=0.5), envs, 3)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(legacy=False), before[1])
    assert before[2] == random.getstate()


@pytest.mark.parametrize("options", [{}, {"previous_action_reward": True, "normalise_observations": True}])
@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_single_form_and_batched_form_of_one_are_the_same_code(make_agent, train, train_single, same, end, options):
    keywords = {"episode_length": 3, "end": end}
    envs, env = Counter(1, **keywords), SingleEnv("envs.probes:Counter", **keywords)
    batched, single = make_agent(envs, num_envs=1, **options), make_agent(env, **options)
    train(batched, envs, 3)
    train_single(single, env, 3)
    assert batched.updates == single.updates > 0
    assert same(batched, single)


# -------------------------------------------------------------------------------------------------- learning probes

LEARN = {"num_envs": 16, "bptt": 4, "batch_size": 64, "n_step": 1, "learning_rate": 0.01, "target_interval": 10}
LEARN |= {"total_steps": 2000, "replay_ratio": 4.0, "num_quantiles": 8, "num_target_quantiles": 8}


def test_the_value_of_a_constant_reward_becomes_that_reward(make_agent, train, value_of):
    envs = ConstantReward(16)
    agent = make_agent(envs, "mlp", **LEARN)
    train(agent, envs, 15)
    torch.testing.assert_close(value_of(agent, [0.0]), torch.tensor([1.0]), atol=0.1, rtol=0)


def test_the_value_depends_on_the_observation(make_agent, train, value_of):
    envs = SignReward(16)
    agent = make_agent(envs, "mlp", **LEARN)
    train(agent, envs, 15)
    torch.testing.assert_close(value_of(agent, [-1.0], [1.0]), torch.tensor([-1.0, 1.0]), atol=0.1, rtol=0)


class Loud(SignReward):
    """Its rewards are -100 and 100."""

    def _advance(self, actions):
        rewards, ended = super()._advance(actions)
        return 100.0 * rewards, ended


def test_with_normalised_returns_the_size_of_rewards_does_not_matter(make_agent, train, value_of):
    agent = make_agent(Loud(16), "mlp", normalise_returns=True, **LEARN)
    train(agent, Loud(16), 15)
    torch.testing.assert_close(value_of(agent, [-1.0], [1.0]), torch.tensor([-1.0, 1.0]), atol=0.15, rtol=0)


def test_returns_are_measured_as_they_come(make_agent):
    """4; 0 + 2 = 2; 1 + 1 = 2; 3 + 1 = 4; no step; an episode begins: 8. Play without learning does not count."""
    agent = make_agent(Counter(1), num_envs=1, normalise_returns=True, gamma=0.5)
    obs = np.zeros((1, *agent.observation_space.shape))
    for reward, done in ((4.0, False), (0.0, False), (1.0, False), (3.0, True), (None, False), (8.0, False)):
        agent.take_action(obs)
        agent.add_memory_ppo([reward or 0.0], [done], ignored=[reward is None])
    agent.training = False
    agent.take_action(obs)
    agent.add_memory_ppo([99.0], [False])
    moments = agent.return_scale.moments
    assert moments.count == 5
    assert moments.var.item() == pytest.approx(np.var([4.0, 2.0, 2.0, 4.0, 8.0]))
    factor = 1 / np.std([4.0, 2.0, 2.0, 4.0, 8.0])
    assert agent.return_scale(torch.tensor([2.0])).item() == pytest.approx(2.0 * factor)


def test_the_rewarded_action_is_learned(make_agent, train):
    envs = ActionReward(16)
    agent = make_agent(envs, "mlp", **LEARN)
    train(agent, envs, 15)
    assert evaluate(agent, ActionReward(16), 64, seed=0).mean == 1.0
    assert evaluate(agent, ActionReward(16), 640, seed=0, greedy=False).mean >= 0.95  # epsilon is 0.02 in the end


@pytest.mark.parametrize(("n_step", "rescaling"), [(1, False), (1, True), (3, False)])
def test_the_value_of_a_delayed_reward_is_discounted(make_agent, train, value_of, n_step, rescaling):
    """0.6, then 1; on the scale of h(x) = sqrt(x + 1) - 1 + x / 1000 these are 0.2655 and 0.4152."""
    envs = DelayedReward(16)
    agent = make_agent(envs, "mlp", **{**LEARN, "n_step": n_step}, gamma=0.6, value_rescaling=rescaling)
    train(agent, envs, 20)
    expected = torch.tensor([0.2655, 0.4152] if rescaling else [0.6, 1.0])
    torch.testing.assert_close(value_of(agent, [0.0], [1.0]), expected, atol=0.07, rtol=0)


@pytest.mark.parametrize(
    ("late", "end", "expected"),
    [
        (False, "terminated", [1.75, 1.5, 1.0]),
        (False, "truncated", [2.0, 2.0, 2.0]),
        (False, "both", [1.75, 1.5, 1.0]),
        (True, "truncated", [2.0, 2.0, 2.0]),
    ],
)
def test_what_is_cut_is_worth_what_would_have_followed(make_agent, value_of, late, end, expected):
    """Reward 1 in every step, episodes of 3, gamma = 1/2: a cut is no end, also where resets come late."""
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=3, end=end)] * 16
    envs = SyncVectorEnv(made, autoreset_mode=AutoresetMode.NEXT_STEP) if late else Counter(16, 3, end)
    agent = make_agent(envs, "mlp", **{**LEARN, "n_step": 2}, gamma=0.5, layer_size=16)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(30):
        for _ in range(8):
            after = stepper.step(agent.take_action(obs))
            ones = np.ones(16, dtype=np.float32)
            agent.add_memory_ppo(ones, after.terminated, after.truncated, after.final_obs, after.ignored)
            obs = after.obs
        agent.train_step(obs)
    envs.close()
    got = value_of(agent, *([count, 0.0] for count in range(3)))
    torch.testing.assert_close(got, torch.tensor(expected), atol=0.12, rtol=0)


@pytest.mark.parametrize("core", ["gru", "lstm", "rnn"])
def test_memory_solves_what_needs_memory(make_agent, train, core):
    envs = EchoCue(16)
    agent = make_agent(envs, core, **LEARN)
    train(agent, envs, 25)
    assert evaluate(agent, EchoCue(16), 128, seed=0).mean >= 0.95
    assert evaluate(agent, EchoCue(16), 128, seed=0, memory=False).mean <= 0.75


def test_without_memory_nothing_solves_what_needs_memory(make_agent, train):
    envs = EchoCue(16)
    agent = make_agent(envs, "mlp", **LEARN)
    train(agent, envs, 25)
    assert evaluate(agent, EchoCue(16), 512, seed=0).mean <= 0.65  # 0.5 +- 0.02 by guessing


@pytest.mark.parametrize(
    "option",
    [{"dueling": True}, {"priority_exponent": 0.6}, {"burn_in": 2}, {"target_interval": 1, "target_share": 0.05}],
    ids=str,
)
def test_options_do_not_keep_an_agent_from_learning(make_agent, train, option):
    envs = SpaceProbe(16, "box", "multi_discrete")
    agent = make_agent(envs, **{**LEARN, "learning_rate": 0.02, **option})
    train(agent, envs, 20)
    assert evaluate(agent, SpaceProbe(16, "box", "multi_discrete"), 64, seed=0).mean >= 0.9


# ---------------------------------------------------------------------------------------------------- what is stored


def stored(agent, env=0):
    """The rows of one environment: (observation, start, terminated, final, reward)."""
    replay = agent.buffer
    rows = np.arange(replay.written[env]) * replay.num_envs + env
    columns = (replay.starts, replay.terminated, replay.final, replay.rewards)
    flags = [column[rows].tolist() for column in columns]
    return list(zip(replay.obs["obs"][rows, 0].tolist(), *flags, strict=True))


def test_episodes_that_terminate(make_agent, collect_steps):
    agent = make_agent(Counter(2, [2, 3]), num_envs=2)
    stepper = VectorEnvAdapter(Counter(2, [2, 3]))
    collect_steps(agent, stepper, stepper.reset(0), 4)
    assert stored(agent) == [(0, True, False, False, 0), (1, False, True, False, 1)] * 2
    assert stored(agent, 1) == [
        (0, True, False, False, 0),
        (1, False, False, False, 1),
        (2, False, True, False, 2),
        (0, True, False, False, 0),
    ]


@pytest.mark.parametrize("mode", ["batched", AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_episodes_that_are_cut_keep_what_they_led_to(make_agent, collect_steps, mode):
    """Row b of a Counter ends after 2 and 3 steps, and shows 2 and 3 then. Late resets leave no trace."""
    if mode == "batched":
        envs = Counter(2, [2, 3], "truncated")
    else:
        made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end="truncated") for n in (2, 3)]
        envs = SyncVectorEnv(made, autoreset_mode=mode)
    agent = make_agent(envs, num_envs=2)
    stepper = VectorEnvAdapter(envs)
    collect_steps(agent, stepper, stepper.reset(0), 13)
    envs.close()
    for env, length in enumerate((2, 3)):
        episode = [(count, count == 0, False, False, count) for count in range(length)]
        episode.append((length, False, False, True, 0))
        rows = stored(agent, env)
        assert len(rows) >= 9
        assert rows == (episode * 9)[: len(rows)]
    steps = sum(row[3] is False for env in (0, 1) for row in stored(agent, env))
    agent.train_step()
    assert agent.env_steps == steps


def test_what_is_seen_at_a_cut_is_replayed_under_the_state_that_led_there(make_agent, collect_steps):
    """States of all rows, recomputed from the stored rows alone, are those that are stored, previous rewards too."""
    envs = Counter(3, [2, 3, 5], "truncated")
    agent = make_agent(envs, num_envs=3, state_stride=1, previous_action_reward=True)
    with torch.no_grad():
        for parameter in agent.network.parameters():
            parameter.mul_(2)
    stepper = VectorEnvAdapter(envs)
    collect_steps(agent, stepper, stepper.reset(0), 12)
    replay = agent.buffer
    for env, length in enumerate((2, 3, 5)):
        rows = np.arange(replay.written[env]) * 3 + env
        obs = {name: leaf[rows].unsqueeze(1) for name, leaf in replay.obs.items()}
        starts = torch.from_numpy(replay.starts[rows]).unsqueeze(1)
        state = agent.network.initial_state(1)
        for t in range(len(rows)):
            if not starts[t]:  # or it is cleared anyway
                torch.testing.assert_close(replay.state["h"][rows[t]], state["h"][0])
            with torch.no_grad():
                row = {name: leaf[t] for name, leaf in obs.items()}
                _, _, state = agent.network.step(row, state, starts[t])
        finals = np.flatnonzero(replay.final[rows])
        assert len(finals) >= 2
        assert obs["previous_reward"][finals, 0, 0].tolist() == [length - 1] * len(finals)  # of the last step
        assert (obs["previous_action"][finals] > 0).all()
        opens = np.flatnonzero(replay.starts[rows])
        assert not obs["previous_action"][opens].any()


@pytest.mark.parametrize("leaf", ["previous_action", "previous_reward"])
def test_what_is_fed_of_the_step_before_reaches_the_network(make_agent, leaf):
    agent = make_agent(Counter(2), num_envs=2, previous_action_reward=True)
    obs = agent.actor.inputs(np.zeros((2, 2)))
    obs[leaf] = torch.tensor([[0], [1]], dtype=obs[leaf].dtype)
    values, _, _ = agent.network.step(obs, agent.network.initial_state(2), None)
    assert (values[0] - values[1]).abs().max() > 1e-6


def test_where_nobody_tells_what_followed_the_last_step_is_not_trained(make_agent):
    """A cut without final observation, an epoch that ends, an action that is dropped: the row before becomes final."""
    agent = make_agent(Counter(1), state_stride=1)
    for turn, end in enumerate(["go", "cut", "go", "reset", "go", "drop", "done", "go"]):
        agent.take_action(np.full(2, float(turn)))
        if end == "drop":
            agent.reset()
            continue
        agent.add_memory_ppo(1.0, end == "done", end == "cut")
        if end == "reset":
            agent.end_epoch_action(epoch=0)
            agent.start_epoch_action(epoch=1)
    rows = [(obs, start, terminated, final) for obs, start, terminated, final, _ in stored(agent)]
    assert rows == [
        (0, True, False, False), (1, False, False, True), (2, True, False, False), (3, False, False, True),
        (4, True, False, True), (6, True, True, False), (7, True, False, False),
    ]  # fmt: skip
    assert len(agent.memory) == 4


def test_late_resets_count_transitions_only(make_agent, train):
    """Episodes of 6 steps, each followed by an ignored one, see the same test of recurrent PPO."""
    envs = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point", max_episode_steps=6)
    agent = make_agent(envs, num_envs=4, num_steps=16)
    train(agent, envs, 3)
    assert agent.env_steps == 4 * 3 * (16 - 2)


def test_rows_without_anybody_are_left_out(make_agent):
    """Someone who is gone for two steps comes back with a new episode."""
    agent = make_agent(Counter(2), num_envs=2)
    for step in range(5):
        gone = np.array([step in (2, 3), False])
        agent.take_action(np.full((2, 2), float(step)))
        agent.add_memory_ppo(np.ones(2), np.array([step == 1, False]), ignored=gone)
    assert [row[:2] for row in stored(agent, 0)] == [(0, True), (1, False), (4, True)]
    assert [row[:2] for row in stored(agent, 1)] == [(step, step == 0) for step in range(5)]


def test_moments_follow_what_is_played_in_training(make_agent, train):
    """2 rows of counts 0 to 3, twice: the first number has mean 1.5 and variance 1.25, the row number 0.5 and 0.25."""
    agent = make_agent(Counter(2, 4), num_envs=2, normalise_observations=True)
    mine, behind = (network.trunk.encoder.parts[0].moments for network in (agent.network, agent.target))
    for calls in (1, 2):
        train(agent, Counter(2, 4), 1)
        for moments in (mine, behind):
            assert moments.count == calls * 16
            torch.testing.assert_close(moments.mean, torch.tensor([1.5, 0.5]))
            torch.testing.assert_close(moments.var, torch.tensor([1.25, 0.25]))
    evaluate(agent, Counter(3, 4), 6, seed=0)
    assert mine.count == 32


def test_images_stay_what_they_are(make_agent):
    agent = make_agent(SpaceProbe(2, "image"), num_envs=2)
    assert agent.buffer.obs["obs"].dtype == torch.uint8
    assert agent.buffer.size == 300


# ------------------------------------------------------------------------------------------------ epsilon, metrics


def test_epsilon_falls_by_its_schedule(make_agent, train):
    """From 1 to 0.2 over half of 192 steps, 24 at a time: 1, 0.8, 0.6, 0.4, 0.2, 0.2 in the steps before each call."""
    envs = Counter(3)
    agent = make_agent(envs, num_envs=3, epsilon=1.0, epsilon_min=0.2, total_steps=192, exploration=0.5)
    seen, original = [], agent.train_step

    def train_step(obs):
        seen.append(agent.epsilon)
        return original(obs)

    agent.train_step = train_step
    train(agent, envs, 6)
    assert seen == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_epsilon_belongs_to_the_client_without_total_steps(make_agent, train):
    agent = make_agent(Counter(3), num_envs=3, epsilon=0.5, epsilon_min=0.4)
    train(agent, Counter(3), 2)
    assert agent.epsilon == 0.5
    agent.epsilon_decay(0.1)
    assert agent.epsilon == pytest.approx(0.45)
    agent.epsilon_decay(0.5)
    assert agent.epsilon == 0.4
    agent.set_epsilon(0.9)
    assert agent.epsilon == agent.network.head.epsilon == 0.9
    with pytest.raises(ValueError, match=r"epsilon=1\.5"):
        agent.set_epsilon(1.5)


def test_epsilon_is_the_share_of_random_actions(make_agent):
    """Of 2 actions one is the best; with epsilon = 0.5 it is taken 3 times in 4."""
    envs = Counter(400)
    agent = make_agent(envs, num_envs=400, epsilon=0.5)
    obs = np.zeros((400, 2), dtype=np.float32)
    actions = agent.take_action(obs)
    agent.reset()
    agent.training = False
    best = agent.take_action(obs)
    assert len(set(best.tolist())) == 1
    assert (actions == best).mean() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 400) ** 0.5)


def test_metrics_of_an_update(make_agent, train):
    agent = make_agent(Counter(3), num_envs=3, learning_rate=0.01, total_steps=96, anneal_learning_rate=True)
    losses = train(agent, Counter(3), 2)
    assert agent.last_metrics.keys() == {"loss", "quantile_loss", "q_mean", "grad_norm", "epsilon", "learning_rate"}
    assert agent.last_metrics["loss"] == agent.last_metrics["quantile_loss"] == losses[-1]
    assert agent.last_metrics["learning_rate"] == pytest.approx(0.005)  # half of the steps are over
    assert isinstance(losses[-1], np.ndarray)
    assert losses[-1].shape == ()


@pytest.mark.parametrize(("ratio", "updates"), [(1.0, [0, 1, 1, 2]), (4.0, [0, 4, 4, 4]), (2.5, [0, 2, 3, 2])])
def test_the_replay_ratio_grants_minibatches(make_agent, collect_steps, ratio, updates):
    """Minibatches of 2 x 4 transitions, 8 steps of one environment at a time, the last time 16; 10 to begin with.

    What the first 8 would have granted is not owed later.
    """
    agent = make_agent(Counter(1), num_envs=1, replay_ratio=ratio, learning_starts=10)
    stepper, counts = VectorEnvAdapter(Counter(1)), []
    obs = stepper.reset(0)
    for steps in (8, 8, 8, 8 if ratio > 1 else 16):
        obs, before = collect_steps(agent, stepper, obs, steps), agent.updates
        agent.train_step(obs)
        counts.append(agent.updates - before)
    assert counts == updates


def test_nothing_is_trained_before_there_is_enough(make_agent, train):
    agent = make_agent(Counter(3), num_envs=3, learning_starts=60)
    assert [float(loss) != 0.0 for loss in train(agent, Counter(3), 4)] == [False, False, True, True]
    assert agent.env_steps == 96


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def make_trainer(tmp_path, make_agent):
    def make(envs, total_steps, folder="run", seed=0, **options):
        agent = make_agent(envs, num_envs=envs.num_envs, seed=seed, **{"total_steps": 400, **options})
        return Trainer(agent, envs, tmp_path / folder, total_steps, seed=0)

    return make


@pytest.fixture
def run_trainer():
    def run(trainer):
        with Metrics(trainer.run_dir, trainer.total_steps, trainer.agent.env_steps) as metrics:
            return trainer.train(metrics)

    return run


@pytest.mark.parametrize(
    ("task", "core", "options"),
    [
        (partial(RepeatPrevious, episode_length=11), "gru", {"replay_ratio": 0.7}),
        (
            partial(SpaceProbe, observation="dict", action="multi_discrete", episode_length=5),
            "lstm",
            {"previous_action_reward": True, "normalise_observations": True, "priority_exponent": 0.6, "burn_in": 2},
        ),
        (
            partial(Counter, episode_length=[3, 5, 7], end="truncated"),
            "mlp",
            {"capacity": 60, "target_interval": 7, "normalise_returns": True},
        ),
    ],
)
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    make_trainer, run_trainer, assert_same, task, core, options
):
    """8 calls of train_step at once, or 4, a new process, 4 more; the small ring has gone round by then."""
    straight = make_trainer(task(3), 192, "straight", core=core, **options)
    run_trainer(straight)
    run_trainer(make_trainer(task(3), 96, "broken", core=core, **options))
    second = make_trainer(task(3), 192, "broken", seed=77, core=core, **options)
    second.resume()
    assert second.agent.env_steps == 96
    run_trainer(second)
    assert straight.agent.updates > 10
    assert_same(straight.agent, second.agent)


def test_a_checkpoint_of_another_width_brings_weights_only(make_agent, train, tmp_path):
    wide = make_agent(Counter(3, 7), num_envs=3)
    train(wide, Counter(3, 7), 3)
    wide.save(tmp_path / "agent.pt")
    narrow = make_agent(Counter(2, 7), num_envs=2, seed=1)
    narrow.take_action(np.zeros((2, 2)))
    narrow.add_memory_ppo(np.zeros(2), np.zeros(2, dtype=bool))
    narrow.load(tmp_path / "agent.pt")
    assert (narrow.env_steps, narrow.updates) == (72, wide.updates)
    for mine, theirs in ((wide.network, narrow.network), (wide.target, narrow.target)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())
    assert len(narrow.memory) == 0
    assert narrow.actor.starts.tolist() == [True, True]
    assert not narrow.actor.state["h"].any()
    train(narrow, Counter(2, 7), 3)
    assert narrow.updates > wide.updates


@pytest.mark.parametrize("name", ["plain.pt", "folder/that/is/new/model.pt"])
def test_save_and_load(make_agent, train, same, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    agent = make_agent(Counter(3), num_envs=3, epsilon=0.7)
    train(agent, Counter(3), 3)
    agent.epsilon_decay(0.5)
    agent.save(name)
    other = make_agent(Counter(3), num_envs=3, seed=5)
    other.load(name)
    assert same(agent, other)
    assert other.epsilon == agent.epsilon == pytest.approx(0.35)
    assert len(other.memory) == len(agent.memory) > 0


def test_a_copy_goes_its_own_way(make_agent, train):
    """Loading shares nothing with what was loaded."""
    agent = make_agent(Counter(3), num_envs=3)
    train(agent, Counter(3), 3)
    state = agent.state_dict()
    copy = make_agent(Counter(3), num_envs=3, seed=4)
    copy.load_state_dict(state)
    before = deepcopy(state)
    train(copy, Counter(3), 3, seed=1)
    for name in ("network", "target"):
        assert all(torch.equal(value, before[name][key]) for key, value in agent.state_dict()[name].items())
    assert torch.equal(agent.buffer.state_dict()["obs"]["obs"], before["replay"]["obs"]["obs"])


def test_foreign_checkpoints_are_refused_and_change_nothing(make_agent, same, tmp_path):
    make_agent(EchoCue(3), num_envs=3, hidden_size=9).save(tmp_path / "wider.pt")
    make_agent(EchoCue(3), num_envs=3, dueling=True).save(tmp_path / "dueling.pt")
    agent, twin = make_agent(EchoCue(3), num_envs=3), make_agent(EchoCue(3), num_envs=3)
    for name in ("wider", "dueling"):
        with pytest.raises(ValueError, match="of another shape is"):
            agent.load(tmp_path / f"{name}.pt")
    make_agent(EchoCue(3), num_envs=3, normalise_returns=True).save(tmp_path / "scaled.pt")
    with pytest.raises(ValueError, match="another setting of normalise_returns"):
        agent.load(tmp_path / "scaled.pt")
    for state, sentence in ((3, "holds int"), ({"network": {}}, "has no entry")):
        with pytest.raises(ValueError, match=sentence):
            agent.load_state_dict(state)
    assert same(agent, twin)


def test_a_bad_number_leaves_the_weights_and_empties_the_replay(make_agent, train, same):
    agent, twin = make_agent(Counter(3), num_envs=3), make_agent(Counter(3), num_envs=3)
    for _ in range(10):
        agent.take_action(np.full((3, 2), np.nan, dtype=np.float32))
        agent.add_memory_ppo(np.zeros(3), np.zeros(3, dtype=bool))
    with pytest.raises(FloatingPointError, match="not finite"):
        agent.train_step()
    assert same(agent, twin)
    assert len(agent.memory) == 0
    agent.reset()
    assert train(agent, Counter(3), 3)[-1] > 0


# ------------------------------------------------------------------------------------------------------------- clients


class World:
    """What a client owns: observations are random, rewards are 1, 2, 3, ..."""

    def __init__(self, seed=0):
        self.random, self.rewards = np.random.default_rng(seed), 0

    def look(self):
        return self.random.standard_normal((1, FEATURES))

    def act(self, action):
        assert type(action) is int
        self.rewards += 1
        return float(self.rewards)


def memory_loop(model, world, epochs, turns=TURNS):
    """A client that stacks frames, stores through ``memory``, and trains once there is a batch; the losses."""
    losses = []
    for epoch in range(epochs):
        model.reset()
        model.start_epoch_action(epoch=epoch)
        for turn in range(turns):
            observed = world.look()
            action = model.take_action(np.vstack((model.memory.current_state(), observed)))
            extra = {"positions": (turn, 0)} if "positions" in model.memory.extra_data else {}
            model.memory.add(observed, action, world.act(action), False, **extra)
        model.end_epoch_action(epoch=epoch)
        losses.append(model.train_step() if len(model.memory) >= model.batch_size else np.array(0.0))
        model.epsilon_decay(0.1)
    return losses


def rollout_loop(model, world, epochs, turns=TURNS):
    """A client that stores through ``add_memory_ppo`` and trains what its model says is there; the losses."""
    losses = []
    for epoch in range(epochs):
        model.start_epoch_action(epoch=epoch)
        for _ in range(turns):
            action = model.take_action(world.look())
            model.add_memory_ppo(world.act(action), False)
        if len(model.rollout_memory["states"]) > 0:
            losses.append(model.train_step())
        model.end_epoch_action(epoch=epoch)
        model.epsilon_decay(0.1)
    return losses


@pytest.fixture(params=[memory_loop, rollout_loop], ids=lambda loop: loop.__name__)
def loop(request):
    return request.param


@pytest.fixture
def make_model():
    """The single form for the World above, built from plain sizes with the names of an older quantile network."""

    def make(seed=0, **options):
        options = {"n_frames": 1, "n_step": 2, "sync_freq": 200, "model_update_freq": 4, "batch_size": 8} | options
        options = {"memory_size": 200, "LR": 0.01, "TAU": 0.5, "GAMMA": 0.9, "n_quantiles": 4, "bptt": 4} | options
        return RecurrentIQN((1, FEATURES), 3, 8, 0.7, 0.01, "cpu", seed, **options)

    return make


def test_older_names_reach_the_hyperparameters(make_model):
    model = make_model()
    iqn = model.iqn
    assert (iqn.learning_rate, iqn.target_share, iqn.gamma, iqn.capacity) == (0.01, 0.5, 0.9, 200)
    assert (iqn.num_quantiles, iqn.n_step, iqn.batch_size, iqn.learning_starts) == (4, 2, 8, 8)
    assert iqn.target_interval == 1  # an older target network moves with every minibatch
    assert (model.epsilon, model.epsilon_min, model.layer_size) == (0.7, 0.01, 8)
    assert model.network.trunk.core.output_size == 8
    assert model.observation_space.shape == (FEATURES,)
    assert model.batch_size == 8
    factored = RecurrentIQN(FEATURES, 6, use_factored_actions=True, action_dims="2,3", core=cores.rnn, hidden_size=5)
    assert factored.action_space == spaces.MultiDiscrete([2, 3])
    assert factored.network.head.num_params == 6
    assert factored.network.trunk.core.output_size == 5
    assert factored.batch_size == 64


def test_an_image_in_front_of_scalars_is_seen(make_model):
    model = RecurrentIQN(79, 7, obs_dim=(3, 5, 5), hidden_size=8)
    assert {name: space.shape for name, space in model.leaves.items()} == {"image": (3, 5, 5), "scalars": (4,)}


def test_a_client_trains_its_model(make_model, loop):
    """Every turn of 12 epochs is stored; nobody ever says that the game is done."""
    model = make_model()
    losses = loop(model, World(), 12)
    assert model.env_steps == 60
    assert model.updates > 0
    assert all(loss.shape == () and np.isfinite(loss) for loss in losses)
    assert sum(float(loss) > 0.0 for loss in losses) >= 8
    rewards = [(reward, start, final) for _, start, _, final, reward in stored(model)]
    assert rewards == [(n, (n - 1) % TURNS == 0, n % TURNS == 0 and n < 60) for n in range(1, 61)]
    assert model.epsilon == pytest.approx(0.7 * 0.9**12)


def test_both_loops_lead_to_the_same_weights(make_model):
    models = [make_model(), make_model()]
    for model, loop in zip(models, (memory_loop, rollout_loop), strict=True):
        loop(model, World(), 5)
    one, other = (model.buffer for model in models)
    assert torch.equal(one.obs["obs"], other.obs["obs"])
    assert np.array_equal(one.final, other.final)


def test_nothing_of_an_epoch_leaks_into_the_next(make_model, loop):
    """Two models of one seed see different first epochs, without training; the second begins alike for both."""
    values = []
    for seed in (1, 2):
        model = make_model(learning_starts=1000)
        loop(model, World(seed), 1, turns=4 + seed)
        model.start_epoch_action(epoch=1)
        obs = model.actor.inputs(np.full((1, FEATURES), 0.5))
        values.append(model.actor.act(obs, greedy=True)[0])
    assert torch.equal(*values)


def test_members_that_clients_read(make_model):
    model = make_model()
    assert model.model_name == "RecurrentIQN"
    assert model.device == torch.device("cpu")
    assert isinstance(model.optimizer, torch.optim.Optimizer)
    assert model.add_memory.__func__ is model.add_memory_ppo.__func__
    assert model.num_parameters == sum(parameter.numel() for parameter in model.network.parameters())
    assert model.memory.n_frames == 1
    assert model.memory.current_state().shape == (0, FEATURES)
    assert len(model.memory) == len(model.rollout_memory["states"]) == 0
    assert model.train_step() == 0.0
    rollout_loop(model, World(), 1, turns=3)
    assert len(model.memory) == len(model.rollout_memory["states"]) == 3
    model.memory.add_empty()
    model.memory.clear()
    assert len(model.memory) == 3


def test_calls_in_a_wrong_order_are_refused(make_model):
    model = make_model()
    with pytest.raises(RuntimeError, match="without a take_action"):
        model.add_memory_ppo(1.0, False)
    model.take_action(np.zeros(FEATURES))
    with pytest.raises(RuntimeError, match="take_action was called twice"):
        model.take_action(np.zeros(FEATURES))
    with pytest.raises(RuntimeError, match="waits for its outcome"):
        model.train_step()
    with pytest.raises(ValueError, match="is not finite"):
        model.add_memory_ppo(float("nan"), False)
    model.add_memory_ppo(2.0, False)
    assert stored(model) == [(0.0, True, False, False, 2.0)]


def test_a_refused_final_observation_may_be_given_again(make_model):
    model = make_model()
    model.take_action(np.zeros(FEATURES))
    with pytest.raises(ValueError, match="is expected"):
        model.add_memory_ppo(1.0, False, True, np.zeros(FEATURES + 1))
    model.add_memory_ppo(1.0, False, True, np.full(FEATURES, 2.0))
    assert [row[0] for row in stored(model)] == [0.0, 2.0]


def test_playing_without_learning_is_greedy_and_stores_nothing(make_model):
    model, world = make_model(), World()
    rollout_loop(model, world, 4)
    for _ in range(2 * model.batch_size):
        model.add_memory_ppo(world.act(model.take_action(world.look())), False)
    kept, updates = len(model.memory), model.updates
    model.training = False
    assert not model.network.training
    model.set_epsilon(1.0)
    seen = {model.take_action(np.zeros(FEATURES)) for _ in [model.reset()] * 20}
    for _ in range(20):
        model.reset()
        seen.add(model.take_action(np.zeros(FEATURES)))
    assert len(seen) == 1
    model.add_memory_ppo(0.0, False)
    assert model.train_step() == 0.0
    assert (len(model.memory), model.updates) == (kept, updates)
    model.take_action(np.zeros(FEATURES))
    assert model.train_step() == 0.0  # nobody waits for an outcome
    model.training = True
    model.take_action(np.zeros(FEATURES))
    assert model.buffer.starts[model.buffer.written[0]]


def test_action_masks_forbid_actions():
    space = spaces.Dict({"numbers": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(4)})
    agent = RecurrentIQN(space, spaces.Discrete(4), 8, seed=0, num_envs=2, **SMALL)
    mask, seen = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=np.int8), [set(), set()]
    for step in range(24):
        agent.set_epsilon(float(step < 16))
        actions = agent.take_action({"numbers": np.full((2, 2), step / 24), "action_mask": mask})
        for row in (0, 1):
            seen[row].add(int(actions[row]))
        agent.add_memory_ppo(np.zeros(2), np.zeros(2, dtype=bool))
    assert seen == [{0, 3}, {1, 2}]
    assert agent.train_step() > 0


def test_the_signature_shows_every_option():
    names = list(inspect.signature(RecurrentIQN).parameters)
    assert names[:7] == ["observation_space", "action_space", "layer_size", "epsilon", "epsilon_min", "device", "seed"]
    assert {"core", "num_steps", "gamma", "kappa", "priority_exponent", "action_names", "dueling"} <= set(names)
    assert "update" not in names
