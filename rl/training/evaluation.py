"""Plays whole episodes without learning, on environments and memories of their own."""

from dataclasses import dataclass

import numpy as np
from gymnasium.vector import VectorEnv
from tqdm import tqdm

from rl.checks import positive
from rl.networks.modes import evaluation_mode
from rl.training.stepping import StepResult, VectorEnvAdapter
from rl.types import Agent


@dataclass
class Evaluation:
    """The episodes of an evaluation.

    Attributes:
        returns: float64 ``[episodes]``.
        lengths: int64 ``[episodes]``, in steps.
        rows: int64 ``[episodes]``, the row of the environment that played the episode.
        cut: so many of them had not ended after ``max_steps``; they count with their return so far.
    """

    returns: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray
    cut: int = 0

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @classmethod
    def merge(cls, parts: list["Evaluation | None"], num_envs: int) -> "Evaluation":
        """Put the evaluations of several shards together, None where one played no episode.

        Args:
            parts: in the order of the shards.
            num_envs: of each shard, whose rows are counted on.
        """
        played = [(index, part) for index, part in enumerate(parts) if part is not None]
        return cls(
            np.concatenate([part.returns for _, part in played]),
            np.concatenate([part.lengths for _, part in played]),
            np.concatenate([part.rows + index * num_envs for index, part in played]),
            sum(part.cut for _, part in played),
        )

    @property
    def stderr(self) -> float:
        """Standard error of the mean; 0 for a single episode."""
        count = len(self.returns)
        return float(self.returns.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0


def evaluate(
    agent: Agent,
    envs: VectorEnv,
    episodes: int,
    seed: int | None = None,
    greedy: bool = True,
    memory: bool = True,
    max_steps: int | None = None,
    progress: str | None = None,
) -> Evaluation:
    """Play whole episodes; running moments, weights and the agent's own memories stay as they are.

    How many episodes each environment plays is fixed beforehand, see ``share_episodes``, so short ones are not
    over-represented.

    Args:
        agent: makes the player; its network does not learn and drops nothing out meanwhile, so no other thread may
            train it.
        envs: in SAME_STEP or NEXT_STEP autoreset mode.
        episodes: how many count.
        seed: of the environments and of sampled actions.
        greedy: take the likeliest action instead of sampling.
        memory: False clears the memory before every step.
        max_steps: an episode that has not ended after so many steps counts as it is, and its environment plays no
            further one; None for no bound, so that an environment without ends is played forever.
        progress: what to write in front of a progress bar, which is shown on a terminal only; None for no bar.

    Raises:
        ValueError: ``episodes`` or ``max_steps`` is below 1, or the autoreset mode is another one.
    """
    positive(episodes=episodes)
    if max_steps is not None:
        positive(max_steps=max_steps)
    adapter, player = VectorEnvAdapter(envs), agent.new_actor(envs.num_envs, seed, memory)
    with evaluation_mode(agent.network), make_bar(progress, episodes) as bar:
        counter = EpisodeCounter(share_episodes(episodes, envs.num_envs), max_steps)
        obs = adapter.reset(seed)
        while counter.left.any():
            step = adapter.step(player.act(obs, greedy))
            player.observe(step.rewards, step.ended)
            obs = step.obs
            counter.add(step)
            bar.update(len(counter.finished) - bar.n)
    return counter.get_evaluation()


def share_episodes(episodes: int, num_envs: int) -> np.ndarray:
    """Return how many episodes each of B environments plays, int64 ``[B]``: the first ones may play one more."""
    return np.array([len(range(row, episodes, num_envs)) for row in range(num_envs)], dtype=np.int64)


class EpisodeCounter:
    """The episodes that are left to play in B environments, and those that count.

    Args:
        left: int64 ``[B]``, how many each environment is to play.
        max_steps: see ``evaluate``.
    """

    def __init__(self, left: np.ndarray, max_steps: int | None = None):
        self.left, self.max_steps = left, np.inf if max_steps is None else max_steps
        self.returns, self.lengths = np.zeros(len(left)), np.zeros(len(left), dtype=np.int64)
        self.idle = np.zeros(len(left), dtype=np.int64)  # steps since the last one that was one
        self.finished: list[tuple[float, int, int]] = []
        self.cut = 0

    def add(self, step: StepResult) -> None:
        """Count one step of all environments."""
        self.returns += step.paid
        self.lengths += ~step.ignored
        self.idle = np.where(step.ignored, self.idle + 1, 0)
        ended = step.terminated | step.truncated
        late = ~ended & (self.lengths >= self.max_steps)
        for row in np.flatnonzero((ended | late) & (self.left > 0)).tolist():
            self.finished.append((self.returns[row], self.lengths[row], row))
            self.cut += int(late[row])
        self.left = np.maximum(self.left - ended, 0)
        self.left[late | (self.idle >= self.max_steps)] = 0  # the latter: the others of its world never end
        self.returns[ended], self.lengths[ended] = 0.0, 0

    def get_evaluation(self) -> Evaluation:
        """Return the episodes that count, in the order in which they ended.

        Raises:
            ValueError: there is none: rows were idle while others of their worlds played on.
        """
        if not self.finished:
            raise ValueError(f"no episode that counts has ended within max_steps={self.max_steps}: raise it")
        returns, lengths, rows = zip(*self.finished, strict=True)
        return Evaluation(np.array(returns), np.array(lengths), np.array(rows), self.cut)


def make_bar(label: str | None, episodes: int) -> tqdm:
    """Make a progress bar of episodes that leaves no line behind; without a label, or a terminal, it shows nothing."""
    disable = True if label is None else None  # None: unless there is a terminal
    return tqdm(total=episodes, desc=label, unit=" episodes", leave=False, miniters=0, disable=disable)
