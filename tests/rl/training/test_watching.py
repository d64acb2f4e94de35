"""An episode that is watched is the one that an evaluation plays, and what is noted is what the agent has in mind."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.agent_rows import AgentRows
from envs.delayed_recall import DelayedRecall
from envs.late_reset import reset_late
from envs.repeat_previous import RepeatPrevious
from envs.state_punishment import StatePunishment
from envs.witness_vote import WitnessVote
from envs.wrapping import wrap_many
from rl.agents import DualHeadRecurrentPPO, Population, RecurrentIQN, RecurrentPPOLSTM
from rl.cores import attention, gru, lstm, mlp
from rl.networks.quantile_network import FORBIDDEN
from rl.training.evaluation import evaluate
from rl.training.watching import check_watchable, look, watch_episode


@pytest.fixture
def make_agent(randomise):
    """An agent of random weights, whose actions hang on what it has seen."""

    def make(envs, cls=RecurrentPPOLSTM, core=lstm, **options):
        one = envs.single_observation_space, envs.single_action_space
        agent = cls(*one, num_envs=8, seed=1, **{"core": partial(core, hidden_size=8)} | options)
        randomise(agent.network)
        return agent

    return make


REPEAT = partial(RepeatPrevious, 1, k=1, episode_length=12)
PUNISH = partial(StatePunishment, 1, num_agents=1, max_turns=12, flat=True)
KINDS = {  # whose returns hang on every action
    "lstm": (REPEAT, {}),
    "two heads": (PUNISH, {"cls": DualHeadRecurrentPPO, "core": gru}),
    "previous": (REPEAT, {"previous_action_reward": True}),
    "quantiles": (REPEAT, {"cls": RecurrentIQN, "core": gru}),
    "changed rewards": (lambda: wrap_many(REPEAT(), scale_rewards=3.0), {"previous_action_reward": True}),
}


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_episode_of_an_evaluation(make_agent, kind, greedy):
    """With the memory kept, and zeroed from the first step on: the same returns, lengths and thus actions."""
    make, options = KINDS[kind]
    agent = make_agent(make(), **options)
    returns = set()
    for seed in range(4):
        for zero_at, memory in ((None, True), (0, False)):
            watched = watch_episode(agent, make(), seed, greedy=greedy, zero_at=zero_at)
            played = evaluate(agent, make(), 1, seed, greedy=greedy, memory=memory)
            assert (watched.total, watched.length) == pytest.approx((played.mean, played.lengths[0]))
            returns.add(watched.total)
    assert len(returns) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_until_the_memory_is_zeroed_nothing_differs(make_agent, kind):
    """From then on the value is that of an agent that begins with what it sees in each step."""
    make, options = KINDS[kind]
    agent, envs = make_agent(make(), **options), make()
    kept, zeroed = (watch_episode(agent, envs, 5, zero_at=zero_at).tracks[0] for zero_at in (None, 4))
    assert kept.curves.keys() == zeroed.curves.keys()
    for name, values in kept.curves.items():
        assert values[:4].tolist() == zeroed.curves[name][:4].tolist()
        assert not np.isclose(values[4], zeroed.curves[name][4], rtol=1e-6, atol=0), name
    for step in (4, 5, 7):
        fresh = look(agent.new_actor(1), zeroed.observations[step][None])
        for name, values in fresh.curves.items():
            assert values[0] == pytest.approx(zeroed.curves[name][step], rel=1e-5), name


def test_what_is_noted_is_what_the_network_says(make_agent):
    agent = make_agent(WitnessVote(3), DualHeadRecurrentPPO, gru, action_names=("move", "vote"))
    watching, acting = agent.new_actor(3, seed=4), agent.new_actor(3, seed=4)
    envs = WitnessVote(3)
    obs, _ = envs.reset(seed=0)
    for greedy in (True, False, False):
        state, starts = watching.state, torch.as_tensor(watching.starts)
        params, values, after = agent.network.step({"obs": torch.tensor(obs)}, state, starts)
        glance = look(watching, obs, greedy)
        np.testing.assert_array_equal(glance.actions, acting.act(obs, greedy))
        expected = {"value": values, "norm/h": after["h"].square().sum(dim=(1, 2)).sqrt()}
        for name, logits in zip(("move", "vote"), params.split([3, 4], dim=1), strict=True):
            expected[f"entropy/{name}"] = torch.distributions.Categorical(logits=logits).entropy()
        assert glance.curves.keys() == expected.keys()
        for name, curve in expected.items():
            np.testing.assert_allclose(glance.curves[name], curve.detach().numpy(), rtol=1e-5, atol=1e-6)
        obs, rewards, terminated, truncated, _ = envs.step(glance.actions)
        for actor in (watching, acting):
            actor.observe(rewards.astype(np.float32), terminated | truncated)


def test_a_quantile_network_shows_the_mean_value_of_what_is_allowed(make_agent, monkeypatch):
    actor = make_agent(DelayedRecall(2), RecurrentIQN, gru).new_actor(2)
    values = torch.tensor([[1.0, FORBIDDEN, 4.0, 4.0], [2.0, 3.0, 7.0, 8.0]])
    monkeypatch.setattr(actor, "step", lambda obs, greedy: (values, values.amax(1), torch.zeros(2, 1).long()))
    curves = look(actor, np.zeros((2, 9), dtype=np.float32)).curves
    assert curves["mean_q"].tolist() == [3.0, 5.0] and curves["value"].tolist() == [4.0, 8.0]
    assert not any(name.startswith("entropy") for name in curves)


def test_agents_without_numbers_in_their_memory_have_no_norm(make_agent):
    """A core without memory has none, and counts are no part of it."""
    envs = DelayedRecall(1)
    for core, leaves in ((mlp, set()), (attention, {"norm/keys", "norm/values"})):
        curves = watch_episode(make_agent(envs, core=core), envs, 0).tracks[0].curves
        assert {name for name in curves if name.startswith("norm/")} == leaves


def test_steps_and_ends_are_noted(make_agent):
    """An episode of eleven steps that pays in the last one."""
    envs = reset_late(DelayedRecall(1))
    agent = make_agent(envs)
    watched = watch_episode(agent, envs, 3)
    track = watched.tracks[0]
    assert watched.length == len(track.observations) == len(track.actions) == 11 and track.end == "terminated"
    assert track.rewards[:10].tolist() == [0] * 10 and track.total == track.rewards[10] != 0
    obs, _ = DelayedRecall(1).reset(seed=3)
    assert track.observations[0].tolist() == obs[0].tolist()
    assert watch_episode(agent, envs, 3, max_steps=11).tracks[0].end == "terminated"
    cut = watch_episode(agent, envs, 3, max_steps=10).tracks[0]
    assert cut.end == "cut" and cut.actions == track.actions[:10]
    never = watch_episode(agent, envs, 3, zero_at=99).tracks[0]
    assert never.curves["value"].tolist() == track.curves["value"].tolist()


@pytest.mark.parametrize(("late", "count"), [(True, 12), (False, 11)])
def test_there_is_a_picture_of_the_end_where_it_can_be_had(make_agent, late, count):
    """Where the environment restarts in the step that ends the episode, the next episode must not be taken for it."""
    task = DelayedRecall(1)
    envs = reset_late(task) if late else task
    watched = watch_episode(make_agent(envs), envs, 3, draw=lambda: int(task.elapsed_steps[0]))
    assert watched.pictures == list(range(count))


def test_a_cut_episode_has_a_picture_of_where_it_stopped(make_agent):
    task = DelayedRecall(1)
    agent = make_agent(task)
    watched = watch_episode(agent, task, 3, max_steps=4, draw=lambda: int(task.elapsed_steps[0]))
    assert watched.pictures == [0, 1, 2, 3, 4]
    assert watch_episode(agent, task, 3).pictures == []


def test_the_agent_does_not_notice(make_agent):
    envs = DelayedRecall(1)
    agent = make_agent(envs)
    obs, _ = DelayedRecall(8).reset(seed=0)
    agent.act(obs)
    before = {name: leaf.clone() for name, leaf in agent.actor.state.items()}
    watch_episode(agent, DelayedRecall(1), 0)
    assert all(torch.equal(before[name], leaf) for name, leaf in agent.actor.state.items())
    assert agent.network.training


class Pair:
    """A world of two agents: the second one lives for two steps, the first one for four."""

    possible_agents, metadata = ("long", "short"), {}
    observation_space = staticmethod(lambda agent: spaces.Box(0.0, 9.0, (2,)))
    action_space = staticmethod(lambda agent: spaces.Discrete(2))

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        return self._observe(), {}

    def step(self, actions):
        self.time += 1
        ends = {"short": self.time == 2, "long": self.time == 4}
        paid = {"short": 10.0, "long": 1.0}
        told = {agent: self._observe()[agent] for agent in self.agents}
        acted = list(self.agents)
        self.agents = [agent for agent in acted if not ends[agent]]
        flags = {agent: ends[agent] for agent in acted}
        return told, {agent: paid[agent] for agent in acted}, flags, dict.fromkeys(acted, False), {}

    def _observe(self):
        return {agent: np.array([i, self.time], dtype=np.float32) for i, agent in enumerate(self.possible_agents)}

    def close(self):
        pass


def test_the_members_of_a_population_are_watched_in_the_first_world(make_agent):
    """The order is that of the rows; who is dead does not take part, and its numbers are its own."""
    envs = AgentRows(Pair, 4)
    core = partial(gru, hidden_size=8)
    members = {"b": partial(RecurrentIQN, core=core), "a": partial(DualHeadRecurrentPPO, core=core)}
    one = envs.single_observation_space, envs.single_action_space
    agent = Population(*one, members, ["a", "b"], num_envs=4, seed=1)
    check_watchable(agent)
    watched = watch_episode(agent, envs, 0)
    assert [(track.name, track.total, track.end) for track in watched.tracks] == [
        ("a", 4.0, "terminated"), ("b", 20.0, "terminated"),
    ]  # fmt: skip
    assert watched.total == 12.0 and watched.length == 4
    first, second = watched.tracks
    assert [seen.tolist() for seen in first.observations] == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert [seen.tolist() for seen in second.observations[:2]] == [[1, 0], [1, 1]]
    assert second.observations[2:] == second.actions[2:] == [None, None]
    assert "entropy/action" in first.curves and "mean_q" in second.curves and "mean_q" not in first.curves
    for values in (second.rewards, *second.curves.values()):
        assert np.isnan(values).tolist() == [False, False, True, True]
    fresh = look(agent.members["b"].new_actor(1), second.observations[0][None])
    assert fresh.curves["value"][0] == pytest.approx(second.curves["value"][0], rel=1e-5)


def test_what_cannot_be_watched_is_refused(make_agent):
    envs = DelayedRecall(1)
    agent = make_agent(envs)
    check_watchable(agent)
    with pytest.raises(ValueError, match=r"^zero_at=-1: it must be a whole number of at least 0$"):
        watch_episode(agent, envs, 0, zero_at=-1)
    with pytest.raises(ValueError, match=r"^max_steps=0: it must be a whole number of at least 1$"):
        watch_episode(agent, envs, 0, max_steps=0)
    foreign = SimpleNamespace(model_name="Mine", new_actor=lambda num_envs: SimpleNamespace())
    with pytest.raises(ValueError, match=r"^Mine: its actor is a SimpleNamespace, whose memory cannot be read$"):
        check_watchable(foreign)


@pytest.mark.parametrize(("cls", "curves"), [(RecurrentPPOLSTM, {"value"}), (RecurrentIQN, {"value", "mean_q"})])
def test_values_count_in_rewards_also_where_these_were_normalised(make_agent, cls, curves):
    envs = RepeatPrevious(1, k=1, episode_length=12)
    agent, seen = make_agent(envs, cls, normalise_returns=True), []
    for variance in (1.0, 9.0):
        agent.return_scale.moments.var.fill_(variance)
        seen.append(watch_episode(agent, envs, 3).tracks[0].curves)
    for name, values in seen[1].items():
        np.testing.assert_allclose(values, seen[0][name] * (3 if name in curves else 1), rtol=1e-6)
    assert curves <= seen[0].keys()
