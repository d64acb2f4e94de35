"""Observations that close episodes: whether they are real, or already those of the next episode."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import comb
from typing import Any

import numpy as np
from gymnasium import spaces

from rl.memory_check.features import encode_leaves
from rl.memory_check.play import Leaves, Step, fingerprint
from rl.memory_check.verdicts import Verdict
from rl.spaces import LEAF_SPACES, list_leaves

REAL = "final_observations_are_real"
CHANCE = 1e-4  # below it, what was seen is no coincidence
MOST_ENDS = 1000  # steps with ends whose observations are kept
MOST_CUTS = 200  # that are compared with first observations
MARGIN, MOST, FEW = 0.25, 0.9, 0.5  # around the box of first observations; shares of closing ones, and of those before


class FinalObservations:
    """A watcher of the observations that close episodes.

    Args:
        space: of one observation.
        resets_on_next_step: the environment resets one step late.
    """

    def __init__(self, space: spaces.Space, resets_on_next_step: bool):
        self.late = resets_on_next_step
        names = [name for name, leaf in list_leaves(space).items() if isinstance(leaf, LEAF_SPACES)]
        self.whole = Comparison(space, names)
        self.parts = {name: Comparison(space, [name]) for name in names} if len(names) > 1 else {}
        self.ends = self.untold = 0

    def add(self, step: Step) -> None:
        """Look at one step."""
        self.ends += int(step.ended.sum())
        self.untold += int((~np.isin(np.flatnonzero(step.truncated), step.final_rows)).sum())
        for comparison in (self.whole, *self.parts.values()):
            comparison.add(step)

    def verdict(self) -> Verdict:
        """Say whether final observations are those that closed the episodes, and not of the next ones."""
        whole = self.whole
        count, equal, chance = whole.count_repeats()
        inside, chance_inside = whole.count_openings()
        numbers: dict[str, Any] = {"ends": self.ends, "compared": count, "equal_to_the_next_first_one": equal}
        numbers |= {"cuts_that_look_like_openings": inside, "chance": min(chance, chance_inside)}
        if self.untold:
            told = f"{self.untold} truncated episodes have no final observation in info['final_obs']"
            advice = "Put the observation that closed the episode there: without it the value of a cut is a guess."
            return Verdict(REAL, False, told, advice, numbers)
        if not count:
            return Verdict(REAL, None, "no end with a final observation was seen", "Check more steps.", numbers)
        if chance < CHANCE:
            told = f"all {count} final observations equal the first one of the next episode"
            return Verdict(REAL, False, told, self._advice(), numbers)
        if chance_inside < CHANCE:
            told = f"{inside} observations that close truncated episodes look like those that open one, though few of "
            return Verdict(REAL, False, f"{told}those one step earlier do", self._advice(), numbers)
        if repeated := [name for name, part in self.parts.items() if part.count_repeats()[2] < CHANCE]:
            certain = [name for name in repeated if self.parts[name].count_openings()[1] < CHANCE]
            names = ", ".join(map(repr, certain or repeated))
            told = f"in all {count} final observations {names} is that of the first one of the next episode"
            return Verdict(REAL, False if certain else None, told, self._advice(), numbers | {"leaves": repeated})
        if equal == count:
            told = f"all {count} final observations equal the first one of the next episode, which may be chance"
            return Verdict(REAL, None, told, "Look at one end by hand.", numbers)
        told = f"{count - equal} of {count} final observations differ from the next first one"
        return Verdict(REAL, True, told, "", numbers)

    def _advice(self) -> str:
        if self.late:
            return "Return the last observation in the step that ends the episode, and reset in the step after it."
        return "Copy the last observation before the reset: an array that is used again holds the next episode by then."


class Comparison:
    """What closed episodes beside what opened them, of some leaves.

    Args:
        space: of one observation.
        names: of the leaves.
    """

    def __init__(self, space: spaces.Space, names: Sequence[str]):
        self.space, self.names = space, names
        self.firsts: dict[int, list[int]] = defaultdict(list)  # fingerprints of first observations, by row
        self.pending: dict[int, int] = {}  # fingerprints of final ones that wait for the next first one, by row
        self.repeats: dict[int, list[bool]] = defaultdict(list)  # whether the two were equal, by row
        self.openings: list[np.ndarray] = []  # first observations as numbers, [n, F] each
        self.cuts: list[tuple[np.ndarray, np.ndarray]] = []  # before the last action and after it, where truncated

    def add(self, step: Step) -> None:
        """Look at one step."""
        rows = np.flatnonzero(step.opens & ~step.ignored)
        if len(rows):
            opening = self._take(step.before, rows)
            for row, mark in zip(rows.tolist(), fingerprint(opening).tolist(), strict=True):
                self.firsts[row].append(mark)
                if row in self.pending:
                    self.repeats[row].append(self.pending.pop(row) == mark)
            if len(self.openings) < MOST_ENDS:
                self.openings.append(encode_leaves(self.space, opening))
        if not len(step.final_rows):
            return
        final = self._take(step.final, np.arange(len(step.final_rows)))
        self.pending.update(zip(step.final_rows.tolist(), fingerprint(final).tolist(), strict=True))
        cut = np.flatnonzero(step.truncated[step.final_rows])
        if len(cut) and len(self.cuts) < MOST_ENDS:
            before, after = self._take(step.before, step.final_rows[cut]), self._take(final, cut)
            self.cuts.append((encode_leaves(self.space, before), encode_leaves(self.space, after)))

    def _take(self, leaves: Leaves, rows: np.ndarray) -> Leaves:
        return {name: leaves[name][rows] for name in self.names}

    def count_repeats(self) -> tuple[int, int, float]:
        """Return how many final observations were compared with the next first one, and how many were equal.

        The third number is how likely it is by chance that all are; 1 if not all are.
        """
        repeated = [same for row in self.repeats.values() for same in row]
        chance = 1.0
        for row, repeats in self.repeats.items():
            counts = np.unique(self.firsts[row], return_counts=True)[1]
            pairs, equal = counts.sum() * (counts.sum() - 1) / 2, (counts * (counts - 1) / 2).sum()
            chance *= ((equal + 1) / (pairs + 2)) ** len(repeats)
        return len(repeated), sum(repeated), float(chance) if all(repeated) else 1.0

    def count_openings(self) -> tuple[int, float]:
        """Return how many cuts close within the box of all first observations, and the chance of so many or more.

        One step earlier as many should lie there.
        """
        if not self.cuts or not self.openings:
            return 0, 1.0
        openings = np.concatenate(self.openings)
        before, after = (np.concatenate(part)[:MOST_CUTS] for part in zip(*self.cuts, strict=True))
        low, high = openings.min(axis=0), openings.max(axis=0)
        margin = MARGIN * (high - low)
        inside, usual = (
            int(((seen >= low - margin) & (seen <= high + margin)).all(axis=1).sum()) for seen in (after, before)
        )
        count, share = len(after), (usual + 1) / (len(before) + 2)
        if inside < MOST * count or share > FEW:
            return inside, 1.0
        tail = sum(comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(inside, count + 1))
        return inside, float(tail)
