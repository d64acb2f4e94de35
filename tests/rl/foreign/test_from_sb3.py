"""Agents of sb3-contrib become agents of ours that are the same function; where its package is not there, by hand."""

import base64
import io
import json
import os
import pickle
import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import rl
from rl.foreign.records import read_records
from rl.foreign.sb3_file import SPACE_RECORDS, make_space
from rl.trust import UntrustedError

POLICY = "sb3_contrib.common.recurrent.policies", "RecurrentActorCriticPolicy"
OBS, FOUR = spaces.Box(-100.0, 300.0, (3,)), spaces.Discrete(4)


class Hostile:
    """Its pickle calls a function."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


def name_class(module, name):
    """The pickle of a class, which need not be there: protocol 0 names it in words."""
    return f"c{module}\n{name}\n.".encode()


def entry(content):
    return {":type:": "?", ":serialized:": base64.b64encode(content).decode()}


def draw_weights(obs_size, act_size, hidden=5, widths=(6,), box=False):
    """Random weights of a policy with an LSTM for each of policy and value, by the names of sb3."""
    generator, weights = torch.Generator().manual_seed(0), {}

    def layer(name, rows, columns):
        weights[f"{name}.weight"] = torch.randn(rows, columns, generator=generator)
        weights[f"{name}.bias"] = torch.randn(rows, generator=generator)

    for lstm in ("lstm_actor", "lstm_critic"):
        for kind, shape in {"weight_ih": obs_size, "weight_hh": hidden, "bias_ih": None, "bias_hh": None}.items():
            size = (4 * hidden,) if shape is None else (4 * hidden, shape)
            weights[f"{lstm}.{kind}_l0"] = 0.5 * torch.randn(size, generator=generator)
    for net, last, out in (("policy_net", "action_net", act_size), ("value_net", "value_net", 1)):
        before = hidden
        for index, width in enumerate(widths):
            layer(f"mlp_extractor.{net}.{2 * index}", width, before)
            before = width
        layer(last, out, before)
    return weights | ({"log_std": torch.randn(act_size, generator=generator)} if box else {})


@pytest.fixture
def write_zip(tmp_path):
    """``write_zip(weights, key=value, ...)``: a zip as sb3 writes it, with these settings changed."""

    def write(weights, obs_space=OBS, act_space=FOUR, **changes):
        data = {
            "policy_class": entry(name_class(*POLICY)),
            "observation_space": entry(pickle.dumps(obs_space)),
            "action_space": entry(pickle.dumps(act_space)),
            "policy_kwargs": {"lstm_hidden_size": 5, "net_arch": [6]},
            **{"n_steps": 32, "n_envs": 4, "batch_size": 16, "n_epochs": 3, "vf_coef": 0.7, "learning_rate": 1e-3},
            "clip_range": {":type:": "?", ":serialized:": "", "value_schedule": "ConstantSchedule(val=0.1)"},
            "num_timesteps": 320,
        }
        stored = io.BytesIO()
        torch.save(weights, stored)
        path = tmp_path / "model.zip"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data", json.dumps(data | changes))
            file.writestr("policy.pth", stored.getvalue())
        return path

    return write


def play_reference(weights, obs, starts):
    """Means or logits ``[T, P]`` and values ``[T]`` of a policy of sb3, by torch's own LSTM."""
    outputs = []
    for lstm, net, last in (("lstm_actor", "policy_net", "action_net"), ("lstm_critic", "value_net", "value_net")):
        core = nn.LSTM(obs.shape[1], weights[f"{lstm}.weight_hh_l0"].shape[1])
        core.load_state_dict({name.split(".")[1]: leaf for name, leaf in weights.items() if name.startswith(lstm)})
        state, rows = None, []
        for x, start in zip(obs, starts, strict=True):
            y, state = core(x[None], None if start else state)
            y = torch.tanh(y @ weights[f"mlp_extractor.{net}.0.weight"].T + weights[f"mlp_extractor.{net}.0.bias"])
            rows.append((y @ weights[f"{last}.weight"].T + weights[f"{last}.bias"])[0])
        outputs.append(torch.stack(rows))
    return outputs[0].detach(), outputs[1].detach().squeeze(-1)


