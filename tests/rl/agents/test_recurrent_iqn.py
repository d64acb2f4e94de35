"""Recurrent IQN: its options, exploration, how much it learns and what it reports.

What it shares with recurrent PPO stands in ``test_agent*.py``, the words of its clients in ``test_client.py``.
"""

import inspect
from dataclasses import fields

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.probes import Counter, SpaceProbe
from envs.single_env import SingleEnv
from rl import cores, load_agent
from rl.agents import RecurrentIQN
from rl.iqn import IQN
from rl.training.stepping import VectorEnvAdapter

OBSERVATIONS = ("box", "image", "image_last", "discrete", "dict", "tuple")
CASES = [  # every core, every observation, both actions
    (core, OBSERVATIONS[row % 6], ("multi_discrete", "discrete")[row // 3 % 2])
    for row, core in enumerate(cores.__all__)
]
OBS, TWO = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(2)


# --------------------------------------------------------------------------------------- every space, core and form


@pytest.mark.parametrize(("core", "observation", "action"), CASES)
def test_every_space_and_every_core_acts_and_learns(
    make_iqn, train_batched, train_single, copy_weights, core, observation, action
):
    envs = SpaceProbe(3, observation, action)
    batched = make_iqn(envs, core=core, num_envs=3, previous_action_reward=True, normalise_observations=True)
    before = copy_weights(batched)
    assert train_batched(batched, envs, 2)[-1]["loss"] > 0
    assert batched.env_steps == 2 * 8 * 3
    after = copy_weights(batched)
    assert sum(not torch.equal(before[name], after[name]) for name in before) > len(before) / 2
    env = SingleEnv("envs.probes:SpaceProbe", observation=observation, action=action)
    single = make_iqn(env, core=core, burn_in=2)
    assert train_single(single, env, 2)[-1]["loss"] > 0
    assert single.env_steps == 16


def test_everything_lies_on_the_device_asked_for(make_iqn, train_batched, tmp_path, device):
    """And a checkpoint comes back onto it."""
    options = {"previous_action_reward": True, "normalise_observations": True, "priority_exponent": 0.6, "burn_in": 2}
    envs = SpaceProbe(3, "dict", "multi_discrete")
    agent, other = (make_iqn(envs, num_envs=3, device=str(device), seed=seed, **options) for seed in (0, 1))
    assert train_batched(agent, envs, 3)[-1]["loss"] > 0
    agent.save(tmp_path / "agent.pt")
    other.load(tmp_path / "agent.pt")
    for made in (agent, other):
        tensors = [*made.network.parameters(), *made.target.parameters(), *made.buffer.obs.values()]
        assert {leaf.device.type for leaf in [*tensors, *made.buffer.state.values()]} == {device.type}
    assert train_batched(other, envs, 1)[-1]["loss"] > 0


def test_images_stay_what_they_are(make_iqn):
    agent = make_iqn(SpaceProbe(2, "image"), num_envs=2)
    assert agent.buffer.obs["obs"].dtype == torch.uint8
    assert agent.buffer.size == 300


@pytest.mark.parametrize("leaf", ["previous_action", "previous_reward"])
def test_what_is_fed_of_the_step_before_reaches_the_network(make_iqn, leaf):
    agent = make_iqn(Counter(2), num_envs=2, previous_action_reward=True)
    obs = agent.actor.inputs(np.zeros((2, 2)))
    obs[leaf] = torch.tensor([[0], [1]], dtype=obs[leaf].dtype)
    values, _, _ = agent.network.step(obs, agent.network.initial_state(2), None)
    assert (values[0] - values[1]).abs().max() > 1e-6


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("option", [{"state_stride": 0}, {"exploration": 1.5}, {"gamma": 2.0}], ids=str)
def test_impossible_options_are_refused_in_a_sentence(make_iqn, option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name}={value}: it must be"):
        make_iqn((OBS, TWO), **option)


def test_a_replay_too_small_for_learning_to_start_is_refused(make_iqn):
    """It holds two sequences of each environment at least, one entry of which is being written."""
    sizes = {"num_envs": 4, "num_steps": 8, "bptt": 4, "burn_in": 0, "n_step": 1, "capacity": 100, "state_stride": 1}
    make_iqn((OBS, TWO), **sizes, learning_starts=96)
    with pytest.raises(
        ValueError, match=r"^learning_starts=97: with capacity=100 the replay holds at most 96 steps, so"
    ):
        make_iqn((OBS, TWO), **sizes, learning_starts=97)


def test_a_trained_agent_plays_in_fewer_environments_than_its_replay_asks_for(make_iqn, tmp_path):
    """A ring for each has place for two sequences, so 64 hold more; one of 1,000 entries is of no matter in play."""
    make_iqn((OBS, TWO), num_envs=64, capacity=1000, learning_starts=1000, bptt=16).save(tmp_path / "agent.pt")
    agent = load_agent(tmp_path / "agent.pt", num_envs=1)
    assert agent.act(np.zeros((1, 2), dtype=np.float32)).shape == (1,)
    with pytest.raises(ValueError, match=r"^learning_starts=1000: with capacity=1000 the replay holds at most 999"):
        agent.training = True


def test_learning_starts_and_goes_on_where_final_observations_fill_the_replay(make_iqn):
    """Every third step cuts an episode, so of a ring of 200 entries at most 150 are steps."""
    agent = make_iqn((OBS, TWO), num_envs=1, capacity=200, learning_starts=180, n_step=1)
    observations, updates = np.random.default_rng(0).uniform(-1, 1, (400, 1, 2)), []
    for step, observation in enumerate(observations):
        agent.act(observation)
        agent.observe(np.zeros(1), False, step % 3 == 2, observation)
        agent.learn()
        updates.append(agent.updates)
    assert updates[120] == 0 < updates[250] < updates[399] and agent.rollout_size < 180


def test_the_signature_shows_every_option():
    """Those of the agent in order, then every one of the update with its default."""
    signature = inspect.signature(RecurrentIQN)
    names = list(signature.parameters)
    assert names[:7] == ["observation_space", "action_space", "layer_size", "epsilon", "epsilon_min", "device", "seed"]
    own = {
        "core",
        "memory_span",
        "encoder",
        "num_envs",
        "num_steps",
        "total_steps",
        "exploration",
        "state_stride",
        "normalise_observations",
    }
    own |= {"normalise_returns", "previous_action_reward", "image_layout", "image_encoding"}
    own |= {"ignore_leaves", "action_names"}
    own |= {"num_cosines", "num_action_quantiles", "dueling", "diagnostics_every"}
    update = {field.name: field.default for field in fields(IQN)}
    assert set(names) == {*names[:7], *own, *update}
    assert {name: signature.parameters[name].default for name in update} == update


def test_every_option_reaches_its_place(make_iqn):
    """Each with a value that is not its default."""
    update = {"batch_size": 12, "bptt": 6, "burn_in": 1, "capacity": 900, "learning_starts": 7, "replay_ratio": 3.0}
    update |= {"gamma": 0.5, "n_step": 4, "num_quantiles": 5, "num_target_quantiles": 6, "kappa": 0.4}
    update |= {"reward_scale": 0.3, "value_rescaling": True, "target_interval": 9, "target_share": 0.2}
    update |= {"priority_exponent": 0.8, "priority_correction": 0.1, "priority_peak": 0.7, "learning_rate": 0.3}
    update |= {"learning_rate_schedule": "linear", "max_grad_norm": 2.0, "graphs": False}
    update |= {"learning_rate_final": 0.01, "learning_rate_warmup": 0.2}
    assert update.keys() == {field.name for field in fields(IQN)}
    space = spaces.Box(0, 1, (3, 9, 9))
    own = {"num_cosines": 5, "num_action_quantiles": 3, "dueling": True, "image_layout": "flat", "state_stride": 5}
    own |= {
        "total_steps": 5000,
        "exploration": 0.7,
        "normalise_observations": True,
        "action_names": ["turn"],
        "epsilon_min": 0.3,
    }
    agent = make_iqn((space, TWO), layer_size=11, **own, **update)
    assert agent.iqn == IQN(**update)
    assert (agent.buffer.length, agent.buffer.stride, agent.buffer.size) == (11, 5, 900)
    network = agent.network
    assert (network.embedding.in_features, len(network.midpoints), network.dueling) == (5, 3, True)
    assert network.trunk.encoder.parts[0].moments.mean.shape == (3 * 9 * 9,)
    assert network.trunk.encoder.layer.out_features == network.hidden.out_features == 11
    assert (network.head.branches, agent.exploration, agent.epsilon_min) == (("turn",), 0.7, 0.3)
    assert agent.optimizer.param_groups[0]["lr"] == 0.3
    assert make_iqn((OBS, TWO), bptt=6).buffer.stride == 3  # half of them
    assert make_iqn((OBS, TWO), bptt=1).buffer.stride == 1


def test_the_target_network_begins_as_a_copy(make_iqn):
    agent = make_iqn((OBS, TWO))
    for mine, theirs in zip(agent.network.parameters(), agent.target.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not agent.target.training


def test_an_update_of_ones_own_may_be_named(make_agent, train_batched):
    class Halved(IQN):
        def loss(self, *arguments):
            loss, metrics = super().loss(*arguments)
            return 0.5 * loss, metrics | {"whole": loss.detach()}

    class Agent(RecurrentIQN):
        algorithm = Halved

    agent = make_agent(Counter(3), Agent, num_envs=3)
    (metrics,) = train_batched(agent, Counter(3), 1)
    assert metrics["loss"] == pytest.approx(0.5 * metrics["whole"])


def test_older_names_reach_the_hyperparameters():
    """The names of an older quantile network beside plain sizes."""
    options = {"n_frames": 1, "n_step": 2, "sync_freq": 200, "model_update_freq": 4, "batch_size": 8, "bptt": 4}
    options |= {"memory_size": 200, "LR": 0.01, "TAU": 0.5, "GAMMA": 0.9, "n_quantiles": 4}
    agent = RecurrentIQN((1, 6), 3, 8, 0.7, 0.01, "cpu", 0, **options)
    iqn = agent.iqn
    assert (iqn.learning_rate, iqn.target_share, iqn.gamma, iqn.capacity) == (0.01, 0.5, 0.9, 200)
    assert (iqn.num_quantiles, iqn.n_step, iqn.batch_size, iqn.learning_starts) == (4, 2, 8, 8)
    assert iqn.target_interval == 1  # an older target network moves with every minibatch
    assert (agent.epsilon, agent.epsilon_min, agent.layer_size) == (0.7, 0.01, 8)
    assert agent.network.trunk.core.output_size == 8
    assert agent.observation_space.shape == (6,)
    assert agent.batch_size == 8
    factored = RecurrentIQN(6, 6, use_factored_actions=True, action_dims="2,3", core=cores.rnn, hidden_size=5)
    assert factored.action_space == spaces.MultiDiscrete([2, 3])
    assert factored.network.head.num_params == 6
    assert factored.network.trunk.core.output_size == 5
    assert factored.batch_size == 64
    image = RecurrentIQN(79, 7, obs_dim=(3, 5, 5), hidden_size=8)
    assert {name: space.shape for name, space in image.leaves.items()} == {"image": (3, 5, 5), "scalars": (4,)}


# --------------------------------------------------------------------------------------------------------- exploration


@pytest.mark.parametrize(
    ("exploration", "expected"), [(0.5, [1.0, 0.8, 0.6, 0.4, 0.2, 0.2]), (0.0, [1.0, 0.2, 0.2, 0.2, 0.2, 0.2])]
)
def test_epsilon_falls_by_its_schedule(make_iqn, collect_steps, exploration, expected):
    """From 1 to 0.2 over half of 192 steps, 24 at a time: what it is in the steps before each call of learn."""
    agent = make_iqn(Counter(3), num_envs=3, epsilon=1.0, epsilon_min=0.2, total_steps=192, exploration=exploration)
    stepper, seen = VectorEnvAdapter(Counter(3)), []
    obs = stepper.reset(0)
    for _ in range(6):
        seen.append(agent.epsilon)
        obs = collect_steps(agent, stepper, obs)
        agent.learn(obs)
    assert seen == pytest.approx(expected)


def test_epsilon_stays_without_total_steps(make_iqn, train_batched):
    agent = make_iqn(Counter(3), num_envs=3, epsilon=0.5, epsilon_min=0.4)
    train_batched(agent, Counter(3), 2)
    assert agent.epsilon == agent.network.head.epsilon == 0.5


def test_epsilon_is_the_share_of_random_actions(make_iqn):
    """Of 2 actions one is the best; with epsilon = 0.5 it is taken 3 times in 4."""
    agent = make_iqn(Counter(400), num_envs=400, epsilon=0.5)
    obs = np.zeros((400, 2), dtype=np.float32)
    actions = agent.act(obs)
    agent.reset()
    agent.training = False
    best = agent.act(obs)
    assert len(set(best.tolist())) == 1
    assert (actions == best).mean() == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 400) ** 0.5)


def test_playing_without_learning_is_greedy(make_iqn):
    agent = make_iqn((OBS, spaces.Discrete(5)), num_envs=100, epsilon=1.0)
    agent.training = False
    assert len(set(agent.act(np.zeros((100, 2))).tolist())) == 1


def test_forbidden_actions_are_neither_explored_nor_best(make_iqn):
    space = spaces.Dict({"numbers": OBS, "action_mask": spaces.MultiBinary(4)})
    agent = make_iqn((space, spaces.Discrete(4)), num_envs=2)
    mask, seen = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=np.int8), [set(), set()]
    for step in range(24):
        agent.epsilon = float(step < 16)
        for env_id, action in enumerate(agent.act({"numbers": np.full((2, 2), step / 24), "action_mask": mask})):
            seen[env_id].add(int(action))
        agent.observe(np.zeros(2), np.zeros(2, dtype=bool))
    assert seen == [{0, 3}, {1, 2}]
    assert agent.learn() > 0


