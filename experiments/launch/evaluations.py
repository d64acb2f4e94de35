"""Evaluate the agent of a run as its settings have it: what several commands share."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from experiments.launch.build import Settings
from rl.agents import Population
from rl.shards import ALONE, Shards
from rl.training.evaluation import Evaluation, evaluate, share_episodes
from rl.types import Agent

log = logging.getLogger(__name__)
EVALUATION_SEED = 1_000_000  # evaluation environments are seeded far from those of training
FINAL_SEED = 1_000  # added for the evaluation at the end of a run, whose episodes were not seen before
OWN_SEED = 500_000  # added by experiments.evaluate: neither the episodes that chose best.pt nor the final ones


def evaluate_agent(
    agent: Agent,
    envs: VectorEnv,
    episodes: int,
    seed: int,
    *,
    memory: bool = True,
    greedy: bool = True,
    max_steps: int | None = None,
    progress: str | None = None,
) -> Evaluation:
    """Play whole episodes without learning, on seeds far from those of training.

    Args:
        agent: its weights and its own memories stay as they are.
        envs: to play in.
        episodes: so many.
        seed: of the evaluation; the same one plays the same episodes.
        memory: False clears the memory before every step.
        greedy: take the likeliest actions instead of sampling.
        max_steps: a longer episode is cut, see ``rl.training.evaluate``.
        progress: the label of a progress bar.
    """
    options: dict[str, Any] = {"greedy": greedy, "memory": memory, "max_steps": max_steps, "progress": progress}
    return evaluate(agent, envs, episodes, EVALUATION_SEED + seed, **options)


class Evaluations:
    """The evaluations of a run: greedy, with memory and, unless the settings say no, with the memory zeroed.

    Args:
        agent: plays.
        envs: to play in.
        settings: of the run.
        shards: of the run, which share the episodes out and know all results; ``envs`` are those of one of them.

    Attributes:
        say: prints a line.
    """

    def __init__(self, agent: Agent, envs: VectorEnv, settings: Settings, shards: Shards = ALONE):
        self.agent, self.envs, self.settings, self.shards = agent, envs, settings, shards
        self.say: Callable[[str], None] = log.info
        self.told = False  # that episodes were cut

    def play(self, episodes: int, seed: int, name: str) -> tuple[Evaluation, Evaluation | None]:
        """Play on the same seeds twice: with memory, and with the memory cleared before every step.

        Args:
            episodes: so many.
            seed: of the evaluation.
            name: of the evaluation, for the progress bar.

        Returns:
            Both; None for the second where ``evaluate_memory_zeroed`` is false.
        """
        kept = self._play_share(episodes, seed, name)
        if kept.cut and not self.told:
            self.told = True
            self.say(describe_cut(kept, "evaluation_max_steps", self.settings.evaluation_max_steps))
        if not self.settings.evaluate_memory_zeroed:
            return kept, None
        return kept, self._play_share(episodes, seed, f"{name}, memory zeroed", memory=False)

    def _play_share(self, episodes: int, seed: int, name: str, memory: bool = True) -> Evaluation:
        """Play the episodes of this shard; return those of all."""
        share = int(share_episodes(episodes, self.shards.size)[self.shards.index])
        label = name if self.shards.index == 0 else None
        options: dict[str, Any] = {"max_steps": self.settings.evaluation_max_steps, "progress": label, "memory": memory}
        own = evaluate_agent(self.agent, self.envs, share, seed, **options) if share else None
        if own is not None and self.shards.size == 1:
            return own
        return Evaluation.merge(self.shards.gather(own), self.envs.num_envs)

    def play_between(self) -> dict[str, float]:
        """Play the evaluation between two updates; return mean returns by TensorBoard tag."""
        kept, zeroed = self.play(self.settings.evaluate_episodes, self.settings.seed, "evaluation")
        members = average_by_member(self.agent, kept)
        return tag_returns(kept, zeroed) | {f"eval/{name}/episodic_return": mean for name, mean in members.items()}

    def play_final(self) -> tuple[Evaluation | None, Evaluation | None]:
        """Play the evaluation at the end, on seeds that were not seen before; (None, None) for ``final_episodes=0``."""
        episodes = self.settings.final_episodes
        return self.play(episodes, self.settings.seed + FINAL_SEED, "final evaluation") if episodes else (None, None)


def describe_cut(evaluation: Evaluation, key: str, max_steps: int | None) -> str:
    """Say that episodes of an evaluation were cut, and which ``key`` is the bound on their steps."""
    return (
        f"{evaluation.cut} of {len(evaluation.returns)} evaluation episodes had not ended after {max_steps} steps and "
        f"count with their return so far: raise {key}, or give {key}=null for no bound"
    )


def tag_returns(kept: Evaluation, zeroed: Evaluation | None) -> dict[str, float]:
    """Return the mean returns of ``Evaluations.play`` by their TensorBoard tags."""
    if zeroed is None:
        return {"eval/episodic_return": kept.mean}
    return {
        "eval/episodic_return": kept.mean,
        "eval/episodic_return_memory_zeroed": zeroed.mean,
        "diagnostics/memory_gap": kept.mean - zeroed.mean,
        "diagnostics/memory_gap_stderr": estimate_gap_error(kept, zeroed),
    }


def estimate_gap_error(kept: Evaluation, zeroed: Evaluation) -> float:
    """Return the standard error of the difference of two mean returns.

    Both evaluations have the same seeds, so the first episode of a row is the same task twice, and where the lengths of
    episodes do not differ the i-th one is: what it has of luck cancels out of the difference. Where a row has played
    fewer episodes in one of them, which happens if some were cut, the two count as independent.
    """
    orders = [np.argsort(played.rows, kind="stable") for played in (kept, zeroed)]  # of a row in the order of its ends
    if not np.array_equal(kept.rows[orders[0]], zeroed.rows[orders[1]]):
        return float(np.hypot(kept.stderr, zeroed.stderr))
    gaps = kept.returns[orders[0]] - zeroed.returns[orders[1]]
    return replace(kept, returns=gaps).stderr


def summarise_final(kept: Evaluation | None, zeroed: Evaluation | None) -> dict[str, Any]:
    """Return what ``result.json`` holds of the evaluation at the end; null where there was none."""
    return {
        "eval_return_mean": None if kept is None else kept.mean,
        "eval_return_stderr": None if kept is None else kept.stderr,
        "eval_episodes": 0 if kept is None else len(kept.returns),
        "eval_episodes_cut": 0 if kept is None else kept.cut,
        "memory_zeroed_return_mean": None if zeroed is None else zeroed.mean,
    }


def describe_final(result: dict[str, Any]) -> str:
    """Say what ``summarise_final`` returned, for the last line of a log."""
    mean, zeroed = result["eval_return_mean"], result["memory_zeroed_return_mean"]
    if mean is None:
        return "no final evaluation"
    words = f"return {mean:.3f} +- {result['eval_return_stderr']:.3f} over {result['eval_episodes']} episodes"
    return words if zeroed is None else f"{words} (memory zeroed: {zeroed:.3f})"


def average_by_member(agent: Agent, evaluation: Evaluation) -> dict[str, float]:
    """Return the mean return of each member of a population that played; nothing for a single agent."""
    if not isinstance(agent, Population):
        return {}
    seats = np.array(agent.seats)[evaluation.rows % len(agent.seats)]
    return {name: float(evaluation.returns[seats == name].mean()) for name in agent.members if (seats == name).any()}
