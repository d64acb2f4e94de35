"""The loop: act, step, observe, learn, report, evaluate, save."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from rl.checkpoint import as_arrays, as_tensors, load_checkpoint, save_checkpoint
from rl.checks import positive
from rl.training.metrics import Metrics
from rl.training.run import StopSignals, checkpoint_path, crossed
from rl.training.stepping import Episodes, VectorEnvAdapter
from rl.training.threads import Threads
from rl.types import Agent


class Trainer:
    """The training of one batched agent on one vector environment.

    Args:
        agent: learns.
        envs: as many as the agent plays.
        run_dir: gets ``checkpoints/last.pt``.
        total_steps: environment steps to train for.
        seed: of the environments.
        evaluate: ``evaluate() -> {tag: value}``, called every ``evaluate_every`` steps.
        evaluate_every: environment steps; None for never.
        threshold: the ``eval/episodic_return`` that counts as solved.
        stop_at_threshold: training ends as soon as an evaluation has reached it.
        checkpoint_every: environment steps.
        threads: of torch, or "auto", see ``rl.training.threads.Threads``; None leaves torch as it is.

    Raises:
        ValueError: an argument is out of range, or ``evaluate_every`` is given without ``evaluate``.
    """

    def __init__(
        self,
        agent: Agent,
        envs: VectorEnv,
        run_dir: Path,
        total_steps: int,
        seed: int | None = None,
        evaluate: Callable[[], dict[str, float]] | None = None,
        evaluate_every: int | None = None,
        threshold: float | None = None,
        stop_at_threshold: bool = False,
        checkpoint_every: int = 25_000,
        threads: int | Literal["auto"] | None = None,
    ):
        positive(total_steps=total_steps, checkpoint_every=checkpoint_every)
        if evaluate_every is not None:
            positive(evaluate_every=evaluate_every)
            if evaluate is None:
                raise ValueError(f"evaluate_every={evaluate_every}: it must be None without a function to evaluate")
        self.agent, self.envs = agent, VectorEnvAdapter(envs)
        self.run_dir, self.total_steps, self.seed = run_dir, total_steps, seed
        self.evaluate, self.evaluate_every, self.checkpoint_every = evaluate, evaluate_every, checkpoint_every
        self.threshold, self.stop_at_threshold = threshold, stop_at_threshold
        self.threads = Threads(torch.get_num_threads() if threads is None else threads)
        self.episodes = Episodes(envs.num_envs)
        self.evaluations: list[dict[str, float]] = []
        self.obs: Any = None
        self.seconds = self.wall_seconds = 0.0  # of training, evaluations left out; of everything

    def train(self, metrics: Metrics) -> bool:
        """Train to the end, or until a signal asks to stop; what was learned is saved in either case.

        Returns:
            False if a signal stopped it.
        """
        agent = self.agent
        if self.obs is None:
            self.obs = self.envs.reset(self.seed)
        solved = False
        with StopSignals() as stop:
            while agent.env_steps < self.total_steps and not stop.asked and not solved:
                before, began = agent.env_steps, time.perf_counter()
                self.collect()
                with self.threads.update(metrics.say):
                    agent.learn(self.obs)
                self.seconds += time.perf_counter() - began
                self.report(metrics)
                if self.evaluate is not None and crossed(self.evaluate_every, before, agent.env_steps):
                    solved = self.record_evaluation(self.evaluate(), metrics) and self.stop_at_threshold
                self.wall_seconds += time.perf_counter() - began
                if crossed(self.checkpoint_every, before, agent.env_steps):
                    self.save(metrics)
            self.save(metrics)
        return not stop.asked

    def collect(self) -> None:
        """Play one rollout."""
        for _ in range(self.agent.num_steps):
            step = self.envs.step(self.agent.act(self.obs))
            self.agent.observe(step.rewards, step.terminated, step.truncated, step.final_obs, step.ignored)
            self.episodes.add(step)
            self.obs = step.obs

    def report(self, metrics: Metrics) -> None:
        """Write one update's results to TensorBoard and to the progress bar."""
        steps = self.agent.env_steps
        speed = steps / self.seconds
        metrics.update(self.agent.last_metrics, steps)
        metrics.scalars(self.episodes.drain() | self.envs.drain_statistics() | {"charts/SPS": speed}, steps)
        metrics.progress(steps, self.recent_return, speed)

    def record_evaluation(self, results: dict[str, float], metrics: Metrics) -> bool:
        """Keep and report the results of an evaluation; say whether its return has reached the threshold."""
        metrics.scalars(results, self.agent.env_steps)
        mean = results["eval/episodic_return"]
        solved = self.threshold is not None and mean >= self.threshold
        point = {"env_steps": self.agent.env_steps, "seconds": self.seconds, "return": mean, "solved": solved}
        self.evaluations.append(point)
        return solved

    @property
    def recent_return(self) -> float | None:
        """Mean return of the last 100 training episodes; None before the first has ended."""
        return float(np.mean(self.episodes.recent)) if self.episodes.recent else None

    def save(self, metrics: Metrics) -> None:
        """Write all that a resumed run needs, in one file that is whole or not there."""
        metrics.flush()  # first, so that no curve ends before the checkpoint does
        content = {
            "agent": self.agent.state_dict(),
            "episodes": self.episodes.state_dict(),
            "evaluations": self.evaluations,
            "seconds": [self.seconds, self.wall_seconds],
            "envs": as_tensors(self.envs.state_dict()),
            "resetting": as_tensors(self.envs.resetting),
            "obs": as_tensors(self.obs),
        }
        save_checkpoint(content, checkpoint_path(self.run_dir))

    def resume(self) -> None:
        """Go on from the last checkpoint: exactly, if the environments can be put back where they were.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: it is damaged, or of an agent of another shape.
        """
        content = load_checkpoint(checkpoint_path(self.run_dir), self.agent.device)
        self.agent.load_state_dict(content["agent"])
        self.evaluations = content["evaluations"]
        self.seconds, self.wall_seconds = content["seconds"]
        if content["envs"] is not None and len(content["episodes"]["returns"]) == self.envs.envs.num_envs:
            self.episodes.load_state_dict(content["episodes"])
            self.envs.reset(self.seed)
            resetting = as_arrays(content["resetting"]) if "resetting" in content else self.envs.resetting
            self.envs.load_state_dict(as_arrays(content["envs"]), resetting)
            self.obs = as_arrays(content["obs"])
        else:
            self.agent.reset()  # the environments begin new episodes