# ------------------------------------------------------------------------------------------------ how much it learns


def test_metrics_of_an_update(make_iqn, train_batched):
    agent = make_iqn(Counter(3), num_envs=3, learning_rate=0.01, total_steps=96, learning_rate_schedule="linear")
    metrics = train_batched(agent, Counter(3), 2)[-1]
    assert metrics.keys() == {"loss", "quantile_loss", "q_mean", "grad_norm", "epsilon", "learning_rate"}
    assert metrics["loss"] == metrics["quantile_loss"]
    assert metrics["learning_rate"] == pytest.approx(0.005)  # half of the steps are over
    assert 0.05 < metrics["epsilon"] < 1.0


@pytest.mark.parametrize(("ratio", "updates"), [(1.0, [0, 1, 1, 2]), (4.0, [0, 4, 4, 4]), (2.5, [0, 2, 3, 2])])
def test_the_replay_ratio_grants_minibatches(make_iqn, collect_steps, ratio, updates):
    """Minibatches of 2 x 4 transitions, 8 steps of one environment at a time, the last time 16; 10 to begin with.

    What the first 8 would have granted is not owed later.
    """
    agent = make_iqn(Counter(1), num_envs=1, replay_ratio=ratio, learning_starts=10)
    stepper, counts = VectorEnvAdapter(Counter(1)), []
    obs = stepper.reset(0)
    for steps in (8, 8, 8, 8 if ratio > 1 else 16):
        obs, before = collect_steps(agent, stepper, obs, steps), agent.updates
        agent.learn(obs)
        counts.append(agent.updates - before)
    assert counts == updates


def test_nothing_is_learned_before_there_is_enough(make_iqn, collect_steps):
    """Sixty transitions at 24 a time; and never before a sequence is whole, however few are asked for."""
    agent = make_iqn(Counter(3), num_envs=3, learning_starts=60)
    long = make_iqn(Counter(3), num_envs=3, learning_starts=1, bptt=16)
    for learner, expected in ((agent, [False, False, True, True]), (long, [False, False, True, True])):
        stepper = VectorEnvAdapter(Counter(3))
        obs, learned = stepper.reset(0), []
        for _ in range(4):
            obs = collect_steps(learner, stepper, obs)
            learned.append(learner.learn(obs) > 0)
        assert learned == expected
        assert learner.env_steps == 96
    assert (agent.rollout_size, agent.batch_size, long.batch_size) == (96, 8, 16)
