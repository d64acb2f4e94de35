"""How episodes end: whether a cut is told apart from an end, and whether the last observation is the real one."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rl.memory_check.features import encode_leaves
from rl.memory_check.play import Leaves, Step, fingerprint
from rl.memory_check.verdicts import Verdict

TOLD_APART, REAL = "truncation_is_told_apart", "final_observations_are_real"
CHANCE = 1e-4  # below it, what was seen is no coincidence
FEWEST = 5  # ends that one can speak of
MOST_ENDS = 2000  # whose observations are kept
TELL_CUTS = "Set truncated, not terminated, where a time limit ends an episode: what would follow is not worth zero."


def read_time_limit(envs: VectorEnv) -> int | None:
    """Return the steps after which the environment says that it cuts an episode; None if it says nothing.

    Our own environments say it by ``max_episode_steps``, those of Gymnasium by their spec.
    """
    base = envs.unwrapped
    single = getattr(base, "envs", None)
    for source in (base, getattr(base, "spec", None), getattr(single[0], "spec", None) if single else None):
        limit = getattr(source, "max_episode_steps", None)
        if isinstance(limit, (int, np.integer)) and limit > 0:
            return int(limit)
    return None


class Ends:
    """A watcher of how episodes end.

    Args:
        num_envs: B.
        limit: of the steps of an episode, see ``read_time_limit``.
    """

    def __init__(self, num_envs: int, limit: int | None):
        self.limit = limit
        self.running = np.zeros(num_envs, dtype=np.int64)
        self.lengths: list[int] = []
        self.flags: list[tuple[bool, bool]] = []
        self.steps = self.longest = 0

    def add(self, step: Step) -> None:
        """Count one step."""
        self.steps += 1
        self.running += ~step.ignored
        self.longest = max(self.longest, int(self.running.max()))
        for row in np.flatnonzero(step.ended):
            self.lengths.append(int(self.running[row]))
            self.flags.append((bool(step.terminated[row]), bool(step.truncated[row])))
        self.running[step.ended] = 0

    def verdict(self) -> Verdict:
        """Say whether truncation and termination are told apart, as far as the ends that were seen show it."""
        count, limit = len(self.lengths), self.limit
        if not count and (limit is None or self.longest <= limit):
            told = f"no episode ended within {self.steps} steps of {len(self.running)} environments"
            return Verdict(TOLD_APART, None, told, "Check more steps, or give the task an end or a time limit.", {})
        lengths = np.array(self.lengths, dtype=np.int64)
        terminated, truncated = np.array(self.flags, dtype=bool).reshape(-1, 2).T
        both = terminated & truncated
        numbers = {
            "episodes": count,
            "terminated": int((terminated & ~both).sum()),
            "truncated": int((truncated & ~both).sum()),
            "both": int(both.sum()),
            "shortest": int(lengths.min(initial=self.longest)),
            "longest": self.longest,
            "time_limit": limit,
        }
        if limit is not None and self.longest > limit:
            told = f"an episode of {self.longest} steps was not cut, though max_episode_steps={limit}"
            advice = "Put the environment in gymnasium.wrappers.TimeLimit, or correct what its spec says."
            return Verdict(TOLD_APART, False, told, advice, numbers)
        passed, told, advice = self._judge(lengths, terminated, truncated)
        shares = f"{count} episodes of {lengths.min()} to {lengths.max()} steps: {(terminated & ~both).mean():.0%} "
        shares += f"terminated, {(truncated & ~both).mean():.0%} truncated, {both.mean():.0%} both"
        return Verdict(TOLD_APART, passed, f"{shares}; {told}" if told else shares, advice, numbers)

    def _judge(
        self, lengths: np.ndarray, terminated: np.ndarray, truncated: np.ndarray
    ) -> tuple[bool | None, str, str]:
        """Return whether it passed, what is wrong, and what to do."""
        many, differ = len(lengths) >= FEWEST, lengths.min() < lengths.max()
        both = terminated & truncated
        at_limit = lengths == self.limit
        if at_limit.sum() >= 2 and not truncated[at_limit].any():
            return False, f"all {at_limit.sum()} that reached max_episode_steps={self.limit} say terminated", TELL_CUTS
        if many and differ and both.all():
            return False, "every end sets both flags, so a cut cannot be told from an end", TELL_CUTS
        at_end = lengths == lengths.max()
        if many and not truncated.any() and not differ:
            told = f"all say terminated after exactly {lengths[0]} steps"
            return None, told, f"If that is a time limit and not the end of the task: {TELL_CUTS}"
        if not truncated.any() and at_end.sum() >= max(FEWEST, 0.05 * len(lengths)) and self._stands_out(lengths):
            told = f"{at_end.sum()} say terminated after exactly {lengths.max()} steps, and none lasts longer"
            return None, told, f"If that is a time limit: {TELL_CUTS}"
        if many and differ and truncated.all():
            advice = "Set terminated where the task itself ends; else the value of a future that never comes is added."
            return None, "none says terminated, though their lengths differ", advice
        if both.any():
            return True, "where both are set, terminated counts", ""
        return True, "", ""

    def _stands_out(self, lengths: np.ndarray) -> bool:
        """Tell whether the greatest length is far more frequent than those just below it."""
        longest = lengths.max()
        below = (lengths < longest) & (lengths >= 0.8 * longest)
        expected = below.sum() / max(1.0, 0.2 * longest)
        return bool((lengths == longest).sum() >= 10 * (expected + 0.1))


class FinalObservations:
    """A watcher of the observations that close episodes.

    Args:
        num_envs: B.
        space: of one observation.
        resets_on_next_step: the environment resets one step late.
    """

    def __init__(self, num_envs: int, space: spaces.Space, resets_on_next_step: bool):
        self.space, self.late = space, resets_on_next_step
        self.firsts: dict[int, list[int]] = defaultdict(list)  # fingerprints of first observations, by row
        self.pending: dict[int, int] = {}  # fingerprints of final ones that wait for the next first one, by row
        self.repeats: dict[int, list[bool]] = defaultdict(list)  # whether the two were equal, by row
        self.openings: list[np.ndarray] = []  # first observations as numbers, [n, F] each
        self.cuts: list[tuple[np.ndarray, np.ndarray]] = []  # before the last action and after it, where truncated
        self.ends = self.untold = 0

    def add(self, step: Step) -> None:
        """Look at one step."""
        rows = np.flatnonzero(step.opens & ~step.ignored)
        if len(rows):
            opening = {name: leaf[rows] for name, leaf in step.before.items()}
            for row, mark in zip(rows.tolist(), fingerprint(opening).tolist(), strict=True):
                self.firsts[row].append(mark)
                if row in self.pending:
                    self.repeats[row].append(self.pending.pop(row) == mark)
            if len(self.openings) < MOST_ENDS:
                self.openings.append(encode_leaves(self.space, opening))
        if not step.ended.any():
            return
        self.ends += int(step.ended.sum())
        told = np.isin(np.flatnonzero(step.truncated), step.final_rows)
        self.untold += int((~told).sum())
        if not len(step.final_rows):
            return
        for row, mark in zip(step.final_rows.tolist(), fingerprint(step.final).tolist(), strict=True):
            self.pending[row] = mark
        cut = step.truncated[step.final_rows]
        if cut.any() and len(self.cuts) < MOST_ENDS:
            before = {name: leaf[step.final_rows[cut]] for name, leaf in step.before.items()}
            after: Leaves = {name: leaf[cut] for name, leaf in step.final.items()}
            self.cuts.append((encode_leaves(self.space, before), encode_leaves(self.space, after)))

    def verdict(self) -> Verdict:
        """Say whether final observations are those that closed the episodes, and not of the next ones."""
        repeated = [same for row in self.repeats.values() for same in row]
        numbers: dict[str, float] = {
            "ends": self.ends,
            "compared": len(repeated),
            "equal_to_the_next_first_one": sum(repeated),
        }
        if self.untold:
            told = f"{self.untold} truncated episodes have no final observation in info['final_obs']"
            advice = "Put the observation that closed the episode there: without it the value of a cut is a guess."
            return Verdict(REAL, False, told, advice, numbers)
        if not repeated:
            return Verdict(REAL, None, "no end with a final observation was seen", "Check more steps.", numbers)
        chance = numbers["chance"] = self._chance_of_repeats()
        if all(repeated) and chance < CHANCE:
            told = f"all {len(repeated)} final observations equal the first one of the next episode"
            return Verdict(REAL, False, told, self._advice(), numbers)
        inside, chance = self._looks_like_openings()
        numbers["cuts_that_look_like_openings"], numbers["chance"] = inside, min(chance, numbers["chance"])
        if chance < CHANCE:
            told = f"all {inside} observations that close truncated episodes look like those that open one"
            told += ", though those one step earlier do not"
            return Verdict(REAL, False, told, self._advice(), numbers)
        if all(repeated):
            told = (
                f"all {len(repeated)} final observations equal the first one of the next episode, which may be chance"
            )
            return Verdict(REAL, None, told, "Look at one end by hand.", numbers)
        told = f"{len(repeated) - sum(repeated)} of {len(repeated)} final observations differ from the next first one"
        return Verdict(REAL, True, told, "", numbers)

    def _advice(self) -> str:
        if self.late:
            return "Return the last observation in the step that ends the episode, and reset in the step after it."
        return "Copy the last observation before the reset: an array that is used again holds the next episode by then."

    def _chance_of_repeats(self) -> float:
        """Return how likely it is that final observations equal the next first ones by chance alone."""
        chance = 1.0
        for row, repeats in self.repeats.items():
            counts = np.unique(self.firsts[row], return_counts=True)[1]
            pairs, equal = counts.sum() * (counts.sum() - 1) / 2, (counts * (counts - 1) / 2).sum()
            chance *= ((equal + 1) / (pairs + 2)) ** len(repeats)
        return float(chance)

    def _looks_like_openings(self) -> tuple[int, float]:
        """Return how many cuts close within the box of all first observations, and the chance that all of them do."""
        if not self.cuts or not self.openings:
            return 0, 1.0
        openings = np.concatenate(self.openings)
        before, after = (np.concatenate(part) for part in zip(*self.cuts, strict=True))
        low, high = openings.min(axis=0), openings.max(axis=0)
        inside = ((after >= low) & (after <= high)).all(axis=1)
        usual = ((before >= low) & (before <= high)).all(axis=1)
        share = (usual.sum() + 1) / (len(usual) + 2)
        return int(inside.sum()), float(share ** len(inside)) if inside.all() else 1.0
