"""Plays whole episodes without learning, on environments and memories of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from gymnasium.vector import VectorEnv
from torch import nn

from rl.checks import positive
from rl.training.stepping import VectorEnvAdapter
from rl.types import Agent


@dataclass
class Evaluation:
    """The finished episodes of an evaluation.

    Attributes:
        returns: float64 ``[episodes]``.
        lengths: int64 ``[episodes]``, in steps.
        rows: int64 ``[episodes]``, the row of the environment that played the episode.
    """

    returns: np.ndarray
    lengths: np.ndarray
    rows: np.ndarray

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def stderr(self) -> float:
        """Standard error of the mean; 0 for a single episode."""
        count = len(self.returns)
        return float(self.returns.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0


def evaluate(
    agent: Agent, envs: VectorEnv, episodes: int, seed: int | None = None, greedy: bool = True, memory: bool = True
) -> Evaluation:
    """Play whole episodes; running moments, weights and the agent's own memories stay as they are.

    Every environment plays the same number of episodes, so short ones are not over-represented; the total is
    ``episodes`` rounded up to a multiple of the number of environments.

    Args:
        agent: makes the player; its network does not learn and drops nothing out meanwhile.
        envs: in SAME_STEP or NEXT_STEP autoreset mode.
        episodes: at least so many.
        seed: of the environments and of sampled actions.
        greedy: take the likeliest action instead of sampling.
        memory: False clears the memory before every step.

    Raises:
        ValueError: ``episodes`` is below 1, or the autoreset mode is another one.
    """
    positive(episodes=episodes)
    adapter, player = VectorEnvAdapter(envs), agent.new_actor(envs.num_envs, seed, memory)
    quota = -(-episodes // envs.num_envs)
    played = np.zeros(envs.num_envs, dtype=np.int64)
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, dtype=np.int64)
    finished: list[tuple[float, int, int]] = []
    with evaluation_mode(agent.network):
        obs = adapter.reset(seed)
        while played.min() < quota:
            step = adapter.step(player.act(obs, greedy))
            player.observe(step.rewards, step.ended)
            obs, ended = step.obs, step.terminated | step.truncated
            returns += step.rewards
            lengths += ~step.ignored
            for row in np.flatnonzero(ended & (played < quota)).tolist():
                finished.append((returns[row], lengths[row], row))
            played += ended
            returns[ended], lengths[ended] = 0.0, 0
    return Evaluation(*map(np.array, zip(*finished, strict=True)))


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Switch off what a network does in training only; whatever happens, each part is put back as it was.

    Part by part, for the networks of a population may differ, and the module that holds them is made anew when asked
    for.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
