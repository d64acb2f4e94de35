"""Shared by the tests of checks of memories: small agents in a T-maze, and which checks they fail."""

from functools import partial

import numpy as np
import pytest
import torch

from envs.t_maze import TMaze
from rl import cores
from rl.agents import RecurrentPPO
from rl.memory_check import Trace, check_memory
from rl.types import CutEpisodes

SIZES = {"num_steps": 32, "bptt": 8, "num_minibatches": 4, "epochs": 1}


@pytest.fixture
def maze():
    """Four mazes, in which many episodes terminate and many are truncated."""
    return TMaze(4, length=3)


@pytest.fixture
def make_ppo(maze):
    """``make_ppo(kind, core=..., **options)``: a recurrent PPO agent of 16 units for the mazes."""

    def make(kind=RecurrentPPO, core=cores.lstm, **options):
        spaces = maze.single_observation_space, maze.single_action_space
        sizes = SIZES | {"core": partial(core, hidden_size=16), "num_envs": maze.num_envs}
        return kind(*spaces, 16, seed=1, **sizes | options)

    return make


@pytest.fixture
def judge(maze):
    """``judge(agent)``: the verdicts on an agent in the mazes, by name."""
    return lambda agent, envs=maze: {verdict.check: verdict for verdict in check_memory(agent, envs, seed=3)}


@pytest.fixture
def failing():
    """The names of the checks that failed."""
    return lambda verdicts: {name for name, verdict in verdicts.items() if verdict.passed is False}


class Leaky:
    """A subject whose memory fades: s' = decay * s + x, an output of s' as it is."""

    name = "leaky"

    def __init__(self, decay):
        self.decay = torch.tensor(decay, requires_grad=True)

    def parameters(self):
        return [self.decay]

    def initial_state(self, batch_size):
        return {"s": torch.zeros(batch_size, 1)}

    def encode(self, obs):
        return {"x": obs["obs"].float()}

    def step(self, inputs, state, starts):
        after = self.decay * state["s"].masked_fill(starts.unsqueeze(1), 0.0) + inputs["x"]
        return after, {"s": after}

    def unroll(self, inputs, state, starts):
        outputs = []
        for t in range(len(starts)):
            output, state = self.step({"x": inputs["x"][t]}, state, starts[t])
            outputs.append(output)
        return torch.stack(outputs), state


@pytest.fixture
def leaky():
    """``leaky(decay)``: a subject whose answers are known."""
    return Leaky


@pytest.fixture
def make_trace():
    """``make_trace(subject, obs [T, B, 1], starts [T, B], **columns)``: what a subject plays, without any fault."""

    def make(subject, obs, opens, **columns):
        steps, rows = opens.shape
        inputs, states, outputs = subject.encode({"obs": obs}), [], []
        state = subject.initial_state(rows)
        for t in range(steps):
            states.append(state)
            with torch.no_grad():
                output, state = subject.step({"x": inputs["x"][t]}, state, opens[t])
            outputs.append(output)
        never = torch.zeros(steps, rows, dtype=torch.bool)
        usual = {"rewards": torch.zeros(steps, rows), "terminated": never, "truncated": never, "cuts": []}
        usual |= {"starts": opens.clone(), "stride": 1, "values": torch.stack(outputs)[..., -1]}
        usual["last"] = CutEpisodes(steps, np.arange(rows), {"obs": torch.zeros(rows, 1)}, state)
        played = {name: torch.stack([state[name] for state in states]) for name in state}
        return Trace({"obs": obs}, inputs, torch.stack(outputs), played, opens=opens, **usual | columns)

    return make
