"""How episodes end: whether a cut is told apart from an end."""

from __future__ import annotations

import numpy as np
from gymnasium.vector import VectorEnv

from rl.memory_check.play import Step
from rl.memory_check.verdicts import Verdict

TOLD_APART = "truncation_is_told_apart"
FEWEST = 5  # ends that one can speak of
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
