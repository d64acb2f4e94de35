"""One worked example for each row of the table in CONTRIBUTING.md: a Python file and a YAML, and nothing else."""

import json

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PYTHON = '''
import torch
from gymnasium import spaces
import numpy as np
from gymnasium.vector import VectorWrapper
from envs.batched_env import BatchedEnv
from envs.t_maze import TMaze
from rl.agents import RecurrentPPO
from rl.ppo.update import PPO


class Decay(torch.nn.Module):
    """A core: a leaky sum of its inputs."""

    def __init__(self, input_size, hidden_size=8, leak=0.5):
        super().__init__()
        self.layer = torch.nn.Linear(input_size, hidden_size)
        self.output_size, self.leak = hidden_size, leak

    def initial_state(self, batch_size, device=None):
        return {"sum": torch.zeros(batch_size, self.output_size, device=device)}

    def step(self, x, state, starts):
        kept = state["sum"] if starts is None else state["sum"].masked_fill(starts.unsqueeze(-1), 0.0)
        new = self.leak * kept + torch.tanh(self.layer(x))
        return new, {"sum": new}

    def unroll(self, x, state, starts):
        outputs = []
        for row, opens in zip(x.unbind(0), starts.unbind(0), strict=True):
            y, state = self.step(row, state, opens)
            outputs.append(y)
        return torch.stack(outputs), state


class Rows(torch.nn.Module):
    """An encoder: the numbers as they are, so many times."""

    def __init__(self, input_shapes, times=2):
        super().__init__()
        (width,) = input_shapes["obs"]
        self.times, self.output_size = times, times * width

    def forward(self, obs):
        return obs["obs"].repeat(1, self.times)


class Patient(RecurrentPPO):
    """An agent: one with a longer view, and one more metric."""

    def learn(self, next_observation=None):
        loss = super().learn(next_observation)
        self.last_metrics["patience"] = self.ppo.gamma
        return loss


class Foreseeing(PPO):
    """An auxiliary loss: the values are to agree with the largest logit, half of the squared difference."""

    def loss(self, network, mb, now, teacher=None):
        loss, metrics = super().loss(network, mb, now, teacher)
        params, values, _ = network.unroll(mb.obs, mb.state, mb.starts)
        auxiliary = 0.5 * (params.amax(-1) - values).square().mean()
        return loss + auxiliary, metrics | {"foresight": auxiliary.detach()}


class Seer(RecurrentPPO):
    """An agent with that loss."""

    algorithm = Foreseeing


class Shy(VectorWrapper):
    """An intrinsic reward: each step costs a hundred."""

    def step(self, actions):
        obs, rewards, *rest = super().step(actions)
        return obs, rewards - 100.0, *rest


def shy_maze(num_envs, length=2):
    return Shy(TMaze(num_envs, length))


class Coin(BatchedEnv):
    """An environment: name the side of the coin that is shown."""

    optimal_return, memoryless_return = 1.0, 1.0
    state_names = ("side",)

    def __init__(self, num_envs, sides=2):
        super().__init__(num_envs, spaces.Box(0.0, 1.0, (sides,), np.float32), spaces.Discrete(sides))
        self.side, self.sides = np.zeros(num_envs, dtype=np.int64), sides

    def _start(self, rows):
        self.side[rows] = self.np_random.integers(self.sides, size=len(rows))

    def _advance(self, actions):
        return (actions == self.side).astype(np.float64), np.ones(self.num_envs, dtype=bool)

    def _observe(self):
        return np.eye(self.sides, dtype=np.float32)[self.side]
'''
YAML = {
    "agent/core/decay.yaml": "_target_: mine.Decay\n_partial_: true\n",
    "agent/encoder/rows.yaml": "_target_: mine.Rows\n",
    "agent/patient.yaml": "defaults:\n  - core: gru\n\n_target_: mine.Patient\ngamma: 0.999\n",
    "agent/seer.yaml": "defaults:\n  - core: gru\n\n_target_: mine.Seer\n",
    "env/shy_maze.yaml": "_target_: mine.shy_maze\n",
    "env/coin.yaml": "_target_: mine.Coin\nsides: 3\n",
    "experiment/patient_coin.yaml": (
        "# @package _global_\ndefaults:\n  - override /agent: patient\n  - override /agent/core: decay\n"
        "  - override /env: coin\n\nagent:\n  core:\n    leak: 0.25\n"
    ),
}


