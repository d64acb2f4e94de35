"""Scales that bring observations to about -1 ... 1: those that a space declares, or better ones from what was seen."""

import logging
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rl.shards import ALONE, Shards
from rl.spaces import are_known

WIDE = {True: 32.0, False: 2.0}
"""Fractions (True) and whole numbers of a vector with bounds within +-WIDE enter a network as they are."""

LOUD = 64.0
"""A scaled number beyond +-LOUD saturates the tanh behind it: its scale is of no use."""

FAINT = 1 / 64
"""Numbers that move over less than FAINT of what their bounds declare hardly change the features."""

HEADROOM = 4.0
"""So far beyond the largest number that was seen others may go: positions that have yet to move, a dark screen. Numbers
that were to stay within +-1 and go beyond this have broken a promise, on which there may be no tanh behind them."""


log = logging.getLogger(__name__)


class Scale(nn.Module):
    """A linear map of the numbers of a leaf, ``(x - low) / width``.

    It follows from the bounds of the space until ``correct`` is shown what the leaf really holds. Only a corrected
    scale is part of a checkpoint.

    Args:
        name: of the leaf, for sentences.
        space: a Box declares the scale; any other leaf is left as it is.
        shared: one pair of low and width for all numbers, as the pixels of an image have, instead of one for each.
    """

    low: Tensor | None  # corrected, [] or [D]; None as long as the declared scale holds
    width: Tensor | None
    device_marker: Tensor
    shards: Shards = ALONE  # what any of them saw counts
    declared_low: Tensor | float | None  # None to leave the numbers as they are
    declared_width: Tensor | float | None

    def __init__(self, name: str, space: spaces.Space, shared: bool):
        super().__init__()
        self.name, self.shared = name, shared
        declared = None
        if isinstance(space, spaces.Box):
            self.bounds = float(space.low.min()), float(space.high.max())
            declared = _declare_shared(space) if shared else _declare_each(space)
        self.headroom = 1.0 if shared and np.issubdtype(space.dtype, np.floating) else HEADROOM  # pixels are 0 to 1
        self.bounded = not shared and _is_bounded(space, declared)  # an image has a tanh behind it in any case
        self.fixed = not isinstance(space, spaces.Box) or space.dtype == bool
        self.register_buffer("low", None)
        self.register_buffer("width", None)
        self.register_buffer("device_marker", torch.zeros(()), persistent=False)
        for key, value in zip(("declared_low", "declared_width"), declared or (None, None), strict=True):
            if isinstance(value, np.ndarray):
                self.register_buffer(key, torch.from_numpy(value.astype(np.float32)), persistent=False)
            else:  # a plain number costs less than a tensor of one
                setattr(self, key, value)

    def forward(self, x: Tensor) -> Tensor:
        """Scale float ``x [..., D]``; of any shape if one pair holds for all numbers."""
        if self.width is not None and self.low is not None:
            return (x - self.low) / self.width
        if self.declared_width is not None and self.declared_low is not None:
            return (x - self.declared_low) / self.declared_width
        return x

    @property
    def corrected(self) -> bool:
        """Whether what was seen stands in for what the space declares."""
        return self.width is not None

    @torch.no_grad()
    def correct(self, lowest: Tensor, highest: Tensor, normalised: bool) -> str | None:
        """Replace the scale where it destroys what was seen: numbers that saturate, or that all but vanish.

        A new width is a power of two, so it does not hang on the last digit of the largest number.

        Args:
            lowest: the smallest numbers that were seen, not scaled, ``[D]``; ``[]`` if one pair holds for all.
            highest: the largest ones.
            normalised: running moments come behind the scale, so large numbers do no harm.

        Returns:
            A sentence that says so; None if the scale is kept.
        """
        if self.fixed:
            return None
        lowest, highest = self._find_extremes(lowest.float(), highest.float())
        bottom, top = self(lowest), self(highest)
        old_low = self._like(lowest, 0.0 if self.declared_low is None else self.declared_low)
        old_width = self._like(lowest, 1.0 if self.declared_width is None else self.declared_width)
        loud = torch.maximum(bottom.abs(), top.abs()) > (HEADROOM if self.bounded else LOUD)
        faint = (top > bottom) & (top - bottom < FAINT) & (old_width != 1.0)  # a width of 1 has made nothing small
        bad = (faint if normalised else loud | faint) & torch.isfinite(highest - lowest)
        if not bad.any():
            return None
        low, width = _fit(lowest, highest, self.headroom)
        self.low, self.width = torch.where(bad, low, old_low), torch.where(bad, width, old_width)
        which = "its numbers" if bad.all() else f"{int(bad.sum())} of its {bad.numel()} numbers"
        span = f"from {_number(lowest[bad].min())} to {_number(highest[bad].max())}"
        divisors = " or ".join(sorted({_number(one) for one in self.width[bad].unique()[:3]}))
        return (
            f"observation {self.name!r}: its space declares {self._describe_bounds()}, but {which} went {span} in the "
            f"first rollout, so they are divided by {divisors} instead; declare the bounds that it keeps"
            + ("" if self.shared else ", or set agent.normalise_observations=true")
        )

    def _find_extremes(self, lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest numbers that any shard saw."""
        for low, high in self.shards.gather((lowest, highest)):
            lowest, highest = torch.minimum(lowest, low.to(lowest)), torch.maximum(highest, high.to(highest))
        return lowest, highest

    def _like(self, example: Tensor, value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=example.dtype, device=example.device).expand_as(example)

    def _describe_bounds(self) -> str:
        low, high = (np.array([bound]) for bound in self.bounds)
        words = f"{_number(low[0])} to {_number(high[0])}"
        return words if are_known(low, high).all() else f"no bounds ({words})"

    def describe(self) -> str:
        """Say in a few words what becomes of the numbers."""
        if self.corrected:
            return "scaled by what was seen"
        if self.fixed or self.declared_width is None:
            unknown = not self.fixed and self._describe_bounds().startswith("no bounds")
            return "as it is" + (", for it has no bounds" if unknown else "")
        return f"scaled by its bounds {self._describe_bounds()}"

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Take back a corrected scale, or the declared one where the checkpoint has none."""
        for name in ("low", "width"):
            stored = state_dict.get(prefix + name)
            setattr(self, name, None if stored is None else torch.empty_like(stored, device=self.device_marker.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def log_corrections(sentences: list[str]) -> bool:
    """Log what ``Scale.correct`` said, if anything; return whether it did."""
    for sentence in sentences:
        log.warning(sentence)
    return bool(sentences)


def _declare_shared(space: spaces.Box) -> tuple[float, float] | None:
    """Return low and width that bring an image to 0 ... 1; None without known bounds."""
    low, high = float(space.low.min()), float(space.high.max())
    return (low, high - low) if are_known(np.array([low]), np.array([high])).all() else None


def _declare_each(space: spaces.Box) -> tuple[np.ndarray, np.ndarray] | None:
    """Return low and width of each number, ``[D]``, that bring it to -1 ... 1 or 0 ... 1; None where all stay.

    Only bounds that are known and leave +-``WIDE`` scale anything.
    """
    low, high = (side.ravel().astype(np.float64) for side in (space.low, space.high))
    wide = WIDE[np.issubdtype(space.dtype, np.floating)]
    scaled = are_known(low, high) & (np.maximum(np.abs(low), np.abs(high)) > wide)
    low, high = np.where(scaled, low, 0.0), np.where(scaled, high, 1.0)
    shift = np.where(np.abs(low) > high - low, low, 0.0)  # 0 stays 0 unless the range is far from it
    width = np.maximum(np.abs(low - shift), np.abs(high - shift))
    return (shift, width) if (width != 1.0).any() or shift.any() else None


def _is_bounded(space: spaces.Space, declared: tuple[Any, Any] | None) -> bool:
    """Say whether the numbers, scaled as ``declared``, stay within +-1 by what their space says."""
    if not isinstance(space, spaces.Box):
        return True
    low, high = (side.ravel().astype(np.float64) for side in (space.low, space.high))
    shift, width = (0.0, 1.0) if declared is None else declared
    ends = np.abs((np.stack([low, high]) - shift) / width)
    return bool((are_known(low, high) & (ends <= 1.0)).all())


def _fit(lowest: Tensor, highest: Tensor, headroom: float) -> tuple[Tensor, Tensor]:
    """Return low and width, elementwise, that bring what lies between ``lowest`` and ``highest`` to -1 ... 1."""
    span = highest - lowest
    low = torch.where((span > 0) & (lowest.abs() > 4 * span), lowest, 0.0)
    reach = torch.maximum((lowest - low).abs(), (highest - low).abs())
    return low, headroom * torch.ldexp(torch.ones_like(reach), torch.log2(reach).ceil())


def _number(value: Tensor | float) -> str:
    return f"{float(value):.6g}"
