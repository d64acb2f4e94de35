"""The loop: act, step, observe, learn, report, evaluate, save."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from rl.checkpoint import as_arrays, as_tensors, load_checkpoint, save_checkpoint
from rl.checks import positive, within
from rl.training.metrics import Metrics
from rl.training.run import checkpoint_path, crossed, make_later_seed
from rl.training.signals import Stopped, StopSignals
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
        evaluation_share: evaluations are left out as long as one more would make them take a greater share of the time;
            None plays them all. Training does not depend on it, so it cannot be given with ``lends_envs`` or
            ``stop_at_threshold``, with which it would.
        lends_envs: ``evaluate`` plays in ``envs``: open episodes are closed as truncations before it, and training
            begins new ones after it.
        threshold: the ``eval/episodic_return`` that counts as solved.
        stop_at_threshold: training ends as soon as an evaluation has reached it.
        checkpoint_every: environment steps.
        threads: of torch, or "auto", see ``rl.training.threads.Threads``; None leaves torch as it is.

    Raises:
        ValueError: an argument is out of range, or does not go with another.
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
        evaluation_share: float | None = None,
        lends_envs: bool = False,
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
        if evaluation_share is not None:
            within(0.0, 1.0, evaluation_share=evaluation_share)
            if lends_envs or stop_at_threshold:
                cause = "lends_envs" if lends_envs else "stop_at_threshold"
                raise ValueError(f"evaluation_share={evaluation_share:g}: it must be None where {cause} is set")
        self.agent, self.envs = agent, VectorEnvAdapter(envs)
        self.run_dir, self.total_steps, self.seed = run_dir, total_steps, seed
        self.evaluate, self.evaluate_every, self.checkpoint_every = evaluate, evaluate_every, checkpoint_every
        self.evaluation_share, self.lends_envs = evaluation_share, lends_envs
        self.threshold, self.stop_at_threshold = threshold, stop_at_threshold
        self.threads = Threads(torch.get_num_threads() if threads is None else threads)
        self.episodes = Episodes(envs.num_envs)
        self.evaluations: list[dict[str, float]] = []
        self.obs: Any = None
        self.stopped_by: int | None = None
        self.seconds = self.wall_seconds = 0.0  # of training, evaluations left out; of everything
        self.evaluation_seconds = self.last_evaluation_seconds = 0.0
        self.leaves_out = False  # whether an evaluation was left out already

    def train(self, metrics: Metrics) -> bool:
        """Train to the end, or until a signal asks to stop; what was learned is saved in either case.

        A signal lets the running update end; an evaluation is broken off, and made when the run goes on.

        Returns:
            False if a signal stopped it, whose number is ``stopped_by``.
        """
        agent = self.agent
        if self.obs is None:
            self.begin_episodes()
        with StopSignals() as stop:
            try:
                solved = self._has_left_out_an_evaluation() and self._evaluate(metrics, stop)
                while agent.env_steps < self.total_steps and stop.number is None and not solved:
                    before, began = agent.env_steps, time.perf_counter()
                    self.collect()
                    with self.threads.update(metrics.say):
                        agent.learn(self.obs)
                    self.seconds += time.perf_counter() - began
                    self.report(metrics)
                    if crossed(self.evaluate_every, before, agent.env_steps):
                        solved = self._evaluate(metrics, stop)
                    self.wall_seconds += time.perf_counter() - began
                    if crossed(self.checkpoint_every, before, agent.env_steps):
                        self.save(metrics)
            except Stopped:
                pass  # out of an evaluation, which changes nothing
            self.save(metrics)
        self.stopped_by = stop.number
        return stop.number is None

    def _evaluate(self, metrics: Metrics, stop: StopSignals) -> bool:
        """Evaluate, if that is affordable; say whether training ends because the return has reached the threshold.

        Raises:
            Stopped: a signal has come.
        """
        if not self.affords_evaluation(metrics):
            return False
        with stop.raising():
            results = self.play_evaluation()
        return self.record_evaluation(results, metrics) and self.stop_at_threshold

    def _has_left_out_an_evaluation(self) -> bool:
        """Say whether the run was stopped in the evaluation that belongs to the step it goes on from."""
        now = self.agent.env_steps
        update = self.agent.num_steps * self.envs.envs.num_envs
        made = bool(self.evaluations) and self.evaluations[-1]["env_steps"] == now
        return now > 0 and not made and crossed(self.evaluate_every, now - update, now)

    def begin_episodes(self) -> None:
        """Begin new episodes in all environments: with the run's seed at first, later with seeds not seen before."""
        self.obs = self.envs.reset(make_later_seed(self.seed, self.agent.env_steps))

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

    def affords_evaluation(self, metrics: Metrics) -> bool:
        """Say whether evaluations keep their share of the time with one more, which is taken to be as long as the last.

        The first one that is left out is told.
        """
        if self.evaluation_share is None:
            return True
        evaluating = self.evaluation_seconds + self.last_evaluation_seconds
        affords = evaluating <= self.evaluation_share * (self.seconds + evaluating)
        if not affords and not self.leaves_out:
            self.leaves_out = True
            metrics.say(
                f"an evaluation takes {self.last_evaluation_seconds:.1f} s: some are left out, so that all take no "
                f"more than {self.evaluation_share:.0%} of the time (evaluation_share=null plays them all)"
            )
        return affords

    def play_evaluation(self) -> dict[str, float]:
        """Evaluate; environments that are lent for it are in new episodes afterwards."""
        assert self.evaluate is not None  # or there would be no interval
        began = time.perf_counter()
        if self.lends_envs:
            self.agent.reset()
            self.episodes.drop_open()
            self.obs = None
        results = self.evaluate()
        if self.lends_envs:
            self.begin_episodes()
            self.envs.drain_statistics()  # those of the evaluation
        self.last_evaluation_seconds = time.perf_counter() - began
        self.evaluation_seconds += self.last_evaluation_seconds
        return results

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
            "evaluation_seconds": [self.evaluation_seconds, self.last_evaluation_seconds],
            "envs": None if self.obs is None else as_tensors(self.envs.state_dict()),  # None: lent, in other episodes
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
        times = content.get("evaluation_seconds", [0.0, 0.0])  # checkpoints of before have none
        self.evaluation_seconds, self.last_evaluation_seconds = times
        if content["envs"] is not None and len(content["episodes"]["returns"]) == self.envs.envs.num_envs:
            self.episodes.load_state_dict(content["episodes"])
            self.envs.reset(self.seed)
            resetting = as_arrays(content["resetting"]) if "resetting" in content else self.envs.resetting
            self.envs.load_state_dict(as_arrays(content["envs"]), resetting)
            self.obs = as_arrays(content["obs"])
        else:
            self.agent.reset()  # the environments begin new episodes
