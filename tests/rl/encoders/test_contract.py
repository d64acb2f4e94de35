"""What ``rl.types.FeatureEncoder`` promises, for every encoder, on every kind of observation, in every learner."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import encoders
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.networks import Encoder
from rl.spaces import leaf_arrays, leaf_spaces

LARGE, SMALL = spaces.Box(0, 255, (40, 36, 3), np.uint8), spaces.Box(0.0, 1.0, (1, 7, 7))
BESIDE = {"code": spaces.Discrete(3), "bits": spaces.MultiBinary(2), "numbers": spaces.Box(-1.0, 1.0, (2, 2))}
SPACES = {
    "large image": LARGE,
    "small image": SMALL,
    "stack of images": spaces.Box(0, 255, (4, 36, 36, 1), np.uint8),
    "vector": spaces.Box(-9.0, 9.0, (5,)),
    "code": spaces.Discrete(4, start=-1),
    "codes": spaces.MultiDiscrete([2, 3]),
    "image and others": spaces.Dict({"image": LARGE, **BESIDE}),
    "two images and others": spaces.Dict({"first": LARGE, "second": LARGE, **BESIDE}),
}
CHOSEN = [name for name in encoders.__all__ if name != "auto"]
NEEDS = {"nature": ("large", "stack", "image and", "two"), "impala": ("large", "small", "stack", "image and", "two")}
PAIRS = [(name, key) for name in CHOSEN for key in SPACES if key.startswith(NEEDS.get(name, ""))]


@pytest.fixture
def draw():
    """Leaves ``[count, *shape]`` of samples of a space."""

    def sample(space, count):
        space.seed(0)
        rows = [leaf_arrays(space, space.sample()) for _ in range(count)]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in leaf_spaces(space)}

    return sample


def make(name, space, **options):
    torch.manual_seed(0)
    return Encoder(leaf_spaces(space), 16, encoder=getattr(encoders, name), **options)


def test_every_encoder_is_known_here():
    """One that is added says here whether it needs an image; its own file has its reference."""
    assert set(encoders.__all__) == {"auto", "mlp", "nature", "impala", "plain"}


@pytest.mark.parametrize(("name", "key"), PAIRS)
def test_features_depend_on_every_leaf_and_not_on_the_leading_axes(name, key, draw, assert_close, device):
    encoder = make(name, SPACES[key]).to(device)
    obs = {leaf: rows.to(device) for leaf, rows in draw(SPACES[key], 4).items()}
    with torch.no_grad():
        features = encoder(obs)
        assert features.shape == (4, encoder.output_size)
        folded = encoder({leaf: rows.view(2, 2, *rows.shape[1:]) for leaf, rows in obs.items()})
        assert_close(folded, features.view(2, 2, -1), 1e-5)
        assert_close(encoder({leaf: rows[3] for leaf, rows in obs.items()}), features[3], 1e-5)
        for leaf, rows in obs.items():
            assert (encoder(obs | {leaf: rows.roll(1, 0)}) - features).abs().max() > 1e-3


@pytest.mark.parametrize("name", CHOSEN)
def test_an_encoder_is_given_clean_inputs(name, draw):
    """Images channels first, in 0 ... 1 before anything is normalised; codes one-hot; everything else flat."""
    encoder, seen = make(name, SPACES["image and others"]), {}
    encoder.chosen.register_forward_pre_hook(lambda module, given: seen.update(given[0]))
    obs = draw(SPACES["image and others"], 3)
    encoder({leaf: rows.unsqueeze(0) for leaf, rows in obs.items()})
    assert {leaf: tuple(rows.shape) for leaf, rows in seen.items()} == {
        "image": (3, 3, 40, 36),
        "code": (3, 3),
        "bits": (3, 2),
        "numbers": (3, 4),
    }
    assert torch.allclose(seen["image"], obs["image"].permute(0, 3, 1, 2) / 255)
    assert seen["code"].sum(-1).tolist() == [1.0] * 3
    assert torch.equal(seen["numbers"], obs["numbers"].flatten(1))
    encoder.update_moments(obs)
    encoder(obs)
    assert abs(seen["image"].mean()) < 1e-4 and abs(seen["image"].std() - 1) < 1e-2


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_where_there_is_no_image_a_sentence_says_so(name):
    with pytest.raises(
        ValueError, match=rf"^encoder {name} needs an image, and there is none among .*'obs': take auto"
    ):
        make(name, spaces.Box(-1.0, 1.0, (4,)))
    with pytest.raises(ValueError, match="needs an image"):
        make(name, LARGE, image_layout="flat")


@pytest.mark.parametrize("name", CHOSEN)
def test_an_encoder_is_described(name):
    lines = make(name, LARGE).describe()
    assert lines[0].startswith("observation 'obs': image 40x36, 3 channels, scaled by its bounds")
    assert lines[1].startswith(f"encoder: {name}, ") and lines[1].endswith(" parameters")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN])
def test_an_agent_acts_replays_and_learns_with_it(kind, name):
    """Each trunk has one of its own, previous action and reward are fed, and what was played is replayed exactly."""
    options = {"bptt": 4, "num_minibatches": 1, "epochs": 1, "separate_critic": True, "diagnostics_every": 1}
    if kind is RecurrentIQN:
        options = {"bptt": 4, "burn_in": 0, "n_step": 1, "batch_size": 8, "learning_starts": 1}
    space = SPACES["image and others"]
    encoder = getattr(encoders, name)
    agent = kind(
        *(space, spaces.Discrete(3), 8),
        **{"encoder": encoder, "num_envs": 2, "num_steps": 4, "seed": 0, "previous_action_reward": True} | options,
    )
    space.seed(0)
    network = agent.network
    trunks = [network.trunk] if kind is RecurrentIQN else [network.actor, network.critic]
    assert all(trunk.encoder.chosen is not None for trunk in trunks)
    before = [parameter.detach().clone() for trunk in trunks for parameter in trunk.encoder.chosen.parameters()]
    batch = {key: np.stack([space[key].sample() for _ in range(2)]) for key in space}
    for t in range(12):
        agent.act(batch)
        agent.observe(np.arange(2.0) + t, np.array([False, t == 1]))
        if t % 4 == 3:
            agent.learn(batch)
    assert agent.updates and (kind is RecurrentIQN or agent.last_metrics["ratio_error"] < 1e-5)
    after = [parameter for trunk in trunks for parameter in trunk.encoder.chosen.parameters()]
    changed = [not torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert any(changed) or not changed  # plain has no weights


@pytest.mark.parametrize("options", [{"widths": [8, 4], "activation": "relu", "layer_norm": True}, {}], ids=str)
def test_options_reach_the_encoder(options):
    space = spaces.Box(-1.0, 1.0, (3,))
    encoder = Encoder(leaf_spaces(space), encoder=partial(encoders.mlp, **options))
    assert encoder.output_size == options.get("widths", [64])[-1]
