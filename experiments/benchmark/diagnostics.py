"""Rows about the cost of live diagnostics: updates that are diagnosed beside the same updates that are not."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median

from gymnasium.vector import VectorEnv

from envs.t_maze import TMaze
from experiments.benchmark.rows import Numbers, Row
from experiments.peers import workloads
from experiments.peers.recurrent_ppo import make_training
from experiments.peers.workloads import WORKLOADS
from rl import cores
from rl.agents import RecurrentIQN, RecurrentPPO
from rl.agents.agent import RecurrentAgent
from rl.training.stepping import VectorEnvAdapter

PAIRS = 5
"""Updates of each kind in one measurement."""


def make_rows(workload_names: list[str], core_names: list[str]) -> list[Row]:
    """Return a row for the T-maze with the sizes of its preset, each workload, one environment, a quantile network."""
    rows = []
    for core in core_names:
        rows.append(make_row(f"t_maze_10 {core}", partial(make_t_maze, core)))
        rows += [make_row(f"{name} {core}", partial(make_workload, name, core)) for name in workload_names]
        rows.append(make_row(f"one environment {core}", partial(make_single, core)))
        rows.append(make_row(f"quantiles {core}", partial(make_quantiles, core)))
    return rows


def make_t_maze(core: str) -> tuple[RecurrentPPO, VectorEnv]:
    """Make an agent with the sizes of the preset ``t_maze_10``, and its environments."""
    envs = TMaze(64, length=10)
    work = replace(WORKLOADS["w1"], hidden_size=64, num_envs=64, num_steps=32)
    return make_training(work, core, bptt=32, env=envs).agent, envs


def make_workload(name: str, core: str) -> tuple[RecurrentPPO, VectorEnv]:
    """Make an agent and environments of a workload."""
    envs = workloads.make_vector_env(WORKLOADS[name])
    return make_training(WORKLOADS[name], core, bptt=16, env=envs).agent, envs


def make_single(core: str) -> tuple[RecurrentPPO, VectorEnv]:
    """Make an agent that plays one environment in rollouts of 100 steps, where an update is at its smallest."""
    work, envs = replace(WORKLOADS["w1"], num_envs=1, num_steps=100), TMaze(1, length=10)
    return make_training(work, core, bptt=10, env=envs).agent, envs


def make_quantiles(core: str) -> tuple[RecurrentIQN, VectorEnv]:
    """Make an agent with the sizes of the preset ``t_maze_10_iqn``, and its environments."""
    envs, kind = TMaze(16, length=10), getattr(cores, core)
    spaces = envs.single_observation_space, envs.single_action_space
    return RecurrentIQN(*spaces, seed=0, core=partial(kind, hidden_size=64), num_envs=16, num_steps=32), envs


def make_row(label: str, make: Callable[[], tuple[RecurrentAgent, VectorEnv]]) -> Row:
    """Return a row of two agents that learn the same, one diagnosed in every update and one never."""
    agent, envs = make()
    every = agent.advisor.every
    assert every is not None  # diagnostics are on by default
    agent.advisor.every = 1
    agent.advisor.told |= agent.advisor.judges().keys()  # what is wrong with an agent that hardly learns is no matter
    control, others = make()
    control.advisor.every = None
    return Row(label, partial(measure_cost, Training(agent, envs), Training(control, others), every))


class Training:
    """The training of an agent, whose updates are timed.

    Args:
        agent: learns.
        envs: to play in.
    """

    def __init__(self, agent: RecurrentAgent, envs: VectorEnv):
        self.agent, self.envs = agent, VectorEnvAdapter(envs)
        self.obs = self.envs.reset(0)
        while agent.updates == 0:
            self.time_update()

    def time_update(self) -> float:
        """Play one rollout and learn from it; return the CPU seconds of the latter."""
        for _ in range(self.agent.num_steps):
            after = self.envs.step(self.agent.act(self.obs))
            self.agent.observe(after.rewards, after.terminated, after.truncated, after.final_obs, after.ignored)
            self.obs = after.obs
        began = time.process_time()
        self.agent.learn(self.obs)
        return time.process_time() - began


def measure_cost(diagnosed: Training, plain: Training, every: int, _round: int = 0) -> Numbers:
    """Time updates of both in turn.

    Args:
        diagnosed: measures its diagnostics in every update.
        plain: never does.
        every: updates, or minibatches, between two that a user's agent would measure.

    Returns:
        Medians in milliseconds of CPU time, and by how many percent diagnostics lengthen the update on average.
    """
    before = plain.agent.updates
    seconds = [(diagnosed.time_update(), plain.time_update()) for _ in range(PAIRS)]
    with_it, without = (median(column) for column in zip(*seconds, strict=True))
    updates = (plain.agent.updates - before) / PAIRS  # in one call: minibatches of a quantile network
    share = min(1.0, updates / every)  # of the calls are diagnosed
    return {
        "update_ms": 1e3 * without,
        "diagnosed_ms": 1e3 * with_it,
        "cost_percent": 1e2 * (with_it / without - 1.0) * share,
    }
