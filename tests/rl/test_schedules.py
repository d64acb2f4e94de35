"""Schedules at their beginning, middle and end, worked out by hand; the rule of RSL-RL; what was said before."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import RecurrentIQN, RecurrentPPO, load_agent
from rl.checkpoint import load_checkpoint, save_checkpoint
from rl.schedules import adapted, check_length, scheduled, translated, value_at
from rl.training.distributed import Ranks
from rl.training.sharing import join

MIDDLE = 0.5 * (1 + math.cos(math.pi / 4))  # what is left of a cosine after a quarter: 0.85355

# --------------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("schedule", "final", "values"),
    [  # at the beginning, after a quarter, after a half, at the end, beyond
        ("constant", None, [0.8, 0.8, 0.8, 0.8, 0.8]),
        ("adaptive", None, [0.8, 0.8, 0.8, 0.8, 0.8]),
        ("linear", None, [0.8, 0.6, 0.4, 0.0, 0.0]),
        ("linear", 0.4, [0.8, 0.7, 0.6, 0.4, 0.4]),
        ("linear", 1.2, [0.8, 0.9, 1.0, 1.2, 1.2]),
        ("cosine", None, [0.8, 0.8 * MIDDLE, 0.4, 0.0, 0.0]),
        ("cosine", 0.4, [0.8, 0.4 + 0.4 * MIDDLE, 0.6, 0.4, 0.4]),
    ],
)
def test_values_by_hand(schedule, final, values):
    assert [value_at(p, schedule, 0.8, final) for p in (0.0, 0.25, 0.5, 1.0, 1.5)] == pytest.approx(values, abs=1e-15)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [  # at 0, 0.1, just before the end of the warm-up of 0.2, at its end, in the middle of the rest, at the end
        ("constant", [0.1, 0.55, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.1, 0.55, 1.0, 1.0, 0.5, 0.0]),
        ("cosine", [0.1, 0.55, 1.0, 1.0, 0.5, 0.0]),
    ],
)
def test_a_warm_up_rises_from_a_tenth_and_what_falls_begins_where_it_ends(schedule, values):
    found = [value_at(p, schedule, 1.0, None, warmup=0.2) for p in (0.0, 0.1, 0.2 - 1e-9, 0.2, 0.6, 1.0)]
    assert found == pytest.approx(values, abs=1e-7)


def test_a_hyperparameter_is_read_with_what_stands_beside_it():
    options = SimpleNamespace(a=2.0, a_schedule="linear", a_final=1.0, b=3.0, b_schedule="constant", b_final=None)
    options.b_warmup = 0.5
    assert (scheduled(options, "a", 0.5), scheduled(options, "b", 0.25)) == (1.5, pytest.approx(1.65))


@pytest.mark.parametrize(
    ("rate", "kl", "expected"),
    [  # a divergence of 0.01 is desired, rates from 1e-5 to 1e-2 are allowed
        (3e-3, 0.0201, 2e-3),
        (3e-3, 0.0199, 3e-3),
        (3e-3, 0.0051, 3e-3),
        (3e-3, 0.0049, 4.5e-3),
        (3e-3, 0.0, 3e-3),
        (3e-3, math.nan, 3e-3),
        (3e-3, math.inf, 2e-3),
        (9e-3, 1e-4, 1e-2),
        (1.2e-5, 1.0, 1e-5),
    ],
)
def test_the_rule_of_rsl_rl_by_hand(rate, kl, expected):
    given = torch.tensor(rate)
    found = adapted(given, torch.tensor(kl), 0.01, 1e-5, 1e-2)
    assert found is not given
    assert found.item() == pytest.approx(expected, rel=1e-6)


# --------------------------------------------------------------------------------------------------------------- agents

OBS, FOUR = spaces.Box(-1.0, 1.0, (3,)), spaces.Discrete(4)
SMALL = {"num_envs": 4, "num_steps": 8, "bptt": 4, "seed": 0, "core": partial(cores.gru, hidden_size=4)}
ADAPTIVE = SMALL | {"num_minibatches": 2, "epochs": 2, "learning_rate_schedule": "adaptive"}


def play(agent, updates, seed=0):
    """Play and learn; the learning rates that were reported."""
    rng, rates = np.random.default_rng(seed), []
    for _ in range(updates):
        for _ in range(agent.num_steps):
            agent.act(rng.normal(size=(agent.num_envs, 3)).astype(np.float32))
            agent.observe(rng.normal(size=agent.num_envs), rng.random(agent.num_envs) < 0.2)
        agent.learn(rng.normal(size=(agent.num_envs, 3)).astype(np.float32))
        rates.append(agent.last_metrics["learning_rate"])
    return rates


@pytest.mark.parametrize(
    ("desired_kl", "factor"), [(1e3, 1.5), (1e-12, 1 / 1.5)], ids=["too small a step", "too large a step"]
)
def test_an_adaptive_rate_changes_before_each_minibatch_but_the_first_of_an_update(desired_kl, factor):
    """Four minibatches an update: three changes, then six."""
    agent = RecurrentPPO(OBS, FOUR, **ADAPTIVE, learning_rate=1e-3, learning_rate_max=1.0, desired_kl=desired_kl)
    assert play(agent, 2) == pytest.approx([1e-3 * factor**3, 1e-3 * factor**6], rel=1e-5)
    assert agent.optimizer.param_groups[0]["lr"] == agent.last_metrics["learning_rate"]


def test_an_adaptive_rate_is_stored_and_gone_on_with(tmp_path):
    options = ADAPTIVE | {"desired_kl": 1e3, "learning_rate": 1e-3}
    agent, other = RecurrentPPO(OBS, FOUR, **options), RecurrentPPO(OBS, FOUR, **options | {"learning_rate": 1e-4})
    play(agent, 1)
    agent.save(tmp_path / "agent.pt")
    other.load(tmp_path / "agent.pt")
    assert play(agent, 1, seed=1) == play(other, 1, seed=1)
    for one, same in zip(agent.network.parameters(), other.network.parameters(), strict=True):
        assert torch.equal(one, same)


def test_an_update_that_fails_leaves_the_adaptive_rate_as_it_was():
    agent = RecurrentPPO(OBS, FOUR, **ADAPTIVE, learning_rate=1e-3, desired_kl=1e3)
    (rate,) = play(agent, 1)
    loss, calls = agent.ppo.loss, []

    def broken(*arguments):
        value, metrics = loss(*arguments)
        calls.append(value)
        return value * (math.nan if len(calls) == 3 else 1.0), metrics

    agent.ppo.loss = broken
    with pytest.raises(FloatingPointError):
        play(agent, 1)
    assert len(calls) == 4
    assert agent.optimizer.param_groups[0]["lr"] == rate


def test_shards_adapt_to_their_mean_divergence():
    """Beside each other they play otherwise, so that alone they would come to other rates."""
    agents = [RecurrentPPO(OBS, FOUR, **ADAPTIVE, learning_rate=5e-3, desired_kl=2e-4) for _ in range(2)]
    alone = [RecurrentPPO(OBS, FOUR, **ADAPTIVE, learning_rate=5e-3, desired_kl=2e-4) for _ in range(2)]
    rates, ranks = [[], []], Ranks()
    shards = ranks.deal(2)

    def work(shard):
        join(agents[shard.index], shard)
        rates[shard.index] = play(agents[shard.index], 4, seed=shard.index)

    ranks.run([partial(work, shard) for shard in shards], shards)
    apart = [play(agent, 4, seed=index) for index, agent in enumerate(alone)]
    assert rates[0] == rates[1] and apart[0] != apart[1]
    assert len(set(rates[0])) > 1
    for one, other in zip(*(agent.network.parameters() for agent in agents), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN])
def test_a_warm_up_needs_to_know_how_long_training_is(kind):
    with pytest.raises(
        ValueError, match=r"^learning_rate_warmup=0\.1: it is a share of training, so it needs total_steps"
    ):
        kind(OBS, FOUR, **SMALL, learning_rate_warmup=0.1)
    kind(OBS, FOUR, **SMALL, learning_rate_warmup=0.1, total_steps=100)
    check_length(SimpleNamespace(learning_rate_warmup=0.0), None)


def test_what_follows_a_schedule_is_reported():
    falls = {"clip_schedule": "linear", "entropy_coef_schedule": "cosine", "learning_rate_warmup": 0.5}
    agent = RecurrentPPO(OBS, FOUR, **SMALL, **falls, num_minibatches=2, learning_rate=1e-2, total_steps=128)
    play(agent, 2)  # the second begins after 32 of 128 steps
    expected = {"clip": 0.15, "entropy_coef": 0.01 * MIDDLE, "learning_rate": 1e-2 * 0.55}
    assert {name: agent.last_metrics[name] for name in expected} == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------ what was said before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"anneal_learning_rate": True, "gamma": 0.9}, {"learning_rate_schedule": "linear", "gamma": 0.9}),
        ({"anneal_learning_rate": False}, {"learning_rate_schedule": "constant"}),
        ({"anneal_clip": True}, {"clip_schedule": "linear"}),
        ({"entropy_coef_final": 0.1}, {"entropy_coef_final": 0.1, "entropy_coef_schedule": "linear"}),
        ({"entropy_coef_final": None}, {"entropy_coef_final": None, "entropy_coef_schedule": "constant"}),
        ({"teacher_kl_final": 0.0}, {"teacher_kl_final": 0.0, "teacher_kl_schedule": "linear"}),
        ({"teacher_kl_final": None}, {"teacher_kl_final": None, "teacher_kl_schedule": "constant"}),
    ],
)
def test_earlier_words_are_translated_and_those_of_today_stay(before, after):
    assert translated(before) == after
    assert translated(after) == after


@pytest.mark.parametrize("kind", [RecurrentPPO, RecurrentIQN])
def test_a_checkpoint_of_before_says_its_schedules_in_its_words(kind, tmp_path):
    kind(OBS, FOUR, **SMALL).save(tmp_path / "agent.pt")
    content = load_checkpoint(tmp_path / "agent.pt")
    arguments = content["agent"]["construction"]["arguments"]
    new = [name for name in arguments if name.endswith(("_schedule", "_warmup")) or name.startswith("learning_rate_")]
    for name in new:
        del arguments[name]
    arguments |= {"anneal_learning_rate": True}
    if kind is RecurrentPPO:
        arguments |= {"anneal_clip": False, "entropy_coef_final": 0.0, "teacher_kl_final": None}
    save_checkpoint(content, tmp_path / "agent.pt")
    agent = load_agent(tmp_path / "agent.pt")
    update = agent.ppo if kind is RecurrentPPO else agent.iqn
    assert update.learning_rate_schedule == "linear"
    if kind is RecurrentPPO:
        found = update.clip_schedule, update.entropy_coef_schedule, update.teacher_kl_schedule
        assert found == ("constant", "linear", "constant")
