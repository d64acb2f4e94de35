"""A rollout of tensors beside the same steps by ``act`` and ``observe`` in an environment of arrays."""

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rl import cores
from rl.agents import RecurrentPPO

B, T = 3, 6
PLAIN = spaces.Box(-5.0, 5.0, (2,))
NESTED = spaces.Dict({"a": PLAIN, "b": spaces.Dict({"c": spaces.Discrete(7)})})


class Counting:
    """Rows of lengths 4, 5, 7: the first terminates, the second is truncated, the third both; rewards are actions."""

    lengths = np.array([4, 5, 7])

    def __init__(self, space, as_given):
        self.space, self.as_given = space, as_given
        self.count, self.episode = np.zeros(B, dtype=np.int64), np.zeros(B, dtype=np.int64)
        self.device = "cpu"

    def show(self):
        x = np.stack([self.count + 0.1 * self.episode, np.sin(self.count)], axis=1).astype(np.float32)
        if self.space is PLAIN:
            return self.as_given(x)
        return {"a": self.as_given(x), "b": {"c": self.as_given((self.count + self.episode) % 7)}}

    def step(self, actions):
        rewards = np.asarray(actions).reshape(B, -1)[:, 0].astype(np.float32) + self.count
        self.count = self.count + 1
        final, ended = self.show(), self.count == self.lengths
        self.count, self.episode = np.where(ended, 0, self.count), self.episode + ended
        terminated, truncated = ended & [True, False, True], ended & [False, True, True]
        return self.show(), *map(self.as_given, (rewards, terminated, truncated)), {"final_obs": final}


@pytest.fixture
def make():
    def build(space, action_space, **options):
        core = partial(cores.gru, hidden_size=8)
        more = {"num_envs": B, "num_steps": T, "bptt": 3, "num_minibatches": 2, "epochs": 2} | options
        return RecurrentPPO(space, action_space, layer_size=8, seed=5, core=core, **more)

    return build


def play(agent, space, iterations=3):
    """Train by act, observe and learn."""
    envs, metrics = Counting(space, lambda array: array.copy()), []
    obs = envs.show()
    for _ in range(iterations):
        for _ in range(T):
            obs, rewards, terminated, truncated, info = envs.step(agent.act(obs))
            agent.observe(rewards, terminated, truncated, info["final_obs"])
        agent.learn(obs)
        metrics.append(agent.last_metrics)
    return metrics


def play_tensors(agent, space, iterations=3):
    """Train by collect and learn."""
    envs, metrics = Counting(space, lambda array: torch.from_numpy(array.copy())), []
    obs = envs.show()
    for _ in range(iterations):
        played = agent.collect(envs, obs)
        obs = played.obs
        agent.learn(obs)
        metrics.append(agent.last_metrics)
    return metrics


@pytest.mark.parametrize(
    ("space", "action_space", "options"),
    [
        (PLAIN, spaces.Discrete(3, start=2), {}),
        (
            NESTED,
            spaces.Box(-2.0, 6.0, (2,)),
            {"noise_correlation": 0.7, "normalise_observations": True, "normalise_returns": True},
        ),
        (PLAIN, spaces.MultiDiscrete([2, 3]), {"previous_action_reward": True, "separate_critic": True}),
        (NESTED, spaces.MultiBinary(2), {"previous_action_reward": True, "burn_in": 2}),
    ],
)
def test_it_learns_what_act_and_observe_do(space, action_space, options, make):
    expected, found = make(space, action_space, **options), make(space, action_space, **options)
    right, other = play(expected, space), play_tensors(found, space)
    for before, after in zip(right, other, strict=True):
        assert after == pytest.approx(before, abs=1e-5)
    # V of final observations comes of all rows at once here, of some there, and is rounded otherwise
    torch.testing.assert_close(dict(found.network.state_dict()), dict(expected.network.state_dict()), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.actor.state, expected.actor.state, rtol=0, atol=1e-5)
    assert np.array_equal(expected.actor.read_starts(), found.actor.read_starts())
    assert found.env_steps == 3 * T * B


def test_without_final_observations_the_last_value_stands_in(make):
    agent = make(PLAIN, spaces.Discrete(3))
    envs = Counting(PLAIN, lambda array: torch.from_numpy(array.copy()))
    step = envs.step
    envs.step = lambda actions: (*step(actions)[:4], {})
    agent.collect(envs, envs.show())
    assert torch.equal(agent.rollout.final_values, agent.buffer.values)


def test_an_agent_goes_back_to_arrays_and_on_from_a_file(make, tmp_path):
    agent = make(PLAIN, spaces.Discrete(3))
    play_tensors(agent, PLAIN, 1)
    agent.save(tmp_path / "agent.pt")
    again = make(PLAIN, spaces.Discrete(3))
    again.load(tmp_path / "agent.pt")
    assert np.array_equal(again.actor.starts, agent.actor.read_starts())
    assert play(agent, PLAIN, 1) == play(again, PLAIN, 1)


class Overwriting(Counting):
    """Gives one piece of memory again and again, and says what closed episodes only where one ended."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.room: dict[int, torch.Tensor] = {}

    def step(self, actions):
        *told, info = super().step(actions)
        ended = bool((told[2] | told[3]).any())
        given = [told[0], told[1].clone(), told[2], told[3], info["final_obs"]]
        for place, tensor in enumerate(given):
            given[place] = self.room.setdefault(place, torch.empty_like(tensor)).copy_(tensor)
        return *given[:4], {"final_obs": given[4]} if ended else {}


@pytest.mark.parametrize("fed", [False, True])
def test_an_environment_may_use_its_memory_again(fed, make, monkeypatch):
    expected, found = (make(PLAIN, spaces.Discrete(3), previous_action_reward=fed) for _ in range(2))
    right = play_tensors(expected, PLAIN)
    monkeypatch.setitem(globals(), "Counting", Overwriting)
    for before, after in zip(right, play_tensors(found, PLAIN), strict=True):
        assert after == pytest.approx(before, abs=1e-5)
    torch.testing.assert_close(dict(found.network.state_dict()), dict(expected.network.state_dict()), rtol=0, atol=1e-5)


def test_what_cannot_be_collected_is_refused(make, check_collect_is_refused):
    envs = Counting(PLAIN, lambda array: torch.from_numpy(array.copy()))
    agent = make(PLAIN, spaces.Discrete(3))
    with pytest.raises(ValueError, match=r"observation 'obs' has shape \(2, 2\), but \(3, 2\) is expected"):
        agent.collect(envs, envs.show()[:2])
    check_collect_is_refused(lambda: make(PLAIN, spaces.Discrete(3)), envs)
