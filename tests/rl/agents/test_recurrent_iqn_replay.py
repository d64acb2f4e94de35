"""What a recurrent IQN stores of what it plays, and what it measures of it."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from envs.probes import Counter
from envs.single_env import SingleEnv
from rl.training.evaluation import evaluate
from rl.training.stepping import VectorEnvAdapter


@pytest.fixture
def stored():
    """What is stored of one environment: (observation, start, terminated, final, reward) of every entry."""

    def look(agent, env_id=0):
        replay = agent.buffer
        places = torch.arange(int(replay.written[env_id])) * replay.num_envs + env_id
        columns = (replay.starts, replay.terminated, replay.final, replay.rewards)
        flags = [column[places].tolist() for column in columns]
        return list(zip(replay.obs["obs"][places, 0].tolist(), *flags, strict=True))

    return look


# ---------------------------------------------------------------------------------------------------- what is stored


def test_episodes_that_terminate(make_iqn, collect_steps, stored):
    agent = make_iqn(Counter(2, [2, 3]), num_envs=2)
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
def test_episodes_that_are_cut_keep_what_they_led_to(make_iqn, collect_steps, stored, mode):
    """Environment b of a Counter ends after 2 and 3 steps, and shows 2 and 3 then. Late resets leave no trace."""
    if mode == "batched":
        envs = Counter(2, [2, 3], "truncated")
    else:
        made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end="truncated") for n in (2, 3)]
        envs = SyncVectorEnv(made, autoreset_mode=mode)
    agent = make_iqn(envs, num_envs=2)
    stepper = VectorEnvAdapter(envs)
    collect_steps(agent, stepper, stepper.reset(0), 13)
    envs.close()
    for env_id, length in enumerate((2, 3)):
        episode = [(count, count == 0, False, False, count) for count in range(length)]
        episode.append((length, False, False, True, 0))
        entries = stored(agent, env_id)
        assert len(entries) >= 9
        assert entries == (episode * 9)[: len(entries)]
    steps = sum(entry[3] is False for env_id in (0, 1) for entry in stored(agent, env_id))
    agent.learn()
    assert agent.env_steps == steps


def test_what_is_seen_at_a_cut_is_replayed_under_the_state_that_led_there(make_iqn, collect_steps):
    """States of all entries, recomputed from what is stored alone, are those that are stored, previous rewards too."""
    envs = Counter(3, [2, 3, 5], "truncated")
    agent = make_iqn(envs, num_envs=3, state_stride=1, previous_action_reward=True)
    with torch.no_grad():
        for parameter in agent.network.parameters():
            parameter.mul_(2)
    stepper = VectorEnvAdapter(envs)
    collect_steps(agent, stepper, stepper.reset(0), 12)
    replay = agent.buffer
    for env_id, length in enumerate((2, 3, 5)):
        places = torch.arange(int(replay.written[env_id])) * 3 + env_id
        obs = {name: leaf[places].unsqueeze(1) for name, leaf in replay.obs.items()}
        starts = replay.starts[places].unsqueeze(1)
        state = agent.network.initial_state(1)
        for t in range(len(places)):
            if not starts[t]:  # or it is cleared anyway
                torch.testing.assert_close(replay.state["h"][places[t]], state["h"][0])
            with torch.no_grad():
                _, _, state = agent.network.step({name: leaf[t] for name, leaf in obs.items()}, state, starts[t])
        finals = np.flatnonzero(replay.final[places])
        assert len(finals) >= 2
        assert obs["previous_reward"][finals, 0, 0].tolist() == [length - 1] * len(finals)  # of the last step
        assert (obs["previous_action"][finals] > 0).all()
        opens = np.flatnonzero(replay.starts[places])
        assert not obs["previous_action"][opens].any()


def test_where_it_is_not_told_what_followed_the_last_step_is_not_trained(make_iqn, stored):
    """A cut without final observation, an epoch that ends, an action that is dropped: the entry before is final."""
    agent = make_iqn(Counter(1), state_stride=1)
    for turn, end in enumerate(["go", "cut", "go", "reset", "go", "drop", "done", "go"]):
        agent.act(np.full(2, float(turn)))
        if end == "drop":
            agent.reset()
            continue
        agent.observe(1.0, end == "done", end == "cut")
        if end == "reset":
            agent.reset()
    entries = [(obs, start, terminated, final) for obs, start, terminated, final, _ in stored(agent)]
    assert entries == [
        (0, True, False, False), (1, False, False, True), (2, True, False, False), (3, False, False, True),
        (4, True, False, True), (6, True, True, False), (7, True, False, False),
    ]  # fmt: skip
    assert agent.rollout_size == 4


def test_late_resets_count_transitions_only(make_iqn, train_batched):
    """Episodes of 6 steps, each followed by an ignored one."""
    envs = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point", max_episode_steps=6)
    agent = make_iqn(envs, num_envs=4, num_steps=16)
    train_batched(agent, envs, 3)
    assert agent.env_steps == 4 * 3 * (16 - 2)


def test_environments_without_a_player_are_left_out(make_iqn, stored):
    """A player that is gone for two steps comes back with a new episode."""
    agent = make_iqn(Counter(2), num_envs=2)
    for step in range(5):
        gone = np.array([step in (2, 3), False])
        agent.act(np.full((2, 2), float(step)))
        agent.observe(np.ones(2), np.array([step == 1, False]), ignored=gone)
    assert [entry[:2] for entry in stored(agent, 0)] == [(0, True), (1, False), (4, True)]
    assert [entry[:2] for entry in stored(agent, 1)] == [(step, step == 0) for step in range(5)]


def test_a_refused_outcome_is_stored_once(make_iqn, stored):
    agent = make_iqn(Counter(1))
    agent.act(np.zeros(2))
    with pytest.raises(ValueError, match="is expected"):
        agent.observe(1.0, False, True, np.zeros(3))
    agent.observe(1.0, False, True, np.full(2, 2.0))
    assert [(entry[0], entry[3]) for entry in stored(agent)] == [(0.0, False), (2.0, True)]
    agent.learn()
    assert agent.env_steps == 1


def test_playing_without_learning_stores_nothing_and_ends_the_episode(make_iqn, stored):
    """Nor is what was stored before counted as played."""
    agent = make_iqn(Counter(1))
    for turn, training in enumerate((True, True, False, False, True)):
        agent.training = training
        agent.act(np.full(2, float(turn)))
        agent.observe(0.0, False)
        if not training:
            assert agent.learn() == agent.env_steps == 0
    assert [(entry[0], entry[1], entry[3]) for entry in stored(agent)] == [
        (0.0, True, False),
        (1.0, False, True),
        (4.0, True, False),
    ]


# -------------------------------------------------------------------------------------------------- what is measured


def test_moments_follow_what_is_played_in_training(make_iqn, train_batched):
    """2 environments of counts 0 to 3, twice: the first number has mean 1.5 and variance 1.25, the other 0.5, 0.25."""
    agent = make_iqn(Counter(2, 4), num_envs=2, normalise_observations=True)
    mine, behind = (network.trunk.encoder.parts[0].moments for network in (agent.network, agent.target))
    for calls in (1, 2):
        train_batched(agent, Counter(2, 4), 1)
        for moments in (mine, behind):
            assert moments.count == calls * 16
            torch.testing.assert_close(moments.mean, torch.tensor([1.5, 0.5]))
            torch.testing.assert_close(moments.var, torch.tensor([1.25, 0.25]))
    evaluate(agent, Counter(3, 4), 6, seed=0)
    assert mine.count == 32


def test_returns_are_measured_as_they_come(make_iqn):
    """4; 0 + 2 = 2; 1 + 1 = 2; 3 + 1 = 4; no step; an episode begins: 8. Play without learning does not count."""
    agent = make_iqn(Counter(1), num_envs=1, normalise_returns=True, gamma=0.5)
    obs = np.zeros((1, *agent.observation_space.shape))
    for reward, done in ((4.0, False), (0.0, False), (1.0, False), (3.0, True), (None, False), (8.0, False)):
        agent.act(obs)
        agent.observe([reward or 0.0], [done], ignored=[reward is None])
    agent.training = False
    agent.act(obs)
    agent.observe([99.0], [False])
    moments = agent.return_scale.moments
    assert moments.count == 5
    assert moments.var.item() == pytest.approx(np.var([4.0, 2.0, 2.0, 4.0, 8.0]))
    factor = 1 / np.std([4.0, 2.0, 2.0, 4.0, 8.0])
    assert agent.return_scale(torch.tensor([2.0])).item() == pytest.approx(2.0 * factor)
