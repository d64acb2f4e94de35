"""Keep what was played for the probe, as rows of numbers."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from rl.memory_check.features import encode, encode_leaves, list_branches
from rl.memory_check.history import Steps
from rl.memory_check.play import Leaves, Step

AT_ONCE = 64  # steps that are turned into numbers together
MOST_STEPS = 40_000  # of all environments together; the probe uses half of them at most


class Recording:
    """A watcher that keeps observations, actions and rewards, of as many environments as it has room for.

    Args:
        num_envs: B.
        observation_space: of one environment.
        action_space: of one environment.
        steps: that will be played.
    """

    def __init__(self, num_envs: int, observation_space: spaces.Space, action_space: spaces.Space, steps: int):
        self.space, self.action_space = observation_space, action_space
        self.rows = min(num_envs, max(1, MOST_STEPS // steps))
        self.raw: list[Leaves] = []
        self.obs: list[np.ndarray] = []  # [n * rows, F] each
        self.columns: list[tuple[np.ndarray, ...]] = []  # actions, rewards, opens, ended, ignored of each step

    def add(self, step: Step) -> None:
        """Keep one step."""
        rows = slice(self.rows)
        self.raw.append({name: leaf[rows].copy() for name, leaf in step.before.items()})
        columns = step.actions, step.rewards, step.opens, step.ended, step.ignored
        self.columns.append(tuple(np.array(column[rows]) for column in columns))
        if len(self.raw) == AT_ONCE:
            self._encode()

    def steps(self) -> Steps:
        """Return all steps that were transitions, environment by environment."""
        self._encode()
        actions, rewards, opens, ended, ignored = (
            _by_row(np.stack(column)) for column in zip(*self.columns, strict=True)
        )
        obs = np.concatenate(self.obs) if self.obs else np.zeros((0, 0), dtype=np.float32)
        obs = _by_row(obs.reshape(len(self.columns), self.rows, -1))
        first = np.zeros((self.rows, len(self.columns)), dtype=bool)
        first[:, 0] = True
        kept = ~ignored
        begins = _carry(opens | first.ravel(), ignored)[kept]
        places = np.arange(len(begins))
        branches = list_branches(self.action_space)
        least = np.asarray(getattr(self.action_space, "start", 0)).reshape(-1) if branches else 0
        chosen = actions.reshape(len(actions), -1).astype(np.int64) - least if branches else np.zeros((len(actions), 0))
        return Steps(
            obs[kept],
            encode(self.action_space, actions)[kept],
            chosen[kept].astype(np.int64),
            np.nan_to_num(rewards[kept].astype(np.float64)),
            places - np.maximum.accumulate(np.where(begins, places, 0)),
            ended[kept],
        )

    def _encode(self) -> None:
        if self.raw:
            names = self.raw[0]
            joined = {name: np.concatenate([leaves[name] for leaves in self.raw]) for name in names}
            self.obs.append(encode_leaves(self.space, joined))
            self.raw = []


def _by_row(values: np.ndarray) -> np.ndarray:
    """Turn ``[T, B, ...]`` into ``[B * T, ...]``, the steps of an environment one after the other."""
    return np.ascontiguousarray(values.swapaxes(0, 1)).reshape(-1, *values.shape[2:])


def _carry(opens: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Let an ignored step that opens an episode hand that on to the next one that is played."""
    carried, waiting = opens.copy(), False
    for i in np.flatnonzero(opens | ignored).tolist():
        waiting = ignored[i]
        if waiting and i + 1 < len(opens):
            carried[i + 1] = True
    return carried