def draw_play(space, steps=60):
    space.seed(1)
    obs = np.stack([space.sample() for _ in range(steps)])
    starts = np.random.default_rng(0).random(steps) < 0.15
    starts[0] = True
    return obs, starts


def play(agent, obs, starts):
    """Parameters ``[T, P]``, values ``[T]`` and greedy actions of an agent of ours."""
    state, rows, actions, player = agent.network.initial_state(1), [], [], rl.Player(agent)
    with torch.no_grad():
        for each, start in zip(obs, starts, strict=True):
            params, values, state = agent.network.step(agent.actor.inputs(each), state, torch.tensor([bool(start)]))
            rows.append((params[0], values[0]))
            actions.append(player.act(each, starts=bool(start)))
    params, values = zip(*rows, strict=True)
    return torch.stack(params), torch.stack(values), np.stack(actions)


def test_a_zip_made_by_hand(write_zip, assert_close):
    """Observations beyond +-32 are scaled by their bounds in ours, which the weights make up for."""
    weights = draw_weights(3, 4)
    for name in ("lstm_actor.weight_ih_l0", "lstm_critic.weight_ih_l0"):
        weights[name] /= 100
    agent = rl.from_sb3(write_zip(weights))
    obs, starts = draw_play(OBS)
    logits, values = play_reference(weights, torch.from_numpy(obs), starts)
    params, own_values, actions = play(agent, obs, starts)
    assert_close(params, logits, 1e-5)
    assert_close(own_values, values, 1e-5)
    assert (actions == logits.argmax(-1).numpy()).all() and logits.std(0).max() > 0.1
    assert (agent.env_steps, agent.num_steps, agent.training) == (320, 32, False)
    found = agent.ppo
    assert (found.epochs, found.clip, found.learning_rate, found.value_coef) == (3, 0.1, 1e-3, pytest.approx(1.4))
    assert (found.num_minibatches, found.bptt) == (2, 16)  # of one environment: 32 steps in minibatches of 16


