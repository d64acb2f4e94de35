"""What an environment shows and pays: within its space, finite, and not always the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.memory_check.play import Leaves, Step
from rl.memory_check.verdicts import Verdict
from rl.spaces import LEAF_SPACES, list_leaves

IN_SPACE, FINITE, VARY = "observations_are_in_their_space", "rewards_are_finite", "observations_vary"
ROUNDING = 1e-5  # of the size of a bound
LARGEST = float(np.finfo(np.float32).max)


class Values:
    """A watcher of observations and rewards.

    Args:
        space: of one observation.
    """

    def __init__(self, space: spaces.Space):
        self.spaces = {name: leaf for name, leaf in list_leaves(space).items() if isinstance(leaf, LEAF_SPACES)}
        self.faults: dict[str, str] = {}  # the first of each leaf
        self.wrong = self.seen = 0  # rows of observations
        self.low: Leaves = {}
        self.high: Leaves = {}
        self.rewards: list[tuple[float, float]] = []
        self.unusable: list[float] = []

    def add(self, step: Step) -> None:
        """Look at one step."""
        self.add_observations(step.before)
        if len(step.final_rows):
            self.add_observations(step.final, counts=False)
        finite = np.isfinite(step.rewards) & (np.abs(step.rewards) <= LARGEST)
        self.unusable += np.asarray(step.rewards)[~finite].tolist()
        if finite.any():
            self.rewards.append((float(step.rewards[finite].min()), float(step.rewards[finite].max())))

    def add_observations(self, leaves: Leaves, counts: bool = True) -> None:
        """Look at observations, leaves ``[n, ...]``; ``counts``: what varies is judged by them."""
        for name, space in self.spaces.items():
            leaf = leaves[name]
            self.seen += len(leaf)
            fault, rows = find_fault(space, leaf)
            if fault:
                self.wrong += rows
                self.faults.setdefault(name, f"{name!r} {fault}")
            if counts and len(leaf) and leaf.shape[1:] == (space.shape or ()):
                low, high = leaf.min(axis=0), leaf.max(axis=0)
                self.low[name] = np.minimum(self.low.get(name, low), low)
                self.high[name] = np.maximum(self.high.get(name, high), high)

    def verdicts(self) -> list[Verdict]:
        """Say what was wrong."""
        return [self._in_space(), self._finite(), self._vary()]

    def _in_space(self) -> Verdict:
        numbers = {"observations": self.seen, "outside": self.wrong}
        if self.faults:
            told = f"{self.wrong} of {self.seen} observations do not fit the space: {'; '.join(self.faults.values())}"
            advice = "Correct observation_space, or what is shown: scales of inputs are taken from its bounds."
            return Verdict(IN_SPACE, False, told, advice, numbers)
        return Verdict(IN_SPACE, True, f"all {self.seen} observations lie in the space", "", numbers)

    def _finite(self) -> Verdict:
        low = min((pair[0] for pair in self.rewards), default=0.0)
        high = max((pair[1] for pair in self.rewards), default=0.0)
        numbers: dict[str, Any] = {"smallest": low, "largest": high, "not_finite": len(self.unusable)}
        if self.unusable:
            told = f"{len(self.unusable)} rewards are no finite numbers of float32, the first is {self.unusable[0]:g}"
            return Verdict(FINITE, False, told, "Find the division or the overflow that makes them.", numbers)
        return Verdict(FINITE, True, f"rewards lie from {low:.6g} to {high:.6g}", "", numbers)

    def _vary(self) -> Verdict:
        same = {name: int((self.low[name] == self.high[name]).sum()) for name in self.low}
        sizes = {name: self.low[name].size for name in self.low}
        constant = [name for name in same if same[name] == sizes[name]]
        numbers = {"constant": constant, "constant_numbers": sum(same.values()), "numbers": sum(sizes.values())}
        if constant:
            told = f"never changes: {_join(constant)}"
            advice = "Leave it out with agent.ignore_leaves, or show what should change in it."
            return Verdict(VARY, None, told, advice if len(self.spaces) > 1 else "Show what should change.", numbers)
        told = f"{sum(sizes.values()) - sum(same.values())} of {sum(sizes.values())} numbers of an observation change"
        return Verdict(VARY, True, told, "", numbers)


def find_fault(space: spaces.Space, leaf: np.ndarray) -> tuple[str, int]:
    """Return what is wrong with the rows of a leaf ``[n, ...]``, empty if nothing is, and in how many rows."""
    shape = space.shape or ()
    if leaf.shape[1:] != shape:
        return f"has shape {leaf.shape[1:]}, not {shape}", len(leaf)
    if leaf.dtype != space.dtype:
        return f"is {leaf.dtype}, not {space.dtype}", len(leaf)
    rows = leaf.reshape(len(leaf), -1)
    if leaf.dtype.kind == "f" and not np.isfinite(rows).all():
        bad = ~np.isfinite(rows)
        return f"holds {rows[bad][0]}", int(bad.any(axis=1).sum())
    low, high = _bounds(space)
    low, high = np.broadcast_to(low, shape).reshape(-1), np.broadcast_to(high, shape).reshape(-1)
    slack = ROUNDING if leaf.dtype.kind == "f" else 0.0
    with np.errstate(invalid="ignore", over="ignore"):  # of infinite bounds
        below, above = rows < low - slack * (1 + np.abs(low)), rows > high + slack * (1 + np.abs(high))
    outside = below | above
    if not outside.any():
        return "", 0
    row, place = np.argwhere(outside)[0]
    return f"holds {rows[row, place]:g}, not {low[place]:g} to {high[place]:g}", int(outside.any(axis=1).sum())


def _bounds(space: spaces.Space) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(space, spaces.Box):
        return space.low.astype(np.float64), space.high.astype(np.float64)
    if isinstance(space, spaces.Discrete):
        return np.array(float(space.start)), np.array(float(space.start + space.n - 1))
    if isinstance(space, spaces.MultiDiscrete):
        return space.start.astype(np.float64), (space.start + space.nvec - 1).astype(np.float64)
    return np.array(0.0), np.array(1.0)


def _join(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
