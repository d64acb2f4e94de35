"""The hyperparameters of PPO: their names and types wherever they stand, and the values and sizes that are refused."""

import inspect
import math
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest
import torch

from rl.agents import RecurrentPPO
from rl.agents.recurrent_ppo_options import RecurrentPPOOptions
from rl.ppo import PPO
from rl.ppo.options import PPOOptions, check_rollout, choose_stride

# ---------------------------------------------------------------------------------------------------- alike everywhere


def test_the_options_are_the_fields_of_ppo():
    own = get_type_hints(PPO)
    assert get_type_hints(PPOOptions) == {field.name: own[field.name] for field in fields(PPO)}
    assert PPOOptions.__required_keys__ == set()


def test_the_options_of_the_agent_are_its_keywords():
    """All that must be named, but for the core, which the agents that pass them on take themselves."""
    parameters = inspect.signature(RecurrentPPO.__init__).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    types = get_type_hints(RecurrentPPO.__init__)
    expected = {name: types[name] for name in names if name != "core"}
    assert get_type_hints(RecurrentPPOOptions) == expected | get_type_hints(PPOOptions)
    assert RecurrentPPOOptions.__required_keys__ == set()


def test_the_defaults():
    """Changing one changes every training that does not name it: on purpose only."""
    assert {field.name: field.default for field in fields(PPO)} == {
        "epochs": 4,
        "num_minibatches": 8,
        "bptt": 32,
        "burn_in": 0,
        "refresh_states": False,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip": 0.2,
        "clip_schedule": "constant",
        "clip_final": None,
        "value_clip": None,
        "ratio": "joint",
        "value_coef": 0.5,
        "entropy_coef": 0.01,
        "entropy_coef_schedule": "constant",
        "entropy_coef_final": None,
        "teacher_kl": 0.0,
        "teacher_kl_schedule": "linear",
        "teacher_kl_final": None,
        "recall_coef": 0.0,
        "normalise_advantages": True,
        "target_kl": None,
        "learning_rate": 1.5e-3,
        "learning_rate_schedule": "constant",
        "learning_rate_final": None,
        "learning_rate_warmup": 0.0,
        "learning_rate_min": 1e-5,
        "learning_rate_max": 1e-2,
        "desired_kl": 0.01,
        "max_grad_norm": 0.5,
        "graphs": True,
        "recompute_parts": 1,
    }


# -------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("epochs", 0),
        ("num_minibatches", 0),
        ("num_minibatches", 1.5),
        ("bptt", 0),
        ("burn_in", -1),
        ("burn_in", 17),  # longer than bptt
        ("gamma", 1.1),
        ("gamma", -0.1),
        ("gae_lambda", -0.1),
        ("gae_lambda", 1.1),
        ("ratio", "both"),
        ("clip", 0.0),
        ("value_clip", -1.0),
        ("value_coef", -1.0),
        ("entropy_coef", math.nan),
        ("entropy_coef", -1.0),
        ("entropy_coef_final", -1.0),
        ("teacher_kl", -1.0),
        ("teacher_kl_final", -1.0),
        ("recall_coef", -1.0),
        ("target_kl", -1.0),
        ("learning_rate", 0.0),
        ("learning_rate_schedule", "cosinus"),
        ("learning_rate_final", -1.0),
        ("learning_rate_warmup", 1.0),
        ("learning_rate_min", 0.0),
        ("learning_rate_max", 0.0),
        ("desired_kl", 0.0),
        ("clip_schedule", "adaptive"),
        ("clip_final", -0.1),
        ("entropy_coef_schedule", True),
        ("max_grad_norm", math.inf),
        ("max_grad_norm", 0.0),
    ],
)
def test_a_bad_argument_is_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument}={value!r}: it must be"):
        PPO(**{"bptt": 16} | {argument: value})


def test_a_fraction_of_a_step_is_refused():
    with pytest.raises(ValueError, match=r"burn_in=1\.5"):
        PPO(burn_in=1.5)


KINDS = {field.name: get_type_hints(PPO)[field.name] for field in fields(PPO)}


