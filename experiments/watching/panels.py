"""The curves of an episode: which there are, what they are called, what is drawn in one panel."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl.training.watching import Track, WatchedEpisode

MANY_LEAVES = 4
"""Leaves of a memory that have a curve each; more of them have one curve together."""


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        label: what it is of, empty if the panel has one curve only.
        values: float64 ``[T]``, NaN where there is none.
        colour: number of its colour.
        zeroed: it belongs to the episode with the memory zeroed.
    """

    label: str
    values: np.ndarray
    colour: int
    zeroed: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves on one axis."""

    title: str
    lines: list[Line]

    def find_range(self) -> tuple[float, float]:
        """Return the least and the greatest value; a little more where they are the same."""
        values = np.concatenate([line.values for line in self.lines])
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        return (low + 0.0, high + 0.0) if high - low > 1e-9 else (low - 0.5, high + 0.5)  # + 0.0: never -0


@dataclass(frozen=True)
class Pair:
    """An episode and, if it was asked for, the same one with the memory zeroed from some step on."""

    seed: int
    kept: WatchedEpisode
    zeroed: WatchedEpisode | None = None

    @property
    def both(self) -> list[WatchedEpisode]:
        """The episodes that there are."""
        return [self.kept] if self.zeroed is None else [self.kept, self.zeroed]

    @property
    def moments(self) -> int:
        """So many pictures, or steps where there are no pictures, the longer one has."""
        return max(max(episode.length, len(episode.pictures)) for episode in self.both)


def make_panels(pair: Pair) -> list[Panel]:
    """Return the panels of an episode, those of the memory first; a panel without any curve is left out."""
    titles = {
        "norm": "norm of the memory",
        "entropy": "entropy of the policy (nats)",
        "mean_q": "mean value of all actions",
        "value": "value estimate",
        "reward": "reward",
        "return": "return so far",
    }
    found: dict[str, list[Line]] = {key: [] for key in titles}
    for zeroed, episode in enumerate(pair.both):
        alone = len(episode.tracks) == 1
        for number, track in enumerate(episode.tracks):
            for key, curves in _sort_curves(track, alone).items():
                for place, (label, values) in enumerate(curves.items()):
                    name = label if alone else f"{number} {track.name}".strip()
                    name = "" if len(curves) == 1 and alone else name
                    found[key].append(Line(name, values, place if alone else number, bool(zeroed)))
    return [Panel(titles[key], lines) for key, lines in found.items() if lines]


def _sort_curves(track: Track, alone: bool) -> dict[str, dict[str, np.ndarray]]:
    """Return the curves of a player by panel and label; of one among several, one for each panel."""
    sorted_: dict[str, dict[str, np.ndarray]] = {}
    for name, values in track.curves.items():
        key, _, label = name.partition("/")
        sorted_.setdefault(key, {})[label] = values
    norms, entropies = sorted_.get("norm", {}), sorted_.get("entropy", {})
    if len(norms) > (MANY_LEAVES if alone else 1):
        sorted_["norm"] = {"all": np.sqrt(np.sum(np.square(list(norms.values())), axis=0))}
    if len(entropies) > 1 and not alone:
        sorted_["entropy"] = {"all": np.sum(list(entropies.values()), axis=0)}  # that of independent branches together
    sorted_["reward"] = {"": track.rewards}
    so_far = np.cumsum(np.nan_to_num(track.rewards))
    sorted_["return"] = {"": np.where(np.isnan(track.rewards), np.nan, so_far)}
    return sorted_


def describe_numbers(value: Any, name: str = "") -> str:
    """Write an observation or an action as text: its numbers or, of a large array, what they range over."""
    return "\n".join(_describe_parts(value, name))


MOST_NUMBERS = 64


def _describe_parts(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, (dict, tuple)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _describe_parts(part, f"{name}.{key}" if name else str(key))
        return
    lead = f"{name}: " if name else ""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        yield f"{lead}{value}"
    elif array.size > MOST_NUMBERS:
        shape = " x ".join(map(str, array.shape))
        yield f"{lead}{shape} numbers, {array.min():.3g} to {array.max():.3g}, mean {array.mean():.3g}"
    else:
        yield lead + " ".join(f"{number:.3g}" for number in array.astype(np.float64).ravel().tolist())
