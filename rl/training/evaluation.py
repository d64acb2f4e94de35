"""Playing without learning, on environments and memories of its own."""

from dataclasses import dataclass

import numpy as np
from gymnasium.vector import VectorEnv

from rl.training.stepping import Stepper


@dataclass
class Evaluation:
    """Returns and lengths of finished episodes, and the rows of the environment that played them."""

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
    agent, envs: VectorEnv, episodes: int, seed: int | None = None, greedy: bool = True, memory: bool = True
) -> Evaluation:
    """Plays whole episodes; running moments, weights and the agent's own memories stay as they are.

    Every environment plays the same number of episodes, so short ones are not over-represented; the total is
    ``episodes`` rounded up to a multiple of the number of environments.

    Args:
        agent: anything with ``network``, a module, and ``new_actor``, who can ``play``.
        envs: in SAME_STEP or NEXT_STEP autoreset mode.
        episodes: at least so many.
        seed: of the environments and of sampled actions.
        greedy: take the likeliest action instead of sampling.
        memory: False clears the memory before every step.
    """
    quota = -(-episodes // envs.num_envs)
    player = agent.new_actor(envs.num_envs, seed, memory)
    played = np.zeros(envs.num_envs, dtype=int)
    returns, lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, dtype=int)
    finished: list[tuple[float, int, int]] = []
    was_training = agent.network.training
    agent.network.eval()
    try:
        stepper = Stepper(envs)
        obs = stepper.reset(seed)
        while played.min() < quota:
            after = stepper.step(player.act(obs, greedy))
            player.observe(after.rewards, after.ended)
            ended, obs = after.terminated | after.truncated, after.obs
            returns += after.rewards
            lengths += ~after.ignored
            for row in np.flatnonzero(ended & (played < quota)):
                finished.append((returns[row], lengths[row], row))
            played += ended
            returns[ended], lengths[ended] = 0.0, 0
    finally:
        agent.network.train(was_training)
    return Evaluation(*map(np.array, zip(*finished, strict=True)))
