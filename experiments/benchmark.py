"""Speed of the parts and of whole training runs, as medians over rounds; one table, one JSON.

python -m experiments.benchmark
"""

import json
import platform
import time
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from omegaconf import DictConfig
from tqdm import tqdm

from envs.bernoulli_bandit import BernoulliBandit
from envs.classic_control import CartPoleNoVelocity, MountainCarContinuousNoVelocity, PendulumNoVelocity
from envs.copy_sequence import CopySequence
from envs.delayed_recall import DelayedRecall
from envs.repeat_previous import RepeatPrevious
from envs.t_maze import TMaze
from envs.witness_vote import WitnessVote
from experiments.config import converted, writable
from experiments.launch import launch
from rl.agents import RecurrentPPOLSTM
from rl.checks import positive, within
from rl.cores import gru, lstm
from rl.stepping import Stepper

ENVIRONMENTS = (
    TMaze,
    DelayedRecall,
    RepeatPrevious,
    CopySequence,
    BernoulliBandit,
    CartPoleNoVelocity,
    PendulumNoVelocity,
    MountainCarContinuousNoVelocity,
    WitnessVote,
)


def run(config: DictConfig) -> None:
    """Measures, prints, writes."""
    rounds, threads = converted(config.rounds, int, "rounds"), converted(config.threads, int, "threads")
    seconds, output = converted(config.seconds, float, "seconds"), writable(config.output, "output")
    positive(rounds=rounds, threads=threads)
    within(0.01, float("inf"), seconds=seconds)
    torch.set_num_threads(threads)
    bar = tqdm(total=rounds * (len(ENVIRONMENTS) + 2), unit=" measurements", disable=None)
    stepping: dict[str, list[float]] = {task.__name__: [] for task in ENVIRONMENTS}
    training: dict[str, list[dict[str, float]]] = {"lstm": [], "gru": []}
    runs = {"lstm": TrainingRun(lstm), "gru": TrainingRun(gru)}
    for _ in range(rounds):  # interleaved, so that a slow moment of the machine hits all rows alike
        for task in ENVIRONMENTS:
            stepping[task.__name__].append(environment_speed(task(64)))
            bar.update()
        for name, training_run in runs.items():
            training[name].append(training_run.measure(seconds))
            bar.update()
    bar.close()
    report = {
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
        "threads": threads,
        "rounds": rounds,
        "environment_steps_per_second_64_copies": {name: median(values) for name, values in stepping.items()},
        "training": {
            name: {key: median(row[key] for row in rows) for key in rows[0]} for name, rows in training.items()
        },
    }
    print(table(report))
    output.write_text(json.dumps(report, indent=1))


def environment_speed(env: VectorEnv, seconds: float = 0.3) -> float:
    """Environment steps per second with actions drawn beforehand."""
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(256)]
    began, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        for action in actions:
            env.step(action)
        steps += len(actions) * env.num_envs
    return steps / elapsed


class TrainingRun:
    """Whole training on CartPole without velocities: 16 environments x 128 steps, 4 epochs x 8 minibatches of 256."""

    def __init__(self, core: Any, hidden_size: int = 128):
        env = CartPoleNoVelocity(16)
        self.agent = RecurrentPPOLSTM(
            env.single_observation_space,
            env.single_action_space,
            num_envs=16,
            num_steps=128,
            core=partial(core, hidden_size=hidden_size),
            epochs=4,
            num_minibatches=8,
            bptt=16,
            learning_rate=1e-3,
            seed=0,
        )
        self.envs = Stepper(env)
        self.obs = self.envs.reset(0)
        self.measure(0.5)  # warm-up

    def measure(self, seconds: float) -> dict[str, float]:
        """Steps per second, and microseconds per environment step of acting, environment and update."""
        agent, clock = self.agent, time.perf_counter
        acting = environment = update = 0.0
        began, steps = clock(), agent.env_steps
        while clock() - began < seconds:
            for _ in range(agent.num_steps):
                t0 = clock()
                actions = agent.take_action(self.obs)
                t1 = clock()
                after = self.envs.step(actions)
                t2 = clock()
                agent.add_memory_ppo(after.rewards, after.terminated, after.truncated, after.final_obs, after.ignored)
                self.obs = after.obs
                acting, environment = acting + t1 - t0 + clock() - t2, environment + t2 - t1
            t3 = clock()
            agent.train_step(self.obs)
            update += clock() - t3
        steps = agent.env_steps - steps
        parts = {"acting_us": acting, "environment_us": environment, "update_us": update}
        return {"steps_per_second": steps / (clock() - began), **{k: 1e6 * v / steps for k, v in parts.items()}}


def table(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [
        f"{report['machine']}, torch {report['versions']['torch']}, {report['threads']} thread(s), "
        f"medians of {report['rounds']} rounds",
        "",
        "environment, 64 copies          M steps/s",
    ]
    for name, speed in report["environment_steps_per_second_64_copies"].items():
        lines.append(f"{name:<32}{speed / 1e6:>8.2f}")
    lines += ["", "training, CartPole without velocities   steps/s   us per step: acting  environment  update"]
    for name, row in report["training"].items():
        lines.append(
            f"{name:<38}{row['steps_per_second']:>9.0f}{row['acting_us']:>22.1f}{row['environment_us']:>13.1f}"
            f"{row['update_us']:>8.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """The command."""
    launch(run, "benchmark")


if __name__ == "__main__":
    main()
