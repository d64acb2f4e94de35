"""The ways to spell a move and a vote as an action."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from envs.checks import one_of

ACTION_SETS = ("dual", "simple", "composite", "factored")
NO_VOTE, INCREASE, DECREASE = range(3)
NUM_VOTES = 3
MOVES = ("up", "down", "left", "right")
VOTE_WORDS = ("no_vote", "increase", "decrease")


class ActionSet:
    """One of the four sets of actions, and how they are decoded; see ``StatePunishment`` for what they are.

    Args:
        kind: "dual", "simple", "composite" or "factored".
        num_arms: of a menu; None for a grid.

    Attributes:
        space: of one agent.
        branch_names: of a MultiDiscrete space, else None.
        names: of every action code. They are read off the pair that is executed, so the two cannot differ.
        rest: the move that stands for staying in place, or for leaving the menu.

    Raises:
        ValueError: an unknown kind.
    """

    def __init__(self, kind: str, num_arms: int | None):
        one_of(ACTION_SETS, actions=kind)
        self.rest = len(MOVES) if num_arms is None else num_arms
        pairs = _pairs(kind, self.rest, menu=num_arms is not None)
        self._moves, self._votes = np.array(pairs).T
        branched = kind in ("dual", "factored")
        self.space = (
            spaces.MultiDiscrete([len(pairs) // NUM_VOTES, NUM_VOTES]) if branched else spaces.Discrete(len(pairs))
        )
        self.branch_names = ("move", "vote") if branched else None
        if num_arms is None:
            words = [*MOVES, "stay"]
        else:
            words = [f"{'pick_' if kind == 'simple' else 'opt'}{arm + 1}" for arm in range(num_arms)] + ["leave"]
        self.names = tuple(self._name(kind, words[move], move == self.rest, VOTE_WORDS[vote]) for move, vote in pairs)

    def _name(self, kind: str, word: str, rests: bool, vote: str) -> str:
        if self.branch_names is None and rests:
            return "noop" if vote == "no_vote" else f"vote_{vote}"
        return word if kind == "simple" else f"{word}_{vote}"

    def decode(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the action codes, moves and votes, int64 ``[R]`` each, of actions of the batched space."""
        codes = actions if self.branch_names is None else actions[:, 0] * NUM_VOTES + actions[:, 1]
        return codes, self._moves.take(codes), self._votes.take(codes)

    def encode(self, moves: np.ndarray) -> np.ndarray:
        """Return the actions of the batched space that make the ``moves`` ``[R]`` without a vote.

        Raises:
            ValueError: the set has no such move (dual agents in a grid cannot stay).
        """
        codes = np.full(self.rest + 1, -1)
        silent = np.flatnonzero(self._votes == NO_VOTE)
        codes[self._moves[silent]] = silent
        chosen = codes.take(moves)
        if chosen.min() < 0:
            raise ValueError("the action set dual has no action for staying in place")
        return chosen if self.branch_names is None else np.stack(np.divmod(chosen, NUM_VOTES), axis=1)


def _pairs(kind: str, rest: int, menu: bool) -> list[tuple[int, int]]:
    """List the (move, vote) that each action code stands for; move ``rest`` is none."""
    votes = range(NUM_VOTES)
    both = [(move, vote) for move in range(rest) for vote in votes]
    if kind == "simple":
        alone = [(rest, vote) for vote in ((NO_VOTE, INCREASE, DECREASE) if menu else (INCREASE, DECREASE, NO_VOTE))]
        return [(move, NO_VOTE) for move in range(rest)] + alone
    if kind == "composite":
        return [*both, (rest, NO_VOTE)]
    return both + [(rest, vote) for vote in votes] if menu or kind == "factored" else both
