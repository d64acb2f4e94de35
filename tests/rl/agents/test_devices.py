"""Whole iterations on another device: what is learned there is what is learned on a CPU, and files go both ways.

With ``--device=shadow`` a machine without a GPU runs them, see ``tests/shadow.py``.
"""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import Player, cores, load_agent
from rl.agents import DualHeadRecurrentPPO, Population, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.networks.heads import CategoricalHead, GaussianHead
from rl.networks.quantile_network import EpsilonGreedyHead

B, T = 3, 8
BOX, FOUR = spaces.Box(-3.0, 3.0, (3,)), spaces.Discrete(4)
IMAGE = spaces.Box(0, 255, (8, 8, 3), np.uint8)
MIXED = spaces.Dict({"image": IMAGE, "place": spaces.MultiDiscrete([3, 5]), "speed": BOX})
MASKED = spaces.Dict({"action_mask": spaces.MultiBinary(7), "speed": BOX})
TOLERANCE = {"cpu": 0.0, "shadow": 1e-5, "cuda": 1e-4}

PPO = {"num_envs": B, "num_steps": T, "bptt": 4, "num_minibatches": 2, "epochs": 2}
IQN = {"num_envs": B, "num_steps": T, "bptt": 4, "burn_in": 2, "n_step": 2, "batch_size": 8, "learning_starts": 8}
IQN |= {"capacity": 600, "num_cosines": 8, "replay_ratio": 1.0, "total_steps": 48}
KINDS = {RecurrentIQN: IQN}


@pytest.fixture
def make(device, monkeypatch):
    """An agent on a device. Wherever it lies, it draws the actions that it would draw on a CPU."""
    draws = torch.Generator().manual_seed(0)
    for kind in (CategoricalHead, GaussianHead, EpsilonGreedyHead):
        sample = kind.sample

        def sample_on_cpu(head, params, generator, sample=sample):
            return sample(deepcopy(head).cpu(), params.cpu(), draws).to(params.device)

        monkeypatch.setattr(kind, "sample", sample_on_cpu)

    def build(
        on, kind=RecurrentPPO, core=cores.gru, observation_space=BOX, action_space=FOUR, core_options=None, **more
    ):
        draws.manual_seed(0)
        memory = partial(core, hidden_size=8, **(core_options or {}))
        options = {"layer_size": 8, "seed": 3, "core": memory, "device": on} | KINDS.get(kind, PPO) | more
        return kind(observation_space, action_space, **options)

    return build


@pytest.fixture
def play():
    """Rollouts of random observations, with ends of every kind, and what is learned from them."""

    def run(agent, iterations=2, seed=0, gaps=False):
        rng = np.random.default_rng(seed)
        space = agent.observation_space

        def observe():
            return draw(space, rng)

        obs = observe()
        for _ in range(iterations * T):
            agent.act(obs)
            obs, ends = observe(), rng.random((3, B)) < [[0.2], [0.2], [0.2 * gaps]]
            rewards = rng.normal(size=B).astype(np.float32)
            agent.observe(rewards, ends[0] & ~ends[2], ends[1] & ~ends[0] & ~ends[2], observe(), ends[2])
            agent.learn(obs)
        return agent

    return run


def draw(space, rng):
    """Draw a batch of observations of ``space``."""
    if isinstance(space, spaces.Dict):
        return {name: draw(part, rng) for name, part in space.spaces.items()}
    if isinstance(space, spaces.MultiBinary):  # a mask: something is always allowed
        return np.maximum(rng.integers(0, 2, (B, *space.shape)), np.arange(space.shape[0]) % 4 == 0).astype(np.int8)
    if isinstance(space, spaces.MultiDiscrete):
        return rng.integers(0, space.nvec, (B, len(space.nvec)))
    if isinstance(space, spaces.Discrete):
        return rng.integers(0, space.n, B)
    if space.dtype == np.uint8:
        return rng.integers(0, 256, (B, *space.shape)).astype(np.uint8)
    return rng.uniform(-3.0, 3.0, (B, *space.shape)).astype(np.float32)


@pytest.fixture
def check(make, play, device):
    """Two iterations on the device are those of a CPU: weights, metrics and memories."""

    def run(gaps=False, prepare=lambda agent: None, **options):
        if device.type == "cuda" and options.get("kind") is RecurrentIQN:
            pytest.skip("it draws its quantiles on the device, and a GPU draws others")
        played = []
        for on in ("cpu", device):
            agent = make(on, **options)
            prepare(agent)
            played.append(play(agent, gaps=gaps))
        expected, found = played
        tolerance = TOLERANCE[device.type]
        for name, weights in found.network.state_dict().items():
            assert weights.device.type == device.type, name
            torch.testing.assert_close(weights.cpu(), expected.network.state_dict()[name], rtol=0, atol=tolerance)
        for name, leaf in found.actor.state.items():
            torch.testing.assert_close(leaf.cpu(), expected.actor.state[name], rtol=0, atol=10 * tolerance)
        assert found.updates == expected.updates > 0
        for name, value in expected.last_metrics.items():
            assert found.last_metrics[name] == pytest.approx(value, abs=max(1e-3 * abs(value), 100 * tolerance)), name
        return found

    return run


@pytest.mark.parametrize("core", [getattr(cores, name) for name in cores.__all__], ids=cores.__all__)
@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN], ids=lambda kind: kind.__name__)
def test_every_core(kind, core, check):
    check(kind=kind, core=core, core_options={"num_layers": 2}, diagnostics_every=1)


