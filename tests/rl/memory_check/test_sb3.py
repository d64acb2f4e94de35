"""``rl.check_memory_of_sb3``: agents of sb3-contrib pass with every option but two, and stay as they are."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import rl

pytest.importorskip("sb3_contrib")

from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

BOX, IMAGE = spaces.Box(-1.0, 1.0, (3,)), spaces.Box(0, 255, (36, 36, 1), np.uint8)
CHOICE, MOVE = spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))


class Noise(gymnasium.Env):
    """Noise, in episodes of ``length`` steps, which are truncated where that is even."""

    def __init__(self, length, observation_space=BOX, action_space=CHOICE):
        self.length, self.observation_space, self.action_space = length, observation_space, action_space

    def reset(self, seed=None, options=None):
        self.steps = 0
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        over, even = self.steps == self.length, self.length % 2 == 0
        return self.observation_space.sample(), float(np.sum(action)), over and not even, over and even, {}


@pytest.fixture
def make():
    """``make(observation_space, action_space, policy, ...)``: an agent of 8 units in environments of noise."""

    def build(obs=BOX, action=CHOICE, policy="MlpLstmPolicy", num_envs=3, network=(), wrap=None, **options):
        spaces_of = lambda: copy.deepcopy((obs, action))  # noqa: E731
        envs = DummyVecEnv([lambda n=n: Noise(n, *spaces_of()) for n in range(5, 5 + num_envs)])
        sizes = {"n_steps": 16, "batch_size": 24, "n_epochs": 1, "seed": 1, "device": "cpu"}
        network = {"lstm_hidden_size": 8} | dict(network)
        return RecurrentPPO(policy, wrap(envs) if wrap else envs, policy_kwargs=network, **sizes | options)

    return build


def judge(model, *args):
    return {verdict.check: verdict for verdict in rl.check_memory_of_sb3(model, *args)}


def failing(verdicts):
    return {name for name, verdict in verdicts.items() if verdict.passed is False}


OPTIONS = {
    "one LSTM": {"network": {"shared_lstm": True, "enable_critic_lstm": False}},
    "no LSTM for the value": {"network": {"enable_critic_lstm": False}},
    "two layers and encoders": {"network": {"n_lstm_layers": 2, "share_features_extractor": False}},
    "image": {"obs": IMAGE, "policy": "CnnLstmPolicy"},
    "dict": {"obs": spaces.Dict(place=BOX, mark=spaces.Discrete(3)), "policy": "MultiInputLstmPolicy"},
    "whole numbers": {"obs": spaces.Discrete(4), "action": spaces.MultiDiscrete([2, 3])},
    "generalised exploration": {"action": MOVE, "use_sde": True, "sde_sample_freq": 4},
    "one environment": {"action": MOVE, "num_envs": 1, "batch_size": None},
    "clipped values": {"clip_range_vf": 0.1, "target_kl": 1e-6, "n_epochs": 2, "gamma": 0.9, "gae_lambda": 0.5},
    "normalised": {"wrap": lambda envs: VecNormalize(envs, gamma=0.99)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_passes(options, make):
    verdicts = judge(make(**options))
    assert failing(verdicts) == set()
    must = {"unroll_equals_step", "nothing_crosses_a_start", "environments_do_not_mix", "starts_follow_ends"}
    must |= {"replay_is_exact", "minibatch_order_is_irrelevant", "every_step_is_trained_once", "targets_are_right"}
    assert {name for name in must if not verdicts[name].passed} == set()


def test_dropout_replays_something_else(make):
    """The library acts without it and trains with it."""
    verdicts = judge(make(network={"n_lstm_layers": 2, "lstm_kwargs": {"dropout": 0.5}}))
    assert failing(verdicts) == {"replay_is_exact"}
    assert "look for dropout" in verdicts["replay_is_exact"].advice


@pytest.mark.filterwarnings("ignore:std.*degrees of freedom:UserWarning")
def test_a_last_minibatch_of_one_step_destroys_the_weights(make):
    """The library divides by the standard deviation of its only advantage."""
    model = make(n_steps=25, num_envs=1)
    verdicts = judge(model)
    assert failing(verdicts) == {"weights_stay_finite"}
    assert verdicts["weights_stay_finite"].advice.startswith("choose a batch_size that divides 25 steps")
    assert verdicts["stored_states_stay_fresh"].finding == "not judged, for the update has failed"
    model.learn(25)
    assert not all(leaf.isfinite().all() for leaf in model.policy.parameters())  # so it is


def test_a_model_in_mid_training_stays_as_it_is_and_goes_on(make):
    model = make(wrap=lambda envs: VecNormalize(envs, gamma=0.99), num_envs=2)
    model.learn(64)
    norm, buffer = model.get_env(), model.rollout_buffer
    before = copy.deepcopy([model.policy.state_dict(), model.policy.optimizer.state_dict(), vars(norm.obs_rms)])
    kept, steps = copy.deepcopy([buffer.returns, buffer.values, norm.ret_rms.mean]), model.num_timesteps
    torch.manual_seed(3)
    np.random.seed(3)
    verdicts = judge(model)
    assert (float(torch.rand(1)), np.random.rand()) == drawn_from(3)
    assert failing(verdicts) == set()
    assert flat(before) == flat([model.policy.state_dict(), model.policy.optimizer.state_dict(), vars(norm.obs_rms)])
    assert flat(kept) == flat([buffer.returns, buffer.values, norm.ret_rms.mean]) and model.num_timesteps == steps
    assert "step_wait" not in vars(norm) and norm.training
    assert not {"forward", "evaluate_actions", "extract_features"} & vars(model.policy).keys()
    assert model._last_episode_starts.all() and [each.steps for each in norm.unwrapped.envs] == [0, 0]
    model.learn(32, reset_num_timesteps=False)
    assert model.num_timesteps == steps + 32


def drawn_from(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)
    return float(torch.rand(1)), np.random.rand()


def flat(value):
    """Plain lists of nested tensors and arrays."""
    if isinstance(value, dict):
        return {key: flat(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [flat(part) for part in value]
    return value.tolist() if isinstance(value, (torch.Tensor, np.ndarray, np.generic)) else value


def test_other_environments_leave_its_own_alone(make):
    model = make()
    obs = model.get_env().reset()
    model._last_obs = obs
    model.get_env().step([0, 0, 0])
    assert failing(judge(model, make().get_env())) == set()
    assert model._last_obs is obs and [env.steps for env in model.get_env().envs] == [1, 1, 1]


def test_an_episode_is_cut_where_none_is_truncated(make):
    model = make(num_envs=1)  # its episodes of 5 steps terminate
    numbers = judge(model)["targets_are_right"].numbers
    assert (numbers["truncated"], numbers["terminated"]) == (1, 3)  # cut after 9 of 16; ended after 5, 10, 15


def test_a_seed_repeats(make):
    one, other = judge(make()), judge(make())
    assert {name: verdict.numbers for name, verdict in one.items()} == {
        name: verdict.numbers for name, verdict in other.items()
    }


def test_what_cannot_be_checked_is_refused(make):
    model = make()
    with pytest.raises(ValueError, match="it must be as many as the model plays, 3"):
        rl.check_memory_of_sb3(model, Noise(5))
    with pytest.raises(ValueError, match="model=3: it must be a RecurrentPPO of sb3-contrib"):
        rl.check_memory_of_sb3(3)
    model.env = None
    with pytest.raises(ValueError, match="env=None: it must be an environment"):
        rl.check_memory_of_sb3(model)


def test_a_truncation_without_its_last_observation_is_refused(make):
    model = make(num_envs=2)
    whole = model.env.step_wait

    def step_wait():
        obs, rewards, dones, _ = whole()
        return obs, rewards, dones, [{"TimeLimit.truncated": True} if done else {} for done in dones]

    model.env.step_wait = step_wait
    with pytest.raises(ValueError, match=r"env: infos\[0\] must have the terminal_observation"):
        rl.check_memory_of_sb3(model)


def test_weights_that_change_otherwise_are_refused(make):
    class Restless(RecurrentPPO):
        def train(self):
            super().train()
            with torch.no_grad():
                self.policy.value_net.bias += 1.0

    model = make()
    model.__class__ = Restless
    with pytest.raises(ValueError, match=r"train must change weights by policy.optimizer.step alone"):
        rl.check_memory_of_sb3(model)


def test_a_policy_that_calls_a_head_twice_is_refused(make):
    model = make()

    class Twice(type(model.policy)):
        def forward(self, obs, states, starts, deterministic=False):
            super().forward(obs, states, starts)
            return super().forward(obs, states, starts, deterministic)

    model.policy.__class__ = Twice
    with pytest.raises(ValueError, match=r"must call each head once, but they did .'action_net': 2, 'value_net': 2."):
        rl.check_memory_of_sb3(model)
