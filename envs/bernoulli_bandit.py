"""Bernoulli bandit: find out which arm pays, and pull it, within one episode."""

from __future__ import annotations

from functools import cached_property, lru_cache
from math import comb

import numpy as np
from gymnasium import spaces

from envs.array_module import Array
from envs.batched_env import DRAWN, BatchedEnv
from envs.checks import at_least, positive
from envs.drawing import Picture, RenderMode, bandit

MAX_EXACT_STATES = 200_000


class BernoulliBandit(BatchedEnv):
    """``num_arms`` arms, each paying with its own probability, drawn anew from U(0, 1) in every episode.

    Observation: ``Box(0, 1, (num_arms + 2,), float32)``: the last arm one-hot, whether it paid, first-step flag.
    Action: ``Discrete(num_arms)``: the arm to pull.
    Reward: ``1 / episode_length`` if the arm pays, else 0.
    End: terminated after ``episode_length`` pulls.
    Optimal return: by backward induction over the counts of each arm (Bayes-optimal for the uniform prior); 0.62156
    for 2 arms and 20 pulls. None where it would take more than some seconds (over 100 pulls of 2 arms, 27 of 3).
    Memoryless return: of win-stay-lose-shift, 0.58520 for 2 arms and 20 pulls, since the observation holds the last
    arm and its outcome, and no policy of these two was found to do better. Pulling without any information gets 0.5.
    Source: Duan et al., "RL^2: fast reinforcement learning via slow reinforcement learning" (2016).
    """

    metadata = DRAWN
    state_names = ("probabilities", "last_outcome")

    def __init__(
        self,
        num_envs: int,
        num_arms: int = 2,
        episode_length: int = 20,
        device: str | None = None,
        render_mode: RenderMode = None,
    ):
        at_least(2, num_arms=num_arms)
        positive(episode_length=episode_length)
        self.num_arms, self.episode_length = int(num_arms), int(episode_length)
        size = self.num_arms + 2
        observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)
        super().__init__(num_envs, observation_space, spaces.Discrete(self.num_arms), None, device, render_mode)
        self.probabilities = self.xp.zeros((self.num_envs, self.num_arms), self.xp.float64)
        # 2 * arm + paid, or 2 * num_arms at the start
        self.last_outcome = self.xp.zeros(self.num_envs, self.xp.int64)
        views = np.zeros((2 * self.num_arms + 1, size), dtype=np.float32)
        views[:-1, : self.num_arms] = np.eye(self.num_arms).repeat(2, axis=0)
        views[1:-1:2, self.num_arms] = 1.0
        views[-1, -1] = 1.0
        self._views = self.xp.asarray(views)

    # These stand for attributes of the base class that can be set, which mypy sees no property do. They are worked out
    # when they are asked for only, since that may take seconds.
    @cached_property
    def optimal_return(self) -> float | None:  # type: ignore[override]
        """Return the best expected return of an episode, or None where it would take too long to work out."""
        return bayes_optimal_return(self.num_arms, self.episode_length)

    @cached_property
    def memoryless_return(self) -> float | None:  # type: ignore[override]
        """Return the expected return of win-stay-lose-shift, or None where it would take too long to work out."""
        return win_stay_lose_shift_return(self.num_arms, self.episode_length)

    def _start(self, rows: Array) -> None:
        self.xp.put(self.probabilities, rows, self.draws.random((len(rows), self.num_arms)))
        self.xp.put(self.last_outcome, rows, 2 * self.num_arms)

    def _advance(self, actions: Array) -> tuple[Array, Array]:
        paid = self.draws.random(self.num_envs) < self.probabilities[self.rows, actions]
        self.last_outcome = self.xp.renew(self.last_outcome, 2 * actions + paid)
        return paid / self.episode_length, self.elapsed_steps == self.episode_length - 1

    def _observe(self) -> Array:
        return self.xp.take(self._views, self.last_outcome)

    def _draw(self, row: int) -> Picture:
        arm, paid = divmod(int(self.last_outcome[row]), 2)
        chances = np.asarray(self.xp.export(self.probabilities[row]))
        share = int(self.elapsed_steps[row]) / self.episode_length
        return bandit(chances, arm if arm < self.num_arms else None, bool(paid), share)


@lru_cache
def bayes_optimal_return(num_arms: int, episode_length: int) -> float | None:
    """Return the mean reward per pull of the Bayes-optimal policy under a uniform prior, by dynamic programming.

    A situation is the number of wins and losses of every arm. After n pulls there are C(n + 2A - 1, 2A - 1) of them;
    where the last pull has more than ``MAX_EXACT_STATES``, the result is None.
    """
    too_many = comb(episode_length + 2 * num_arms - 1, 2 * num_arms - 1) > MAX_EXACT_STATES
    if too_many or (episode_length + 1) ** (2 * num_arms) >= 2**63:
        return None
    # A state is one integer: the counts are its digits, so that a win or a loss adds a power of the base.
    steps = (episode_length + 1) ** np.arange(2 * num_arms, dtype=np.int64)  # [2A]: win of arm 0, loss of arm 0, ...
    levels = [np.zeros(1, dtype=np.int64)]
    for _ in range(episode_length - 1):
        levels.append(np.unique(levels[-1][:, None] + steps))
    next_states, next_values = np.zeros(0, dtype=np.int64), np.zeros(1)
    for states in reversed(levels):
        counts = states[:, None] // steps % (episode_length + 1)  # [N, 2A]
        wins, losses = counts[:, 0::2], counts[:, 1::2]
        chance = (wins + 1.0) / (wins + losses + 2.0)  # [N, A], the mean of the Beta posterior
        # After the last pull nothing is left: every lookup then finds the single zero of next_values.
        after = next_values[np.searchsorted(next_states, states[:, None] + steps)]  # [N, 2A]
        values = (chance * (1.0 + after[:, 0::2]) + (1.0 - chance) * after[:, 1::2]).max(axis=1)
        next_states, next_values = states, values
    return float(next_values[0]) / episode_length


@lru_cache
def win_stay_lose_shift_return(num_arms: int, episode_length: int) -> float | None:
    """Return the mean reward per pull of repeating an arm that paid, and trying the next one after an arm that did not.

    Given the arms' probabilities, the arm pulled is a Markov chain, so the return is a polynomial in them of degree
    at most ``episode_length`` in each: Gauss-Legendre quadrature with enough nodes integrates it exactly. The result is
    None where that takes more than ``MAX_EXACT_STATES`` nodes.
    """
    num_nodes = episode_length // 2 + 1
    if num_nodes**num_arms > MAX_EXACT_STATES:
        return None
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    grid = np.meshgrid(*[(nodes + 1.0) / 2.0] * num_arms, indexing="ij")
    chance = np.stack([axis.ravel() for axis in grid])  # [A, nodes^A]
    weight = np.prod(np.meshgrid(*[weights / 2.0] * num_arms, indexing="ij"), axis=0).ravel()
    pulled = np.zeros_like(chance)  # the probability of pulling each arm, starting with arm 0
    pulled[0] = 1.0
    total = 0.0
    for _ in range(episode_length):
        paid = pulled * chance
        total += float(weight @ paid.sum(axis=0))
        pulled = paid + np.roll(pulled - paid, 1, axis=0)
    return total / episode_length
