"""Recorded episodes end to end, split into pieces that parallel streams replay one after the other."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from gymnasium import spaces

from rl.spaces import leaf_spaces, unsupported_leaves

Split = Literal["episodes", "time"]
SPLITS = get_args(Split)


@dataclass
class Recording:
    """A recording: E episodes of N steps in all, end to end.

    Attributes:
        observation_space: of one environment.
        action_space: of one environment.
        obs: leaves ``[N, *shape]``, what was observed before each action.
        actions: ``[N, ...]`` as an environment takes them.
        rewards: float32 ``[N]``, what each action brought.
        bounds: int64 ``[E + 1]``: episode e holds the steps ``bounds[e]`` ... ``bounds[e + 1] - 1``.
        groups: int64 ``[E]``; episodes of one group (both players of one game) are never split.
        action_names: names of the action branches, if they have any.
        branch_weights: other sums of the loss over the branches, by name: a weight for each branch.

    Raises:
        ValueError: a value is not finite or not in its space, or an episode has no step.
    """

    observation_space: spaces.Space
    action_space: spaces.Space
    obs: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    bounds: np.ndarray
    groups: np.ndarray
    action_names: tuple[str, ...] | None = None
    branch_weights: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every value."""
        if len(self.bounds) < 2 or (np.diff(self.bounds) < 1).any():
            raise ValueError("the recording has no episode, or an episode without a step")
        leaves = leaf_spaces(self.observation_space, unsupported_leaves(self.observation_space))
        for name, space in leaves.items():
            self._check(f"observation {name!r}", self.obs[name], space)
        self._check("action", self.actions, self.action_space)
        self._check("reward", self.rewards, spaces.Box(-np.inf, np.inf, ()))

    def _check(self, name: str, values: np.ndarray, space: spaces.Space) -> None:
        """Check the shape, and that every number is finite and, where the space is of integers, in its range.

        Raises:
            ValueError: the shape is another, or a number is not in the space.
        """
        if values.shape != (int(self.bounds[-1]), *(space.shape or ())):
            raise ValueError(f"{name} has shape {values.shape[1:]}, but its space is {space}")
        if isinstance(space, spaces.Box):
            good = np.isfinite(values)
        else:
            low = getattr(space, "start", 0)
            count = next((getattr(space, key) for key in ("n", "nvec") if hasattr(space, key)), 2)
            count = 2 if isinstance(space, spaces.MultiBinary) else count
            good = (values >= low) & (values < low + count)
        if not good.all():
            step = int(np.argmin(good.reshape(len(good), -1).all(axis=1)))
            episode = int(np.searchsorted(self.bounds, step, side="right")) - 1
            value = values[step][~good[step]].flat[0]
            where = f"at step {step - int(self.bounds[episode])} of episode {episode}"
            wanted = "finite" if isinstance(space, spaces.Box) else f"in {space}"
            raise ValueError(f"{name} is {value} {where} of the recording: it must be {wanted}")

    @property
    def starts(self) -> np.ndarray:
        """Where an episode begins, bool ``[N]``."""
        starts = np.zeros(self.bounds[-1], dtype=bool)
        starts[self.bounds[:-1]] = True
        return starts

    @property
    def returns(self) -> np.ndarray:
        """Sum of the rewards of each episode, ``[E]``."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.bounds[:-1])


def hold_out(recording: Recording, share: float, split: Split, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide a recording into spans of steps to learn from and spans held out.

    Args:
        recording: what to divide.
        share: of the groups (``episodes``), or of each episode (``time``: its last steps), that is held out.
        split: whole episodes, drawn by ``seed``, or by time.
        seed: see ``split``.

    Returns:
        Both ``[n, 2]``: first step, end. They share no step.

    Raises:
        ValueError: nothing would be left on one side.
    """
    first, end = recording.bounds[:-1], recording.bounds[1:]
    if split == "time":
        middle = end - np.round((end - first) * share).astype(np.int64)
        if (middle <= first).any() or (middle >= end).any():
            raise ValueError(f"held_out={share}: an episode of {int((end - first).min())} steps cannot be cut there")
        return np.stack([first, middle], axis=1), np.stack([middle, end], axis=1)
    groups = np.unique(recording.groups)
    if len(groups) < 2:
        raise ValueError("the recording has one episode or game only: hold out its last part with split=time")
    count = min(max(1, round(len(groups) * share)), len(groups) - 1)
    held_groups = np.random.default_rng(seed).permutation(groups)[:count]
    held = np.isin(recording.groups, held_groups)
    spans = np.stack([first, end], axis=1)
    return spans[~held], spans[held]


def split_into_pieces(spans: np.ndarray, piece_steps: int | None = None, burn_in: int = 0) -> np.ndarray:
    """Split spans of steps into pieces; every step of the spans counts in exactly one of them.

    Args:
        spans: ``[n, 2]``: first step, end; no piece reaches over the end of one.
        piece_steps: a longer span is split into pieces that count so many steps; None leaves it whole.
        burn_in: steps in front of such a piece that only warm the memory.

    Returns:
        ``[n, 3]``: first step, first step that counts, end.
    """
    pieces = [
        (max(first, counted - burn_in), counted, min(counted + (piece_steps or end - first), end))
        for first, end in spans.tolist()
        for counted in range(first, end, piece_steps or end - first)
    ]
    return np.array(pieces, dtype=np.int64)


@dataclass
class Streams:
    """A schedule of replay: each of B memories replays pieces one after the other.

    Attributes:
        steps: int64 ``[T, B]``, steps of the recording; any step where nothing is left to replay.
        starts: bool ``[T, B]``: a piece begins, so the memory is cleared.
        counted: bool ``[T, B]``: a step whose loss counts.
    """

    steps: np.ndarray
    starts: np.ndarray
    counted: np.ndarray

    def windows(self, size: int) -> Iterator["Streams"]:
        """Yield blocks of ``size`` steps (the last one may be shorter), in order."""
        for begin in range(0, len(self.steps), size):
            times = slice(begin, begin + size)
            yield Streams(self.steps[times], self.starts[times], self.counted[times])


def deal(pieces: np.ndarray, num_streams: int, seed: int | None = None) -> Streams:
    """Deal pieces to at most ``num_streams`` streams, each to the one that is shortest so far.

    Args:
        pieces: from ``split_into_pieces``.
        num_streams: B, or as many as there are pieces if those are fewer.
        seed: of the order; None leaves it.
    """
    order = np.arange(len(pieces)) if seed is None else np.random.default_rng(seed).permutation(len(pieces))
    queue = [(0, stream) for stream in range(min(num_streams, len(pieces)))]
    placed = []
    for piece in order.tolist():
        length, stream = heapq.heappop(queue)
        placed.append((length, stream, piece))
        heapq.heappush(queue, (length + int(pieces[piece, 2] - pieces[piece, 0]), stream))
    shape = max(length for length, _ in queue), len(queue)
    dealt = Streams(np.zeros(shape, dtype=np.int64), np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool))
    for begin, stream, piece in placed:
        first, counted, end = pieces[piece].tolist()
        times = slice(begin, begin + end - first)
        dealt.steps[times, stream] = np.arange(first, end)
        dealt.starts[times, stream] = False
        dealt.starts[begin, stream] = True
        dealt.counted[begin + counted - first : begin + end - first, stream] = True
    return dealt
