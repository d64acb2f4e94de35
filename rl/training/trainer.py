"""The loop: act, step, observe, learn, report, evaluate, save."""

import logging
import math
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from rl.checkpoint import BEST, save_and_keep, save_checkpoint
from rl.checks import positive
from rl.shards import ALONE, Shards, average_metrics
from rl.training.metrics import Metrics, tag_update
from rl.training.run import check_evaluations, checkpoint_path, crossed, make_later_seed, naming_what_stands
from rl.training.saving import add_others, collect_state, read_newest, restore_trainer, saved_at_a_fault
from rl.training.sharing import keep_equal
from rl.training.signals import Stopped, StopSignals
from rl.training.stepping import Episodes, VectorEnvAdapter
from rl.training.stopping import EARLY, EarlyStop
from rl.training.threads import Threads
from rl.training.watchdog import Watchdog
from rl.types import Agent, TensorAgent

log = logging.getLogger(__name__)


class Trainer:
    """The training of one batched agent on one vector environment.

    Args:
        agent: learns.
        envs: as many as the agent plays.
        run_dir: gets ``checkpoints/last.pt``, ``previous.pt`` and, by ``eval/episodic_return``, ``best.pt``.
        total_steps: environment steps to train for.
        seed: of the environments.
        evaluate: ``evaluate() -> {tag: value}``, called every ``evaluate_every`` steps.
        evaluate_every: environment steps; None for never.
        evaluation_share: evaluations are left out as long as one more would make them take a greater share of the time;
            None plays them all. Not where training depends on them: with ``lends_envs`` or what ends training early.
        lends_envs: ``evaluate`` plays in ``envs``: open episodes are closed as truncations before it, and training
            begins new ones after it.
        threshold: the ``eval/episodic_return`` that counts as solved.
        stop_at_threshold: training ends as soon as an evaluation has reached it.
        patience: training ends after so many evaluations without one better, see ``rl.training.stopping.EarlyStop``.
        min_delta: by how much a better one must be so.
        max_seconds: training ends after the update with which it has taken so many; evaluations do not count.
        checkpoint_every: environment steps.
        threads: of torch, or "auto", see ``rl.training.threads.Threads``; None leaves torch as it is.
        env_timeout: seconds that a step or reset of the environments may take; None for any time.
        shards: of the run, which learn as one; ``agent`` and ``envs`` are those of one of them, and the agent has
            joined the others, see ``rl.training.sharing.join``. Each has a trainer, with equal arguments but ``seed``;
            the first one reports and writes.

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
        patience: int | None = None,
        min_delta: float = 0.0,
        max_seconds: float | None = None,
        checkpoint_every: int = 25_000,
        threads: int | Literal["auto"] | None = None,
        env_timeout: float | None = None,
        shards: Shards = ALONE,
    ):
        positive(total_steps=total_steps, checkpoint_every=checkpoint_every)
        deciding = {"lends_envs": lends_envs, "stop_at_threshold": stop_at_threshold, "patience": patience}
        check_evaluations(evaluate_every, evaluation_share, evaluate is not None, threshold, deciding)
        self.agent, self.envs = agent, VectorEnvAdapter(envs, tensors=isinstance(agent, TensorAgent))
        self.run_dir, self.total_steps, self.seed = run_dir, total_steps, seed
        self.evaluate, self.evaluate_every, self.checkpoint_every = evaluate, evaluate_every, checkpoint_every
        self.evaluation_share, self.lends_envs, self.threshold = evaluation_share, lends_envs, threshold
        self.early_stop = EarlyStop(threshold if stop_at_threshold else None, patience, min_delta, max_seconds)
        self.threads = Threads(torch.get_num_threads() if threads is None else threads)
        self.env_timeout, self.shards, self.episodes = env_timeout, shards, Episodes(envs.num_envs)
        self.evaluations: list[dict[str, float]] = []
        self.obs: Any = None
        self.best_return = -math.inf  # of the evaluation whose agent stands in best.pt
        self.saved_steps: int | None = None  # at which last.pt was written; None if it is not to be kept
        self.stopped_by: int | None = None
        self.seconds = self.wall_seconds = 0.0  # of training, evaluations left out; of everything
        self.evaluation_seconds = self.last_evaluation_seconds = 0.0
        self.leaves_out = False  # whether an evaluation was left out already

    def train(self, metrics: Metrics) -> bool:
        """Train to the end, or until a signal asks to stop; what was learned is saved in either case.

        A signal lets the running update end; an evaluation is broken off, and made when the run goes on.

        Returns:
            False if a signal stopped it, whose number is ``stopped_by``.

        Raises:
            ValueError: the agent is not in training, so it would play for ever.
        """
        agent = self.agent
        if not agent.training:
            raise ValueError("agent.training=False: it must be True to train; load_agent returns an agent that plays")
        with StopSignals() as stop, naming_what_stands(self.run_dir), self.watch(metrics):
            try:
                if self.obs is None:
                    with saved_at_a_fault(lambda: self.save_learned(metrics)):
                        self.begin_episodes()
                if self._has_left_out_an_evaluation():
                    self._evaluate(metrics, stop)
                while not self._is_asked_to_stop(stop) and self.stop_reason is None:
                    before, began = agent.env_steps, time.perf_counter()
                    with saved_at_a_fault(lambda: self.save_learned(metrics)):
                        self.collect()
                        with self.threads.update(metrics.say):
                            agent.learn(self.obs)
                    self.seconds += time.perf_counter() - began
                    self.report(metrics)
                    if crossed(self.evaluate_every, before, agent.env_steps):
                        self._evaluate(metrics, stop)
                    self.wall_seconds += time.perf_counter() - began
                    if crossed(self.checkpoint_every, before, agent.env_steps):
                        self.save(metrics)
                if self.stop_reason in EARLY:
                    metrics.say(self.early_stop.describe(self.stop_reason, agent.env_steps))
            except Stopped:
                pass  # out of an evaluation, which changes nothing
            except KeyboardInterrupt:
                if stop.number is not None or self.shards.size > 1:  # the second signal, or one that others do not know
                    raise
                stop.number, self.obs = signal.SIGINT, None  # the environment handles the signal itself
            self.save(metrics)
        self.stopped_by = self.stopped_by or stop.number
        return self.stopped_by is None

    def _is_asked_to_stop(self, stop: StopSignals) -> bool:
        """Say whether a signal has come to any shard, so that all stop after the same update, by the first's clock."""
        numbers, (self.seconds, *_) = zip(*self.shards.gather((stop.number, self.seconds)), strict=True)
        # not in stop.number: a signal that comes here only now would be the second one, and end what saves
        self.stopped_by = next((number for number in numbers if number is not None), None)
        return self.stopped_by is not None

    @property
    def stop_reason(self) -> str | None:
        """Why training ends: ``total_steps``, or what ends it early; None as long as it goes on."""
        if self.agent.env_steps >= self.total_steps:
            return "total_steps"
        return self.early_stop.find_reason([point["return"] for point in self.evaluations], self.seconds)

    def _evaluate(self, metrics: Metrics, stop: StopSignals) -> None:
        """Evaluate, if that is affordable.

        Raises:
            Stopped: a signal has come.
        """
        if not self.shards.gather(self.affords_evaluation(metrics))[0]:
            return
        breaking_off = stop.raising() if self.shards.size == 1 else nullcontext()  # others would wait for its results
        with breaking_off, saved_at_a_fault(lambda: self.save_learned(metrics, in_rollout=False)):
            results = self.play_evaluation()
        self.record_evaluation(results, metrics)

    def _has_left_out_an_evaluation(self) -> bool:
        """Say whether the run was stopped in the evaluation that belongs to the step it goes on from."""
        now = self.agent.env_steps
        update = self.agent.num_steps * self.envs.envs.num_envs * self.shards.size
        made = bool(self.evaluations) and self.evaluations[-1]["env_steps"] == now
        return now > 0 and not made and crossed(self.evaluate_every, now - update, now)

    def begin_episodes(self) -> None:
        """Begin new episodes in all environments: with the run's seed at first, later with seeds not seen before."""
        self.agent.reset()  # a fault of an environment may have left an action without its outcome
        self.obs = self.envs.reset(make_later_seed(self.seed, self.agent.env_steps))

    def watch(self, metrics: Metrics) -> Watchdog:
        """Make what ends a run whose environments do not return."""
        steps = VectorEnvAdapter.step if self.envs.tensors is None else self.envs.tensors.step
        return Watchdog(self.env_timeout, VectorEnvAdapter.reset, steps, save=lambda: self.save_learned(metrics))

    def save_learned(self, metrics: Metrics, in_rollout: bool = True) -> str:
        """Save what was learned up to the last update; return a line that says so, empty if there is nothing.

        Args:
            metrics: as in ``train``.
            in_rollout: where the environments are is not known, or not where the last update left them.
        """
        if in_rollout:
            self.obs = None
        if self.agent.env_steps == 0:
            return ""
        self.save(metrics, of_all=self.shards.size == 1)
        return "" if self.shards.index else f"saved up to step {self.agent.env_steps}; go on with resume={self.run_dir}"

    def collect(self) -> None:
        """Play one rollout."""
        if self.envs.tensors is not None and isinstance(self.agent, TensorAgent):
            played = self.agent.collect(self.envs.tensors, self.obs)
            self.episodes.add_rollout(played.rewards, played.ended)
            self.obs = played.obs
            return
        for _ in range(self.agent.num_steps):
            step = self.envs.step(self.agent.act(self.obs))
            self.agent.observe(step.rewards, step.terminated, step.truncated, step.final_obs, step.ignored)
            self.episodes.add(step)
            self.obs = step.obs

    def report(self, metrics: Metrics) -> None:
        """Write one update's results to TensorBoard and to the progress bar."""
        steps = self.agent.env_steps
        speed = steps / self.seconds
        played = self.episodes.drain(self.shards) | average_metrics(self.shards, self.envs.drain_statistics())
        metrics.scalars(tag_update(self.agent.last_metrics) | played | {"charts/SPS": speed}, steps)
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

    def record_evaluation(self, results: dict[str, float], metrics: Metrics) -> None:
        """Keep and report the results of an evaluation, and the agent if it is the best so far."""
        mean, zeroed = results["eval/episodic_return"], results.get("eval/episodic_return_memory_zeroed")
        solved = self.threshold is not None and mean >= self.threshold
        point = {"env_steps": self.agent.env_steps, "seconds": self.seconds, "return": mean, "solved": solved}
        self.evaluations.append(point | ({} if zeroed is None else {"memory_zeroed_return": zeroed}))
        metrics.scalars(results, self.agent.env_steps)
        if mean > self.best_return:
            content = add_others(self.state_dict(), self.shards)
            if self.shards.index == 0:
                save_checkpoint(content, checkpoint_path(self.run_dir).with_name(BEST))
            self.best_return = mean

    @property
    def recent_return(self) -> float | None:
        """Mean return of the last 100 training episodes; None before the first has ended."""
        return float(np.mean(self.episodes.recent)) if self.episodes.recent else None

    def state_dict(self) -> dict[str, Any]:
        """Collect all that a resumed run needs.

        Raises:
            FloatingPointError: the agent has learned or remembers a number that is not finite.
        """
        return collect_state(self)

    def save(self, metrics: Metrics, of_all: bool = True) -> None:
        """Write all that a resumed run needs, in one file that is whole or not there; the one before is kept.

        Args:
            metrics: as in ``train``.
            of_all: with what is every shard's own; else without that of others, who cannot be asked at a fault.

        Raises:
            FloatingPointError: the agent is ruined; nothing was written.
            OSError: the file cannot be written, and the older ones stand; or the curves cannot.
        """
        try:
            metrics.flush()  # first, so that no curve ends before the checkpoint does
        finally:  # curves that cannot be written are no reason to lose what was learned
            shards = self.shards if of_all else ALONE
            keep_equal(self.agent, shards)
            content = add_others(self.state_dict(), shards)
            kept = self.saved_steps not in (None, self.agent.env_steps)
            if self.shards.index == 0:
                (save_and_keep if kept else save_checkpoint)(content, checkpoint_path(self.run_dir))
            self.saved_steps = self.agent.env_steps

    def resume(self) -> None:
        """Go on from the newest whole checkpoint: exactly, if the environments can be put back where they were.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: it is damaged, of an agent of another shape, or an entry is missing or wrong; the agent is as it
                was.
        """
        device = self.agent.device if self.shards.size == 1 else torch.device("cpu")  # from where all can take it
        found = read_newest(self.run_dir, device) if self.shards.index == 0 else None
        restore_trainer(self, *self.shards.gather(found)[0])
