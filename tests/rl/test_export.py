"""The exported step computes what the agent computes, for every core, observation and action."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import create_empty_array

from envs.delayed_recall import DelayedRecall
from envs.memory_grid import MemoryGrid
from envs.probes import Counter, SpaceProbe
from envs.single_env import SingleEnv
from rl import cores, encoders
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.export import (
    PolicyStep,
    ToEnvironment,
    is_decision_stable,
    onnx_metadata,
    record,
    write,
)
from rl.networks import make_head
from rl.training.evaluation import evaluate

OBSERVATIONS = ["box", "image", "image_last", "discrete", "dict", "tuple"]
ACTIONS = ["discrete", "multi_discrete", "multi_binary", "box"]


@pytest.fixture
def make_agent(randomise):
    """An agent of random weights, far from zero actions and values."""

    def make(envs, core="gru", kind=RecurrentPPO, **options):
        core = partial(getattr(cores, core), hidden_size=8, **options.pop("core_options", {}))
        spaces_of = envs.single_observation_space, envs.single_action_space
        agent = kind(*spaces_of, 8, core=core, num_envs=envs.num_envs, seed=0, **options)
        randomise(agent.network)
        return agent

    return make


def largest_difference(step, recording, state):
    """Plays a recording through ``step``; the largest difference of anything, each where it counts."""
    worst = 0.0
    noted = {t: row for row, t in enumerate(recording["states_at"])}
    for t, starts in enumerate(recording["input/start"]):
        given = {name: recording[f"input/{name}"][t] for name in step.obs} | {"start": starts}
        given = {name: torch.from_numpy(np.array(value)) for name, value in given.items()} | state
        for name in {"previous_action", "previous_reward"} & given.keys():
            given[name][given["start"]] = 1  # the step clears them itself
        with torch.no_grad():
            out = dict(zip(step.output_names, step(*(given[name] for name in step.input_names)), strict=True))
        state = {name: out[f"next_{name}"] for name in state}
        for name, actual in out.items():
            if name.startswith("next_state.") and t not in noted:
                continue
            expected = recording[f"output/{name}"][noted[t] if name.startswith("next_state.") else t]
            assert actual.numpy().dtype == expected.dtype and actual.shape == expected.shape, name
            difference = np.abs(actual.numpy().astype(float) - expected)
            if name.endswith("action"):
                difference = difference[recording["decided"][t]]
            worst = max(worst, difference.max(initial=0.0))
    return worst


def garbage(step, rows):
    """A state to begin with that must not matter, since every recording begins with starts."""
    states = [name for name in step.input_names if name.startswith("state.")]
    leaves = dict(zip(step.input_names, step.example, strict=True))
    return {name: torch.full((rows, *leaves[name].shape[1:]), 7, dtype=leaves[name].dtype) for name in states}


def check(agent, envs, steps=30):
    """The step against the agent; what the step is."""
    step = PolicyStep(agent)
    recording = record(agent, envs, steps, seed=5, every=7)
    assert recording["input/start"][1:].any() and not recording["input/start"].all()  # episodes end in between
    assert recording["decided"].mean() > 0.9
    assert largest_difference(step, recording, garbage(step, envs.num_envs)) <= 1e-5
    return step, recording


@pytest.mark.parametrize(("core", "separate_critic"), [*((core, False) for core in cores.__all__), ("lstm", True)])
def test_every_core(make_agent, core, separate_critic):
    """A state that is not cleared at a start, or handed on wrongly, shows: the weights are large."""
    envs = SpaceProbe(3)
    agent = make_agent(envs, core, separate_critic=separate_critic)
    step, recording = check(agent, envs)
    leaves = set(agent.network.initial_state(1))
    assert {name for name in step.input_names if name.startswith("state.")} == {f"state.{leaf}" for leaf in leaves}
    assert recording["states_at"].tolist() == [6, 13, 20, 27, 29]
    assert all(recording[f"output/next_state.{leaf}"].shape[:2] == (5, 3) for leaf in leaves)


@pytest.mark.parametrize(
    ("observation", "action", "fed"),
    [(OBSERVATIONS[i % len(OBSERVATIONS)], action, i < 4) for i, action in enumerate(2 * ACTIONS)],
)
def test_every_observation_and_action(make_agent, observation, action, fed):
    envs = SpaceProbe(2, observation, action)
    step, recording = check(make_agent(envs, previous_action_reward=fed, normalise_observations=True), envs, 12)
    assert ("next_previous_action" in step.output_names) == fed
    assert step.params_name == ("mean" if action == "box" else "logits")
    assert recording["output/action"].shape[2:] == envs.single_action_space.shape


def test_dropout_has_no_count_in_the_state(make_agent):
    envs = SpaceProbe(3)
    agent = make_agent(envs, "lstm", core_options={"dropout": 0.5, "num_layers": 2})
    step, _ = check(agent, envs)
    assert step.input_names == ["obs", "state.h", "state.c", "start"]
    assert "dropout_count" in agent.actor.state  # the agent itself keeps it
    assert agent.network.training


@pytest.mark.parametrize("action", ["discrete", "multi_discrete"])
def test_quantile_networks(make_agent, action):
    envs = SpaceProbe(3, action=action)
    step, _ = check(make_agent(envs, kind=RecurrentIQN), envs)
    assert step.output_names == ["action", "action_values", "value", "next_state.h"]


def test_masks_are_inputs(make_agent):
    envs = Counter(2, 4)
    envs.single_observation_space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "action_mask": spaces.MultiBinary(2)})
    step = PolicyStep(make_agent(envs))
    names = {"x": torch.zeros(2, 2), "action_mask": torch.tensor([[1, 0], [0, 1]], dtype=torch.int8)}
    given = dict(zip(step.input_names, step.example, strict=True)) | names
    assert step(*given.values())[0].tolist() == [0, 1]


def test_the_agent_is_left_alone(make_agent):
    envs = SpaceProbe(2)
    agent = make_agent(envs)
    agent.act(envs.reset(seed=0)[0])
    before = {name: leaf.clone() for name, leaf in (agent.network.state_dict() | agent.actor.state).items()}
    step = PolicyStep(agent)
    record(agent, SpaceProbe(3), 5, seed=0)
    step.network.heads.bias.fill_(9.0)
    for name, leaf in (agent.network.state_dict() | agent.actor.state).items():
        assert torch.equal(leaf, before[name])
    assert agent.network.training and all(p.requires_grad for p in agent.network.parameters())


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=-4),
        spaces.MultiDiscrete([2, 5], start=[1, -7]),
        spaces.MultiBinary((2, 3)),
        spaces.Box(np.array([-3.0, -np.inf, 0.0]), np.array([5.0, np.inf, 0.25]), dtype=np.float64),
        spaces.Box(-2.0, 1.0, (2, 2), np.float32),
    ],
    ids=str,
)
def test_executed_actions(space):
    """As the head itself gives them to the environment: offsets, bounds, shapes and dtypes."""
    head = make_head(space)
    params = 2 * torch.randn(50, head.num_params, generator=torch.Generator().manual_seed(0))
    actions = head.mode(params)
    expected, actual = head.to_environment(actions.numpy()), ToEnvironment(head)(actions).numpy()
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


def test_other_heads_are_refused():
    with pytest.raises(TypeError, match="it must be a CategoricalHead, GaussianHead or BernoulliHead"):
        ToEnvironment(torch.nn.Identity())


@pytest.mark.parametrize("action", ["multi_discrete", "box"])
def test_what_a_file_says_of_itself(make_agent, action):
    envs = SpaceProbe(2, "dict", action)
    agent = make_agent(envs)
    agent.env_steps = 77
    expected = {
        "agent": "RecurrentPPO",
        "env_steps": "77",
        "action_space": str(envs.single_action_space),
        "observation_space": str(envs.single_observation_space),
        "branches": '["action"]' if action == "box" else '["action_0", "action_1"]',
    }
    metadata = onnx_metadata(agent)
    if action == "box":
        assert json.loads(metadata.pop("log_std")) == agent.network.head.log_std.tolist()
    assert metadata == expected


@pytest.mark.parametrize("fails", [False, True])
def test_recording_puts_the_mode_of_the_network_back(make_agent, fails):
    envs, modes = SpaceProbe(2), []
    agent, original = make_agent(envs), envs.step

    def step(actions):
        modes.append(agent.network.training)
        if fails:
            raise OSError("the simulator is gone")
        return original(actions)

    envs.step = step
    if fails:
        with pytest.raises(OSError, match="simulator"):
            record(agent, envs, 3, seed=0)
    else:
        record(agent, envs, 3, seed=0)
    assert modes and not any(modes) and agent.network.training


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_recordings_know_where_episodes_start(make_agent, mode):
    """Counters of 2 and 3 steps, truncated; in NEXT_STEP mode the step after an end is none, and starts too."""
    made = [partial(SingleEnv, "envs.probes:Counter", episode_length=n, end="truncated") for n in (2, 3)]
    envs = SyncVectorEnv(made, autoreset_mode=mode)
    starts = record(make_agent(envs), envs, 7, seed=0)["input/start"].T.astype(int).tolist()
    assert (
        starts
        == {
            AutoresetMode.SAME_STEP: [[1, 0, 1, 0, 1, 0, 1], [1, 0, 0, 1, 0, 0, 1]],
            AutoresetMode.NEXT_STEP: [[1, 0, 1, 1, 0, 1, 1], [1, 0, 0, 1, 1, 0, 0]],
        }[mode]
    )


def test_close_calls_are_not_decided():
    head = make_head(spaces.MultiDiscrete([2, 2]))
    rows = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.00001], [1.0, 1.0, 0.0, 1.0], [0.0, 1e-4, 1.0, 2.0]])
    assert is_decision_stable(head, rows).tolist() == [True, False, False, True]
    bits = make_head(spaces.MultiBinary(2))
    assert is_decision_stable(bits, torch.tensor([[1e-5, 1.0], [1.0, -1e-5], [0.1, -0.1]])).tolist() == [
        False,
        False,
        True,
    ]
    assert is_decision_stable(make_head(spaces.Box(-1, 1, (2,))), torch.zeros(2, 2)).tolist() == [True, True]


# ------------------------------------------------------------------------------------------------------------ the files


@pytest.mark.parametrize(("index", "core"), list(enumerate(cores.__all__)))
def test_onnx(make_agent, tmp_path, index, core):
    """Three rows, though it was exported with two; every kind of observation and action comes up."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from experiments.replay_onnx import replay

    envs = SpaceProbe(3, OBSERVATIONS[index % len(OBSERVATIONS)], ACTIONS[index % len(ACTIONS)])
    agent = make_agent(envs, core, previous_action_reward=index % 2 == 0, normalise_observations=True)
    step = write(agent, tmp_path / "policy.onnx")
    np.savez(tmp_path / "policy.npz", **record(agent, envs, 30, seed=5))
    worst = replay(str(tmp_path / "policy.onnx"), str(tmp_path / "policy.npz"))
    assert list(worst) == step.output_names and max(worst.values()) <= 1e-5
    session = runtime.InferenceSession(tmp_path / "policy.onnx")
    assert [leaf.name for leaf in session.get_inputs()] == step.input_names
    assert all(leaf.shape[0] == "batch" for leaf in [*session.get_inputs(), *session.get_outputs()])
    assert session.get_modelmeta().custom_metadata_map.items() >= onnx_metadata(agent).items()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["policy.npz", "policy.onnx"]  # weights are inside

    broken = dict(np.load(tmp_path / "policy.npz"))
    broken["output/value"][17] += 1e-3
    np.savez(tmp_path / "policy.npz", **broken)
    with pytest.raises(AssertionError, match="value, step 17"):
        replay(str(tmp_path / "policy.onnx"), str(tmp_path / "policy.npz"))


