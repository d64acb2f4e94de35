"""Construction from plain sizes with the names of older agents."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import DualHeadRecurrentPPO, RecurrentIQN, RecurrentPPOLSTM
from rl.agents.client_options import (
    SINGLE_ENV_DEFAULTS,
    as_spaces,
    translate_options,
    translate_quantile_options,
    uses_client_options,
)
from rl.networks.encoders import ImageEncoder, VectorEncoder

NAMED = (DualHeadRecurrentPPO, RecurrentPPOLSTM)
every_named = pytest.mark.parametrize("kind", NAMED, ids=lambda kind: kind.__name__)


@pytest.fixture
def translate():
    """The options that a recurrent PPO agent of 10 inputs and 7 actions gets for these."""
    return lambda **options: translate_options(10, 7, cores.gru, options)[3]


@pytest.fixture
def translate_quantiles():
    """All that a quantile network of 10 inputs and 7 actions gets for these."""
    return lambda layer_size=64, image_layout="auto", **options: translate_quantile_options(
        10, 7, cores.gru, layer_size, image_layout, options
    )


# ------------------------------------------------------------------------------------------------- names and defaults


@pytest.mark.parametrize("kind", [*NAMED, RecurrentIQN], ids=lambda kind: kind.__name__)
def test_positional_and_keyword_construction_agree(kind, same_weights):
    """(input_size, action_space, layer_size, epsilon, epsilon_min, device, seed), as the older agents had them."""
    positional = kind(10, 7, 32, 0.5, 0.01, "cpu", 3, hidden_size=8)
    named = {"input_size": 10, "action_space": 7, "layer_size": 32, "epsilon": 0.5, "epsilon_min": 0.01}
    keyword = kind(**named, device="cpu", seed=3, hidden_size=8)
    for agent in (positional, keyword):
        assert agent.observation_space.shape == (10,)
        assert (agent.layer_size, agent.epsilon, agent.epsilon_min) == (32, 0.5, 0.01)
        assert agent.device == torch.device("cpu")
        assert not agent.batched
    assert same_weights(positional, keyword)


def test_older_names_reach_the_hyperparameters():
    agent = RecurrentPPOLSTM(
        10, 7, gamma=0.95, lr=2.5e-4, clip_param=0.1, K_epochs=3, batch_size=16, max_grad_norm=0.4, gae_lambda=0.9,
        rollout_length=48, entropy_start=0.05, hidden_size=24, normalise_returns=False,
    )  # fmt: skip
    ppo = agent.ppo
    assert (ppo.gamma, ppo.learning_rate, ppo.clip, ppo.epochs) == (0.95, 2.5e-4, 0.1, 3)
    assert (ppo.max_grad_norm, ppo.gae_lambda, ppo.entropy_coef) == (0.4, 0.9, 0.05)
    assert (agent.num_steps, ppo.num_minibatches, agent.batch_size) == (48, 3, 16)
    assert agent.network.actor.core.output_size == 24
    assert agent.return_scale is None


def test_defaults_of_sizes():
    """100 turns in batches of 64: two minibatches, as 100 / 64 is nearest to 2; memories of 256 units."""
    agent = RecurrentPPOLSTM(10, 7)
    assert (agent.num_steps, agent.ppo.num_minibatches) == (100, 2)
    assert agent.network.actor.core.output_size == 256
    assert SINGLE_ENV_DEFAULTS == {"normalise_returns": True, "gae_lambda": 0.8}


@every_named
def test_sizes_have_defaults_that_suit_one_environment_and_spaces_have_not(kind):
    sizes = kind(10, 7, hidden_size=8)
    assert sizes.return_scale is not None
    assert sizes.ppo.gae_lambda == 0.8
    plain = kind(spaces.Box(-1, 1, (10,)), spaces.Discrete(7))
    assert plain.return_scale is None
    assert plain.ppo.gae_lambda == 0.95


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (100, 2)),
        ({"rollout_length": 40}, (40, 1)),  # 40 / 64 is nearest to 1
        ({"rollout_length": 5, "batch_size": 64}, (5, 1)),
        ({"rollout_length": 48, "batch_size": 16}, (48, 3)),
        ({"rollout_length": 48, "num_steps": 32, "num_minibatches": 5}, (32, 5)),  # the plain names go first
    ],
)
def test_a_rollout_has_the_length_asked_for_and_as_many_minibatches_as_fit(translate, options, expected):
    translated = translate(**options)
    assert (translated["num_steps"], translated["num_minibatches"]) == expected
    assert not {"rollout_length", "batch_size"} & translated.keys()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"entropy_start": 0.1, "entropy_end": 0.01, "entropy_decay_steps": 4, "rollout_length": 10}, (0.1, 0.01, 40)),
        ({"entropy_start": 0.1, "entropy_end": 0.0, "entropy_decay_steps": 4}, (0.1, 0.0, 400)),
        ({"entropy_start": 0.1}, (0.1, None, None)),
        ({"entropy_start": 0.1, "entropy_end": 0.0}, (0.1, None, None)),
        ({"entropy_start": 0.1, "entropy_end": 0.0, "entropy_decay_steps": 0}, (0.1, None, None)),
    ],
)
def test_entropy_falls_over_as_many_updates_as_asked_for(translate, options, expected):
    """Counted in environment steps; without a number of updates it stays."""
    translated = translate(**options)
    assert translated.get("entropy_coef_schedule") == (None if expected[1] is None else "linear")
    assert (translated["entropy_coef"], translated.get("entropy_coef_final"), translated.get("total_steps")) == expected
    assert not options.keys() - {"rollout_length"} & translated.keys()


@pytest.mark.parametrize(("given", "lines"), [(40, []), (None, []), (1000, ["total_steps=1000: schedules end after "])])
def test_another_end_of_the_schedules_is_told(translate, given, lines, caplog):
    translated = translate(entropy_end=0.0, entropy_decay_steps=4, rollout_length=10, total_steps=given)
    assert translated["total_steps"] == 40
    assert caplog.messages == [line + "entropy_decay_steps, 4 updates, at step 40" for line in lines]


def test_entropy_falls_with_every_update(play_turns):
    """From 0.1 to 0 in 4 updates of 10 turns: 0.1, 0.075, 0.05, 0.025, 0, 0."""
    agent = RecurrentPPOLSTM(
        2, 3, seed=0, hidden_size=4, rollout_length=10, batch_size=10, bptt=10, K_epochs=1,
        entropy_start=0.1, entropy_end=0.0, entropy_decay_steps=4, diagnostics_every=None,
    )  # fmt: skip
    seen, coefficients = [], agent.ppo.coefficients
    agent.ppo.coefficients = lambda progress: seen.append(coefficients(progress).entropy_coef) or coefficients(progress)
    for _ in range(6):
        play_turns(agent, 10)
        agent.learn()
    assert seen == pytest.approx([0.1, 0.075, 0.05, 0.025, 0.0, 0.0])


def test_other_options_pass_through_and_what_is_given_is_not_changed():
    options = {"lr": 0.1, "gamma": 0.5, "num_envs": None}
    translated = translate_options(10, 7, cores.gru, options)[3]
    assert options == {"lr": 0.1, "gamma": 0.5, "num_envs": None}
    assert (translated["learning_rate"], translated["gamma"], translated["num_envs"]) == (0.1, 0.5, None)
    assert translated["image_layout"] == "channels_first"
    assert translate_options(10, 7, cores.gru, {"image_layout": "auto"})[3]["image_layout"] == "auto"


def test_the_memory_gets_the_size_asked_for():
    made = [translate_options(10, 7, partial(cores.gru, num_layers=2), size)[2](3) for size in ({}, {"hidden_size": 5})]
    assert [core.output_size for core in made] == [256, 5]
    assert [len(core.layers) for core in made] == [2, 2]


@pytest.mark.parametrize(
    ("space", "options", "expected"),
    [
        (10, {}, True),
        ((3, 5, 5), {}, True),
        (None, {"input_size": 10}, True),
        (spaces.Discrete(3), {"input_size": 10}, True),
        (spaces.Discrete(3), {"hidden_size": 10}, False),
    ],
    ids=str,
)
def test_sizes_are_told_from_spaces(space, options, expected):
    assert uses_client_options(space, options) is expected


def test_what_is_no_pair_of_spaces_is_refused():
    box, codes = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)
    assert as_spaces(box, codes) == (box, codes)
    for pair in ((box, 3), (2, codes)):
        with pytest.raises(ValueError, match="it must be a Gymnasium space beside"):
            as_spaces(*pair)
    with pytest.raises(ValueError, match="action_space=7: it must be a Gymnasium space beside Box"):
        RecurrentPPOLSTM(box, 7)


# --------------------------------------------------------------------------------------------------- quantile networks


def test_older_names_of_quantile_networks(translate_quantiles):
    *_, translated = translate_quantiles(
        LR=0.1, GAMMA=0.9, TAU=0.01, memory_size=300, n_quantiles=5, n_frames=4, sync_freq=7, model_update_freq=8
    )
    assert translated == {
        **{"learning_rate": 0.1, "gamma": 0.9, "target_share": 0.01, "capacity": 300, "num_quantiles": 5},
        **{"target_interval": 1, "batch_size": 64, "learning_starts": 64},
    }


def test_defaults_of_quantile_networks_from_sizes(translate_quantiles):
    """Memories as wide as the layers; a target network that moves only now and then unless its share is given."""
    observation_space, action_space, core, layout, translated = translate_quantiles(layer_size=24)
    assert (observation_space.shape, action_space, layout) == ((10,), spaces.Discrete(7), "channels_first")
    assert core(3).output_size == 24
    assert translated == {"batch_size": 64, "learning_starts": 64}
    assert translate_quantiles(hidden_size=5)[2](3).output_size == 5
    assert translate_quantiles(image_layout="channels_last")[3] == "channels_last"
    assert translate_quantiles(batch_size=16)[4] == {"batch_size": 16, "learning_starts": 16}
    assert translate_quantiles(batch_size=16, learning_starts=9)[4]["learning_starts"] == 9
    assert translate_quantiles(TAU=0.1, target_interval=5)[4]["target_interval"] == 5


# ------------------------------------------------------------------------------------------------------- observations


@every_named
def test_numbers_beside_an_image_reach_the_network(kind):
    """75 numbers of an image, 4 scalars: each of them changes the features."""
    agent = kind(79, 7, obs_dim=(3, 5, 5), hidden_size=8, seed=0)
    assert {name: space.shape for name, space in agent.leaves.items()} == {"image": (3, 5, 5), "scalars": (4,)}
    assert isinstance(agent.network.actor.encoder.parts[0], ImageEncoder)
    base = np.random.default_rng(0).standard_normal(79).astype(np.float32)
    features = [agent.network.actor.encoder(agent.actor.inputs(base))]
    for index in (0, 40, 74, 75, 76, 77, 78):
        changed = base.copy()
        changed[index] += 1.0
        features.append(agent.network.actor.encoder(agent.actor.inputs(changed)))
    assert len({tuple(row.flatten().tolist()) for row in features}) == len(features)


def test_the_numbers_of_an_image_go_first_and_in_order():
    agent = DualHeadRecurrentPPO(22, 7, obs_dim=(2, 3, 3), hidden_size=8)
    obs = agent.actor.inputs(np.arange(22.0))
    assert torch.equal(obs["image"], torch.arange(18.0).view(1, 2, 3, 3))
    assert torch.equal(obs["scalars"], torch.tensor([[18.0, 19.0, 20.0, 21.0]]))


@pytest.mark.parametrize(
    ("size", "options", "shape", "encoder"),
    [
        (75, {"obs_dim": (3, 5, 5)}, (3, 5, 5), ImageEncoder),
        ((3, 5, 5), {}, (3, 5, 5), ImageEncoder),
        ([3, 5, 5], {"obs_type": "image"}, (3, 5, 5), ImageEncoder),
        ((75,), {}, (75,), VectorEncoder),
        (75, {}, (75,), VectorEncoder),
        ((1, 75), {}, (75,), VectorEncoder),
        ((3, 5, 1), {}, (15,), VectorEncoder),
        ((3, 1, 5), {}, (15,), VectorEncoder),
        ((3, 5, 5), {"obs_type": "flattened"}, (75,), VectorEncoder),
        ((3, 5, 5), {"use_cnn": False}, (75,), VectorEncoder),
        ((3, 5, 5), {"use_cnn": True}, (3, 5, 5), ImageEncoder),
        (75, {"obs_dim": (3, 5, 5), "obs_type": "flattened"}, (75,), VectorEncoder),
        (608, {}, (608,), VectorEncoder),  # no shape is guessed from a size
        (605, {}, (605,), VectorEncoder),
    ],
)
def test_what_counts_as_an_image(capsys, size, options, shape, encoder):
    agent = RecurrentPPOLSTM(size, 7, hidden_size=8, **options)
    assert agent.observation_space.shape == shape
    (part,) = agent.network.actor.encoder.parts
    assert type(part) is encoder
    assert agent.memory.current_state().shape == (0, np.prod(shape))
    assert capsys.readouterr().out == ""
    agent.take_action(np.zeros(shape))


@every_named
@pytest.mark.parametrize("shape", [(3, 5, 5), (9, 9, 9), (27, 9, 9)])
def test_the_first_axis_of_obs_dim_is_the_channels_however_many(kind, shape):
    agent = kind(int(np.prod(shape)), 7, obs_dim=shape, hidden_size=8)
    part = agent.network.actor.encoder.parts[0]
    assert part.planes == shape[:1]
    assert part.layers[0].in_channels == shape[0]


# ------------------------------------------------------------------------------------------------------------- actions


@pytest.mark.parametrize("dims", ["5,3", [5, 3], (5, 3), "5, 3"])
def test_the_sizes_of_factors_in_any_form(dims):
    for codes in (15, np.int64(15)):
        translated = translate_options(10, codes, cores.gru, {"use_factored_actions": True, "action_dims": dims})
        assert translated[1] == spaces.MultiDiscrete([5, 3])
        assert not {"use_factored_actions", "action_dims"} & translated[3].keys()


def test_sizes_of_factors_that_are_not_asked_for_are_left():
    assert translate_options(10, 15, cores.gru, {"action_dims": (5, 3)})[1] == spaces.Discrete(15)


@pytest.mark.parametrize("arguments", [(np.prod((3, 5)), 7), (15, np.int64(7)), ((np.int64(3), 5), 7)])
def test_sizes_may_be_numpy_integers(arguments):
    """What np.prod and array shapes give."""
    observation_space, action_space, *_ = translate_options(*arguments, cores.gru, {})
    assert (observation_space.shape, action_space) == ((15,), spaces.Discrete(7))


# ------------------------------------------------------------------------------------------------ what cannot be built


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((0, 7), {}, r"input_size\[0\]=0: it must be a whole number of at least 1"),
        (((3, -5, 5), 7), {}, r"input_size\[1\]=-5"),
        ((2.5, 7), {}, r"input_size\[0\]=2.5"),
        ((None, 7), {}, "input_size is missing"),
        (((), 7), {}, "input_size is missing"),
        ((10, 0), {}, "action_space=0"),
        ((10,), {}, "action_space=None"),
        ((10, 7), {"obs_dim": (3, 5, 5)}, "holds 75 numbers, but input_size=10 only 10"),
        ((10, 7), {"obs_type": "image"}, r"give obs_dim=\(channels, height, width\)"),
        ((10, 7), {"obs_type": "pixels"}, "obs_type='pixels': it must be one of"),
        ((10, 7), {"use_factored_actions": True}, "need the size of each factor"),
        ((10, 7), {"use_factored_actions": True, "action_dims": (3, 0)}, r"action_dims=\[3, 0\]"),
        ((15, 7), {"use_factored_actions": True, "action_dims": "5,3"}, "make 15 codes, but action_space=7"),
        ((10, 15), {"use_factored_actions": True, "action_dims": "5,x"}, "action_dims=.*the size of each factor"),
        ((10, 15), {"use_factored_actions": True, "action_dims": "5,0"}, "action_dims=.*the size of each factor"),
        ((10, 15), {"use_factored_actions": True, "action_dims": ""}, "action_dims=.*the size of each factor"),
        ((10, 15), {"use_factored_actions": True, "action_dims": [5, -3]}, "action_dims=.*the size of each factor"),
        ((10, 7), {"rollout_length": 0}, "rollout_length=0"),
        ((10, 7), {"batch_size": 0}, "batch_size=0"),
        ((10, 7), {"hidden_size": 0}, "hidden_size=0"),
        ((10, 7), {"K_epochs": 0}, "epochs=0"),
        ((10, 7), {"lr": -1.0}, "learning_rate=-1"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused_in_a_sentence(arguments, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        RecurrentPPOLSTM(*arguments, **options)


def test_a_single_number_beside_an_image_is_kept():
    options = {"obs_dim": (3, 4, 4), "obs_type": "image"}
    space, *_ = translate_options(3 * 4 * 4 + 1, 7, cores.gru, options)
    assert isinstance(space, spaces.Dict)
    assert {name: leaf.shape for name, leaf in space.items()} == {"image": (3, 4, 4), "scalars": (1,)}
    space, *_ = translate_options(3 * 4 * 4, 7, cores.gru, options)
    assert space.shape == (3, 4, 4)


def test_a_decay_counted_in_updates_lasts_as_many_of_those_that_are_made():
    """Of 50 steps each, whatever the length would have been without ``num_steps``."""
    options = {"num_steps": 50, "entropy_end": 0.0, "entropy_decay_steps": 20}
    *_, translated = translate_options(4, 7, cores.gru, options)
    assert translated["total_steps"] == 1_000
