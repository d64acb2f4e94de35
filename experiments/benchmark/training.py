"""Rows about this project's own training: its environments, its parts beside light speed, acting, and growth."""

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

import envs  # noqa: F401 (registers)
from envs.batched_env import BatchedEnv
from envs.classic_control import CartPoleNoVelocity
from envs.popgym_tasks.decks import LEVELS
from experiments.benchmark.host_reads import HostReads
from experiments.benchmark.light_speed import LightSpeed
from experiments.benchmark.rows import Numbers, Row
from experiments.peers.recurrent_ppo import Iterations, make_training
from experiments.peers.serve import repeat
from experiments.peers.workloads import WORKLOADS, Workload
from rl import cores
from rl.agents import RecurrentPPOLSTM
from rl.agents.actor import Actor
from rl.ppo import minibatch_step
from rl.ppo import update as ppo
from rl.ppo.rollout_buffer import RolloutBuffer

GROWTH: dict[str, tuple[Any, ...]] = {
    "num_envs": (1, 4, 16, 64, 256, 1024),
    "num_steps": (32, 128, 512),
    "hidden_size": (64, 128, 256, 512),
    "bptt": (8, 16, 32, 64, 128),
    "episode_length": (20, 100, 500),
    "threads": (1, 2),
    "core": tuple(cores.__all__),
}


def make_environment_rows(seconds: float) -> list[Row]:
    """Return a row for every environment of this project, at each of its levels; 64 copies of each."""
    rows = []
    for name, spec in gymnasium.registry.items():
        if name.startswith("RecurrentPPO/"):
            has_levels = "level" in inspect.signature(load_env_creator(spec.kwargs["task"])).parameters
            for options in [{"level": level} for level in LEVELS] if has_levels else [{}]:
                label = " ".join([name.split("/")[1], *options.values()])
                rows.append(Row(label, partial(measure_environment, name, seconds, options)))
    return rows


def measure_environment(name: str, seconds: float, options: dict[str, Any], _round: int = 0) -> Numbers:
    """Count environment steps per second, with actions drawn beforehand."""
    env = gymnasium.make_vec(name, num_envs=64, **options)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(64)]
    began, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        for action in actions:
            env.step(action)
        steps += len(actions) * env.num_envs
    return {"steps_per_second": steps / elapsed}


def make_training_rows(seconds: float, workloads: list[str], core_names: list[str]) -> list[Row]:
    """Return rows of whole training beside light speed, and of where its time goes."""
    rows = []
    for name in workloads:
        for core in core_names:
            run = make_training(WORKLOADS[name], core, bptt=16)
            run()
            light = LightSpeed(make_training(WORKLOADS[name], core, bptt=16))
            rows.append(Row(f"{name} {core}", partial(measure_training, run, light, seconds, count_host_reads(run))))
    return rows


def count_host_reads(run: Iterations) -> int:
    """Count how often one update reads the device: once, for its metrics."""
    run.collect()
    agent, buffer = run.agent, run.buffer
    targets, _ = agent.targets(run.obs)
    stored = [leaf for leaf in buffer.leaves() if leaf.is_floating_point()]
    with HostReads([*agent.network.parameters(), *stored, *vars(targets).values()]) as mode:
        agent.ppo.update(agent.network, agent.optimizer, buffer, targets, agent.shuffle, 0.0)
    agent.forget_rollout()
    return len(mode.reads)


def measure_training(run: Iterations, light: LightSpeed, seconds: float, reads: int, _round: int = 0) -> Numbers:
    """Measure steps per second, their share of light speed, and microseconds per environment step of each part.

    Args:
        run: a training run that is warm.
        light: the same sizes at light speed.
        seconds: of a measurement.
        reads: see ``count_host_reads``.
    """
    began = time.perf_counter()
    steps, _ = repeat(run, seconds)
    speed = steps / (time.perf_counter() - began)
    with time_parts(run) as parts:
        steps, _ = repeat(run, seconds / 2)
    buffer, bare = run.buffer, light.measure(seconds)
    return {
        "steps_per_second": speed,
        "light_speed": bare,
        "share": speed / bare,
        **{name: 1e6 * spent / steps for name, spent in parts.items()},
        "buffer_MB": sum(leaf.nbytes for leaf in buffer.leaves()) / 1e6,
        "host_reads": reads,
    }


@contextmanager
def time_parts(run: Iterations) -> Iterator[dict[str, float]]:
    """While open, add up the seconds spent in each part of training; a part within another is taken out of that."""
    agent = run.agent
    trunk = agent.network.actor
    watched = (
        ("environment", run.envs, "step"),
        ("acting", agent, "act"),
        ("policy_step", Actor, "step"),
        ("write", RolloutBuffer, "write_step"),
        ("outcome", agent, "observe"),
        ("targets", agent, "targets"),
        ("gather", RolloutBuffer, "sequences"),
        ("encoder", trunk.encoder, "forward"),
        ("core", trunk.core, "unroll"),
        ("heads_loss", ppo.PPO, "loss"),
        ("backward", torch.autograd, "grad"),
        ("clip", minibatch_step, "take_step"),
        ("optimiser", agent.optimizer, "step"),
        ("rest_of_update", agent, "learn"),
    )
    spent = {name: 0.0 for name, _, _ in watched}
    inside = [0.0]  # seconds of the parts within the open one
    with ExitStack() as stack:
        for name, owner, attribute in watched:
            stack.enter_context(
                patch.object(owner, attribute, clock_calls(getattr(owner, attribute), name, spent, inside))
            )
        yield spent


