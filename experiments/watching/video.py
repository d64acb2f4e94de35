"""Episodes as videos: the picture on the left, the curves on the right, bright up to the step that is shown."""

import os
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.watching.page import import_pillow
from experiments.watching.panels import Pair, Panel, make_panels

SUFFIXES = (".mp4", ".gif")
SIDE = 480  # pixels: the width of a picture, at most its height
CAPTION, GAP = 22, 12  # pixels: the line above a picture, the margin around it
CURVES_WIDTH, PANEL_HEIGHT, DPI = 460, 96, 100
TITLE, AXIS = 34, 40  # rows of the curves that hold their title, and the numbers of the steps below them
WHITE, INK = 255, (40, 50, 66)
LATER = 0.25  # how much is seen of the steps that are still to come


def import_moviepy() -> Any:
    """Import what writes videos, with what draws the curves.

    Raises:
        ImportError: a package is not installed; the message names the extra.
    """
    try:
        import matplotlib.figure  # noqa: F401
        from moviepy import VideoClip
    except ImportError as error:
        raise ImportError(f"videos need the package {error.name}: pip install 'recurrent-ppo[video]'") from error
    return VideoClip


@dataclass(frozen=True)
class Packed:
    """A picture that takes little memory until it is looked at."""

    shape: tuple[int, ...]
    content: bytes

    @classmethod
    def pack(cls, picture: np.ndarray) -> "Packed":
        """Scale a picture, uint8 ``[H, W, 3]``, to the place that a video has for it."""
        pillow = import_pillow()
        image = pillow.fromarray(picture)
        scale = min(SIDE / image.width, SIDE / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        kind = pillow.Resampling.NEAREST if scale >= 2 else pillow.Resampling.LANCZOS
        fitted = np.asarray(image.resize(size, kind))
        return cls(fitted.shape, zlib.compress(fitted.tobytes(), 1))

    def unpack(self) -> np.ndarray:
        """Return the picture."""
        return np.frombuffer(zlib.decompress(self.content), dtype=np.uint8).reshape(self.shape)


def write_video(path: Path, pair: Pair, title: str, fps: float, zero_at: int | None) -> None:
    """Write an episode, as mp4 or gif; a broken attempt leaves nothing behind.

    Args:
        path: ends in one of ``SUFFIXES``.
        pair: the episode; its pictures are ``Packed``.
        title: what is written above the curves.
        fps: steps in a second.
        zero_at: see ``experiments.watching.page.make_page``.
    """
    film = Film(pair, title, zero_at)
    clip = import_moviepy()(lambda second: film.compose(round(second * fps)), duration=pair.moments / fps)
    handle, name = tempfile.mkstemp(suffix=path.suffix, prefix=f".{path.stem}-", dir=path.parent)
    os.close(handle)
    mask = os.umask(0)
    os.umask(mask)
    try:
        if path.suffix == ".gif":
            clip.write_gif(name, fps=fps, logger=None)
        else:
            clip.write_videofile(name, fps=fps, codec="libx264", audio=False, logger=None)
        os.chmod(name, 0o666 & ~mask)  # as any other file, which a temporary one is not
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Film:
    """The frames of a video.

    Args:
        pair: the episode; its pictures are ``Packed``.
        title: what is written above the curves.
        zero_at: see ``experiments.watching.page.make_page``.
    """

    def __init__(self, pair: Pair, title: str, zero_at: int | None):
        self.moments = pair.moments
        wiped = zero_at if pair.zeroed else None
        self.curves, self.columns = draw_curves(make_panels(pair), pair.moments, title, wiped)
        self.later = _fade(self.curves)
        self.reels = [episode.pictures for episode in pair.both]
        height, width = (max(picture.shape[axis] for reel in self.reels for picture in reel) for axis in (0, 1))
        names = ["memory kept", f"memory zeroed from step {zero_at} on"][: len(self.reels)]
        self.captions = [_write(name if pair.zeroed else "", width) for name in names]
        self.tile = CAPTION + height + GAP
        self.left = 2 * GAP + width  # of the curves
        rows = max(len(self.curves), GAP + self.tile * len(self.reels))
        columns = self.left + self.curves.shape[1]
        self.shape = (rows + rows % 2, columns + columns % 2, 3)  # even, as codecs need them

    def compose(self, moment: int) -> np.ndarray:
        """Return a frame, uint8 ``[H, W, 3]``."""
        moment = min(moment, self.moments - 1)
        frame = np.full(self.shape, WHITE, dtype=np.uint8)
        for number, (reel, caption) in enumerate(zip(self.reels, self.captions, strict=True)):
            picture = reel[min(moment, len(reel) - 1)].unpack()
            if moment >= len(reel):  # this one is over, the other goes on
                picture = _fade(picture)
            top = GAP + number * self.tile
            frame[top : top + CAPTION, GAP : GAP + caption.shape[1]] = caption
            frame[top + CAPTION : top + CAPTION + len(picture), GAP : GAP + picture.shape[1]] = picture
        now, seen = self.columns[moment], self.curves.copy()
        inside = slice(TITLE, len(seen) - AXIS)
        seen[inside, now + 1 :] = self.later[inside, now + 1 :]
        seen[inside, now - 1 : now + 1] = INK
        frame[: len(seen), self.left : self.left + seen.shape[1]] = seen
        return frame


def _fade(picture: np.ndarray) -> np.ndarray:
    return np.rint(LATER * picture + (1 - LATER) * WHITE).astype(np.uint8)


def _write(text: str, width: int) -> np.ndarray:
    """Return a line of text, uint8 ``[CAPTION, width, 3]``."""
    from PIL import ImageDraw, ImageFont

    image = import_pillow().new("RGB", (width, CAPTION), (WHITE,) * 3)
    ImageDraw.Draw(image).text((0, 2), text, fill=INK, font=ImageFont.load_default(14))
    return np.asarray(image)


def draw_curves(panels: list[Panel], moments: int, title: str, zero_at: int | None) -> tuple[np.ndarray, list[int]]:
    """Draw panels below each other.

    Args:
        panels: the curves.
        moments: so many steps stand on the axis.
        title: written above.
        zero_at: a line marks this step; None for no line.

    Returns:
        The drawing, uint8 ``[H, W, 3]``, and the column of each moment in it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    size = (CURVES_WIDTH / DPI, (PANEL_HEIGHT * len(panels) + TITLE + AXIS) / DPI)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    figure.suptitle(title, fontsize=8)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, panels, strict=True):
        for line in panel.lines:
            style = {"linestyle": "--", "alpha": 0.8} if line.zeroed else {"label": line.label or None}
            marker = "." if len(line.values) == 1 else None
            axes.plot(line.values, color=f"C{line.colour}", linewidth=1.4, marker=marker, **style)
        if any(line.label for line in panel.lines):
            axes.legend(fontsize=6, frameon=False, loc="upper left", ncols=4)
        axes.set_title(panel.title, fontsize=7, loc="left", pad=2)
        axes.tick_params(labelsize=6)
        axes.spines[["top", "right"]].set_visible(False)
        if zero_at is not None:
            axes.axvline(zero_at, color="C3", linewidth=0.8, linestyle=":")
    all_axes[-1].set_xlim(-0.5, max(moments - 0.5, 0.5))
    all_axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no step 2.5
    all_axes[-1].set_xlabel("step", fontsize=7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawing = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    places = all_axes[-1].transData.transform([(moment, 0.0) for moment in range(moments)])[:, 0]
    return drawing, np.rint(places).astype(int).tolist()
