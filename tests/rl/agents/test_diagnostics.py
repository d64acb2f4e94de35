"""Agents measure what their memories do, as often as they are told, and learn the same."""

import logging
from functools import partial

import pytest
import torch

from envs.probes import Counter, SpaceProbe
from envs.t_maze import TMaze
from rl import cores
from rl.agents import Population, RecurrentIQN, RecurrentPPO, RecurrentPPOLSTM
from rl.networks.diagnostics import NAMES
from rl.training.stepping import VectorEnvAdapter

ALWAYS = {"state_staleness", "hidden_norm", "gate_saturation", "dead_features", "gradient_share_older_than_1"}


def measured(metrics):
    return {name for name in metrics if name in NAMES}


def test_updates_between_are_not_diagnosed(make_agent, train_batched):
    agent = make_agent(Counter(3), num_envs=3, diagnostics_every=2)
    assert [measured(metrics) for metrics in train_batched(agent, Counter(3), 5)] == [ALWAYS, set()] * 2 + [ALWAYS]


def test_minibatches_of_a_quantile_network_are_counted(make_agent, train_batched):
    """Rollouts of 24 steps grant 3 minibatches of 8: the ones from 0, 6 and 12 on have one that 5 divides."""
    agent = make_agent(Counter(3), RecurrentIQN, num_envs=3, diagnostics_every=5, learning_starts=30)
    found, learned = [], []
    for _ in range(7):
        (metrics,) = train_batched(agent, Counter(3), 1)
        found.append(bool(measured(metrics)))
        learned.append(agent.updates)
    fresh = [any(n % 5 == 0 for n in range(a, b)) for a, b in zip([0, *learned], learned, strict=False)]
    assert found == fresh and {*found} == {True, False} and learned[-1] > 10


def test_without_an_interval_nothing_is_measured(learner, make_agent, train_batched):
    agent = make_agent(Counter(3), learner, num_envs=3, diagnostics_every=None)
    results = train_batched(agent, Counter(3), 3)
    assert agent.updates > 0
    assert not any(measured(metrics) for metrics in results)


@pytest.mark.parametrize("core", ["lstm", "gru", "mingru", "attention"])
def test_what_is_learned_does_not_depend_on_diagnostics(core, learner, make_agent, train_batched, assert_same):
    """Weights, moments, generators, memories and replay, bit by bit."""
    agents = []
    for every in (1, None):
        envs = SpaceProbe(3, "box", "discrete")
        options = {"previous_action_reward": True, "normalise_observations": True, "diagnostics_every": every}
        agents.append(make_agent(envs, learner, core, num_envs=3, **options))
        results = train_batched(agents[-1], envs, 4)
        assert bool(measured(results[-1])) == bool(every)
    assert_same(*agents)


def test_a_single_environment_is_diagnosed_too(learner, make_agent, play_turns):
    agent = make_agent(Counter(1), learner)
    play_turns(agent, 32, terminated=(20,))
    agent.learn()
    assert measured(agent.last_metrics) >= ALWAYS - {"state_staleness"}


def test_stale_states_show_in_training(make_agent, train_batched):
    """Hardly any step beside steps that are far too long."""
    careful, careless = (
        train_batched(make_agent(Counter(3), num_envs=3, learning_rate=rate), Counter(3), 1)[0]["state_staleness"]
        for rate in (1e-6, 0.1)
    )
    assert careful < 1e-3 and careless > 0.5


def test_steps_that_were_ignored_leave_no_state_after_the_rollout(make_agent, monkeypatch):
    """Closed up, the rollout ends where the memory is not: the state after it is known only if nothing is ignored."""
    seen = []
    monkeypatch.setattr(
        "rl.agents.recurrent_ppo.measure_staleness", lambda network, buffer, ppo, last: seen.append(last) or {}
    )
    for ignored in (False, True):
        agent = make_agent(Counter(2), num_envs=2)
        for step in range(8):
            agent.act([[0.0, 1.0], [0.5, -1.0]])
            agent.observe([0.0, 0.0], [False] * 2, ignored=[ignored and step == 3, False])
        agent.learn()
    known, unknown = seen
    assert known is not None and unknown is None
    assert known[0].keys() == {"h"} and known[1].tolist() == [False, False]


def test_a_gradient_that_is_cut_is_told_once_in_a_training(make_agent, train_batched, caplog):
    """Episodes last 21 steps, sequences 4."""
    envs = TMaze(3, length=20)
    agent = make_agent(envs, num_envs=3, num_steps=20, diagnostics_every=1)
    with caplog.at_level(logging.WARNING, "rl.agents.advice"):
        results = train_batched(agent, envs, 3)
    assert [metrics["gradient_share_older_than_8"] for metrics in results] == [0.0] * 3
    assert [line for line in caplog.messages if "older_than_8" in line] == [
        "diagnostics/gradient_share_older_than_8: the gradient does not reach 8 steps back: agent.bptt=4 cuts it, "
        "raise agent.bptt"
    ]


def test_members_of_a_population_have_names(caplog):
    """In the results, which become tags, and in what is told: of 12 steps without an end, 4 are a sequence."""
    envs = Counter(4, episode_length=20)
    small = {"bptt": 4, "num_minibatches": 2, "core": partial(cores.gru, hidden_size=8)}
    members = {"first": partial(RecurrentPPO, **small), "second": partial(RecurrentPPOLSTM, **small)}
    spaces = envs.single_observation_space, envs.single_action_space
    population = Population(*spaces, members, ["first", "second"], num_envs=4, num_steps=12, seed=0)
    stepper = VectorEnvAdapter(envs)
    obs = stepper.reset(0)
    for _ in range(12):
        step = stepper.step(population.act(obs))
        population.observe(step.rewards, step.terminated, step.truncated, step.final_obs, step.ignored)
        obs = step.obs
    population.learn(obs)
    names = {f"{member}/{name}" for member in members for name in ALWAYS}
    assert names <= population.last_metrics.keys()
    told = [line.partition(":")[0] for line in caplog.messages]
    assert told == [f"diagnostics/{member}/gradient_share_older_than_8" for member in members]


def test_an_overridden_rounding_is_no_wrong_replay(make_agent, train_batched, caplog):
    """Encoders in bfloat16 do not give the same numbers in other batches."""
    lines = []
    for precision in ("bfloat16", "float32"):
        agent = make_agent(Counter(3), num_envs=3, precision=precision)
        tell = agent.advisor.tell
        agent.advisor.tell = lambda metrics, precision, tell=tell: tell(metrics | {"ratio_error": 0.5}, precision)
        caplog.clear()
        train_batched(agent, Counter(3), 1)
        lines.append([line for line in caplog.messages if "ratio_error" in line])
    assert [len(part) for part in lines] == [0, 1]
    assert torch.isfinite(torch.tensor(agent.last_metrics["loss"]))
