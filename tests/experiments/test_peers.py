"""``experiments.peers``: the protocol, the workloads and the workers, peers where they are installed."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from envs.classic_control import CartPoleNoVelocity
from experiments.peers import purejaxrl, recurrent_ppo, serve, workloads

TOY = """
import os
print("noise of an import")
from experiments.peers.serve import Worker, repeat, serve

def iteration():
    print("noise of a library")
    os.system("echo noise of a child")
    return 8, 3

def build():
    print("noise of the warm-up")
    return Worker("toy", {"toy": "1.0"}, 5, lambda seconds: repeat(iteration, seconds))

serve(build)
"""


@pytest.fixture
def python(cwd, child_environment):
    """``python([arguments], input)`` runs Python with them from another folder; what came of it."""

    def run(arguments, text):
        pipes = {"input": text, "capture_output": True, "text": True, "timeout": 60, "check": False}
        return subprocess.run([sys.executable, *arguments], cwd=cwd, env=child_environment, **pipes)

    return run


@pytest.fixture(params=sorted(workloads.WORKLOADS))
def tiny_workload(request, monkeypatch):
    """The name of a workload whose sizes are tiny for the time of a test."""
    sizes = {"hidden_size": 4, "num_envs": 2, "num_steps": 8, "layer_size": 4, "epochs": 1, "num_minibatches": 2}
    tiny = replace(workloads.WORKLOADS[request.param], **sizes)
    monkeypatch.setitem(workloads.WORKLOADS, tiny.name, tiny)
    return tiny.name


def check(worker):
    """A worker of tiny sizes does whole iterations of 16 steps."""
    assert worker.parameters > 0 and all(worker.versions.values())
    steps, episodes = worker.measure(1e-6)
    assert steps == 16 and 0 <= episodes <= 16


def test_protocol(python):
    """Ready, then one answer for each line; whatever else is printed goes elsewhere."""
    ended = python(["-c", TOY], "1e-6\n0.02\n")
    noise, hello, *answers = ended.stdout.splitlines()
    assert (ended.returncode, noise) == (0, "noise of an import")  # before the protocol took hold
    assert json.loads(hello) == {"name": "toy", "versions": {"toy": "1.0"}, "parameters": 5}
    once, often = map(json.loads, answers)
    assert once.keys() == {"env_steps", "episodes", "wall_seconds", "cpu_seconds"}
    assert (once["env_steps"], once["episodes"]) == (8, 3)
    assert often["env_steps"] > 8 and often["env_steps"] * 3 == often["episodes"] * 8
    assert often["wall_seconds"] >= 0.02 > once["cpu_seconds"] >= 0.0
    assert {"noise of the warm-up", "noise of a library", "noise of a child"} <= set(ended.stderr.splitlines())


@pytest.mark.parametrize("line", ["soon", "-1", "0", "nan", "inf", ""])
def test_a_line_that_is_no_time_is_refused(line):
    with pytest.raises(ValueError, match="must be a positive number of seconds"):
        serve.read_seconds(line)


def test_protocol_needs_the_standard_library_only(python):
    program = (
        "import sys; before = set(sys.modules); import experiments.peers.purejaxrl;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    assert python(["-c", program], "").stdout == "['experiments']\n"


def test_workloads():
    assert {name: work.hidden_size for name, work in workloads.WORKLOADS.items()} == {"w1": 128, "w2": 256, "w3": 256}
    for name, work in workloads.WORKLOADS.items():
        assert (work.name, work.batch_size, work.num_envs * work.num_steps) == (name, 256, 2048)


@pytest.mark.parametrize("minigrid", [True, False])
def test_environments_of_the_workloads(minigrid, monkeypatch):
    if minigrid:
        pytest.importorskip("minigrid")
    monkeypatch.setattr(workloads, "has_minigrid", lambda: minigrid)
    shapes = {}
    for name, work in workloads.WORKLOADS.items():
        env = workloads.make_vector_env(work)
        obs, _ = env.reset(seed=0)
        shapes[name] = (obs.shape, obs.dtype)
        assert isinstance(env.single_action_space, spaces.Discrete)
        env.close()
    assert shapes == {
        "w1": ((16, 2), np.float32),
        "w2": ((16, 7, 7, 3), np.uint8),
        "w3": ((16, 4), np.float32),
    }


def test_this_project_end_to_end(python):
    ended = python(["-m", "experiments.peers.recurrent_ppo", "--core", "gru"], "0.01\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    hello, answer = map(json.loads, ended.stdout.splitlines())
    assert hello["name"] == "recurrent_ppo" and hello["parameters"] == 75075
    assert answer["env_steps"] == 2048 and 0 < answer["episodes"] < 400


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_this_project(tiny_workload, core):
    arguments = workloads.make_parser(None).parse_args(["--workload", tiny_workload, "--core", core, "--bptt", "8"])
    check(recurrent_ppo.build(arguments))


@pytest.mark.parametrize("variant", ["separate", "shared"])
def test_sb3_contrib(tiny_workload, variant):
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_contrib

    arguments = workloads.make_parser(None, whole_rollouts=True).parse_args(["--workload", tiny_workload])
    arguments.variant = variant
    check(sb3_contrib.build(arguments))


def test_sb3_contrib_sees_ends_as_the_library_tells_them():
    pytest.importorskip("sb3_contrib")
    from experiments.peers.sb3_contrib import BatchedVecEnv

    own = CartPoleNoVelocity(3)
    env = BatchedVecEnv(own)
    env.seed(1)
    first = env.reset()
    own.elapsed_steps[0] = 499  # cut in the next step
    own.state[0, 1] = 3.0  # outside, so terminated in the next step
    obs, rewards, ended, infos = env.step(np.array([0, 1, 0]))
    assert ended.tolist() == [True, True, False] and rewards.dtype == np.float32 and infos[2] == {}
    assert [info["TimeLimit.truncated"] for info in infos[:2]] == [True, False]
    assert infos[1]["terminal_observation"][0] == pytest.approx(3.0, abs=0.1) and abs(obs[1, 0]) < 0.1
    assert np.abs(infos[0]["terminal_observation"] - first[0]).max() < 0.1


def test_sb3_contrib_has_no_gru(capsys):
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_contrib

    with pytest.raises(SystemExit):
        sb3_contrib.main(["--core", "gru"])
    assert "--core gru cannot be measured" in capsys.readouterr().err


SETTINGS = ("seed", "n_steps", "batch_size", "n_epochs", "gamma", "gae_lambda", "ent_coef", "n_envs")


def test_sb3_threshold_has_the_settings_of_the_zoo():
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_threshold

    agent = sb3_threshold.make_agent(seed=3)
    assert [getattr(agent, name) for name in SETTINGS] == [3, 32, 256, 20, 0.98, 0.8, 0.0, 8]
    rates = (
        [agent.lr_schedule(left) for left in (1.0, 0.25, -0.1)],
        [agent.clip_range(left) for left in (1.0, 0.25, -1)],
    )
    assert rates == (pytest.approx([1e-3, 2.5e-4, 0.0]), pytest.approx([0.2, 0.05, 0.0]))
    assert (agent.env.gamma, agent.env.norm_obs, agent.env.norm_reward, agent.env.training) == (0.98, True, True, True)
    policy = agent.policy
    assert (policy.lstm_actor.hidden_size, policy.lstm_critic.hidden_size) == (64, 64)
    for head in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net):
        assert [type(layer).__name__ for layer in head] == ["Linear", "ReLU"] and head[0].out_features == 64
    assert not policy.ortho_init


def test_sb3_threshold_evaluates_without_moving_the_moments(monkeypatch):
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_threshold

    monkeypatch.setattr(sb3_threshold, "COPIES", 3)
    agent = sb3_threshold.make_agent(seed=1)
    env = sb3_threshold.make_evaluation_env(agent.env, seed=2)
    agent.env.reset()
    agent.env.obs_rms.mean, agent.env.obs_rms.var = np.array([1.0, 2.0]), np.array([4.0, 4.0])
    first = env.reset()
    assert np.abs(first - [-0.5, -1.0]).max() < 0.03  # normalised as training is
    obs, rewards, _, _ = env.step(np.zeros(3, dtype=np.int64))
    assert rewards.tolist() == [1.0, 1.0, 1.0]
    assert agent.env.obs_rms.mean.tolist() == [1.0, 2.0] and not np.array_equal(obs, first)
    assert np.array_equal(env.reset(), first)


def test_sb3_threshold_ends_when_solved_or_out_of_steps(monkeypatch):
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_threshold

    class Agent:
        """256 steps in each rollout."""

        env, rollout_buffer, n_steps = "env", "buffer", 32

        def __init__(self):
            self.num_timesteps, self.progress = 0, []

        def _setup_learn(self, total_timesteps):
            return total_timesteps, "callback"

        def collect_rollouts(self, env, callback, buffer, n_rollout_steps):
            assert (env, callback, buffer, n_rollout_steps) == ("env", "callback", "buffer", 32)
            self.num_timesteps += 256

        def _update_current_progress_remaining(self, steps, total):
            self.progress.append(steps / total)

        def train(self):
            assert self.progress[-1] == self.num_timesteps / 100_000

    def solved(max_steps, *means):
        asked, answers = [], iter(means)

        def evaluate(agent, env, n_eval_episodes, deterministic, warn):
            assert (env, n_eval_episodes, deterministic) == ("copies", 100, True)
            asked.append(agent.num_timesteps)
            return next(answers), 0.0

        monkeypatch.setattr(sb3_threshold, "evaluate_policy", evaluate)
        found = sb3_threshold.solve(Agent(), "copies", max_steps, 5000)
        assert found.pop("training_seconds") > 0.0
        return asked, found

    asked, found = solved(100_000, 20.0, 474.9, 475.0)
    assert asked == [5120, 10240, 15104]  # the first whole rollouts beyond 5, 10 and 15 thousand
    assert found == {"env_steps": 15104, "eval_return": 475.0, "solved": True}
    asked, found = solved(6000, 20.0, 30.0)
    assert asked == [5120, 6144] and found == {"env_steps": 6144, "eval_return": 30.0, "solved": False}


def test_sb3_threshold_end_to_end(monkeypatch, capsys):
    pytest.importorskip("sb3_contrib")
    from experiments.peers import sb3_threshold

    monkeypatch.setattr(sb3_threshold, "COPIES", 2)
    monkeypatch.setattr(sb3_threshold, "EPISODES", 4)
    sb3_threshold.main(["--seed", "1", "--max-steps", "300", "--evaluate-every", "200"])
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"env_steps", "eval_return", "solved", "training_seconds"}
    assert (found["env_steps"], found["solved"]) == (512, False) and 5 < found["eval_return"] < 475
    with pytest.raises(SystemExit):
        sb3_threshold.main(["--seed", "1", "--evaluate-every", "0"])
    assert "must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("variant, name", [("documented", "skrl"), ("padded", "skrl padded")])
@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_skrl(tiny_workload, core, variant, name):
    pytest.importorskip("skrl")
    from experiments.peers import skrl

    arguments = workloads.make_parser(None).parse_args(["--workload", tiny_workload, "--core", core, "--bptt", "4"])
    arguments.variant = variant
    worker = skrl.build(arguments)
    assert worker.name == name
    check(worker)


def skrl_agent(core, variant, bptt=16, num_envs=4):
    """The agent on small w1, its environments and the workload."""
    from experiments.peers import skrl

    work = replace(workloads.WORKLOADS["w1"], hidden_size=8, num_envs=num_envs, num_steps=64)
    envs = workloads.make_vector_env(work)
    return skrl.make_agent(envs, work, core, bptt, variant), envs, work


@pytest.mark.parametrize("variant", ["documented", "padded"])
@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_skrl_replays_what_it_played(core, variant):
    """Before any update the replayed probabilities are those of the rollout, across the ends of episodes too.

    From the states before each step, that is: the agent stores those after it.
    """
    pytest.importorskip("skrl")
    from experiments.peers import skrl

    agent, envs, work = skrl_agent(core, variant)
    played = {}
    agent.update = lambda **_: played.update({name: tensor.clone() for name, tensor in agent.memory.tensors.items()})
    _, episodes = skrl.Iterations(agent, envs, work.num_steps)()
    rows = agent.memory.all_sequence_indexes
    batch = {name: tensor.flatten(0, 1)[rows] for name, tensor in played.items()}
    fresh = torch.ones(work.num_envs, work.num_steps, dtype=torch.bool)
    fresh[:, 1:] = (batch["terminated"] | batch["truncated"]).view(fresh.shape)[:, :-1]
    after = [batch[f"rnn_policy_{leaf}"].transpose(0, 1) for leaf in range(agent.policy.leaves)]
    state = [leaf.roll(1, 1).masked_fill(fresh.view(1, -1, 1), 0.0) for leaf in after]
    inputs = {name: batch[name] for name in ("observations", "terminated", "truncated")}
    with torch.no_grad():
        _, outputs = agent.policy.act({**inputs, "taken_actions": batch["actions"], "rnn": state}, role="policy")
    assert episodes > 4
    torch.testing.assert_close(outputs["log_prob"], batch["log_prob"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant, calls", [("documented", [(2, 2), (2, 1), (2, 1)]), ("padded", [(4, 4)])])
def test_skrl_calls_of_the_layer(variant, calls):
    """Two sequences of four steps; episodes end at step 1 of the one and at steps 2 and 3 of the other.

    Calls as (sequences, steps).
    """
    pytest.importorskip("skrl")
    agent, _, _ = skrl_agent("lstm", variant, bptt=4)
    model, seen = agent.policy, []
    run = model.run_core

    def spy(x, state):
        seen.append(tuple(x.shape[:2]) if variant == "documented" else tuple(x.shape[1::-1]))
        return run(x, state)

    model.run_core = spy
    terminated = torch.zeros(8, 1, dtype=torch.bool)
    terminated[[1, 6, 7]] = True
    inputs = {"observations": torch.randn(8, 2), "terminated": terminated, "truncated": torch.zeros_like(terminated)}
    model.run_trunk({**inputs, "rnn": [torch.randn(1, 8, 8) for _ in range(2)]})
    assert seen == calls


def test_purejaxrl_refuses_another_version():
    with pytest.raises(ValueError, match=r"ppo_rnn.py is another version .* matches 0 times, not 1"):
        purejaxrl.edit("import jax\n", purejaxrl.EDITS, "ppo_rnn.py")


def test_purejaxrl_edits():
    wanted = [edit for edit in purejaxrl.EDITS if "GRUCell" in edit[0] or "NUM_ENVS" in edit[0]]
    line = 'ScannedRNN.initialize_carry(config["NUM_ENVS"], 128)\n'
    for cell in ("nn.GRUCell()", "nn.GRUCell(features=ins.shape[1])"):
        text = purejaxrl.edit(f"new, y = {cell}(rnn_state, ins)\n{line}{line}", wanted, "ppo_rnn.py")
        assert text.splitlines() == ["new, y = CELL(features=HIDDEN_SIZE)(rnn_state, ins)"] + 2 * [
            'ScannedRNN.initialize_carry(config["NUM_ENVS"], HIDDEN_SIZE)'
        ]


def test_purejaxrl_has_no_w2(capsys):
    with pytest.raises(SystemExit):
        purejaxrl.main(["--checkout", ".", "--workload", "w2"])
    assert "w2 does not run in PureJaxRL" in capsys.readouterr().err