def test_actions_that_are_numbers_are_scaled_to_their_bounds(write_zip, assert_close):
    space = spaces.Box(np.array([-2.0, -np.inf], np.float32), np.array([6.0, np.inf], np.float32))
    weights = draw_weights(3, 2, box=True)
    for name in ("lstm_actor.weight_ih_l0", "lstm_critic.weight_ih_l0"):
        weights[name] /= 100
    agent = rl.from_sb3(write_zip(weights, act_space=space))
    obs, starts = draw_play(OBS)
    means, _ = play_reference(weights, torch.from_numpy(obs), starts)
    params, _, actions = play(agent, obs, starts)
    np.testing.assert_allclose(actions, np.clip(means.numpy(), space.low, space.high), atol=1e-5)
    taken = means + torch.randn(means.shape, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Normal(means, weights["log_std"].exp()).log_prob(taken).sum(-1)
    inside = torch.stack([(taken[:, 0] - 2.0) / 4.0, taken[:, 1]], dim=-1)  # -1 ... 1 spans -2 ... 6
    log_probs, _ = agent.network.head.evaluate(params, inside)
    assert_close(log_probs.squeeze(-1).detach() - np.log(4.0), expected, 1e-5)  # a density per unit of the bounds


def test_it_is_saved_loaded_and_trained_on(write_zip, tmp_path):
    agent = rl.from_sb3(write_zip(draw_weights(3, 4)), num_envs=4, seed=0)
    agent.save(tmp_path / "taken.pt")
    again = rl.load_agent(tmp_path / "taken.pt", num_envs=4)
    weights = agent.network.state_dict()
    assert all(torch.equal(leaf, weights[name]) for name, leaf in again.network.state_dict().items())
    again.training = True
    rng = np.random.default_rng(0)
    for _ in range(32):
        again.act(rng.normal(size=(4, 3)).astype(np.float32))
        again.observe(rng.normal(size=4), np.zeros(4, bool))
    assert again.learn(rng.normal(size=(4, 3)).astype(np.float32)) != 0.0 and again.env_steps == 320 + 128


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("key", ["observation_space", "action_space", "policy_class"])
def test_code_is_refused_by_name_and_never_run(write_zip, tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    path = write_zip(draw_weights(3, 4), **{key: entry(pickle.dumps(Hostile()))})
    with pytest.raises(UntrustedError, match=rf"model.zip: {key}: it names posix.mkdir, which is code and no data"):
        rl.from_sb3(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Hostile()))
    assert (tmp_path / "ran").exists()  # or the test above could not fail


def test_weights_that_are_code_are_refused(write_zip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"policy.pth holds no plain tensors \(UnpicklingError\)"):
        rl.from_sb3(write_zip({"a": Hostile()}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(np.array([{}], dtype=object)), pickle.dumps(3)])
def test_damaged_pickles_are_one_sentence(content):
    with pytest.raises(ValueError, match=r"it is damaged|not supported|must be one of numbers"):
        make_space(read_records(content, SPACE_RECORDS))


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([[-1.0, 2.0]], np.float32), np.array([[np.inf, 3.0]], np.float32)),
        spaces.Box(0, 255, (3, 4), np.uint8),
        spaces.Discrete(3, start=2),
        spaces.MultiDiscrete([3, 2]),
        spaces.MultiBinary(4),
        spaces.Dict({"b": spaces.MultiBinary([2, 3]), "a": spaces.Discrete(2)}),
    ],
    ids=str,
)
def test_spaces_are_read_back(space, protocol):
    space.seed(3)
    space.sample()  # now it has a generator of random numbers, too
    assert make_space(read_records(pickle.dumps(space, protocol), SPACE_RECORDS)) == space


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_sde": True}, "use_sde=True: state-dependent exploration"),
        ({"policy_kwargs": {"lstm_kwargs": {"bidirectional": True}}}, "lstm_kwargs has bidirectional"),
        ({"policy_kwargs": {"activation_fn": "<class 'my.Swish'>"}}, "activation_fn=my.Swish: it must be one of ELU"),
        ({"policy_kwargs": {"features_extractor_class": "<class 'my.Net'>"}}, "features_extractor_class=my.Net"),
        ({"observation_space": entry(pickle.dumps(spaces.Text(3)))}, "names gymnasium.spaces.text.Text, which is code"),
        ({"observation_space": entry(pickle.dumps(spaces.Box(-1, 1, (4,))))}, "reads 3 numbers, but .* are 4"),
        ({"policy_class": None}, "it has no policy_class"),
    ],
)
def test_what_does_not_fit_is_named(write_zip, changes, message):
    with pytest.raises(ValueError, match=message):
        rl.from_sb3(write_zip(draw_weights(3, 4), **changes))


def test_another_shape_or_no_memory_is_named(write_zip, tmp_path):
    weights = draw_weights(3, 4)
    del weights["value_net.bias"]
    with pytest.raises(ValueError, match=r"its policy has no value_net\.bias"):
        rl.from_sb3(write_zip(weights))
    with pytest.raises(ValueError, match="weights that belong nowhere here: log_std"):
        rl.from_sb3(write_zip(draw_weights(3, 4, box=True)))
    with pytest.raises(ValueError, match="its policy has no LSTM"):
        rl.from_sb3(write_zip({"action_net.weight": torch.zeros(4, 3)}))
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ValueError, match="it is damaged or no zip of stable-baselines3"):
        rl.from_sb3(tmp_path / "text.zip")
    with pytest.raises(FileNotFoundError, match=r"there is no file nowhere\.zip"):
        rl.from_sb3("nowhere.zip")


# ----------------------------------------------------------------------------------------------------- the real package


IMAGE = spaces.Box(0, 255, (3, 40, 36), np.uint8)
SIMPLE = spaces.Box(-5.0, 9.0, (3,))
VARIANTS = {
    "critic lstm": (SIMPLE, FOUR, "MlpLstmPolicy", {}),
    "shared": (SIMPLE, FOUR, "MlpLstmPolicy", {"enable_critic_lstm": False, "shared_lstm": True}),
    "critic without memory": (SIMPLE, FOUR, "MlpLstmPolicy", {"enable_critic_lstm": False, "activation_fn": nn.ReLU}),
    "linear": (SIMPLE, spaces.MultiBinary(3), "MlpLstmPolicy", {"enable_critic_lstm": False, "net_arch": []}),
    "box": (OBS, spaces.Box(-2, 6, (2,)), "MlpLstmPolicy", {"n_lstm_layers": 2, "net_arch": {"pi": [7], "vf": [9, 6]}}),
    "dict": (
        spaces.Dict(v=spaces.Box(50, 90, (3,)), d=FOUR, b=spaces.MultiBinary(3)),
        spaces.MultiDiscrete([3, 2]),
        "MultiInputLstmPolicy",
        {},
    ),
    "image": (IMAGE, FOUR, "CnnLstmPolicy", {"share_features_extractor": False}),
    "image in a dict": (spaces.Dict(a=SIMPLE, img=IMAGE, z=FOUR), FOUR, "MultiInputLstmPolicy", {}),
}


