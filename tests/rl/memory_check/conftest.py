"""Shared by the tests of checks of memories: small agents in a T-maze, and which checks they fail."""

from functools import partial

import pytest

from envs.t_maze import TMaze
from rl import cores
from rl.agents import RecurrentPPO
from rl.memory_check import check_memory

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
