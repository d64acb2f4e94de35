"""How long does an agent take to learn on a device, in environments that lie there?"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch

from envs.batched_env import BatchedEnv
from envs.classic_control import CartPoleNoVelocity
from envs.t_maze import TMaze
from experiments.device_check.findings import Finding
from rl import cores
from rl.agents import RecurrentPPO
from rl.training.stepping import Episodes

NUM_ENVS, NUM_STEPS, WINDOW = 1024, 32, 1000


@dataclass(frozen=True)
class Task:
    """A task, and the mean return of the last ``WINDOW`` training episodes that counts as learned."""

    make: Callable[..., BatchedEnv]
    bar: float
    entropy_coef: float
    normalise_returns: bool


TASKS = {
    "T-maze, 10 cells": Task(partial(TMaze, length=10), 0.95, 0.01, False),
    "CartPole without velocities": Task(CartPoleNoVelocity, 475.0, 0.01, True),
}


def measure_learning(device: str, core_names: list[str], limit: float = 15.0) -> Iterator[Finding]:
    """Train until the bar is reached, or for ``limit`` seconds, which fails on a GPU. Kernels are compiled before.

    Actions are sampled, and an episode that ends counts; the time is that from the first step on.
    """
    for (label, task), name in product(TASKS.items(), core_names):
        train(task, name, device, seed=0, limit=0.0)
        seconds, steps, mean = train(task, name, device, seed=1, limit=limit)
        numbers = {"seconds": seconds, "steps": float(steps), "mean_return": mean}
        least = {} if torch.device(device).type == "cpu" else {"mean_return": task.bar}
        yield Finding(f"{label}, {name}", numbers, least=least)


def train(task: Task, core: str, device: str, seed: int, limit: float) -> tuple[float, int, float]:
    """Return the seconds and steps that were taken, and the mean return of the last episodes."""
    envs = task.make(NUM_ENVS, device=device)
    agent = RecurrentPPO(
        envs.single_observation_space,
        envs.single_action_space,
        seed=seed,
        device=device,
        core=partial(getattr(cores, core), hidden_size=128),
        num_envs=NUM_ENVS,
        num_steps=NUM_STEPS,
        bptt=NUM_STEPS,
        num_minibatches=4,
        learning_rate=2e-3,
        entropy_coef=task.entropy_coef,
        normalise_returns=task.normalise_returns,
        diagnostics_every=None,
    )
    episodes, mean = Episodes(NUM_ENVS, WINDOW), float("-inf")
    obs = envs.reset(seed=seed)[0]
    begun = time.perf_counter()
    while True:
        played = agent.collect(envs, obs)
        obs = played.obs
        agent.learn(obs)
        episodes.add_rollout(played.rewards, played.ended)
        episodes.count()
        if len(episodes.recent) == WINDOW:
            mean = float(np.mean(episodes.recent))
        seconds = time.perf_counter() - begun
        if mean >= task.bar or seconds > limit:
            return seconds, agent.env_steps, mean