@pytest.fixture
def mine(command, cwd, monkeypatch):
    """A user's folder with one module and a ``conf``, and the command that trains with it."""
    (cwd / "mine.py").write_text(PYTHON)
    for name, text in YAML.items():
        path = cwd / "my_conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(cwd))
    return lambda *arguments: command("train", f"--config-dir={cwd / 'my_conf'}", "run_dir=run", *arguments)


@pytest.mark.parametrize(
    "choice",
    [
        ("agent/core=decay", "agent.core.leak=0.9"),
        ("agent/encoder=rows", "agent.encoder.times=3"),
        ("agent=patient", "agent.gae_lambda=0.5"),
        ("env=coin", "env.sides=4"),
        ("experiment=patient_coin",),
        ("agent=seer",),
    ],
    ids=["core", "encoder", "agent", "environment", "experiment", "auxiliary loss"],
)
def test_a_file_and_a_yaml_are_enough(mine, cwd, tiny, choice):
    ended = mine(*tiny, *choice)
    assert (ended.code, ended.err) == (0, "")
    result = json.loads((cwd / "run" / "result.json").read_text())
    assert result["env_steps"] == 8


def test_a_metric_of_an_agent_is_logged_at_once(mine, cwd, tiny):
    assert mine(*tiny, "agent=patient").code == 0
    events = EventAccumulator(str(cwd / "run"), size_guidance={"scalars": 0})
    events.Reload()
    assert events.Scalars("losses/patience")[0].value == pytest.approx(0.999)


def test_an_auxiliary_loss_changes_what_is_learned(mine, cwd, tiny):
    """Same seed, same rollout: only the loss tells the two agents apart."""
    for name, target in (("seer", "mine.Seer"), ("plain", "rl.agents.RecurrentPPO")):
        assert mine(*tiny, "agent=seer", f"agent._target_={target}", f"run_dir={name}").code == 0
    weights = [torch.load(cwd / name / "checkpoints/last.pt", weights_only=True) for name in ("seer", "plain")]
    seer, plain = (content["agent"]["network"]["heads.weight"] for content in weights)
    assert not torch.equal(seer, plain)


def test_an_intrinsic_reward_is_a_wrapper(mine, cwd, tiny):
    assert mine(*tiny, "env=shy_maze").code == 0
    assert json.loads((cwd / "run" / "result.json").read_text())["eval_return_mean"] < -100


def test_keys_of_additions_are_checked_too(mine, tiny):
    ended = mine(*tiny, "agent/core=decay", "agent.core.leek=0.9")
    assert ended.code == 1
    assert ended.err == "train: there is no key 'agent.core.leek'; did you mean leak?\n"


def test_an_encoder_of_ones_own_names_the_folder_and_is_evaluated_if_it_is_trusted(mine, command, cwd, tiny):
    assert mine(*tiny, "agent/encoder=rows", "run_dir=null").code == 0
    (folder,) = (cwd / "runs").glob("*/*")
    assert "-RecurrentPPOLSTM-Rows-" in folder.name
    assert json.loads((folder / "result.json").read_text())["encoder"] == "Rows"
    refused = command("evaluate", f"run={folder}", "episodes=1")
    assert refused.code == 1 and "mine.Rows is code from outside this project" in refused.err
    assert command("evaluate", f"run={folder}", "episodes=1", "trust=[mine]").code == 0