@pytest.mark.parametrize(
    "argument",
    [name for name, kind in KINDS.items() if kind is not bool and type(None) not in get_args(kind)],
)
def test_none_is_refused_where_it_means_nothing(argument):
    """As a YAML file says ``null``."""
    with pytest.raises(ValueError, match=f"{argument}=None"):
        PPO(**{argument: None})


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 1, "num_minibatches": 1, "bptt": 1},
        {"bptt": None, "burn_in": 1000},
        {"bptt": 16, "burn_in": 16},
        {"gamma": 0.0, "gae_lambda": 0.0},
        {"gamma": 1.0, "gae_lambda": 1.0},
        {"value_coef": 0.0, "entropy_coef": 0.0, "value_clip": 0.0, "target_kl": 0.0},
        {"entropy_coef_schedule": "linear", "entropy_coef_final": 0.0, "teacher_kl_schedule": "constant"},
        {"learning_rate_schedule": "adaptive", "learning_rate": 1e-2},
        {"learning_rate_schedule": "cosine", "learning_rate_final": 0.0, "learning_rate_warmup": 0.99},
        {"refresh_states": True},
    ],
)
def test_values_at_the_ends_of_their_ranges_are_accepted(options):
    ppo = PPO(**options)
    assert {name: getattr(ppo, name) for name in options} == options


def test_burn_in_and_refresh_exclude_each_other():
    with pytest.raises(ValueError, match="burn_in and refresh_states"):
        PPO(burn_in=4, refresh_states=True)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"entropy_coef_final": 0.0},
            "entropy_coef_final=0.0: it goes with entropy_coef_schedule='linear' or 'cosine'",
        ),
        ({"learning_rate_schedule": "adaptive", "learning_rate_final": 0.1}, "not 'adaptive'"),
        ({"learning_rate_schedule": "adaptive", "learning_rate": 0.02}, "learning_rate=0.02: .* from 1e-05 to 0.01"),
        ({"learning_rate_schedule": "adaptive", "learning_rate_warmup": 0.1}, "learning_rate_warmup=0.1: .* use one"),
    ],
)
def test_what_a_schedule_does_not_use_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        PPO(**options)


# --------------------------------------------------------------------------------------------------------------- sizes


@pytest.fixture
def check():
    """Sizes of a rollout that fit each other, but for the changes."""

    def call(**changes):
        sizes = {"bptt": 8, "burn_in": 0, "num_minibatches": 12, "num_envs": 4, "num_steps": 24}
        check_rollout(**sizes | {"state_stride": 1, "fixed_size": True} | changes)

    return call


@pytest.mark.parametrize(
    ("length", "burn_in", "fixed_size", "width", "stride"),
    [(32, 0, True, 2048, 1), (32, 0, True, 2049, 32), (32, 24, True, 2049, 8), (32, 0, False, 2049, 1)],
)
def test_large_states_are_stored_where_sequences_and_their_warm_up_begin(length, burn_in, fixed_size, width, stride):
    """A state is large beyond 8,192 bytes."""
    state = {"h": torch.zeros(7, width - 2), "count": torch.zeros(7, 1, dtype=torch.int64)}
    assert choose_stride(None, length, burn_in, fixed_size, state) == stride


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bptt": 16}, "bptt=16 does not divide num_steps=24"),
        ({"bptt": 48}, "bptt=48 does not divide num_steps=24"),
        ({"state_stride": 8, "fixed_size": False}, "state_stride=8: one environment"),
        ({"state_stride": 3}, "state_stride=3 must divide bptt=8 and burn_in=0"),
        ({"state_stride": 4, "burn_in": 6}, "state_stride=4 must divide bptt=8 and burn_in=6"),
        ({"num_minibatches": 13}, "num_minibatches=13 is more than the 12 sequences"),
        ({"bptt": None, "num_minibatches": 5}, "num_minibatches=5 is more than the 4 sequences"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"state_stride": 0}, "state_stride=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes, message, check):
    with pytest.raises(ValueError, match=message):
        check(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"state_stride": 8},
        {"state_stride": 4, "burn_in": 4},
        {"bptt": None, "num_minibatches": 4},
        {"num_envs": 1, "num_steps": 23, "fixed_size": False},
        {"num_envs": 1, "num_steps": 5, "fixed_size": False},
    ],
)
def test_sizes_that_fit_are_accepted(changes, check):
    check(**changes)
