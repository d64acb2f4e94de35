"""The numbers that an agent observes beside its picture."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.state_punishment.grid import PUNISHED_FOR

LEVEL, ACCOUNT, THIRD = range(3)


class Scalars:
    """The places of the scalars of an agent; see ``StatePunishment`` for what they mean.

    Args:
        num_agents: N, the agents of a world.
        harm: what each event puts on the account of every other agent, ``[8]``.
        level: the level is shown.
        account: the harm account is shown.
        phased: turns have phases, and the one to come is shown.
        punishment: the own punishment is shown.
        others: the punishments of all others are shown.

    Attributes:
        space: of one agent.
        punishment: index of the flag of the own punishment, None if there is none.
    """

    def __init__(
        self,
        num_agents: int,
        harm: np.ndarray,
        level: bool,
        account: bool,
        phased: bool,
        punishment: bool,
        others: bool,
    ):
        self.num_agents, self.level, self.account = num_agents, level, account
        self.phased, self.others = phased, others
        self.punishment = None if not punishment else THIRD + 1 if phased else THIRD
        self.first_other = THIRD + 1 + (punishment and phased)
        self.size = self.first_other + (num_agents - 1 if others else 0)
        low, high = np.zeros(self.size, dtype=np.float32), np.ones(self.size, dtype=np.float32)
        low[ACCOUNT] = np.floor(min(0, (num_agents - 1) * harm.min()))
        high[ACCOUNT] = np.ceil(max(1, (num_agents - 1) * harm.max()))
        self.space = spaces.Box(low, high)
        agents = np.arange(num_agents)
        self._others = np.array([np.delete(agents, agent) for agent in agents], dtype=np.int64)  # [N, N - 1]

    def observe(
        self, level: np.ndarray, account: np.ndarray, voting: np.ndarray | None, recent: np.ndarray
    ) -> np.ndarray:
        """Return the scalars of every agent, float32 ``[R, size]``.

        Args:
            level: of each world, ``[W]``.
            account: harm that each agent is about to pay, ``[R]``.
            voting: the coming turn is for voting only, bool ``[R]``; None if turns have no phases.
            recent: turns for which the last punishment remains to be shown, ``[R]``.
        """
        scalars = np.zeros((len(account), self.size), dtype=np.float32)
        if self.level:
            scalars[:, LEVEL] = np.repeat(level, self.num_agents)
        if self.account:
            scalars[:, ACCOUNT] = account
        if self.phased:
            scalars[:, THIRD] = voting
        punished = recent == PUNISHED_FOR
        if self.punishment is not None:
            scalars[:, self.punishment] = punished
        if self.size > self.first_other:
            by_world = punished.reshape(-1, self.num_agents)
            scalars[:, self.first_other :] = by_world[:, self._others].reshape(len(account), -1)
        return scalars