def clock_calls(
    call: Callable[..., Any], name: str, spent: dict[str, float], inside: list[float]
) -> Callable[..., Any]:
    """Wrap a function or, for ``gather``, a generator function so that its own seconds are added up.

    Args:
        call: to be wrapped.
        name: of the part.
        spent: seconds of each part so far.
        inside: seconds of the parts within each open part; the last one is the innermost.
    """

    @contextmanager
    def run_clock() -> Iterator[None]:
        inside.append(0.0)
        began = time.perf_counter()
        yield
        took = time.perf_counter() - began
        spent[name] += took - inside.pop()
        inside[-1] += took

    def call_clocked(*arguments: Any, **options: Any) -> Any:
        with run_clock():
            return call(*arguments, **options)

    def iterate_clocked(*arguments: Any, **options: Any) -> Iterator[Any]:
        items = call(*arguments, **options)
        while True:
            with run_clock():
                item = next(items, None)
            if item is None:
                return
            yield item

    return iterate_clocked if name == "gather" else call_clocked


def make_acting_rows(core_names: list[str]) -> list[Row]:
    """Return rows of the single-environment form: one action, and an epoch of 100 steps with its update."""
    return [Row(f"one environment, {core}", partial(measure_acting, SingleEnvironment(core))) for core in core_names]


class SingleEnvironment:
    """CartPole without velocities through the calls of an IQN-style client, in epochs of 100 steps.

    Args:
        core: name of the core.
    """

    def __init__(self, core: str):
        env = CartPoleNoVelocity(1)
        self.agent = RecurrentPPOLSTM(
            env.single_observation_space,
            env.single_action_space,
            seed=0,
            core=partial(getattr(cores, core), hidden_size=128),
            num_steps=100,
        )
        self.env, self.obs = env, env.reset(seed=0)[0]

    def play_epoch(self) -> list[float]:
        """Play 100 steps and do an update; return the CPU microseconds of each action."""
        actions = []
        for _ in range(100):
            began = time.process_time()
            action = self.agent.take_action(self.obs[0])
            actions.append(1e6 * (time.process_time() - began))
            self.obs, rewards, terminated, truncated, _ = self.env.step(np.array([action]))
            self.agent.add_memory_ppo(rewards[0], terminated[0], truncated[0])
        self.agent.train_step(self.obs[0])
        return actions


def measure_acting(single: SingleEnvironment, _round: int = 0) -> Numbers:
    """Return medians over ten epochs."""
    actions: list[float] = []
    epochs: list[float] = []
    for _ in range(10):
        began = time.process_time()
        actions += single.play_epoch()
        epochs.append(1e3 * (time.process_time() - began))
    return {"action_us": median(actions), "epoch_of_100_ms": median(epochs)}


def make_growth_rows(seconds: float, threads: int) -> list[Row]:
    """Return rows of training on w1 with one of its sizes changed."""
    rows = []
    for what, values in GROWTH.items():
        for value in values:
            run = vary_workload(what, value)
            rows.append(Row(f"{what} {value}", partial(measure_growth, run, what, value, seconds, threads)))
    return rows


def vary_workload(what: str, value: Any) -> Iterations:
    """Return training on w1 with an LSTM, but for one thing."""
    work, core, bptt, env = WORKLOADS["w1"], "lstm", 16, None
    if what in Workload.__dataclass_fields__:
        work = replace(work, **{what: value})
    elif what == "core":
        core = value
    elif what == "bptt":
        bptt = value
    elif what == "episode_length":
        env = RandomEnds(work.num_envs, value)
    return make_training(work, core, bptt, env)


def measure_growth(run: Iterations, what: str, value: Any, seconds: float, threads: int, round: int = 0) -> Numbers:
    """Measure steps per second; the first round begins with a warm-up.

    Args:
        run: the training run.
        what: differs from w1; ``threads`` is set here.
        value: of it.
        seconds: of a measurement.
        threads: of torch, in all rows but those of ``threads``.
        round: counted from 0.
    """
    torch.set_num_threads(value if what == "threads" else threads)
    if round == 0:
        run()
    began = time.perf_counter()
    steps, _ = repeat(run, seconds)
    elapsed = time.perf_counter() - began
    torch.set_num_threads(threads)
    return {"steps_per_second": steps / elapsed, "us_per_step": 1e6 * elapsed / steps}


class RandomEnds(BatchedEnv):
    """An environment with zeros of the shape of w1's observations, whose episodes end at random.

    Args:
        num_envs: B.
        mean: steps of an episode on average.
    """

    def __init__(self, num_envs: int, mean: int):
        super().__init__(num_envs, spaces.Box(-1.0, 1.0, (2,), np.float32), spaces.Discrete(2))
        self.mean = mean

    def _start(self, rows: np.ndarray) -> None:
        pass

    def _advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(self.num_envs), self.np_random.random(self.num_envs) < 1.0 / self.mean

    def _observe(self) -> np.ndarray:
        return np.zeros((self.num_envs, 2), dtype=np.float32)