class OnnxPlayer:
    """Plays for ``rl.training.evaluation.evaluate`` with the file alone."""

    def __init__(self, session, num_envs):
        self.session, self.starts = session, np.ones(num_envs, dtype=bool)
        self.names = [output.name for output in session.get_outputs()]
        leaves = [leaf for leaf in session.get_inputs() if leaf.name.startswith("state.")]
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        self.state = {leaf.name: np.zeros((num_envs, *leaf.shape[1:]), kinds[leaf.type]) for leaf in leaves}
        self.network = torch.nn.Identity()

    def new_actor(self, num_envs, seed, memory):
        assert memory and len(self.starts) == num_envs
        return self

    def act(self, obs, greedy):
        out = dict(
            zip(self.names, self.session.run(None, {"obs": obs, "start": self.starts} | self.state), strict=True)
        )
        self.state = {name: out[f"next_{name}"] for name in self.state}
        return out["action"]

    def observe(self, rewards, ended):
        self.starts = ended.copy()


@pytest.mark.parametrize(("core", "num_envs"), [("gru", 1), ("lstm", 16)])
def test_onnx_plays_as_the_agent_plays(make_agent, tmp_path, core, num_envs):
    """The same 200 steps and the same returns of 100 episodes."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from experiments.replay_onnx import replay

    envs = DelayedRecall(num_envs, num_cues=3, delay=4)
    agent = make_agent(envs, core, num_minibatches=1)
    write(agent, tmp_path / "policy.onnx")
    np.savez(tmp_path / "policy.npz", **record(agent, envs, 200, seed=5))
    assert replay(str(tmp_path / "policy.onnx"), str(tmp_path / "policy.npz"))["logits"] <= 1e-5
    player = OnnxPlayer(runtime.InferenceSession(tmp_path / "policy.onnx"), num_envs)
    played, expected = evaluate(player, envs, 100, seed=7), evaluate(agent, envs, 100, seed=7)
    assert len(expected.returns) >= 100 and len(set(expected.returns.tolist())) > 1
    np.testing.assert_array_equal(played.returns, expected.returns)


def test_onnx_of_categories(make_agent, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from experiments.replay_onnx import replay

    envs = MemoryGrid(3, size=7)
    agent = make_agent(envs)
    write(agent, tmp_path / "policy.onnx")
    np.savez(tmp_path / "policy.npz", **record(agent, envs, 12, seed=5))
    assert max(replay(str(tmp_path / "policy.onnx"), str(tmp_path / "policy.npz")).values()) <= 1e-5


def test_onnx_of_a_quantile_network(make_agent, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from experiments.replay_onnx import replay

    envs = SpaceProbe(3, action="multi_discrete")
    agent = make_agent(envs, kind=RecurrentIQN)
    write(agent, tmp_path / "policy.onnx")
    np.savez(tmp_path / "policy.npz", **record(agent, envs, 30, seed=5))
    assert max(replay(str(tmp_path / "policy.onnx"), str(tmp_path / "policy.npz")).values()) <= 1e-5


def test_pt2(make_agent, tmp_path):
    envs = SpaceProbe(3, "dict", "box")
    agent = make_agent(envs)
    step = write(agent, tmp_path / "policy.pt2")
    loaded = torch.export.load(tmp_path / "policy.pt2").module()
    loaded.obs, loaded.input_names, loaded.output_names = step.obs, step.input_names, step.output_names
    assert largest_difference(loaded, record(agent, envs, 12, seed=5), garbage(step, 3)) <= 1e-5


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"head_layers": [6, 5], "separate_critic": True}], ids=["plain", "layers"])
def test_torchscript(make_agent, tmp_path, options):
    """A hundred steps with starts, three rows where it was traced with two; without the class of the step."""
    envs = SpaceProbe(3, "dict", "box")
    agent = make_agent(envs, **options)
    step = write(agent, tmp_path / "policy.ts")
    extra = {"names.json": ""}
    loaded = torch.jit.load(tmp_path / "policy.ts", _extra_files=extra)
    assert json.loads(extra["names.json"]) == {"inputs": step.input_names, "outputs": step.output_names}
    played = lambda *given: loaded(*given)  # noqa: E731
    played.obs, played.input_names, played.output_names = step.obs, step.input_names, step.output_names
    recording = record(agent, envs, 100, seed=5)
    assert recording["input/start"][1:].any()
    assert largest_difference(played, recording, garbage(step, 3)) <= 1e-5


@pytest.mark.parametrize("name", ["start", "action", "state.h"])
def test_names_that_are_taken(make_agent, name):
    envs = Counter(2, 4)
    envs.single_observation_space = spaces.Dict({name: spaces.Box(-1, 1, (2,)), "other": spaces.Box(-1, 1, (2,))})
    assert create_empty_array(envs.single_observation_space, 2).keys() == {name, "other"}
    with pytest.raises(ValueError, match=f"the name '{name}' of an observation leaf is taken"):
        PolicyStep(make_agent(envs))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["impala", "mlp"])
def test_a_chosen_encoder_is_exported(make_agent, name):
    envs = SpaceProbe(2, "image")
    step, _ = check(make_agent(envs, encoder=getattr(encoders, name), previous_action_reward=True), envs, 12)
    batch = torch.export.Dim("batch")
    shapes = {"given": tuple({0: batch} for _ in step.example)}
    with torch.no_grad():
        program = torch.export.export(step, step.example, dynamic_shapes=shapes).module()
        for exported, own in zip(program(*step.example), step(*step.example), strict=True):
            torch.testing.assert_close(exported, own)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("suffix", ["pt2", "ts"])
def test_categories_are_exported(make_agent, tmp_path, suffix):
    """As planes; of a number that is no category nothing is finite, since a file has no words for what is wrong."""
    envs, path = MemoryGrid(3, size=7), tmp_path / f"policy.{suffix}"
    agent = make_agent(envs)
    step, recording = write(agent, path), record(agent, envs, 12, seed=5)
    loaded = torch.export.load(path).module() if suffix == "pt2" else torch.jit.load(path)
    played = lambda *given: loaded(*given)  # noqa: E731
    played.obs, played.input_names, played.output_names = step.obs, step.input_names, step.output_names
    assert largest_difference(played, recording, garbage(step, 3)) <= 1e-5
    out = played(torch.full_like(step.example[0], 200), *step.example[1:])
    assert dict(zip(step.output_names, out, strict=True))["logits"].isnan().all()