class Noise(gymnasium.Env):
    """Shows samples of its space."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.parametrize("variant", VARIANTS)
def test_agents_of_sb3_contrib(variant, tmp_path):
    """A play of 100 steps with starts: the same greedy actions, values and log-probabilities."""
    sb3_contrib = pytest.importorskip("sb3_contrib")
    from sb3_contrib.common.recurrent.type_aliases import RNNStates

    obs_space, act_space, policy, kwargs = VARIANTS[variant]
    kwargs = {"lstm_hidden_size": 9} | kwargs
    env = Noise(obs_space, act_space)
    model = sb3_contrib.RecurrentPPO(policy, env, n_steps=8, batch_size=8, policy_kwargs=kwargs, seed=1, device="cpu")
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save(tmp_path / "model.zip")
    agent = rl.from_sb3(tmp_path / "model.zip")
    player, network, head = rl.Player(agent), agent.network, agent.network.head
    lstm, state, predicted = model.policy.lstm_actor, network.initial_state(1), None
    zeros = torch.zeros(lstm.num_layers, 1, lstm.hidden_size)
    states, rng = RNNStates((zeros, zeros), (zeros, zeros)), np.random.default_rng(0)
    for t in range(100 if "image" not in variant else 20):
        start, obs = t == 0 or rng.random() < 0.1, obs_space.sample()
        expected, predicted = model.predict(obs, predicted, np.array([start]), deterministic=True)
        np.testing.assert_allclose(player.act(obs, starts=start), expected, atol=1e-5)
        with torch.no_grad():
            given, _ = model.policy.obs_to_tensor(obs)
            taken, value, log_prob, states = model.policy.forward(given, states, torch.tensor([float(start)]))
            params, own, state = network.step(agent.actor.inputs(obs), state, torch.tensor([start]))
            inside = torch.from_numpy(head.from_environment(taken.numpy().reshape(1, -1)))
            own_log_prob = head.evaluate(params, inside)[0].sum()
        if isinstance(act_space, spaces.Box):
            own_log_prob = own_log_prob - np.log(head.half_width).sum()
        assert torch.allclose(own, value.flatten(), rtol=1e-5, atol=1e-5)
        assert own_log_prob.item() == pytest.approx(log_prob.item(), abs=1e-5)


def test_moments_of_vec_normalize(tmp_path):
    sb3_contrib = pytest.importorskip("sb3_contrib")
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    envs = VecNormalize(DummyVecEnv([lambda: Noise(OBS, FOUR)] * 2), gamma=0.9)
    model = sb3_contrib.RecurrentPPO("MlpLstmPolicy", envs, n_steps=8, batch_size=8, seed=1, device="cpu", gamma=0.9)
    model.learn(32)
    model.save(tmp_path / "model.zip")
    envs.save(tmp_path / "moments.pkl")
    envs.training = False
    agent = rl.from_sb3(tmp_path / "model.zip", tmp_path / "moments.pkl")
    player, state = rl.Player(agent), None
    for t in range(100):
        obs = OBS.sample()
        expected, state = model.predict(envs.normalize_obs(obs), state, np.array([t == 0]), deterministic=True)
        assert player.act(obs) == expected
    assert agent.return_scale.moments.count.item() == pytest.approx(envs.ret_rms.count)
    hostile = tmp_path / "hostile.pkl"
    hostile.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UntrustedError, match=r"hostile.pkl: it names posix.mkdir"):
        rl.from_sb3(tmp_path / "model.zip", hostile)