@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (MIXED, spaces.MultiDiscrete([4, 3])),
        (spaces.Discrete(5, start=2), spaces.Box(-1.0, 1.0, (2,))),
        (MASKED, spaces.MultiDiscrete([4, 3])),
        (IMAGE, spaces.Discrete(3, start=1)),
    ],
    ids=["mixed", "discrete-box", "masked", "image"],
)
def test_every_observation_and_action(observation_space, action_space, check):
    check(observation_space=observation_space, action_space=action_space, previous_action_reward=True)


@pytest.mark.parametrize(
    "options",
    [
        {"separate_critic": True, "normalise_observations": True, "normalise_returns": True, "refresh_states": True},
        {"core_options": {"num_layers": 2, "dropout": 0.3}, "burn_in": 4, "value_clip": 0.2, "target_kl": 0.1},
        {"total_steps": 48, "learning_rate_schedule": "linear", "entropy_coef_schedule": "linear", "ratio": "per_head"},
        {"recall_coef": 0.1},
        {"gaps": True},
        {"gaps": True, "core": cores.lstm, "separate_critic": True, "previous_action_reward": True},
    ],
    ids=["scales", "dropout-burn-in", "schedules", "recall", "gaps", "gaps-lstm"],
)
def test_every_option(options, check):
    check(**options, action_space=spaces.MultiDiscrete([4, 3]))


def test_quantiles_with_every_option(check):
    options = {"priority_exponent": 0.9, "value_rescaling": True, "normalise_observations": True, "dueling": True}
    check(kind=RecurrentIQN, observation_space=MASKED, action_space=spaces.MultiDiscrete([4, 3]), **options)


def test_a_teacher(make, play, check, tmp_path):
    play(make("cpu")).save(tmp_path / "teacher.pt")
    found = check(prepare=lambda agent: agent.load_network(tmp_path / "teacher.pt"), teacher_kl=0.1)
    assert found.last_metrics["teacher_kl"] > 0


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentPPOLSTM, DualHeadRecurrentPPO, RecurrentIQN])
def test_a_checkpoint_goes_on_elsewhere(way, kind, make, play, device, tmp_path):
    """It plays as before, learns on, and is saved again; only its generators begin anew."""
    begins, ends = ("cpu", device) if way == "there" else (device, "cpu")
    action_space = spaces.MultiDiscrete([4, 3])
    agent = play(make(begins, kind, action_space=action_space, normalise_returns=True))
    agent.save(tmp_path / "agent.pt")
    again = load_agent(tmp_path / "agent.pt", device=ends, num_envs=B)
    assert {leaf.device.type for leaf in again.network.state_dict().values()} == {torch.device(ends).type}
    rng = np.random.default_rng(5)
    observations = [draw(BOX, rng) for _ in range(5)]
    agent.training = False
    for obs in observations:
        np.testing.assert_array_equal(again.act(obs), agent.act(obs))
    again.training = True
    updates = again.updates
    play(again, iterations=1, seed=1)
    assert again.updates > updates
    again.save(tmp_path / "again.pt")
    assert load_agent(tmp_path / "again.pt", device=begins, num_envs=B).updates == again.updates


def test_a_population(make, play, device):
    kinds = {
        "first": partial(RecurrentPPO, bptt=4, num_minibatches=2),
        "second": partial(RecurrentIQN, learning_starts=8),
    }
    sizes = {"num_envs": B, "num_steps": T, "seed": 3, "device": str(device)}
    found = play(Population(BOX, FOUR, kinds, ["first", "second", "first"], **sizes), iterations=8)
    assert all(member.updates for member in found.members.values())
    assert {leaf.device.type for leaf in found.network.state_dict().values()} == {device.type}


@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN], ids=lambda kind: kind.__name__)
def test_what_is_read_back(kind, device, shadow):
    """A step reads the actions, which the environment takes; learning what it reports, however many minibatches."""
    learned = []
    for times in (1, 3):
        more = {"epochs": times} if kind is RecurrentPPO else {"replay_ratio": float(times)}
        agent = kind(BOX, FOUR, 8, device=device, seed=3, diagnostics_every=None, **KINDS.get(kind, PPO) | more)
        rng, counts = np.random.default_rng(0), []
        for _ in range(4 * T):
            before = len(shadow.reads)
            agent.act(draw(BOX, rng))
            agent.observe(np.ones(B, np.float32), rng.random(B) < 0.2, rng.random(B) < 0.2, draw(BOX, rng))
            assert len(shadow.reads) == before + 1, shadow.reads[before:]
            updates = agent.updates
            agent.learn(draw(BOX, rng))
            if agent.updates > updates > 0:  # the first update also looks at the scales of the observations
                counts.append(len(shadow.reads) - before - 1)
        learned.append(counts)
    assert set(learned[0]) == set(learned[1])
    assert max(learned[0]) <= 3


def test_a_player(make, play, device, tmp_path):
    agent = play(make("cpu", RecurrentPPOLSTM))
    agent.save(tmp_path / "agent.pt")
    obs = draw(BOX, np.random.default_rng(0))
    players = [Player(tmp_path / "agent.pt", device=on) for on in ("cpu", str(device))]
    for _ in range(4):
        np.testing.assert_array_equal(*(player.act(obs) for player in players))
