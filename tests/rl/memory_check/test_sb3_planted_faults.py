"""Faults planted into subclasses of sb3-contrib's agent, policy and buffer are found, and nothing else is blamed."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch

pytest.importorskip("sb3_contrib")

from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from sb3_contrib.ppo_recurrent.policies import MlpLstmPolicy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnvWrapper

from rl.memory_check import check_memory_of_sb3

LIMITS = (7, 9, 11, 13)


@pytest.fixture(scope="module")
def judge():
    """``judge(agent, policy)``: the verdicts on an agent that balances poles, by name."""

    def check(agent=RecurrentPPO, policy=MlpLstmPolicy):
        envs = DummyVecEnv([partial(gymnasium.make, "CartPole-v1", max_episode_steps=limit) for limit in LIMITS])
        sizes = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "policy_kwargs": {"lstm_hidden_size": 16}}
        model = agent(policy, envs, seed=1, device="cpu", **sizes)
        return {verdict.check: verdict for verdict in check_memory_of_sb3(model, seed=3)}

    return check


class NeverCleared(MlpLstmPolicy):
    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        return MlpLstmPolicy._process_sequence(features, lstm_states, torch.zeros_like(episode_starts), lstm)


class SwappedInReplay(MlpLstmPolicy):
    """In the update the LSTM takes (c, h)."""

    def evaluate_actions(self, obs, actions, lstm_states, episode_starts):
        swapped = RNNStates(*(pair[::-1] for pair in lstm_states))
        return super().evaluate_actions(obs, actions, swapped, episode_starts)


class Detached(MlpLstmPolicy):
    """Every step of the update begins from a state without a gradient."""

    @staticmethod
    def _process_sequence(features, lstm_states, episode_starts, lstm):
        rows = lstm_states[0].shape[1]
        features, episode_starts = features.view(rows, -1, features.shape[1]), episode_starts.view(rows, -1)
        outputs = []
        for feature, start in zip(features.unbind(1), episode_starts.unbind(1), strict=True):
            lstm_states = tuple(leaf.detach() for leaf in lstm_states)
            output, lstm_states = MlpLstmPolicy._process_sequence(feature, lstm_states, start, lstm)
            outputs.append(output)
        return torch.stack(outputs, 1).flatten(0, 1), lstm_states


class Swapped(RecurrentRolloutBuffer):
    def _get_samples(self, *args):
        samples = super()._get_samples(*args)
        return samples._replace(lstm_states=RNNStates(*(pair[::-1] for pair in samples.lstm_states)))


class FromZero(RecurrentRolloutBuffer):
    def _get_samples(self, *args):
        samples = super()._get_samples(*args)
        zeros = RNNStates(*(tuple(map(torch.zeros_like, pair)) for pair in samples.lstm_states))
        return samples._replace(lstm_states=zeros)


class ShuffledSteps(RecurrentRolloutBuffer):
    def _get_samples(self, batch_inds, env_change, env=None):
        return super()._get_samples(np.random.permutation(batch_inds), env_change, env)


class HalfOfTheSteps(RecurrentRolloutBuffer):
    def get(self, batch_size=None):
        yield from list(super().get(batch_size))[::2]


class LateStarts(RecurrentPPO):
    """What ended is told to the policy, and stored, one step later."""

    @property
    def _last_episode_starts(self):
        return self.told

    @_last_episode_starts.setter
    def _last_episode_starts(self, ended):
        whole = ended is None or getattr(self, "waiting", None) is None
        self.told, self.waiting = ended if whole else self.waiting, ended


class TruncationTerminates(RecurrentPPO):
    def collect_rollouts(self, env, *args, **options):
        return super().collect_rollouts(Forgetful(env), *args, **options)


class Forgetful(VecEnvWrapper):
    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        obs, rewards, dones, infos = self.venv.step_wait()
        return obs, rewards, dones, [info | {"TimeLimit.truncated": False} for info in infos]


class FromTheReset(RecurrentPPO):
    """V of the observation after the reset stands for V of the one that closed the episode."""

    def collect_rollouts(self, env, *args, **options):
        return super().collect_rollouts(Replacing(env), *args, **options)


class Replacing(Forgetful):
    def step_wait(self):
        obs, rewards, dones, infos = self.venv.step_wait()
        shown = [info | {"terminal_observation": obs[row]} if dones[row] else info for row, info in enumerate(infos)]
        return obs, rewards, dones, shown


def with_buffer(kind):
    class Agent(RecurrentPPO):
        def _setup_model(self):
            super()._setup_model()
            self.rollout_buffer.__class__ = kind

    Agent.__name__ = f"With{kind.__name__}"
    return Agent


AGENTS = {
    with_buffer(Swapped): ("replay_is_exact", "sequences begin from other states than those that the agent had"),
    with_buffer(FromZero): ("replay_is_exact", "sequences begin from a fresh state"),
    with_buffer(ShuffledSteps): ("replay_is_exact", "sequences are not in the order of time"),
    with_buffer(HalfOfTheSteps): ("every_step_is_trained_once", "of 128 steps 64 are left out"),
    TruncationTerminates: ("targets_are_right", "a truncation is taken for a termination"),
    FromTheReset: ("targets_are_right", "truncated episodes take V of the observation after the reset"),
}
POLICIES = {
    NeverCleared: ("nothing_crosses_a_start", "so the memory is not cleared"),
    Detached: ("gradient_reaches_back", "no gradient reaches 1 step(s) back, though what was seen then counts"),
}


def failing(verdicts):
    return {name for name, verdict in verdicts.items() if verdict.passed is False}


def test_without_a_fault(judge):
    """Or the tests below could fail for another reason."""
    assert failing(judge()) == set()


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.__name__)
def test_a_faulty_agent(agent, judge):
    check, words = AGENTS[agent]
    verdicts = judge(agent)
    assert failing(verdicts) == {check}
    assert words in verdicts[check].finding and verdicts[check].advice


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_a_faulty_policy(policy, judge):
    check, words = POLICIES[policy]
    verdicts = judge(policy=policy)
    assert failing(verdicts) == {check}
    assert words in verdicts[check].finding and verdicts[check].advice


def test_starts_that_come_a_step_late(judge):
    """The library takes the ends for its advantages from the starts, so these are wrong, too."""
    verdicts = judge(LateStarts)
    assert failing(verdicts) == {"starts_follow_ends", "targets_are_right"}
    assert "each one a step late" in verdicts["starts_follow_ends"].finding


def test_states_that_are_swapped_in_every_replay(judge):
    """The policy itself unrolls something else than it steps."""
    verdicts = judge(policy=SwappedInReplay)
    assert failing(verdicts) == {"unroll_equals_step", "replay_is_exact"}
    assert "the replay computes something else" in verdicts["replay_is_exact"].finding
